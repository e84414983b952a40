//! Packets: `cgroup_skb`.

use aya_ebpf::{helpers::generated::bpf_skb_ancestor_cgroup_id, programs::SkBuffContext};
use bulkhead_abi::{Address, CLASSES, Cell, Class, Direction, OUTCOMES, Outcome, Verdict};

use crate::{
    error::Unjudged,
    farewell::is_farewell,
    member::{self, Judgement},
    socket,
};

/// `skb->protocol` of IPv4 and IPv6 as the context shows them: 16 bits in network byte order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// Cells of one direction.
const CELLS: usize = CLASSES * OUTCOMES;

#[inline(always)]
pub(crate) fn judge(ctx: &SkBuffContext, direction: Direction) -> Result<Verdict, Unjudged> {
    let generation = socket::generation();
    let far = far_end(ctx, direction);
    if let (Some(generation), Ok(far)) = (generation, &far)
        && let Some(kept) = socket::recall(ctx, generation, far)
    {
        count(ctx, kept.cgroup, direction, kept.cell);
        return Ok(Verdict::Pass);
    }
    judge_by_tables(ctx, direction, generation, far)
}

#[inline(always)]
fn judge_by_tables(
    ctx: &SkBuffContext,
    direction: Direction,
    generation: Option<u64>,
    far: Result<Address, Unjudged>,
) -> Result<Verdict, Unjudged> {
    let level = member::ancestor_level()?;
    // SAFETY: the pointer is the program's own context.
    let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, level) };
    if cgroup == 0 {
        return Err(Unjudged::NotBelow);
    }
    let mut judgement = match far {
        Ok(far) => member::judge(member::member(cgroup, &far)?, &far),
        Err(Unjudged::TooShort) => {
            // No address to look up: whatever it is, it is not one of ours.
            let member = member::member(cgroup, &Address::from_v4([0; 4]))?;
            member::apply_mode(member.mode, Class::Outside, Verdict::Deny)
        }
        Err(other) => return Err(other),
    };
    let held = !matches!(judgement.verdict(), Verdict::Pass);
    if let (false, Some(generation), Ok(far)) = (held, generation, &far) {
        socket::remember(ctx, generation, cgroup, far, cell(&judgement));
    }
    if held && matches!(direction, Direction::Egress) && is_farewell(ctx) {
        judgement.outcome = Outcome::Passed;
    }
    count(ctx, cgroup, direction, cell(&judgement));
    Ok(judgement.verdict())
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
    let (start, end) =
        unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    if start + offset + N <= end {
        // SAFETY: within the packet, as the verifier wants it shown.
        return Ok(unsafe { ((start + offset) as *const [u8; N]).read_unaligned() });
    }
    ctx.load(offset).map_err(|_| Unjudged::TooShort)
}

/// Where a judgement is counted, within its direction.
#[inline(always)]
fn cell(judgement: &Judgement) -> u32 {
    (judgement.class as usize * OUTCOMES + judgement.outcome as usize) as u32
}

#[inline(always)]
fn count(ctx: &SkBuffContext, cgroup: u64, direction: Direction, cell: u32) {
    // Without an entry the verdict still holds: the agent makes entries before it makes members.
    let Some(counters) = member::counters(cgroup) else {
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
