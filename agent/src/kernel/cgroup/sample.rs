//! Reading counters: files are kept open and read with pread(2), one kind of file after the
//! other (going from file to file within one cgroup is several times slower on big hosts).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bulkhead_core::sample::{MemoryCounters, PidsCounters, PressureCounters};
use bulkhead_core::{CgroupCounters, CgroupId, VirtualClusterName};
use nix::errno::Errno;

use super::dir::{CgroupDir, system};
use super::error::{CgroupError, Operation, ShapeError};
use super::parse::{self, Descendants};
use super::tree::{CgroupTree, shape, unless_removed};

/// Most text of one file; io.stat has about 100 bytes for each device.
const MOST_TEXT: usize = 1 << 20;

/// In the order in which they are read. A file of a controller that is enabled is there; those
/// of a later kernel may be missing: memory.peak (5.19), pids.peak (6.1).
const FILES: [&str; 12] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.current",
    "memory.peak",
    "memory.events",
    "memory.pressure",
    "io.stat",
    "io.pressure",
    "pids.current",
    "pids.peak",
    "pids.events",
    "cgroup.stat",
];

/// Takes in the text of one of [`FILES`].
fn take(to: &mut CgroupReading, file: &str, text: &str) -> Result<(), ShapeError> {
    match file {
        "cpu.stat" => to.counters.cpu = Some(parse::cpu_stat(text)?),
        "cpu.pressure" => {
            pressures(to).cpu_some_nanoseconds = parse::pressure(text)?.some_nanoseconds;
        }
        "memory.current" => memory(to).current_bytes = parse::single(text)?,
        "memory.peak" => memory(to).peak_bytes = Some(parse::single(text)?),
        "memory.events" => memory(to).oom_kills = parse::oom_kills(text)?,
        "memory.pressure" => {
            let pressure = parse::pressure(text)?;
            pressures(to).memory_some_nanoseconds = pressure.some_nanoseconds;
            pressures(to).memory_full_nanoseconds = pressure.full_nanoseconds;
        }
        "io.stat" => to.counters.io = Some(parse::io_stat(text)?),
        "io.pressure" => {
            let pressure = parse::pressure(text)?;
            pressures(to).io_some_nanoseconds = pressure.some_nanoseconds;
            pressures(to).io_full_nanoseconds = pressure.full_nanoseconds;
        }
        "pids.current" => pids(to).current = parse::single(text)?,
        "pids.peak" => pids(to).peak = Some(parse::single(text)?),
        "pids.events" => pids(to).refused = parse::refused_forks(text)?,
        _ => to.descendants = parse::descendants(text)?,
    }
    Ok(())
}

fn memory(to: &mut CgroupReading) -> &mut MemoryCounters {
    to.counters.memory.get_or_insert_default()
}

fn pids(to: &mut CgroupReading) -> &mut PidsCounters {
    to.counters.pids.get_or_insert_default()
}

fn pressures(to: &mut CgroupReading) -> &mut PressureCounters {
    to.counters.pressure.get_or_insert_default()
}

/// One virtual cluster's counters, dead children included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CgroupReading {
    /// Its incarnation.
    pub id: CgroupId,
    /// What is counted there.
    pub counters: CgroupCounters,
    /// How many cgroups are below it.
    pub descendants: Descendants,
}

/// One pass over all virtual clusters.
#[derive(Debug, Default)]
pub struct SamplerPass {
    /// What was read.
    pub readings: BTreeMap<VirtualClusterName, CgroupReading>,
    /// Virtual clusters of which something could not be read: a gap in their coverage, never a
    /// zero.
    pub failed: BTreeMap<VirtualClusterName, CgroupError>,
}

