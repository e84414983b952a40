//! Packets: `cgroup_skb`.

use aya_ebpf::{helpers::generated::bpf_skb_ancestor_cgroup_id, programs::SkBuffContext};
use bulkhead_abi::{Address, Class, Direction, Outcome, Verdict};

use crate::{
    error::Unjudged,
    farewell::is_farewell,
    member::{self, Judgement},
};

/// `skb->protocol` of IPv4 and IPv6 as the context shows them: 16 bits in network byte order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

#[inline(always)]
pub(crate) fn judge(ctx: &SkBuffContext, direction: Direction) -> Result<Verdict, Unjudged> {
    let level = member::ancestor_level()?;
    // SAFETY: the pointer is the program's own context.
    let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) };
    if cgroup == 0 {
        return Err(Unjudged::NotBelow);
    }
    let mut judgement = match far_end(ctx, direction) {
        Ok(far) => member::judge(member::member(cgroup, &far)?, &far),
        Err(Unjudged::TooShort) => {
            // No address to look up: whatever it is, it is not one of ours.
            let member = member::member(cgroup, &Address::from_v4([0; 4]))?;
            member::apply_mode(member.mode, Class::Outside, Verdict::Deny)
        }
        Err(other) => return Err(other),
    };
    let held = !matches!(judgement.verdict(), Verdict::Pass);
    if held && matches!(direction, Direction::Egress) && is_farewell(ctx) {
        judgement.outcome = Outcome::Passed;
    }
    count(ctx, cgroup, direction, &judgement);
    Ok(judgement.verdict())
}

/// The destination of what is sent, the source of what is received.
#[inline(always)]
fn far_end(ctx: &SkBuffContext, direction: Direction) -> Result<Address, Unjudged> {
    // The packet begins at its IP header here.
    match (ctx.skb.protocol(), direction) {
        (IPV4, Direction::Egress) => ipv4(ctx, 16),
        (IPV4, Direction::Ingress) => ipv4(ctx, 12),
        (IPV6, Direction::Egress) => ipv6(ctx, 24),
        (IPV6, Direction::Ingress) => ipv6(ctx, 8),
        _ => Err(Unjudged::NotIp),
    }
}

#[inline(always)]
fn ipv4(ctx: &SkBuffContext, offset: usize) -> Result<Address, Unjudged> {
    ctx.load::<[u8; 4]>(offset).map(Address::from_v4).map_err(|_| Unjudged::TooShort)
}

#[inline(always)]
fn ipv6(ctx: &SkBuffContext, offset: usize) -> Result<Address, Unjudged> {
    ctx.load::<[u8; 16]>(offset).map(Address).map_err(|_| Unjudged::TooShort)
}

#[inline(always)]
fn count(ctx: &SkBuffContext, cgroup: u64, direction: Direction, judgement: &Judgement) {
    // Without an entry the verdict still holds: the agent makes entries before it makes members.
    let Some(counters) = member::counters(cgroup) else {
        return;
    };
    let Judgement { class, outcome, .. } = *judgement;
    // SAFETY: `gso_segs` of the program's own context.
    let segments = unsafe { (*ctx.skb.skb).gso_segs }.max(1);
    // SAFETY: the pointer is to a map value, the indices are enums of exactly its dimensions.
    unsafe {
        let cell = &raw mut (*counters).cells[direction as usize][class as usize][outcome as usize];
        member::add(&raw mut (*cell).packets, u64::from(segments));
        member::add(&raw mut (*cell).bytes, u64::from(ctx.len()));
    }
}
