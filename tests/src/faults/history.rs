//! One history: a world under traffic, what happens to it, and what must be true after.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::books::{self, Entry};
use super::chance::Chance;
use super::kills::Daemon;
use super::sabotage::Sabotage;
use super::traffic::{PROBED, Role, Traffic, Truth};
use crate::demo::Options;
use crate::demo::checks::Findings;
use crate::demo::checks::end::nothing_left;
use crate::demo::child::Speaker;
use crate::demo::network::{Host, LATE};
use crate::demo::program;
use crate::demo::world::{World, at};

/// dev may talk with batch; nobody else may with anybody.
const ALLOW: [&str; 2] = ["mode: Enforce", "mode: Enforce\n    allow: [{virtualCluster: batch}]"];

/// A virtual cluster that comes and goes.
const GUEST: &str = "apiVersion: bulkhead.dev/v1alpha1\n\
kind: VirtualCluster\n\
metadata: {name: guest}\n\
spec:\n  members: {addresses: [\"198.18.0.60\", \"fdb1:6b::60\"]}\n  network: {mode: Enforce}\n";

/// So many probes a second must be made at least, all in all.
const LEAST_PROBES_A_SECOND: u64 = 200;

/// The longest time without any probe of a kind.
const LONGEST_GAP_MS: u64 = 2_000;

/// A history that goes on.
pub(crate) struct History {
    pub(crate) world: World,
    traffic: Traffic,
    /// Ends traffic that is not where it says, for [`Sabotage::BurnUncounted`].
    outside: Option<Speaker>,
    pub(crate) findings: Findings,
    pub(crate) chance: Chance,
    seed: u64,
    pub(crate) sabotage: Option<Sabotage>,
    /// Which of the objects are other than at the beginning.
    changed: [bool; 2],
    /// What others have said who are gone already.
    pub(crate) said: Vec<(Role, Value)>,
    /// What else the books must say.
    pub(crate) entries: Vec<Entry>,
}

