//! One virtual machine: a QEMU process that never outlives the run it was started for.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::disk;
use super::image::Image;
use super::initramfs;
use crate::command::{Cmd, find};

/// Without hardware support: what QEMU's own translation gets right and is quick at.
pub(super) const CPU: &str = "Haswell-v4,-pcid,-x2apic,-tsc-deadline,-invpcid,-spec-ctrl";

/// A panic or an oops ends the guest at once (`panic=-1` with `-no-reboot`). Emulation is too slow
/// for the kernel's watchdogs, and switching page tables at every system call (what `mitigations`
/// does for processors of that age) makes it several times slower.
pub(super) const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic \
     reboot=t nowatchdog mitigations=off audit=0 rcupdate.rcu_cpu_stall_suppress=1 \
     lsm=landlock,lockdown,yama,apparmor,bpf systemd.show_status=no TERM=dumb";

/// Size of the results disk and of the scratch disk, in bytes; both are sparse.
const RESULTS_BYTES: u64 = 512 << 20;
const SCRATCH_BYTES: u64 = 1 << 30;

/// The files of one run; removed with it.
pub(super) struct RunDir {
    path: PathBuf,
    /// Held for as long as the run lives, so that another can tell what a dead one left.
    _lock: File,
}

impl RunDir {
    /// A new directory, after removing those of runs that were killed.
    pub(super) fn create(lab: &Path) -> Result<Self> {
        let _turn = super::turn(lab)?;
        sweep(lab);
        let path = lab.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let lock = File::create(path.join("lock")).context("create the run's lock file")?;
        lock.try_lock().with_context(|| format!("another run uses {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// What the guest's kernel and systemd print.
    pub(super) fn console(&self) -> String {
        let bytes = fs::read(self.path.join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// What the guest says about the run: one line when it begins, one when it ends.
    pub(super) fn control(&self) -> String {
        fs::read_to_string(self.path.join("control")).unwrap_or_default()
    }

    /// Copies what the guest left in its results directory.
    pub(super) fn read_results(&self, to: &Path) -> Result<()> {
        disk::read_back(&self.path.join("results.img"), to)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Sparse scratch files; the next run sweeps what could not be removed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of runs whose process is gone.
fn sweep(lab: &Path) {
    let Ok(entries) = fs::read_dir(lab) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_run =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-"));
        let unused = || File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_run && unused() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// A running QEMU; ended when this is dropped, and by the kernel when xtask dies.
pub(super) struct Machine {
    child: Child,
    began: Instant,
    copies: Vec<JoinHandle<()>>,
}

impl Machine {
    /// Makes the run's disks and starts the guest.
    ///
    /// QEMU is killed when the calling thread ends, so that thread must live as long as the run.
    pub(super) fn start(
        image: &Image,
        run: &RunDir,
        payload: &Path,
        command: &[String],
        memory_mib: u32,
    ) -> Result<Self> {
        initramfs::write(image, command, payload, &run.path.join("initrd"))?;
        disk::from_directory(&run.path.join("payload.img"), payload)?;
        disk::empty(&run.path.join("results.img"), RESULTS_BYTES)?;
        disk::empty(&run.path.join("scratch.img"), SCRATCH_BYTES)?;
        let began = Instant::now();
        let mut child = qemu(image, memory_mib)?
            .current_dir(&run.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start qemu-system-x86_64 through setpriv")?;
        let copies = [
            child.stdout.take().map(|pipe| thread::spawn(|| copy(pipe, std::io::stdout()))),
            child.stderr.take().map(|pipe| thread::spawn(|| copy(pipe, std::io::stderr()))),
        ];
        Ok(Self { child, began, copies: copies.into_iter().flatten().collect() })
    }

    /// How long it has run.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Its status, if it has ended; then everything that it printed has been shown.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().context("wait for QEMU")?;
        if status.is_some() {
            for copy in self.copies.drain(..) {
                let _ = copy.join();
            }
        }
        Ok(status)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what the guest prints as it comes; keeps reading when nobody wants it any more,
/// since a full pipe would stop the guest.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 << 10];
    let mut wanted = true;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wanted = wanted && to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok();
    }
}

/// QEMU with the run's disks, no network, and three ports for output.
fn qemu(image: &Image, memory_mib: u32) -> Result<Command> {
    let program = find("qemu-system-x86_64")
        .context("qemu-system-x86_64 is missing; `cargo xtask setup lab` gets it")?;
    let mut qemu = Cmd::tool("setpriv", "end QEMU when xtask dies")?.into_command();
    qemu.args(["--pdeathsig", "KILL", "--"]).arg(program);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"]);
    qemu.arg("-m").arg(memory_mib.to_string());
    qemu.arg("-kernel").arg(image.kernel()).args(["-initrd", "initrd"]);
    qemu.arg("-append").arg(format!("{KERNEL_COMMAND_LINE} systemd.unit=lab.target"));
    qemu.args(["-serial", "file:console.log"]);
    qemu.args(["-device", "virtio-serial-pci"]);
    for (name, path) in
        [("stdout", "/dev/stdout"), ("stderr", "/dev/stderr"), ("control", "control")]
    {
        qemu.arg("-chardev").arg(format!("file,id={name},path={path},append=on"));
        qemu.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
    }
    if let Some(disk) = image.disk() {
        disk_drive(&mut qemu, "root", &disk, "snapshot=on");
    }
    disk_drive(&mut qemu, "payload", Path::new("payload.img"), "readonly=on");
    disk_drive(&mut qemu, "results", Path::new("results.img"), "cache=unsafe");
    disk_drive(&mut qemu, "scratch", Path::new("scratch.img"), "cache=unsafe");
    Ok(qemu)
}

/// Adds a disk that the guest knows by its serial number, `name`.
pub(super) fn disk_drive(qemu: &mut Command, name: &str, file: &Path, option: &str) {
    // QEMU reads a doubled comma as one.
    let file = file.to_string_lossy().replace(',', ",,");
    qemu.arg("-drive").arg(format!("file={file},format=raw,if=none,id={name},{option}"));
    qemu.arg("-device").arg(format!("virtio-blk-pci,drive={name},serial={name}"));
}
