//! Where this kernel keeps what the iterator tells.

use bulkhead_abi::{CPU_WORDS, UsageLayout};

use super::btf::Btf;

/// Something that a usage pass tells of each cgroup, and the file that would tell it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Field {
    /// cpu.stat: `usage_usec`, `user_usec`, `system_usec`
    CpuTimes,
    /// cpu.stat: `nr_throttled`, `throttled_usec`
    Throttled,
    /// memory.current
    MemoryCurrent,
    /// memory.peak
    MemoryPeak,
    /// memory.events: `oom_kill`
    OomKills,
    /// pids.current
    PidsCurrent,
    /// pids.peak
    PidsPeak,
    /// pids.events: max
    PidsRefused,
    /// cgroup.stat
    Descendants,
    /// cgroup.events: populated
    Populated,
    /// memory.pressure and io.pressure, after cpu.pressure was read
    Pressure,
    /// Whether cpu.weight, cpu.max, memory.min, memory.low, memory.high, memory.max, pids.max,
    /// cgroup.max.depth and cgroup.max.descendants are as they were
    Controls,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 12] = [
        Self::CpuTimes,
        Self::Throttled,
        Self::MemoryCurrent,
        Self::MemoryPeak,
        Self::OomKills,
        Self::PidsCurrent,
        Self::PidsPeak,
        Self::PidsRefused,
        Self::Descendants,
        Self::Populated,
        Self::Pressure,
        Self::Controls,
    ];

    /// The files that tell it where the iterator does not.
    pub const fn files(self) -> &'static str {
        match self {
            Self::CpuTimes => "cpu.stat (times)",
            Self::Throttled => "cpu.stat (throttling)",
            Self::MemoryCurrent => "memory.current",
            Self::MemoryPeak => "memory.peak",
            Self::OomKills => "memory.events",
            Self::PidsCurrent => "pids.current",
            Self::PidsPeak => "pids.peak",
            Self::PidsRefused => "pids.events",
            Self::Descendants => "cgroup.stat",
            Self::Populated => "cgroup.events",
            Self::Pressure => "memory.pressure, io.pressure",
            Self::Controls => "control files",
        }
    }
}

/// What is known of this kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) layout: UsageLayout,
    /// What cannot be told, and why.
    pub(super) missing: Vec<(Field, String)>,
}

/// Looks everything up. An error names what is missing without which nothing can be told.
pub(super) fn find(btf: &Btf, local_pids_events: bool, asked: &[Field]) -> Result<Found, String> {
    let need = |structure: &str, path: &str| {
        let found = btf.member(structure, path).map(|member| member.offset);
        found.ok_or_else(|| format!("this kernel's struct {structure} has no {path}"))
    };
    let mut layout = UsageLayout {
        cgroup_level: need("cgroup", "level")?,
        cgroup_kn: need("cgroup", "kn")?,
        kn_id: need("kernfs_node", "id")?,
        cgroup_cpu: cpu_words(btf)?,
        ..UsageLayout::NOTHING
    };
    let mut missing = Vec::new();
    for field in Field::ALL {
        let filled = if asked.contains(&field) {
            fill(&mut layout, btf, field, local_pids_events)
        } else {
            Err("nobody asked for it".to_owned())
        };
        missing.extend(filled.err().map(|why| (field, why)));
    }
    Ok(Found { layout, missing })
}

fn cpu_words(btf: &Btf) -> Result<[u32; CPU_WORDS], String> {
    let at = |path: &str| {
        let found = btf.member("cgroup", path).map(|member| member.offset);
        found.ok_or_else(|| format!("this kernel's struct cgroup has no {path}"))
    };
    Ok([
        at("bstat.cputime.sum_exec_runtime")?,
        at("bstat.cputime.utime")?,
        at("bstat.cputime.stime")?,
        at("prev_cputime.utime")?,
        at("prev_cputime.stime")?,
    ])
}

