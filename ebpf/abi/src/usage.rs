//! What the cgroup iterator (`iter/cgroup`) is told and tells: where this kernel keeps each
//! number, and the numbers of each cgroup as the kernel has them.

/// How many words of `struct cgroup` cpu.stat's times are made of: `bstat.cputime` with run time,
/// user and kernel mode, then `prev_cputime` with user and kernel mode.
pub const CPU_WORDS: usize = 5;
/// How many control values are told (see [`CgroupUsage::controls`]).
pub const CONTROLS: usize = 10;
/// How many PSI totals are told.
pub const PRESSURES: usize = 5;

/// Where this kernel keeps things, as offsets in bytes; found in its BTF when the agent starts.
/// [`UsageLayout::ABSENT`]: this kernel has no such thing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UsageLayout {
    /// Depth of the cgroups that are told of, below the cgroup v2 mount (the mount itself is 0);
    /// [`UsageLayout::ABSENT`]: those of every depth.
    pub level: u32,
    /// Another depth that is told of; [`UsageLayout::ABSENT`]: there is none.
    pub upper_level: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kn_id: u32,
    /// The [`CPU_WORDS`] words of `struct cgroup`.
    pub cgroup_cpu: [u32; CPU_WORDS],
    /// `cgroup.nr_descendants`
    pub cgroup_descendants: u32,
    /// `cgroup.nr_dying_descendants`
    pub cgroup_dying: u32,
    /// `cgroup.nr_populated_csets`, followed by its domain and threaded children.
    pub cgroup_populated: u32,
    /// `cgroup.subsys[cpu_cgrp_id]`
    pub cgroup_css_cpu: u32,
    /// `cgroup.subsys[memory_cgrp_id]`
    pub cgroup_css_memory: u32,
    /// `cgroup.subsys[pids_cgrp_id]`
    pub cgroup_css_pids: u32,
    /// `cgroup.psi`
    pub cgroup_psi: u32,
    /// `task_group.cfs_bandwidth.nr_throttled`, counted from `css` as all below.
    pub cpu_throttled_periods: u32,
    /// `task_group.cfs_bandwidth.throttled_time`
    pub cpu_throttled_time: u32,
    /// `mem_cgroup.memory.usage`
    pub memory_usage: u32,
    /// `mem_cgroup.memory.watermark`
    pub memory_watermark: u32,
    /// `mem_cgroup.memory_events[MEMCG_OOM_KILL]`
    pub memory_oom_kills: u32,
    /// `pids_cgroup.counter`
    pub pids_counter: u32,
    /// `pids_cgroup.watermark`
    pub pids_watermark: u32,
    /// `pids_cgroup.events[PIDCG_MAX]`, before Linux 6.11 `pids_cgroup.events_limit`
    pub pids_refused: u32,
    /// `psi_group.total[PSI_AVGS]`: io some, io full, memory some, memory full, cpu some.
    pub psi_totals: u32,
    /// `cgroup.max_depth`
    pub cgroup_max_depth: u32,
    /// `cgroup.max_descendants`
    pub cgroup_max_descendants: u32,
    /// `task_group.shares`
    pub cpu_shares: u32,
    /// `task_group.cfs_bandwidth.quota`
    pub cpu_quota: u32,
    /// `task_group.cfs_bandwidth.period`
    pub cpu_period: u32,
    /// `mem_cgroup.memory.min`
    pub memory_min: u32,
    /// `mem_cgroup.memory.low`
    pub memory_low: u32,
    /// `mem_cgroup.memory.high`
    pub memory_high: u32,
    /// `mem_cgroup.memory.max`
    pub memory_max: u32,
    /// `pids_cgroup.limit`
    pub pids_limit: u32,
}

impl UsageLayout {
    /// This kernel has no such thing.
    pub const ABSENT: u32 = u32::MAX;

