//! Who sends or receives, what the far end is, and what follows. Used by every hook.

use aya_ebpf::{btf_maps::lpm_trie::Key, cty::c_int};
use bulkhead_abi::{
    Address, AllowKey, Class, Counters, FarEnd, MODE_OBSERVE, MODE_OFF, Member, Outcome, Placement,
    Verdict, classify, counted_as, decide, mode_for,
};

use crate::{
    error::Unjudged,
    maps::{ADDRESSES, ALLOWED, CELLS, CONFIG, MEMBERS, PLACEMENT, PREFIXES, SLOTS},
    port::{ForPort, Port},
};

/// A packet or call of a virtual cluster, judged.
pub(crate) struct Judgement {
    pub(crate) class: Class,
    /// What Enforce does with it.
    pub(crate) enforced: Verdict,
    /// What this virtual cluster's mode makes of that.
    pub(crate) outcome: Outcome,
    /// Of which port of the far end that holds.
    pub(crate) port: Port,
}

impl Judgement {
    #[inline(always)]
    pub(crate) fn verdict(&self) -> Verdict {
        match self.outcome {
            Outcome::Denied => self.enforced,
            Outcome::Passed | Outcome::WouldDeny => Verdict::Pass,
        }
    }
}

/// The level that identifies a virtual cluster's cgroup, once the tables are filled.
#[inline(always)]
pub(crate) fn ancestor_level() -> Result<c_int, Unjudged> {
    match CONFIG.get(0) {
        Some(config) if config.abi_version != 0 => Ok(config.ancestor_level.cast_signed()),
        _ => Err(Unjudged::NotReady),
    }
}

/// The cgroup that is a virtual cluster's, and the virtual cluster. `at_level` is the cgroup at
/// [`ancestor_level`], `at` gives the one at another level, 0 where there is none; `far` is asked
/// only for a cgroup of nobody.
#[inline(always)]
pub(crate) fn member(
    at_level: u64,
    at: impl Fn(c_int) -> u64,
    far: &Address,
) -> Result<(u64, Member), Unjudged> {
    if at_level != 0
        && let Some(member) = entry(at_level)
    {
        return judged((at_level, member));
    }
    let placement = PLACEMENT.get(0).copied().unwrap_or_default();
    let is_below = if placement.upper_level == 0 {
        at_level != 0
    } else {
        let upper = at(placement.upper_level.cast_signed());
        if upper != 0
            && let Some(member) = entry(upper)
        {
            return judged((upper, member));
        }
        upper != 0
    };
    // Below a cgroup that nobody has told us of, only this host itself can be reached.
    if !is_below || placement.unknown == Placement::PASS || is_loopback(far) {
        return Err(Unjudged::NotBelow);
    }
    Err(Unjudged::UnknownCgroup)
}

#[inline(always)]
fn entry(cgroup: u64) -> Option<Member> {
    // SAFETY: the map is not preallocated, so the kernel frees an entry only after a grace
    // period, and this program runs inside one.
    unsafe { MEMBERS.get(cgroup) }.copied()
}

/// Some that are nobody's are known as such.
#[inline(always)]
fn judged(found: (u64, Member)) -> Result<(u64, Member), Unjudged> {
    if found.1.virtual_cluster == 0 { Err(Unjudged::NotBelow) } else { Ok(found) }
}

/// For which port it is, is asked only where that matters: the far end is a host, and not this one. Behind a node
/// port of a host is a Service, and whose that is the far end is.
///
/// On loopback there are no node ports but for members in the host's own network; their packets
/// are translated before they are judged, and bear the address of what is behind.
#[inline(always)]
pub(crate) fn judge(member: Member, far: &Address, packet_or_call: &impl ForPort) -> Judgement {
    let known = match exact(far) {
        Some(known) => Some(known),
        None => PREFIXES.get(&Key::new(128, *far)).copied(),
    };
    let me = member.virtual_cluster;
    let class = classify(me, known);
    if !matches!(class, Class::Node) || is_this_host(far) {
        return by_class(member, class, known);
    }
    let port = packet_or_call.port();
    if port == Port::UNREADABLE {
        return Judgement { port, ..apply_mode(member.mode, class, Verdict::Deny) };
    }
    // SAFETY: not preallocated, see `entry`.
    let behind = port.key().and_then(|key| unsafe { ADDRESSES.get(key) }.copied());
    let judgement = match behind {
        Some(behind) => by_class(member, classify(me, Some(behind)), Some(behind)),
        None => by_class(member, class, known),
    };
    Judgement { port, ..judgement }
}

