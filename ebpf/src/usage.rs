//! The cgroup iterator: tells the agent what the kernel has counted for each cgroup, without a
//! file being opened, read or printed. Offsets come from the agent, which has them from this
//! kernel's BTF.
//!
//! The kernel holds `cgroup_mutex` while it walks, so nothing is done here but copying.

use core::ptr;

use aya_ebpf::{cty::c_void, helpers::generated};
use bulkhead_abi::{CPU_WORDS, CgroupUsage, UsageLayout};

use crate::maps::USAGE;

#[unsafe(no_mangle)]
static USAGE_LAYOUT: UsageLayout = UsageLayout::NOTHING;

/// An odd number that spreads ids, so that sums of them differ where their sets do.
const MIX: u32 = 0x9e37_79b1;

/// `struct bpf_iter__cgroup`
#[repr(C)]
struct IterCgroup {
    meta: u64,
    cgroup: u64,
}

/// A field of `USAGE_LAYOUT`, as the agent has filled it in.
macro_rules! layout {
    ($field:ident $([$index:literal])?) => {
        constant(&raw const USAGE_LAYOUT.$field $([$index])?)
    };
}

/// The loader changes them after the compiler saw them.
#[inline(always)]
fn constant(of_layout: *const u32) -> u32 {
    // SAFETY: only called with fields of our own global.
    unsafe { ptr::read_volatile(of_layout) }
}

/// A read of kernel memory failed.
struct Unreadable;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
extern "C" fn bulkhead_usage(ctx: *const c_void) -> i32 {
    // Whatever was not told of is counted as such in the map.
    let _ = tell(ctx);
    0
}

#[inline(always)]
fn tell(ctx: *const c_void) -> Result<(), Unreadable> {
    // SAFETY: a field of the program's own context.
    let cgroup = unsafe { (*ctx.cast::<IterCgroup>()).cgroup };
    if cgroup == 0 {
        // The end of the walk.
        return Ok(());
    }
    let level = word32(cgroup, layout!(cgroup_level));
    let wanted = layout!(level);
    let Some(head) = USAGE.get_ptr_mut(0) else { return Ok(()) };
    // SAFETY: entry 0 is there; nobody else runs this program on this map.
    let count = unsafe { (*head).id };
    if wanted != UsageLayout::ABSENT && level != wanted && level != layout!(upper_level) {
        if level == wanted + 1 && count > 0 {
            tell_parent(cgroup, count as u32);
        }
        return Ok(());
    }
    let Some(entry) = USAGE.get_ptr_mut(count as u32 + 1) else {
        // SAFETY: as above.
        unsafe { (*head).present += 1 };
        return Ok(());
    };
    // SAFETY: as above.
    unsafe { (*head).id = count + 1 };
    let read = fill(cgroup, level, entry);
    // SAFETY: the entry is there.
    unsafe { (*entry).present = read.unwrap_or(CgroupUsage::FAILED) };
    Ok(())
}

/// Parents are told of before their children, and one after the other.
#[inline(always)]
fn tell_parent(cgroup: u64, parent: u32) {
    if layout!(cgroup_populated) != UsageLayout::ABSENT
        && populated(cgroup) == 0
        && let Some(entry) = USAGE.get_ptr_mut(parent)
    {
        let id = word64(word64(cgroup, layout!(cgroup_kn)), layout!(kn_id));
        // SAFETY: the entry is there.
        unsafe {
            (*entry).empty_children += 1;
            (*entry).empty_children_mark =
                (*entry).empty_children_mark.wrapping_add((id as u32).wrapping_mul(MIX));
        }
    }
}

/// # Safety
///
/// `to` is part of an entry.
#[inline(always)]
unsafe fn tell_cpu(cgroup: u64, to: *mut [u64; CPU_WORDS]) {
    let words = [
        word64(cgroup, layout!(cgroup_cpu[0])),
        word64(cgroup, layout!(cgroup_cpu[1])),
        word64(cgroup, layout!(cgroup_cpu[2])),
        word64(cgroup, layout!(cgroup_cpu[3])),
        word64(cgroup, layout!(cgroup_cpu[4])),
    ];
    // SAFETY: the caller's.
    unsafe { to.write(words) };
}