/// Keeps the files of every virtual cluster open: a dozen descriptors for each.
#[derive(Debug, Default)]
pub struct Sampler {
    open: BTreeMap<VirtualClusterName, OpenCgroup>,
    controllers: String,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenCgroup {
    id: CgroupId,
    dir: CgroupDir,
    files: [Option<File>; FILES.len()],
}

impl Sampler {
    /// Reads the counters of every virtual cluster that has a cgroup. What is removed meanwhile
    /// is left out.
    pub fn sample(&mut self, tree: &CgroupTree) -> Result<SamplerPass, CgroupError> {
        let mut pass = SamplerPass::default();
        self.reopen(tree, &mut pass)?;
        for (index, kind) in FILES.into_iter().enumerate() {
            for (name, cgroup) in &self.open {
                let Some(reading) = pass.readings.get_mut(name) else {
                    continue;
                };
                let Some(file) = &cgroup.files[index] else {
                    continue;
                };
                let result = read(file, &mut self.buffer, cgroup, kind).and_then(|text| {
                    take(reading, kind, text).map_err(|error| shape(&cgroup.dir, kind, error))
                });
                match result {
                    Ok(()) => {}
                    Err(CgroupError::System { errno: Errno::ENODEV, .. }) => {
                        pass.readings.remove(name);
                    }
                    Err(error) => {
                        pass.readings.remove(name);
                        pass.failed.insert(name.clone(), error);
                    }
                }
            }
        }
        Ok(pass)
    }

    /// Opens what is new, another incarnation, or has other controllers now; closes what is gone.
    fn reopen(&mut self, tree: &CgroupTree, pass: &mut SamplerPass) -> Result<(), CgroupError> {
        let controllers = tree.root().read("cgroup.subtree_control")?;
        if controllers != self.controllers {
            self.open.clear();
            self.controllers = controllers;
        }
        let mut before = std::mem::take(&mut self.open);
        for child in tree.root().children()? {
            let Ok(name) = child.name.parse::<VirtualClusterName>() else {
                continue;
            };
            let kept = before.remove(&name).filter(|cgroup| cgroup.id == child.id);
            let cgroup = match kept {
                Some(cgroup) => Some(cgroup),
                None => match unless_removed(OpenCgroup::open(tree, &name)) {
                    Ok(opened) => opened,
                    Err(error) => {
                        pass.failed.insert(name.clone(), error);
                        None
                    }
                },
            };
            if let Some(cgroup) = cgroup {
                let (id, counters) = (cgroup.id, CgroupCounters::default());
                let reading = CgroupReading { id, counters, descendants: Descendants::default() };
                pass.readings.insert(name.clone(), reading);
                self.open.insert(name, cgroup);
            }
        }
        Ok(())
    }
}

impl OpenCgroup {
    fn open(tree: &CgroupTree, name: &VirtualClusterName) -> Result<Self, CgroupError> {
        let dir = tree.root().child(name.as_str())?;
        let mut files = [const { None }; FILES.len()];
        for (file, name) in files.iter_mut().zip(FILES) {
            *file = dir.open_file(name)?;
        }
        Ok(Self { id: dir.id()?, dir, files })
    }
}

/// The whole text of a file that is kept open.
fn read<'b>(
    file: &File,
    buffer: &'b mut Vec<u8>,
    cgroup: &OpenCgroup,
    name: &str,
) -> Result<&'b str, CgroupError> {
    let failed = |errno| system(Operation::Read, &cgroup.dir.path().join(name), errno);
    buffer.resize(buffer.len().max(4_096), 0);
    let mut end = 0;
    loop {
        if end == buffer.len() {
            if end >= MOST_TEXT {
                return Err(failed(Errno::EFBIG));
            }
            buffer.resize(end * 2, 0);
        }
        let offset = u64::try_from(end).unwrap_or(u64::MAX);
        match file.read_at(&mut buffer[end..], offset) {
            Ok(0) => break,
            Ok(count) => end += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(super::errno_of(&error))),
        }
    }
    std::str::from_utf8(&buffer[..end]).map_err(|_| failed(Errno::EILSEQ))
}
