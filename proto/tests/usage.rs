//! Usage records come back the same; garbage is refused by name.

use bulkhead_core::Meter;
use bulkhead_core::usage::UsageRecord;
use bulkhead_proto::v1;

fn full() -> v1::UsageRecord {
    v1::UsageRecord {
        virtual_cluster: "team-a".to_owned(),
        virtual_cluster_number: 3,
        cgroup_id: 9,
        epoch: 4,
        window_start_unix_nanoseconds: 120,
        window_nanoseconds: 60,
        values: vec![
            v1::MeterValue { meter: 1, value: u64::MAX },
            v1::MeterValue { meter: 99_999, value: 7 },
        ],
    }
}

#[test]
fn a_record_comes_back_the_same_and_unknown_meters_are_kept() {
    let record = UsageRecord::try_from(&full()).unwrap();
    assert_eq!(record.values[&Meter::from_code(99_999)], 7);
    assert_eq!(v1::UsageRecord::from(&record), full());
}

#[test]
fn a_meter_that_comes_twice_counts_with_its_highest_value() {
    let mut message = full();
    message.values.push(v1::MeterValue { meter: 99_999, value: 5 });
    let record = UsageRecord::try_from(&message).unwrap();
    assert_eq!(record.values[&Meter::from_code(99_999)], 7);
}

#[test]
fn garbage_is_refused_by_object_and_field() {
    type Break = fn(&mut v1::UsageRecord);
    let cases: [(&str, Break); 9] = [
        ("virtual_cluster", |m| m.virtual_cluster = "../x".to_owned()),
        ("virtual_cluster_number", |m| m.virtual_cluster_number = 0),
        ("cgroup_id", |m| m.cgroup_id = 0),
        ("values.meter", |m| m.values[0].meter = 0),
        ("values", |m| m.values.clear()),
        ("window_nanoseconds", |m| m.window_nanoseconds = 0),
        ("window_start_unix_nanoseconds", |m| {
            m.window_start_unix_nanoseconds = 121;
        }),
        ("window_start_unix_nanoseconds", |m| {
            m.window_start_unix_nanoseconds = u64::MAX - 15;
        }),
        ("window_start_unix_nanoseconds", |m| {
            m.window_start_unix_nanoseconds = 1 << 63;
            m.window_nanoseconds = 1 << 63;
        }),
    ];
    for (field, break_it) in cases {
        let mut message = full();
        break_it(&mut message);
        let error = UsageRecord::try_from(&message).unwrap_err();
        assert_eq!((error.field.as_str(), &error.object), (field, &message.virtual_cluster));
    }
}