#[inline(always)]
fn populated(cgroup: u64) -> u32 {
    let first = layout!(cgroup_populated);
    word32(cgroup, first) | word32(cgroup, first + 4) | word32(cgroup, first + 8)
}

#[inline(always)]
fn fill(cgroup: u64, level: u32, entry: *mut CgroupUsage) -> Result<u32, Unreadable> {
    // SAFETY: the entry is there; so below.
    unsafe {
        (*entry).id = word64(word64(cgroup, layout!(cgroup_kn)), layout!(kn_id));
        (*entry).level = level;
        (*entry).empty_children = 0;
        (*entry).empty_children_mark = 0;
        tell_cpu(cgroup, &raw mut (*entry).cpu[0]);
    }
    let mut present = CgroupUsage::CPU;
    if layout!(cgroup_descendants) != UsageLayout::ABSENT {
        // SAFETY: as above.
        unsafe {
            (*entry).descendants = word32(cgroup, layout!(cgroup_descendants));
            (*entry).dying = word32(cgroup, layout!(cgroup_dying));
        }
        present |= CgroupUsage::DESCENDANTS;
    }
    if layout!(cgroup_populated) != UsageLayout::ABSENT {
        // SAFETY: as above.
        unsafe { (*entry).populated = populated(cgroup) };
        present |= CgroupUsage::POPULATED;
    }
    if layout!(cgroup_max_depth) != UsageLayout::ABSENT {
        // SAFETY: as above.
        unsafe {
            (*entry).controls[0] = word32(cgroup, layout!(cgroup_max_depth)).into();
            (*entry).controls[1] = word32(cgroup, layout!(cgroup_max_descendants)).into();
        }
    }
    present |= cpu(cgroup, entry)?;
    present |= memory(cgroup, entry)?;
    present |= pids(cgroup, entry)?;
    present |= pressure(cgroup, entry)?;
    // SAFETY: as above.
    unsafe { tell_cpu(cgroup, &raw mut (*entry).cpu[1]) };
    Ok(present)
}

#[inline(always)]
fn cpu(cgroup: u64, entry: *mut CgroupUsage) -> Result<u32, Unreadable> {
    let css = css(cgroup, layout!(cgroup_css_cpu));
    if css == 0 {
        return Ok(0);
    }
    // SAFETY: the entry is there.
    unsafe {
        copy_if(&raw mut (*entry).controls[2], css, layout!(cpu_shares))?;
        copy_if(&raw mut (*entry).controls[3], css, layout!(cpu_quota))?;
        copy_if(&raw mut (*entry).controls[4], css, layout!(cpu_period))?;
    }
    if layout!(cpu_throttled_time) == UsageLayout::ABSENT {
        return Ok(CgroupUsage::HAS_CPU);
    }
    // SAFETY: as above.
    unsafe {
        copy(&raw mut (*entry).throttled_periods, css, layout!(cpu_throttled_periods))?;
        copy(&raw mut (*entry).throttled_nanoseconds, css, layout!(cpu_throttled_time))?;
    }
    Ok(CgroupUsage::HAS_CPU | CgroupUsage::THROTTLED)
}

#[inline(always)]
fn memory(cgroup: u64, entry: *mut CgroupUsage) -> Result<u32, Unreadable> {
    let css = css(cgroup, layout!(cgroup_css_memory));
    if css == 0 {
        return Ok(0);
    }
    // SAFETY: the entry is there.
    unsafe {
        copy_if(&raw mut (*entry).controls[5], css, layout!(memory_min))?;
        copy_if(&raw mut (*entry).controls[6], css, layout!(memory_low))?;
        copy_if(&raw mut (*entry).controls[7], css, layout!(memory_high))?;
        copy_if(&raw mut (*entry).controls[8], css, layout!(memory_max))?;
    }
    if layout!(memory_usage) == UsageLayout::ABSENT {
        return Ok(CgroupUsage::HAS_MEMORY);
    }
    // SAFETY: as above.
    unsafe {
        copy(&raw mut (*entry).memory_usage, css, layout!(memory_usage))?;
        copy_if(&raw mut (*entry).memory_watermark, css, layout!(memory_watermark))?;
        copy_if(&raw mut (*entry).oom_kills, css, layout!(memory_oom_kills))?;
    }
    Ok(CgroupUsage::HAS_MEMORY | CgroupUsage::MEMORY)
}