    /// Knows of nothing.
    pub const NOTHING: Self = Self {
        level: Self::ABSENT,
        upper_level: Self::ABSENT,
        cgroup_level: Self::ABSENT,
        cgroup_kn: Self::ABSENT,
        kn_id: Self::ABSENT,
        cgroup_cpu: [Self::ABSENT; CPU_WORDS],
        cgroup_descendants: Self::ABSENT,
        cgroup_dying: Self::ABSENT,
        cgroup_populated: Self::ABSENT,
        cgroup_css_cpu: Self::ABSENT,
        cgroup_css_memory: Self::ABSENT,
        cgroup_css_pids: Self::ABSENT,
        cgroup_psi: Self::ABSENT,
        cpu_throttled_periods: Self::ABSENT,
        cpu_throttled_time: Self::ABSENT,
        memory_usage: Self::ABSENT,
        memory_watermark: Self::ABSENT,
        memory_oom_kills: Self::ABSENT,
        pids_counter: Self::ABSENT,
        pids_watermark: Self::ABSENT,
        pids_refused: Self::ABSENT,
        psi_totals: Self::ABSENT,
        cgroup_max_depth: Self::ABSENT,
        cgroup_max_descendants: Self::ABSENT,
        cpu_shares: Self::ABSENT,
        cpu_quota: Self::ABSENT,
        cpu_period: Self::ABSENT,
        memory_min: Self::ABSENT,
        memory_low: Self::ABSENT,
        memory_high: Self::ABSENT,
        memory_max: Self::ABSENT,
        pids_limit: Self::ABSENT,
    };
}

/// One cgroup as the kernel has it. Entry 0 of the map is no cgroup: its `id` is how many
/// entries follow, its `present` how many found no room.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CgroupUsage {
    /// The cgroup's id.
    pub id: u64,
    /// Which of the numbers below were read: [`CgroupUsage::CPU`] and so on.
    pub present: u32,
    /// Its depth below the cgroup v2 mount.
    pub level: u32,
    /// Cgroups below it.
    pub descendants: u32,
    /// Removed cgroups below it that still hold memory.
    pub dying: u32,
    /// Not 0: a process lives in it or below.
    pub populated: u32,
    /// How many of its children have no process.
    pub empty_children: u32,
    /// The words at [`UsageLayout::cgroup_cpu`], read twice: while they
    /// differ, somebody was writing them.
    pub cpu: [[u64; CPU_WORDS]; 2],
    /// `nr_throttled`
    pub throttled_periods: u32,
    /// Made of the ids of its children that have no process: while it stays, they are the same.
    pub empty_children_mark: u32,
    /// Nanoseconds.
    pub throttled_nanoseconds: u64,
    /// Pages.
    pub memory_usage: u64,
    /// Pages.
    pub memory_watermark: u64,
    /// Processes killed.
    pub oom_kills: u64,
    /// Tasks.
    pub pids_current: u64,
    /// Tasks.
    pub pids_peak: u64,
    /// Forks.
    pub pids_refused: u64,
    /// Nanoseconds, in the order of [`UsageLayout::psi_totals`].
    pub pressure_nanoseconds: [u64; PRESSURES],
    /// Control values as the kernel has them, in the order of the last fields of
    /// [`UsageLayout`]: while none changes, no control of them was changed.
    pub controls: [u64; CONTROLS],
}

impl CgroupUsage {
    /// [`CgroupUsage::cpu`]
    pub const CPU: u32 = 1;
    /// [`CgroupUsage::descendants`] and [`CgroupUsage::dying`]
    pub const DESCENDANTS: u32 = 1 << 1;
    /// [`CgroupUsage::populated`], and what is said of empty children where one level is told of
    pub const POPULATED: u32 = 1 << 2;
    /// [`CgroupUsage::throttled_periods`] and time
    pub const THROTTLED: u32 = 1 << 3;
    /// [`CgroupUsage::memory_usage`] and what follows; absent fields are zero.
    pub const MEMORY: u32 = 1 << 4;
    /// [`CgroupUsage::pids_current`] and what follows; absent fields are zero.
    pub const PIDS: u32 = 1 << 5;
    /// [`CgroupUsage::pressure_nanoseconds`]
    pub const PRESSURE: u32 = 1 << 6;
    /// A read failed: nothing of this entry may be used.
    pub const FAILED: u32 = 1 << 7;
    /// It has the cpu controller.
    pub const HAS_CPU: u32 = 1 << 8;
    /// It has the memory controller.
    pub const HAS_MEMORY: u32 = 1 << 9;
    /// It has the pids controller.
    pub const HAS_PIDS: u32 = 1 << 10;
}

const _: () = {
    assert!(size_of::<UsageLayout>() == 4 * (21 + CPU_WORDS + CONTROLS));
    assert!(core::mem::offset_of!(CgroupUsage, cpu) == 32);
    assert!(core::mem::offset_of!(CgroupUsage, throttled_nanoseconds) == 120);
    assert!(size_of::<CgroupUsage>() == 128 + 8 * (6 + PRESSURES + CONTROLS));
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait: plain old data for map access")]
    use super::{CgroupUsage, UsageLayout};

    // SAFETY: `repr(C)`, `Copy`, integers only, no padding (sizes asserted above).
    unsafe impl aya::Pod for UsageLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CgroupUsage {}
}
