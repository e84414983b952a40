//! Calls: `connect` and `sendmsg`. They exist to give EPERM at once, before any packet; what
//! they miss (raw sockets, sockets of another process) the packet hooks judge.

use aya_ebpf::{helpers::generated::bpf_get_current_ancestor_cgroup_id, programs::SockAddrContext};
use bulkhead_abi::{Address, Outcome, Verdict};

use crate::{
    error::Unjudged,
    member::{self, Judgement},
    packet::is_passed,
    socket::{self, Kept, Socket},
};

/// Index into `Counters::connects`.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Connect = 0,
    Sendmsg = 1,
}

#[inline(always)]
pub(crate) fn judge_v4(ctx: &SockAddrContext, call: Call) -> Result<Verdict, Unjudged> {
    // SAFETY: a field of the program's own context, in network byte order.
    let address = unsafe { (*ctx.sock_addr).user_ip4 };
    judge(ctx, &Address::from_v4(address.to_ne_bytes()), call)
}

/// IPv4-mapped addresses need no case of their own: [`Address`] has one form for both.
#[inline(always)]
pub(crate) fn judge_v6(ctx: &SockAddrContext, call: Call) -> Result<Verdict, Unjudged> {
    // The verifier wants each word read on its own.
    // SAFETY: a field of the program's own context, in network byte order.
    let words = unsafe {
        let words = &raw const (*ctx.sock_addr).user_ip6;
        [(*words)[0], (*words)[1], (*words)[2], (*words)[3]]
    };
    let mut octets = [0; 16];
    for (octets, word) in octets.chunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    judge(ctx, &Address(octets), call)
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, far: &Address, call: Call) -> Result<Verdict, Unjudged> {
    let level = member::ancestor_level()?;
    // SAFETY: takes no pointer.
    let at = |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    let at_level = at(level);
    let is_sendmsg = matches!(call, Call::Sendmsg);
    if is_sendmsg && at_level != 0 && is_judged_as_a_packet(ctx, at_level) {
        return Ok(Verdict::Pass);
    }
    let (cgroup, member) = member::member(at_level, at, far)?;
    if is_sendmsg && cgroup != at_level && is_judged_as_a_packet(ctx, cgroup) {
        return Ok(Verdict::Pass);
    }
    let judgement = member::judge(member, far, ctx);
    count(cgroup, call, &judgement);
    Ok(judgement.verdict())
}

/// Whether the socket is known to be the caller's own virtual cluster's, so that the packet hook
/// judges for the same one, refuses with the same error, and counts: one look-up for each datagram
/// of a socket with many peers is enough.
#[inline(always)]
fn is_judged_as_a_packet(ctx: &SockAddrContext, cgroup: u64) -> bool {
    let Some(generation) = socket::generation() else {
        return false;
    };
    match Socket::of_call(ctx).recall(generation) {
        Kept::Fresh(kept) => kept.cgroup == cgroup && is_passed(kept.cell),
        Kept::Stale(_) | Kept::Nothing => false,
    }
}

/// Counts refusals; what passes is counted as packets. A call that goes on to be dropped without
/// an error is not a refusal either.
#[inline(always)]
fn count(cgroup: u64, call: Call, judgement: &Judgement) {
    let Judgement { class, enforced, outcome, .. } = *judgement;
    if enforced != Verdict::Deny || outcome == Outcome::Passed {
        return;
    }
    let Some(counters) = member::counters(member::slot(cgroup)) else {
        return;
    };
    // SAFETY: the pointer is to a map value, the indices are enums of exactly its dimensions.
    unsafe {
        let counted = &raw mut (*counters).connects[call as usize][class as usize];
        match outcome {
            Outcome::Passed => {}
            Outcome::Denied => member::add(&raw mut (*counted).denied, 1),
            Outcome::WouldDeny => member::add(&raw mut (*counted).would_deny, 1),
        }
    }
}