#[inline(always)]
fn pids(cgroup: u64, entry: *mut CgroupUsage) -> Result<u32, Unreadable> {
    let css = css(cgroup, layout!(cgroup_css_pids));
    if css == 0 {
        return Ok(0);
    }
    // SAFETY: the entry is there.
    unsafe { copy_if(&raw mut (*entry).controls[9], css, layout!(pids_limit))? };
    if layout!(pids_counter) == UsageLayout::ABSENT {
        return Ok(CgroupUsage::HAS_PIDS);
    }
    // SAFETY: as above.
    unsafe {
        copy(&raw mut (*entry).pids_current, css, layout!(pids_counter))?;
        copy_if(&raw mut (*entry).pids_peak, css, layout!(pids_watermark))?;
        copy_if(&raw mut (*entry).pids_refused, css, layout!(pids_refused))?;
    }
    Ok(CgroupUsage::HAS_PIDS | CgroupUsage::PIDS)
}

#[inline(always)]
fn pressure(cgroup: u64, entry: *mut CgroupUsage) -> Result<u32, Unreadable> {
    if layout!(cgroup_psi) == UsageLayout::ABSENT || layout!(psi_totals) == UsageLayout::ABSENT {
        return Ok(0);
    }
    let group = word64(cgroup, layout!(cgroup_psi));
    if group == 0 {
        return Ok(0);
    }
    // SAFETY: the entry is there.
    unsafe { copy(&raw mut (*entry).pressure_nanoseconds, group, layout!(psi_totals))? };
    Ok(CgroupUsage::PRESSURE)
}

/// A controller's part of a cgroup; 0: it has none.
#[inline(always)]
fn css(cgroup: u64, offset: u32) -> u64 {
    if offset == UsageLayout::ABSENT { 0 } else { word64(cgroup, offset) }
}

/// A member of the kernel's structure that `base` points to by its type: the verifier knows it
/// from the context on, and the offset is a constant to it, so this is one load and no helper.
#[inline(always)]
fn word32(base: u64, offset: u32) -> u32 {
    // SAFETY: the verifier has seen that the structure has such a member there; where the memory
    // is gone, the kernel gives 0.
    unsafe { ptr::read_volatile((base + u64::from(offset)) as *const u32) }
}

/// The same of 8 bytes.
#[inline(always)]
fn word64(base: u64, offset: u32) -> u64 {
    // SAFETY: as in `word32`.
    unsafe { ptr::read_volatile((base + u64::from(offset)) as *const u64) }
}

/// As [`copy`], of what a kernel may not have.
#[inline(always)]
unsafe fn copy_if<T>(to: *mut T, base: u64, offset: u32) -> Result<(), Unreadable> {
    if offset == UsageLayout::ABSENT {
        return Ok(());
    }
    // SAFETY: the caller's.
    unsafe { copy(to, base, offset) }
}

/// Copies from kernel memory; an address that is not there is an error.
///
/// # Safety
///
/// `to` is room for one `T` of plain integers.
#[inline(always)]
unsafe fn copy<T>(to: *mut T, base: u64, offset: u32) -> Result<(), Unreadable> {
    let from = (base + u64::from(offset)) as *const c_void;
    // SAFETY: the caller's; the helper checks where it reads from.
    let done = unsafe { generated::bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from) };
    if done == 0 { Ok(()) } else { Err(Unreadable) }
}