impl History {
    /// Makes a world, tells it what `prepare` says, and sets everybody to work.
    pub(crate) fn begin(
        options: &Options,
        seed: u64,
        sabotage: Option<Sabotage>,
        prepare: impl FnOnce(&mut World) -> Result<()>,
    ) -> Result<Self> {
        let mut world = World::prepare(options, None)?;
        let [old, new] = ALLOW;
        world.objects.edit("dev", old, new)?;
        prepare(&mut world)?;
        world.start_controller()?;
        world.start_agent()?;
        let traffic = Traffic::start(&world)?;
        let outside = match sabotage {
            Some(Sabotage::BurnUncounted) => Some(burn_outside(&world)?),
            _ => None,
        };
        Ok(Self {
            world,
            traffic,
            outside,
            findings: Findings::default(),
            chance: Chance::new(seed),
            seed,
            sabotage,
            changed: [false; 2],
            said: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// A chance of its own, which nobody else's draws change.
    pub(crate) fn fork(&self, stream: u64) -> Chance {
        Chance::new(self.seed ^ (stream << 56))
    }

    /// Whether this is to be broken.
    pub(crate) fn broken(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Writes objects anew, so that the agent has something to do: addresses of prod, a virtual
    /// cluster that comes and goes.
    pub(crate) fn change_objects(&mut self) -> Result<()> {
        let which = usize::try_from(self.chance.below(2))?;
        self.change(which, !self.changed[which])
    }

    fn change(&mut self, which: usize, to: bool) -> Result<()> {
        let objects = &self.world.objects;
        match (which, to) {
            (0, true) => {
                let [v4, v6] = LATE;
                let new = format!(r#""fdb1:6b::2", "{v4}", "{v6}"]"#);
                objects.edit("prod", r#""fdb1:6b::2"]"#, &new)?;
            }
            (0, false) => objects.restore("prod")?,
            (_, true) => objects.put("guest", GUEST)?,
            (_, false) => objects.remove("guest")?,
        }
        self.changed[which] = to;
        Ok(())
    }

    /// Brings everything back to where it began, and waits until it stands.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for which in 0..self.changed.len() {
            self.change(which, false)?;
        }
        self.settle_with(|history| {
            if history.world.controller.is_none() {
                history.world.start_controller()?;
            }
            Ok(())
        })
    }

    /// Waits until both run, and everything stands.
    pub(crate) fn settle_with(
        &mut self,
        before: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        before(self)?;
        let since = jiff::Timestamp::now();
        if self.world.agent.is_none() {
            self.world.spawn_agent()?;
        }
        self.world.wait_until_applied(since)?;
        let pins = self.world.pins();
        self.world.footprint.add(&pins)
    }

    /// Ends the traffic, and checks the books, the denied paths, and that nothing is left.
    pub(crate) fn finish(self) -> Result<Findings> {
        let Self { world, traffic, outside, mut findings, mut entries, said, .. } = self;
        let (mut truth, listener) = traffic.end(Role::ProbedTcp)?;
        for (role, said) in said {
            truth.add(role, said);
        }
        if let Some(outside) = outside {
            truth.add(Role::BurnDev, outside.finish()?);
        }
        probes(&truth, &mut findings)?;
        paths(&truth, &mut findings)?;
        entries.extend(books::network(&world, &truth)?);
        books::compare(&world, &entries, &mut findings)?;
        control(&world, &mut truth, listener, &mut findings)?;
        books::compare(&world, &books::cpu(&truth)?, &mut findings)?;
        findings.add(nothing_left(world)?);
        Ok(findings)
    }

    /// Kills one of the programs, which must be alive.
    pub(crate) fn kill(&mut self, who: Daemon) -> Result<()> {
        let patience = self.world.patience();
        let mut daemon = self.slot(who).take().with_context(|| format!("no {who:?}"))?;
        daemon.check()?;
        daemon.kill(patience)
    }

    /// Starts one of the programs, and waits for nothing.
    pub(crate) fn start(&mut self, who: Daemon) -> Result<()> {
        match who {
            Daemon::Agent => self.world.spawn_agent(),
            Daemon::Controller => self.world.start_controller(),
        }
    }

    /// An error if one of the programs has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let World { agent, controller, .. } = &mut self.world;
        [agent, controller].into_iter().flatten().try_for_each(program::Daemon::check)
    }

    /// The last line of one that has ended by itself, which is taken for gone; `None`: it lives.
    pub(crate) fn ended(&mut self, who: Daemon) -> Result<Option<String>> {
        let slot = self.slot(who);
        let Some(daemon) = slot else { return Ok(Some("it is gone".to_owned())) };
        if daemon.ended()?.is_none() {
            return Ok(None);
        }
        let words = daemon.last_words();
        *slot = None;
        Ok(Some(words.lines().next_back().unwrap_or_default().to_owned()))
    }

    /// How one ended that has ended by itself.
    pub(crate) fn status(&mut self, who: Daemon) -> Result<Option<ExitStatus>> {
        self.slot(who).as_mut().map_or(Ok(None), program::Daemon::ended)
    }

    /// Takes leave of one that has ended; gives its last words.
    pub(crate) fn forget(&mut self, who: Daemon) -> String {
        self.slot(who).take().map(|daemon| daemon.last_words()).unwrap_or_default()
    }

    const fn slot(&mut self, who: Daemon) -> &mut Option<program::Daemon> {
        match who {
            Daemon::Agent => &mut self.world.agent,
            Daemon::Controller => &mut self.world.controller,
        }
    }
}

/// Waits while traffic goes on: here time is what is given, and not a wait for something.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

fn burn_outside(world: &World) -> Result<Speaker> {
    let mut command = world.command("bh-load");
    command.args(["burn", "--percent", "30"]);
    let mut speaker = Speaker::start(command, "bh-load outside", world.patience())?;
    speaker.next()?;
    Ok(speaker)
}

/// Whether the probes were made all the time, and all of them refused.
fn probes(truth: &Truth, findings: &mut Findings) -> Result<()> {
    let (mut rate, mut all) = (0, 0);
    for role in [Role::RefusedProbe, Role::DroppedProbe] {
        let said = truth.of(role);
        let number = |value: &Value| value.as_u64().with_context(|| format!("{role:?}: {said}"));
        let elapsed = number(&said["elapsed_ms"])?.max(1);
        let gap = number(&said["longest_gap_ms"])?;
        let connects = &said["connects"];
        let mut attempts = number(&connects["attempts"])?;
        let mut refused = connects["errors"]["EPERM"].as_u64().unwrap_or(0);
        findings.see(
            connects["done"] == 0,
            format!("{role:?}: {} of {attempts} connects went through", connects["done"]),
        );
        for to in said["sends"].as_array().context("no sends")? {
            attempts += number(&to["probes"]["attempts"])?;
            refused += to["probes"]["errors"]["EPERM"].as_u64().unwrap_or(0);
        }
        if role == Role::RefusedProbe {
            findings.see(
                refused == attempts,
                format!("{refused} of {attempts} probes of dev refused with EPERM"),
            );
        }
        findings.see(gap <= LONGEST_GAP_MS, format!("longest gap {gap} ms"));
        rate += attempts * 1_000 / elapsed;
        all += attempts;
    }
    findings.see(rate >= LEAST_PROBES_A_SECOND, format!("{all} probes, {rate} a second"));
    Ok(())
}

/// Whether what is allowed arrived, all of it, and of what is denied nothing.
fn paths(truth: &Truth, findings: &mut Findings) -> Result<()> {
    let sum = |of: std::collections::BTreeMap<String, u64>| of.values().sum::<u64>();
    let arrived = sum(truth.received(Role::FlowSink));
    let flow = truth.datagrams(Role::Flow)?;
    findings.see(
        arrived == flow.packets && flow.errors.is_empty(),
        format!("{arrived} of {} allowed datagrams arrived", flow.packets),
    );
    let control = truth.datagrams(Role::Control)?;
    let mut from = truth.received(Role::ProbedUdp);
    let ours = [Host::ProdB.v4(), Host::ProdB.v6()].map(|ip| from.remove(&ip.to_string()));
    let ours: u64 = ours.into_iter().flatten().sum();
    findings.see(
        ours == control.packets && ours > 0,
        format!("the probed socket got {ours} of {} of its own", control.packets),
    );
    let others = from.values().sum::<u64>();
    findings.see(others == 0, format!("and {others} datagrams of probes {from:?}"));
    let stream = truth.of(Role::Stream);
    let read = truth.of(Role::StreamSink)["bytes"].as_u64();
    findings.see(
        stream["errors"] == serde_json::json!([]) && stream["sent"].as_u64() == read,
        format!("TCP {} sent, {read:?} read, errors {}", stream["sent"], stream["errors"]),
    );
    Ok(())
}

/// Shows that the listener that saw nobody would have seen somebody, and what it saw.
fn control(
    world: &World,
    truth: &mut Truth,
    listener: Speaker,
    findings: &mut Findings,
) -> Result<()> {
    let mut connected = 0;
    for (role, address) in [(Role::Control4, Host::ProdA.v4()), (Role::Control6, Host::ProdA.v6())]
    {
        let line = format!("tcp-connect --to {} --timeout-ms 5000", at(address, PROBED));
        let said = world.start(Host::ProdB, "bh-traffic", &line)?.finish()?;
        connected += u64::from(said["connected"] == true);
        truth.add(role, said);
    }
    let said = listener.finish()?;
    findings.see(
        connected == 2 && said["connections"] == 2,
        format!("the probed listener got {} connections, 2 of its own", said["connections"]),
    );
    truth.add(Role::ProbedTcp, said);
    Ok(())
}
