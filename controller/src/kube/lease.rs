//! One replica speaks: who holds the Lease writes status and Events and removes taints. Every
//! replica serves agents, Lease or not.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

/// The Lease's name.
const NAME: &str = "bulkhead-controller";
/// Who waits takes a Lease that was not renewed for so long, by its own clock.
const LENGTH: Duration = Duration::from_secs(15);
/// Who holds it and could not renew it for so long holds it no more.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// How often it is looked at.
const AGAIN: Duration = Duration::from_secs(3);

/// What is to be done about a Lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or its holder is gone: take it.
    Take,
    /// Another holds it.
    Wait,
}

/// What was seen last of the Lease, and since when it stands like that by our own clock: the
/// clocks of others are not believed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    holder: String,
    renewed: Option<Timestamp>,
    since: Instant,
}

impl Seen {
    fn of(spec: Option<&LeaseSpec>, before: Option<Self>, now: Instant) -> Self {
        let holder = spec.and_then(|it| it.holder_identity.clone()).unwrap_or_default();
        let renewed = spec.and_then(|it| it.renew_time.as_ref()).map(|it| it.0);
        match before {
            Some(before) if before.holder == holder && before.renewed == renewed => before,
            _ => Self { holder, renewed, since: now },
        }
    }

    fn step(&self, me: &str, now: Instant) -> Step {
        if self.holder == me {
            Step::Renew
        } else if self.holder.is_empty() || now.duration_since(self.since) >= LENGTH {
            Step::Take
        } else {
            Step::Wait
        }
    }
}

/// The spec after a step.
fn next(before: Option<&LeaseSpec>, step: Step, me: &str, now: Timestamp) -> LeaseSpec {
    let before = before.cloned().unwrap_or_default();
    let transitions = before.lease_transitions.unwrap_or(0);
    let (acquired, transitions) = match step {
        Step::Take => (Some(MicroTime(now)), transitions.saturating_add(1)),
        Step::Renew | Step::Wait => (before.acquire_time, transitions),
    };
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(LENGTH.as_secs()).ok(),
        acquire_time: acquired,
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

/// Keeps at it until `ending` becomes true; `holds` is true while we hold the Lease. Gives it
/// back in the end, so that the next need not wait.
pub(crate) async fn keep(
    client: Client,
    namespace: String,
    me: String,
    holds: watch::Sender<bool>,
    mut ending: watch::Receiver<bool>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut seen = None;
    let mut renewed: Option<Instant> = None;
    while !*ending.borrow() {
        match tokio::time::timeout(GIVEN_UP, turn(&leases, &me, &mut seen)).await {
            Ok(Ok(true)) => renewed = Some(Instant::now()),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = crate::reason::chain(&error),
                    namespace,
                    "look at the Lease"
                );
            }
            Err(_) => tracing::warn!(namespace, "the Lease could not be looked at in time"),
        }
        let ours = renewed.is_some_and(|at| at.elapsed() < GIVEN_UP);
        if holds.send_if_modified(|held| std::mem::replace(held, ours) != ours) {
            tracing::info!(holder = ours, "who holds the Lease writes status and Events");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }
    if holds.send_replace(false) {
        // Where this fails, the next waits a little longer.
        let _ = tokio::time::timeout(AGAIN, give_back(&leases, &me)).await;
    }
}

/// Looks at the Lease and does what is to be done; whether it is ours.
async fn turn(leases: &Api<Lease>, me: &str, seen: &mut Option<Seen>) -> kube::Result<bool> {
    let Some(mut lease) = leases.get_opt(NAME).await? else {
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let spec = Some(next(None, Step::Take, me, Timestamp::now()));
        let made = leases.create(&PostParams::default(), &Lease { metadata, spec }).await;
        return if_nobody_was_first(made);
    };
    let now = Instant::now();
    let what = Seen::of(lease.spec.as_ref(), seen.take(), now);
    let step = what.step(me, now);
    *seen = Some(what);
    if step == Step::Wait {
        return Ok(false);
    }
    lease.spec = Some(next(lease.spec.as_ref(), step, me, Timestamp::now()));
    // With the version that was read: of two who take it, one gets it.
    if_nobody_was_first(leases.replace(NAME, &PostParams::default(), &lease).await)
}

fn if_nobody_was_first(done: kube::Result<Lease>) -> kube::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn give_back(leases: &Api<Lease>, me: &str) -> kube::Result<()> {
    let mut lease = leases.get(NAME).await?;
    if let Some(spec) = lease.spec.as_mut().filter(|it| it.holder_identity.as_deref() == Some(me)) {
        spec.holder_identity = None;
        leases.replace(NAME, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_its_holder_is_silent_for_long_and_not_before() {
        let begun = Instant::now();
        let other = held_by("other", 100);
        let seen = Seen::of(Some(&other), None, begun);
        assert_eq!(seen.step("me", begun), Step::Wait);
        let later = begun + LENGTH - Duration::from_secs(1);
        let renewed = Seen::of(Some(&held_by("other", 103)), Some(seen.clone()), later);
        assert_eq!(renewed.step("me", begun + LENGTH), Step::Wait, "it was renewed");
        let silent = Seen::of(Some(&other), Some(seen), begun + LENGTH);
        assert_eq!(silent.step("me", begun + LENGTH), Step::Take);
    }

    #[test]
    fn who_takes_it_counts_a_transition_and_who_renews_it_does_not() {
        let now = Timestamp::from_second(200).unwrap();
        let (other, mine) = (held_by("", 100), held_by("me", 100));
        let begun = Instant::now();
        assert_eq!(Seen::of(Some(&other), None, begun).step("me", begun), Step::Take);
        assert_eq!(Seen::of(Some(&mine), None, begun).step("me", begun), Step::Renew);
        let taken = next(Some(&other), Step::Take, "me", now);
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(4), Some(MicroTime(now))));
        let renewed = next(Some(&mine), Step::Renew, "me", now);
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(3), None));
        assert_eq!(renewed.renew_time, Some(MicroTime(now)));
    }
}