/// Looks up what one field needs; without all of it, none of it is filled in.
fn fill(
    layout: &mut UsageLayout,
    btf: &Btf,
    field: Field,
    local_pids_events: bool,
) -> Result<(), String> {
    let look = Look { btf };
    let mut new = *layout;
    match field {
        Field::CpuTimes => {}
        Field::Throttled => {
            new.cgroup_css_cpu = look.css("cpu_cgrp_id")?;
            new.cpu_throttled_periods = look.task_group("cfs_bandwidth.nr_throttled")?;
            new.cpu_throttled_time = look.task_group("cfs_bandwidth.throttled_time")?;
        }
        Field::MemoryCurrent => {
            new.cgroup_css_memory = look.css("memory_cgrp_id")?;
            new.memory_usage = look.mem_cgroup("memory.usage")?;
        }
        Field::MemoryPeak => new.memory_watermark = look.mem_cgroup("memory.watermark")?,
        Field::OomKills => {
            let event = look.enumerator("MEMCG_OOM_KILL")?;
            new.memory_oom_kills = look.mem_cgroup("memory_events")? + 8 * event;
        }
        Field::PidsCurrent => {
            new.cgroup_css_pids = look.css("pids_cgrp_id")?;
            new.pids_counter = look.pids_cgroup("counter")?;
        }
        Field::PidsPeak => new.pids_watermark = look.pids_cgroup("watermark")?,
        Field::PidsRefused => {
            if local_pids_events {
                return Err("cgroup v2 is mounted with pids_localevents".to_owned());
            }
            // Before Linux 6.11 it is `events_limit`, and whether it tells all is up to the files.
            let events = look.pids_cgroup("events")?;
            new.pids_refused = events + 8 * look.enumerator("PIDCG_MAX")?;
        }
        Field::Descendants => {
            new.cgroup_descendants = look.offset("cgroup", "nr_descendants")?;
            new.cgroup_dying = look.offset("cgroup", "nr_dying_descendants")?;
        }
        Field::Populated => new.cgroup_populated = populated(look)?,
        Field::Pressure => (new.cgroup_psi, new.psi_totals) = pressure(look)?,
        Field::Controls => controls(look, &mut new)?,
    }
    *layout = new;
    Ok(())
}

#[derive(Clone, Copy)]
struct Look<'a> {
    btf: &'a Btf,
}

impl Look<'_> {
    fn offset(self, structure: &str, path: &str) -> Result<u32, String> {
        let found = self.btf.member(structure, path).map(|member| member.offset);
        found.ok_or_else(|| format!("this kernel's struct {structure} has no {path}"))
    }

    /// From the controller's part of a cgroup on, which is what a cgroup points to.
    fn behind_css(self, structure: &str, path: &str) -> Result<u32, String> {
        let css = self.offset(structure, "css")?;
        let below = self.offset(structure, path)?.checked_sub(css);
        below.ok_or_else(|| format!("this kernel's struct {structure} has {path} before css"))
    }

    fn task_group(self, path: &str) -> Result<u32, String> {
        self.behind_css("task_group", path)
    }

    fn mem_cgroup(self, path: &str) -> Result<u32, String> {
        self.behind_css("mem_cgroup", path)
    }

    fn pids_cgroup(self, path: &str) -> Result<u32, String> {
        self.behind_css("pids_cgroup", path)
    }

    fn enumerator(self, name: &str) -> Result<u32, String> {
        let found = self.btf.enumerator(name);
        found.ok_or_else(|| format!("this kernel has no {name}"))
    }

    /// Where a cgroup points to its part of a controller.
    fn css(self, controller: &str) -> Result<u32, String> {
        Ok(self.offset("cgroup", "subsys")? + 8 * self.enumerator(controller)?)
    }
}

/// Three counts that lie side by side.
fn populated(look: Look<'_>) -> Result<u32, String> {
    let at = |path| look.offset("cgroup", path);
    let first = at("nr_populated_csets")?;
    let second = at("nr_populated_domain_children")?;
    let third = at("nr_populated_threaded_children")?;
    if (second, third) == (first + 4, first + 8) {
        return Ok(first);
    }
    Err("this kernel keeps the counts of populated children in places far apart".to_owned())
}

fn pressure(look: Look<'_>) -> Result<(u32, u32), String> {
    let known = ["PSI_IO_SOME", "PSI_IO_FULL", "PSI_MEM_SOME", "PSI_MEM_FULL", "PSI_CPU_SOME"];
    for (index, name) in (0..).zip(known) {
        if look.enumerator(name)? != index {
            return Err(format!("this kernel has {name} in another place"));
        }
    }
    if look.enumerator("PSI_AVGS")? != 0 {
        return Err("this kernel has the totals of PSI in another place".to_owned());
    }
    match look.btf.member("cgroup", "psi") {
        Some(member) if member.is_pointer => {
            Ok((member.offset, look.offset("psi_group", "total")?))
        }
        _ => Err("this kernel's struct cgroup has no pointer psi".to_owned()),
    }
}

fn controls(look: Look<'_>, new: &mut UsageLayout) -> Result<(), String> {
    new.cgroup_css_cpu = look.css("cpu_cgrp_id")?;
    new.cgroup_css_memory = look.css("memory_cgrp_id")?;
    new.cgroup_css_pids = look.css("pids_cgrp_id")?;
    new.cgroup_max_depth = look.offset("cgroup", "max_depth")?;
    new.cgroup_max_descendants = look.offset("cgroup", "max_descendants")?;
    new.cpu_shares = look.task_group("shares")?;
    new.cpu_quota = look.task_group("cfs_bandwidth.quota")?;
    new.cpu_period = look.task_group("cfs_bandwidth.period")?;
    new.memory_min = look.mem_cgroup("memory.min")?;
    new.memory_low = look.mem_cgroup("memory.low")?;
    new.memory_high = look.mem_cgroup("memory.high")?;
    new.memory_max = look.mem_cgroup("memory.max")?;
    new.pids_limit = look.pids_cgroup("limit")?;
    Ok(())
}
