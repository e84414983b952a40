//! The files of cgroup v2: read, or written with what changes nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::answer::{Answer, Row};
use super::process;
use super::scene::Scene;

const NOT_USED: &str = "not used yet";
/// Where a limit cannot be written.
const REFUSED: &str = "the limit is refused with this reason, never left out in silence";
/// Where a counter is missing.
const NOT_TOLD: &str = "the value is absent (not zero), and coverage says so";

pub(super) const ROWS: &[Row] = &[
    ("cpu.max, cpu.weight", "limits of CPU time", REFUSED, cpu_max),
    ("cpu.max.burst", "spend what was saved", NOT_USED, burst),
    ("cpu.stat", "CPU time", NOT_TOLD, cpu_stat),
    ("memory.max, .high, .low, .min", "limits of memory", REFUSED, memory_max),
    ("memory.peak", "most memory at once", NOT_TOLD, memory_peak),
    ("memory.peak begins anew when written", "the peak of a window", NOT_USED, peak_anew),
    ("memory.oom.group", "kill a pod whole", NOT_USED, oom_group),
    ("memory.reclaim", "take memory back before it runs short", NOT_USED, reclaim),
    ("io.max", "limits of disk bandwidth", REFUSED, io_max),
    ("io.stat", "disk bytes and operations", NOT_TOLD, io_stat),
    ("io.cost.qos (iocost)", "io.weight", REFUSED, io_cost),
    ("pids.max", "limit of processes", REFUSED, pids_max),
    ("pids.peak", "most processes at once", NOT_TOLD, pids_peak),
    (
        "pids.events counts where the limit is",
        "how many forks a virtual cluster was refused",
        "the same number while no cgroup below has a pids controller of its own; else it is absent",
        refused_forks,
    ),
    ("pressure (PSI) of a cgroup", "time lost waiting", NOT_TOLD, pressure),
    ("pressure trigger", "be told of pressure at once", NOT_USED, trigger),
    (
        "cgroup.kill",
        "end what a test or a demo left",
        "none: tests and demos fail, and say so",
        kill,
    ),
    ("cgroup.freeze", "pause a virtual cluster", NOT_USED, freeze),
    ("cgroup.max.descendants, .depth", "stop floods of cgroups", REFUSED, |scene| {
        write(scene, "cgroup.max.descendants", "max")
    }),
];

/// Without its controller a file says nothing of the kernel.
fn with(scene: &Scene, controller: &str, trial: impl FnOnce() -> Answer) -> Answer {
    scene.lacks(controller).unwrap_or_else(trial)
}

fn read(scene: &Scene, file: &str) -> Answer {
    fs::read_to_string(scene.inner().join(file)).into()
}

fn write(scene: &Scene, file: &str, text: &str) -> Answer {
    put(&scene.inner().join(file), text).into()
}

/// One write(2), to a file that must be there.
fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.write(text.as_bytes()).map(drop)
}

/// All are there.
fn all(answers: impl IntoIterator<Item = Answer>) -> Answer {
    answers.into_iter().find(|answer| *answer != Answer::Present).unwrap_or(Answer::Present)
}

fn cpu_max(scene: &Scene) -> Answer {
    let files = [("cpu.max", "max 100000"), ("cpu.weight", "100")];
    with(scene, "cpu", || all(files.map(|(file, text)| write(scene, file, text))))
}

fn burst(scene: &Scene) -> Answer {
    with(scene, "cpu", || write(scene, "cpu.max.burst", "0"))
}

fn cpu_stat(scene: &Scene) -> Answer {
    read(scene, "cpu.stat")
}

fn memory_max(scene: &Scene) -> Answer {
    let files =
        [("memory.max", "max"), ("memory.high", "max"), ("memory.low", "0"), ("memory.min", "0")];
    with(scene, "memory", || all(files.map(|(file, text)| write(scene, file, text))))
}

fn memory_peak(scene: &Scene) -> Answer {
    with(scene, "memory", || read(scene, "memory.peak"))
}

fn peak_anew(scene: &Scene) -> Answer {
    with(scene, "memory", || write(scene, "memory.peak", "reset"))
}

fn oom_group(scene: &Scene) -> Answer {
    with(scene, "memory", || write(scene, "memory.oom.group", "0"))
}

fn reclaim(scene: &Scene) -> Answer {
    with(scene, "memory", || match put(&scene.inner().join("memory.reclaim"), "4096") {
        // There is nothing to take back in an empty cgroup.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Answer::Present,
        done => done.into(),
    })
}

fn io_max(scene: &Scene) -> Answer {
    with(scene, "io", || match device() {
        None => Answer::Unseen("this machine has no disk".to_owned()),
        Some(device) => write(scene, "io.max", &format!("{device} rbps=max wbps=max")),
    })
}

/// The number of a disk.
fn device() -> Option<String> {
    let mut disks = fs::read_dir("/sys/block").ok()?;
    let number = |disk: io::Result<fs::DirEntry>| {
        let path = disk.ok()?.path();
        let real = path.join("queue/rotational").exists() && path.join("device").exists();
        real.then(|| fs::read_to_string(path.join("dev")).ok()).flatten()
    };
    disks.find_map(number).map(|text| text.trim().to_owned())
}

fn io_stat(scene: &Scene) -> Answer {
    with(scene, "io", || read(scene, "io.stat"))
}

fn io_cost(scene: &Scene) -> Answer {
    with(scene, "io", || fs::read_to_string(scene.mount().join("io.cost.qos")).into())
}

fn pids_max(scene: &Scene) -> Answer {
    with(scene, "pids", || write(scene, "pids.max", "max"))
}

fn pids_peak(scene: &Scene) -> Answer {
    with(scene, "pids", || read(scene, "pids.peak"))
}

/// With room for no process in the outer cgroup, a fork into the inner one is refused.
fn refused_forks(scene: &Scene) -> Answer {
    with(scene, "pids", || {
        let limit = scene.outer().join("pids.max");
        let forked = put(&limit, "0").map(|()| process::fork_into(scene));
        let told = fs::read_to_string(scene.outer().join("pids.events"));
        let lifted = put(&limit, "max");
        match (forked, lifted, told) {
            (Err(error), ..) | (_, Err(error), _) | (_, _, Err(error)) => error.into(),
            (Ok(Ok(())), ..) => Answer::Absent("pids.max does not hold".to_owned()),
            (_, _, Ok(told)) if told.lines().any(|line| line == "max 1") => Answer::Present,
            (_, _, Ok(told)) => {
                let said = told.lines().next().unwrap_or_default();
                Answer::Absent(format!("after a refused fork pids.events says {said:?}"))
            }
        }
    })
}

fn pressure(scene: &Scene) -> Answer {
    all(["cpu.pressure", "memory.pressure", "io.pressure"].map(|file| read(scene, file)))
}

fn trigger(scene: &Scene) -> Answer {
    write(scene, "cpu.pressure", "some 200000 2000000")
}

/// In a cgroup of its own: see the row about clone3 into a cgroup that was killed.
fn kill(scene: &Scene) -> Answer {
    scene.killed().map(drop).into()
}

fn freeze(scene: &Scene) -> Answer {
    write(scene, "cgroup.freeze", "0")
}
