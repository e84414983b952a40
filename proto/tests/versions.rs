//! One version older and newer on either side keep working.

use bulkhead_proto::v1;
use prost::Message;

/// `Hello` as a later version may have it: a new field, and the ones that we know.
#[derive(Clone, PartialEq, Message)]
struct NewerHello {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "3")]
    journal_id: String,
    #[prost(uint64, tag = "4")]
    started_unix_nanoseconds: u64,
    #[prost(string, tag = "900")]
    zone: String,
    #[prost(message, optional, tag = "901")]
    nested: Option<NewerNested>,
}

#[derive(Clone, PartialEq, Message)]
struct NewerNested {
    #[prost(fixed64, repeated, tag = "1")]
    numbers: Vec<u64>,
}

/// `UsageRecord` as an earlier version may have had it: without epoch and window length.
#[derive(Clone, PartialEq, Message)]
struct OlderUsageRecord {
    #[prost(string, tag = "1")]
    virtual_cluster: String,
    #[prost(uint32, tag = "2")]
    virtual_cluster_number: u32,
    #[prost(uint64, tag = "3")]
    cgroup_id: u64,
}

#[test]
fn unknown_fields_of_a_newer_peer_are_skipped() {
    let newer = NewerHello {
        node: "node-1".to_owned(),
        journal_id: "j".to_owned(),
        started_unix_nanoseconds: 5,
        zone: "eu".to_owned(),
        nested: Some(NewerNested { numbers: vec![1, 2, 3] }),
    };
    let hello = v1::Hello::decode(newer.encode_to_vec().as_slice()).unwrap();
    let known = v1::Hello {
        node: "node-1".to_owned(),
        facts: None,
        journal_id: "j".to_owned(),
        started_unix_nanoseconds: 5,
        ..v1::Hello::default()
    };
    assert_eq!(hello, known);
}

#[test]
fn fields_that_an_older_peer_lacks_have_their_defaults() {
    let older = OlderUsageRecord {
        virtual_cluster: "team-a".to_owned(),
        virtual_cluster_number: 3,
        cgroup_id: 9,
    };
    let record = v1::UsageRecord::decode(older.encode_to_vec().as_slice()).unwrap();
    assert_eq!(record.cgroup_id, 9);
    assert_eq!((record.epoch, record.window_nanoseconds), (0, 0));
    assert_eq!(record.values, []);
}

/// And the other way: an older peer skips what we send and it does not know.
#[test]
fn an_older_peer_reads_what_we_send() {
    let record = v1::UsageRecord {
        virtual_cluster: "team-a".to_owned(),
        virtual_cluster_number: 3,
        cgroup_id: 9,
        epoch: 4,
        window_start_unix_nanoseconds: 60,
        window_nanoseconds: 60,
        values: vec![v1::MeterValue { meter: 1, value: u64::MAX }],
    };
    let older = OlderUsageRecord::decode(record.encode_to_vec().as_slice()).unwrap();
    assert_eq!(older.virtual_cluster, "team-a");
    assert_eq!(older.cgroup_id, 9);
}

/// A message of the stream that we do not know is no message, not an error.
#[test]
fn an_unknown_message_of_the_stream_is_none() {
    #[derive(Clone, PartialEq, Message)]
    struct NewerRequest {
        #[prost(string, tag = "99")]
        greeting: String,
    }
    let newer = NewerRequest { greeting: "hi".to_owned() };
    let request = v1::SyncRequest::decode(newer.encode_to_vec().as_slice()).unwrap();
    assert_eq!(request.message, None);
}