/// What is known of just this address. Where the table has node ports, no address is looked up.
#[inline(always)]
fn exact(far: &Address) -> Option<FarEnd> {
    if far.is_of_node_port() {
        return None;
    }
    // SAFETY: not preallocated, see `entry`.
    unsafe { ADDRESSES.get(far) }.copied()
}

#[inline(always)]
fn by_class(member: Member, class: Class, known: Option<FarEnd>) -> Judgement {
    let allowed = match (class, known) {
        (Class::Other, Some(known)) => {
            let pair = AllowKey { from: member.virtual_cluster, to: known.virtual_cluster };
            ALLOWED.get_ptr(pair).is_some()
        }
        _ => false,
    };
    let mode = mode_for(class, known, member.mode);
    apply_mode(mode, counted_as(class, known, allowed), decide(class, allowed))
}

#[inline(always)]
pub(crate) fn apply_mode(mode: u32, class: Class, enforced: Verdict) -> Judgement {
    let outcome = match (enforced, mode) {
        (Verdict::Pass, _) | (_, MODE_OFF) => Outcome::Passed,
        (_, MODE_OBSERVE) => Outcome::WouldDeny,
        // A mode that we do not know is one that a newer agent wrote: stay closed.
        _ => Outcome::Denied,
    };
    Judgement { class, enforced, outcome, port: Port::ANY }
}

/// The slot of a cgroup that is not counted; CELLS has no such entry.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Where a virtual cluster's cgroup is counted, if the agent has given it a slot.
///
/// The agent gives a slot to another cgroup only when a generation has begun, and every program
/// that began before has ended.
#[inline(always)]
pub(crate) fn slot(cgroup: u64) -> u32 {
    // SAFETY: not preallocated, see `entry`.
    unsafe { SLOTS.get(cgroup) }.copied().unwrap_or(NO_SLOT)
}

/// The counters of a slot on this CPU.
#[inline(always)]
pub(crate) fn counters(slot: u32) -> Option<*mut Counters> {
    CELLS.get_ptr_mut(slot)
}

/// Adds to a counter.
///
/// Atomic although it is this CPU's own: a program that runs for a process can be interrupted by
/// one that runs for a softirq on the same counter, and a lost update is a lost byte of a bill.
///
/// # Safety
///
/// `word` lies inside a map value.
#[inline(always)]
pub(crate) unsafe fn add(word: *mut u64, amount: u64) {
    // The target is declared without compare-and-swap, so `core` leaves out `fetch_add` too;
    // the instruction itself is as old as the programs' kernel.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; map values are 8-byte aligned, and the agent only reads them.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) += {amount}",
            word = in(reg) word,
            amount = in(reg) amount,
            options(nostack),
        );
    }
    // Where only lints run.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word)
            .fetch_add(amount, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Loopback, or the unspecified address, which connect(2) takes for loopback.
#[inline(always)]
fn is_this_host(address: &Address) -> bool {
    let (high, low) = halves(address);
    // ::, or ::ffff:0.0.0.0
    is_loopback(address) || high == 0 && (low == 0 || low == 0xffff_0000_0000)
}

#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    let (high, low) = halves(address);
    // ::1, or ::ffff:127.0.0.0/104.
    high == 0 && (low == 1 || low >> 24 == 0x00ff_ff7f)
}

#[inline(always)]
fn halves(address: &Address) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p]))
}
