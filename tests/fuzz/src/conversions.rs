//! Values of the brain, through messages, texts and kernel tables, and back.

use std::net::IpAddr;
use std::num::NonZeroU64;

use bulkhead_core::address::{from_abi, to_abi};
use bulkhead_core::sample::UnixNanos;
use bulkhead_core::{
    AddressBlock, CgroupId, Delta, Epoch, Meter, UsageRecord, VirtualClusterNumber, Window,
};
use bulkhead_proto::usage::LATEST_UNIX_NANOSECONDS;
use bulkhead_proto::{snapshots, time, v1};
use prost::Message;

use crate::choices::Choices;
use crate::values;

/// Whatever goes out comes back the same.
pub fn any_values(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(4) {
        0 => virtual_clusters(&mut choices),
        1 => usage(&mut choices),
        2 => blocks(&mut choices),
        _ => moments(choices.number()),
    }
}

fn virtual_clusters(choices: &mut Choices<'_>) {
    let old = values::snapshot(choices, 1);
    values::can_be_told(&old);
    if choices.yes() {
        let new = values::snapshot(choices, 2);
        let chunk = snapshots::whole(&new).encode_to_vec();
        let chunk = v1::SnapshotChunk::decode(&*chunk).expect("it was encoded");
        if new.check().is_ok() {
            assert_eq!(snapshots::snapshot(&[chunk]).as_ref(), Ok(&new));
        }
        let delta = Delta::between(&old, &new);
        let bytes = v1::SnapshotDelta::from(&delta).encode_to_vec();
        let message = v1::SnapshotDelta::decode(&*bytes).expect("it was encoded");
        let back = Delta::try_from(&message).expect("it was a delta");
        assert_eq!(back, delta);
        match old.changed_by(&back) {
            Ok(led_to) => assert_eq!(led_to, new),
            Err(error) => assert!(!error.is_misfit() && new.check().is_err(), "{error}"),
        }
    }
}

fn usage(choices: &mut Choices<'_>) {
    let length = NonZeroU64::new(choices.number()).unwrap_or(NonZeroU64::MIN);
    let at = UnixNanos(choices.number());
    let window = Window::containing(at, length);
    assert!(window.start <= at && at.0 - window.start.0 < length.get());
    assert_eq!(Window::containing(window.start, length), window);
    let meters = (0..=choices.below(4)).map(|_| {
        let code = u32::try_from(choices.number() % 4_000).unwrap_or(0) + 1;
        (Meter::from_code(code), choices.number())
    });
    let values = meters.collect();
    let record = UsageRecord {
        virtual_cluster: values::name(choices),
        number: VirtualClusterNumber::new(u32::from(choices.byte()) + 1).expect("it is not 0"),
        cgroup: CgroupId(choices.number().max(1)),
        epoch: Epoch(choices.number()),
        window,
        values,
    };
    let bytes = v1::UsageRecord::from(&record).encode_to_vec();
    let message = v1::UsageRecord::decode(&*bytes).expect("it was encoded");
    let end = window.start.0.checked_add(window.length_nanoseconds);
    match UsageRecord::try_from(&message) {
        Ok(back) => assert_eq!(back, record),
        // No clock shows such a time.
        Err(error) => assert!(end.is_none_or(|end| end > LATEST_UNIX_NANOSECONDS), "{error}"),
    }
}

fn blocks(choices: &mut Choices<'_>) {
    let (one, other, address) =
        (values::block(choices), values::block(choices), values::address(choices));
    for block in [one, other, AddressBlock::host(address)] {
        assert_eq!(block.to_string().parse(), Ok(block), "as text");
        assert_eq!(AddressBlock::new(block.net()), block, "as a CIDR");
        assert_eq!(AddressBlock::from_prefix(block.prefix()), Some(block), "as a key of a table");
        assert!(block.covers(block) && block.overlaps(block));
        assert_eq!(block.single().is_some(), block.prefix().prefix_len == 128);
    }
    assert_eq!(from_abi(to_abi(address)), address.to_canonical());
    assert_eq!(AddressBlock::host(address).single(), Some(address.to_canonical()));
    let same_family = matches!(
        (one.net().addr(), other.net().addr()),
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
    );
    assert_eq!(one.covers(other), same_family && is_within(other, one));
    assert_eq!(one.overlaps(other), other.overlaps(one));
}

/// As the kernel compares them: bit by bit.
fn is_within(block: AddressBlock, around: AddressBlock) -> bool {
    let (block, around) = (block.prefix(), around.prefix());
    let differing = u128::from_be_bytes(block.address.0) ^ u128::from_be_bytes(around.address.0);
    block.prefix_len >= around.prefix_len && differing.leading_zeros() >= around.prefix_len
}

fn moments(moment: u64) {
    assert_eq!(time::unix_nanoseconds(&time::timestamp(moment)), Some(moment));
    assert_eq!(time::nanoseconds(&time::duration(moment)), Some(moment));
}
