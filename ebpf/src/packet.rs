//! Packets: `cgroup_skb`.

use aya_ebpf::{helpers::generated::bpf_skb_ancestor_cgroup_id, programs::SkBuffContext};
use bulkhead_abi::{Address, CLASSES, Cell, Class, Direction, OUTCOMES, Outcome, Verdict};

use crate::{
    error::Unjudged,
    farewell::is_farewell,
    member::{self, Judgement},
    socket::{self, Kept, Owner, Remembered, Socket},
};

/// `skb->protocol` of IPv4 and IPv6 as the context shows them: 16 bits in network byte order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// Cells of one direction.
const CELLS: usize = CLASSES * OUTCOMES;

#[inline(always)]
pub(crate) fn judge(ctx: &SkBuffContext, direction: Direction) -> Result<Verdict, Unjudged> {
    let far = far_end(ctx, direction);
    let socket = Socket::of_packet(ctx);
    let Some(generation) = socket::generation() else {
        return judge_by_tables(ctx, direction, far, None).map(|judged| judged.verdict);
    };
    let kept = socket.recall(generation);
    let fresh = match kept {
        Kept::Fresh(fresh) => Some(fresh),
        Kept::Stale | Kept::Nothing => None,
    };
    if let (Some(fresh), Ok(far)) = (fresh, &far)
        && fresh.far == *far
    {
        count(ctx, fresh.slot, direction, fresh.cell);
        return Ok(Verdict::Pass);
    }
    let owner = fresh.map(Remembered::owner);
    let judged = judge_by_tables(ctx, direction, far, owner)?;
    if let (None, Verdict::Pass, Ok(far)) = (fresh, judged.verdict, far)
        && judged.is_lasting
    {
        if matches!(kept, Kept::Stale) {
            socket.forget();
        }
        socket.remember(&Remembered::new(generation, judged.owner, far, judged.cell));
    }
    Ok(judged.verdict)
}

/// A packet, judged by the tables and counted.
struct Judged {
    verdict: Verdict,
    owner: Owner,
    cell: u32,
    /// Whether the next packet between the two has the same verdict, and is counted there, too.
    is_lasting: bool,
}

/// `known`: whose the socket is, where that is known.
#[inline(always)]
fn judge_by_tables(
    ctx: &SkBuffContext,
    direction: Direction,
    far: Result<Address, Unjudged>,
    known: Option<Owner>,
) -> Result<Judged, Unjudged> {
    let owner_for = |far: &Address| match known {
        Some(owner) => Ok(owner),
        None => owner_of(ctx, far),
    };
    let (owner, mut judgement) = match far {
        Ok(far) => {
            let owner = owner_for(&far)?;
            (owner, member::judge(owner.member, &far))
        }
        Err(Unjudged::TooShort) => {
            // No address to look up: whatever it is, it is not one of ours.
            let owner = owner_for(&Address::from_v4([0; 4]))?;
            (owner, member::apply_mode(owner.member.mode, Class::Outside, Verdict::Deny))
        }
        Err(other) => return Err(other),
    };
    let held = !matches!(judgement.verdict(), Verdict::Pass);
    let is_farewell = held && matches!(direction, Direction::Egress) && is_farewell(ctx);
    if is_farewell {
        judgement.outcome = Outcome::Passed;
    }
    let cell = cell(&judgement);
    count(ctx, owner.slot, direction, cell);
    let is_lasting = !is_farewell && owner.slot != member::NO_SLOT;
    Ok(Judged { verdict: judgement.verdict(), owner, cell, is_lasting })
}

/// Whose the packet is; `far` is asked only for what is nobody's.
#[inline(always)]
fn owner_of(ctx: &SkBuffContext, far: &Address) -> Result<Owner, Unjudged> {
    let level = member::ancestor_level()?;
    // SAFETY: the pointer is the program's own context.
    let at = |level| unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) };
    let (cgroup, member) = member::member(at(level), at, far)?;
    Ok(Owner { cgroup, member, slot: member::slot(cgroup) })
}

/// The destination of what is sent, the source of what is received.
#[inline(always)]
fn far_end(ctx: &SkBuffContext, direction: Direction) -> Result<Address, Unjudged> {
    // The packet begins at its IP header here.
    match (ctx.skb.protocol(), direction) {
        (IPV4, Direction::Egress) => load(ctx, 16).map(Address::from_v4),
        (IPV4, Direction::Ingress) => load(ctx, 12).map(Address::from_v4),
        (IPV6, Direction::Egress) => load(ctx, 24).map(Address),
        (IPV6, Direction::Ingress) => load(ctx, 8).map(Address),
        _ => Err(Unjudged::NotIp),
    }
}

/// Bytes of the packet; nearly always they are in its linear part, where no helper is needed.
#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, offset: usize) -> Result<[u8; N], Unjudged> {
    // SAFETY: fields of the program's own context; the kernel makes pointers of them.
    let (start, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    if start + offset + N <= end {
        // SAFETY: within the packet, as the verifier wants it shown.
        return Ok(unsafe { ((start + offset) as *const [u8; N]).read_unaligned() });
    }
    ctx.load(offset).map_err(|_| Unjudged::TooShort)
}

/// Whether a cell is one of packets that would pass under Enforce, too.
#[inline(always)]
pub(crate) const fn is_passed(cell: u32) -> bool {
    cell as usize % OUTCOMES == Outcome::Passed as usize
}

/// Where a judgement is counted, within its direction.
#[inline(always)]
fn cell(judgement: &Judgement) -> u32 {
    (judgement.class as usize * OUTCOMES + judgement.outcome as usize) as u32
}

#[inline(always)]
fn count(ctx: &SkBuffContext, slot: u32, direction: Direction, cell: u32) {
    // Without a slot the verdict still holds: the agent gives slots before it makes members.
    let Some(counters) = member::counters(slot) else {
        return;
    };
    let cell = cell as usize;
    if cell >= CELLS {
        return;
    }
    // SAFETY: `gso_segs` of the program's own context.
    let segments = unsafe { (*ctx.skb.skb).gso_segs }.max(1);
    // SAFETY: the pointer is to a map value, and within the cells of one direction.
    unsafe {
        let cells = (&raw mut (*counters).cells[direction as usize]).cast::<Cell>();
        let cell = cells.add(cell);
        member::add(&raw mut (*cell).packets, u64::from(segments));
        member::add(&raw mut (*cell).bytes, u64::from(ctx.len()));
    }
}
