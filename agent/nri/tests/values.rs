//! Events, versions, names, waits: what is decided without a connection.

use std::time::Duration;

use bulkhead_nri::messages::ConfigureRequest;
use bulkhead_nri::{Backoff, Event, EventMask, NameError, PluginName, RuntimeInfo};
use proptest::prelude::*;

fn runtime(name: &str, version: &str, nri: &str) -> RuntimeInfo {
    RuntimeInfo::from(ConfigureRequest {
        runtime_name: name.to_owned(),
        runtime_version: version.to_owned(),
        nri_version: nri.to_owned(),
        ..ConfigureRequest::default()
    })
}

#[test]
fn what_a_runtime_knows_follows_its_versions() {
    for (name, version, nri, all) in [
        ("containerd", "1.7.24~ds1", "", false),
        ("containerd", "v2.1.9", "", false),
        ("containerd", "2.2.0-rc.1", "", true),
        ("containerd", "v2.2.0", "", true),
        ("containerd", "3.0", "", true),
        ("cri-o", "1.33.5", "", false),
        ("cri-o", "1.34.0", "", true),
        // Where the runtime tells the version of NRI, that counts.
        ("containerd", "v2.2.0", "v0.9.0", false),
        ("somebody", "0.1", "v0.12.0", true),
        ("somebody", "0.1", "0.10.0", true),
        // What cannot be understood is not taken for new.
        ("containerd", "v2.2.0", "unknown", true),
        ("containerd", "devel", "devel", false),
        ("containerd", "", "", false),
        ("containerd", "v9999999999.2", "", false),
        ("somebody", "99.0", "", false),
    ] {
        let want = if all { EventMask::ALL } else { EventMask::BASE };
        assert_eq!(runtime(name, version, nri).known_events(), want, "{name} {version} {nri}");
    }
}

#[test]
fn timeouts_that_are_not_told_are_the_usual_ones() {
    let told = |milliseconds| {
        RuntimeInfo::from(ConfigureRequest {
            request_timeout: milliseconds,
            registration_timeout: milliseconds,
            ..ConfigureRequest::default()
        })
    };
    for absent in [0, -1, i64::MIN] {
        let runtime = told(absent);
        assert_eq!(runtime.request_timeout, Duration::from_secs(2));
        assert_eq!(runtime.registration_timeout, Duration::from_secs(5));
    }
    assert_eq!(told(700).request_timeout, Duration::from_millis(700));
}

#[test]
fn events_have_the_numbers_and_names_of_the_protocol() {
    for (index, event) in Event::ALL.into_iter().enumerate() {
        assert_eq!(event.number(), i32::try_from(index).unwrap() + 1);
        assert_eq!(Event::from_number(event.number()), Some(event));
        assert_eq!(event.name().parse(), Ok(event));
        assert_eq!(EventMask::from(event).to_wire(), 1 << index);
    }
    assert_eq!((Event::from_number(0), Event::from_number(15)), (None, None));
    assert!("Configure".parse::<Event>().is_err());
    assert_eq!(EventMask::ALL, Event::ALL.into_iter().collect());
    assert_eq!(EventMask::BASE.to_wire(), 0x7ff);
    assert_eq!(EventMask::ALL.without(EventMask::BASE).to_wire(), 0x3800);
    let two = EventMask::of(&[Event::StopContainer, Event::RunPodSandbox]);
    assert_eq!(two.to_string(), "RunPodSandbox, StopContainer");
    assert_eq!(EventMask::NONE.to_string(), "none");
}

proptest! {
    #[test]
    fn bits_that_mean_no_event_are_kept_apart(bits: i32) {
        let (events, unknown) = EventMask::from_wire(bits);
        prop_assert_eq!(events.to_wire().cast_unsigned() & unknown, 0);
        prop_assert_eq!(events.to_wire().cast_unsigned() | unknown, bits.cast_unsigned());
        prop_assert_eq!(EventMask::from_wire(events.to_wire()), (events, 0));
        prop_assert_eq!(events.events().collect::<EventMask>(), events);
    }

    #[test]
    fn waits_grow_to_the_longest_and_vary_by_half(failures in 0..200u32) {
        let wait = |jitter: fn(Duration) -> Duration| {
            Backoff { jitter, ..Backoff::default() }.wait(failures)
        };
        let (shortest, longest) = (wait(|_| Duration::ZERO), wait(|half| half));
        let whole = Duration::from_millis(100 << failures.min(7)).min(Duration::from_secs(10));
        prop_assert_eq!((shortest, longest), (whole / 2, whole));
        let usual = Backoff::default().wait(failures);
        prop_assert!(shortest <= usual && usual <= longest, "{usual:?}");
        // A jitter that does not keep its promise does no harm.
        prop_assert_eq!(wait(|half| half * 9), whole);
    }
}

#[test]
fn names_that_runtimes_refuse_are_refused_here() {
    let good = PluginName::new("a.b_c+D-9", 7).expect("a good name");
    assert_eq!(
        (good.name(), &*good.index(), &*good.to_string()),
        ("a.b_c+D-9", "07", "07-a.b_c+D-9")
    );
    for bad in ["", "a b", "a/b", "é"] {
        assert_eq!(PluginName::new(bad, 0), Err(NameError::Name(bad.to_owned())));
    }
    assert_eq!(PluginName::new("a", 100), Err(NameError::Index(100)));
}
