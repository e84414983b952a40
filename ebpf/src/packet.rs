//! Packets: `cgroup_skb`.

use aya_ebpf::{helpers::generated::bpf_skb_ancestor_cgroup_id, programs::SkBuffContext};
use bulkhead_abi::{Address, CLASSES, Cell, Class, Direction, OUTCOMES, Outcome, Verdict};

use crate::{
    error::Unjudged,
    farewell::is_farewell,
    member::{self, Judgement},
    port::{ForPort, Port},
    socket::{self, Kept, Owner, Remembered, Socket},
};

/// `skb->protocol` of IPv4 and IPv6 as the context shows them: 16 bits in network byte order.
pub(crate) const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// Cells of one direction.
const CELLS: usize = CLASSES * OUTCOMES;

/// The cell of what passes from or to a host.
const FROM_A_HOST: u32 = (Class::Node as usize * OUTCOMES + Outcome::Passed as usize) as u32;

#[inline(always)]
pub(crate) fn judge(ctx: &SkBuffContext, direction: Direction) -> Result<Verdict, Unjudged> {
    let far = match far_end(ctx, direction) {
        Ok(far) => far,
        Err(Unjudged::TooShort) => return too_short(ctx, direction),
        Err(other) => return Err(other),
    };
    let socket = Socket::of_packet(ctx);
    let generation = socket::generation();
    let kept = generation.map_or(Kept::Nothing, |generation| socket.recall(generation));
    let (fresh, stale) = match kept {
        Kept::Fresh(fresh) => (Some(fresh), None),
        Kept::Stale(stale) => (None, Some(stale)),
        Kept::Nothing => (None, None),
    };
    if let Some(fresh) = fresh
        && fresh.far == far
        && let Some(cell) = kept_cell(ctx, direction, fresh)
    {
        count(ctx, fresh.slot, direction, cell);
        return Ok(Verdict::Pass);
    }
    let owner = match fresh {
        Some(fresh) => fresh.owner(),
        None => owner_of(ctx, &far)?,
    };
    let judged = judge_by_tables(&Packet { ctx, direction, far: &far, stale }, owner);
    if let (None, Some(generation), Verdict::Pass) = (fresh, generation, judged.verdict)
        && judged.is_lasting
    {
        if stale.is_some() {
            socket.forget();
        }
        let found = (judged.cell, judged.port);
        socket.remember(&Remembered::new(generation, owner, far, found));
    }
    Ok(judged.verdict)
}

/// There is no address to look up: whatever it is, it is not one of ours.
#[inline(always)]
fn too_short(ctx: &SkBuffContext, direction: Direction) -> Result<Verdict, Unjudged> {
    let owner = owner_of(ctx, &Address::from_v4([0; 4]))?;
    let judgement = member::apply_mode(owner.member.mode, Class::Outside, Verdict::Deny);
    count(ctx, owner.slot, direction, cell(&judgement));
    Ok(judgement.verdict())
}

/// Where a packet between a socket and the peer that it keeps is counted; `None`: it is for
/// another port than what is kept, where that matters.
#[inline(always)]
fn kept_cell(ctx: &SkBuffContext, direction: Direction, kept: &Remembered) -> Option<u32> {
    if kept.port == Port::ANY {
        return Some(kept.cell);
    }
    if matches!(direction, Direction::Ingress) {
        return Some(FROM_A_HOST);
    }
    let port = Port::of_packet(ctx);
    (port == kept.port || port == Port::GOES_ON).then_some(kept.cell)
}

/// A packet, judged by the tables and counted.
struct Judged {
    verdict: Verdict,
    cell: u32,
    port: Port,
    /// Whether the next packet between the two has the same verdict, and is counted there, too.
    is_lasting: bool,
}

#[inline(always)]
fn judge_by_tables(packet: &Packet<'_>, owner: Owner) -> Judged {
    let Packet { ctx, direction, far, .. } = *packet;
    let mut judgement = member::judge(owner.member, far, packet);
    let held = !matches!(judgement.verdict(), Verdict::Pass);
    let is_farewell = held && matches!(direction, Direction::Egress) && is_farewell(ctx);
    if is_farewell {
        judgement.outcome = Outcome::Passed;
    }
    let (cell, port) = (cell(&judgement), judgement.port);
    count(ctx, owner.slot, direction, cell);
    let is_lasting = !is_farewell && owner.slot != member::NO_SLOT && port != Port::UNREADABLE;
    Judged { verdict: judgement.verdict(), cell, port, is_lasting }
}

/// A packet, and what its socket kept of tables before these.
struct Packet<'a> {
    ctx: &'a SkBuffContext,
    direction: Direction,
    far: &'a Address,
    stale: Option<&'a Remembered>,
}

impl ForPort for Packet<'_> {
    /// What is received is from a host, whichever port it came from. A connection goes on to the
    /// port for which it was begun, where that is still known.
    #[inline(always)]
    fn port(&self) -> Port {
        if matches!(self.direction, Direction::Ingress) {
            return Port::NONE;
        }
        let port = Port::of_packet(self.ctx);
        if port != Port::GOES_ON {
            return port;
        }
        match self.stale {
            Some(stale) if stale.far == *self.far && stale.port != Port::ANY => stale.port,
            _ => Port::NONE,
        }
    }
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

/// The same number, of which the compiler knows nothing: what it knows of enums it would leave
/// unchecked, and the verifier knows nothing of enums.
#[inline(always)]
fn unknown(mut number: usize) -> usize {
    // SAFETY: it changes nothing.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        number = core::hint::black_box(number);
    }
    number
}

#[inline(always)]
fn count(ctx: &SkBuffContext, slot: u32, direction: Direction, cell: u32) {
    // Without a slot the verdict still holds: the agent gives slots before it makes members.
    let Some(counters) = member::counters(slot) else {
        return;
    };
    let cell = unknown(cell as usize);
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
