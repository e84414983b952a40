//! Disks that are full, and a ledger that cannot be written.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::history::{History, pass};
use super::kills::Daemon;
use crate::demo::wait;
use crate::demo::world::World;

/// The agent's disk.
const STATE_BYTES: u64 = 2 << 20;
/// The controller's disk.
const DATA_BYTES: u64 = 16 << 20;

/// How long a disk is full.
const FULL_FOR: Duration = Duration::from_secs(3);

/// Puts both on small disks of their own.
pub(crate) fn small_disks(world: &mut World) -> Result<()> {
    for (dir, bytes) in [(world.agent_state(), STATE_BYTES), (world.controller_data(), DATA_BYTES)]
    {
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let size = format!("size={bytes},mode=700");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .with_context(|| format!("mount a small disk at {}", dir.display()))?;
    }
    Ok(())
}

/// Everything that a disk has room for; gone when this is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(dir: &Path) -> Result<(Self, u64)> {
        let filler = Self(dir.join("filler"));
        let mut file = File::create(&filler.0).context("begin to fill a disk")?;
        let mut written = 0;
        // In small pieces at the end, so that nothing is left.
        for piece in [64 << 10, 4 << 10, 512] {
            loop {
                match file.write(&vec![0x55; piece]) {
                    Ok(bytes) => written += bytes as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("fill a disk"),
                }
            }
        }
        ensure!(written > 0, "there was no room to take");
        Ok((filler, written))
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Fills the agent's disk, then the controller's; each is killed once with its disk full.
pub(crate) fn full(history: &mut History) -> Result<()> {
    pass(Duration::from_secs(1));
    let (filler, bytes) = Filler::fill(&history.world.agent_state())?;
    history.change_objects()?;
    let told = wait::until("the operator is told of the full disk", FULL_FOR * 4, |note| {
        let node = history.world.operator.node()?.context("the node is known")?;
        *note = format!("{:?}", node.reasons);
        let ours = node.reasons.iter().find(|reason| reason.subject == "journal");
        Ok(ours.map(|reason| reason.message.clone()))
    })?;
    history.findings.see(true, format!("agent's disk full ({bytes} bytes): \"{told}\""));
    history.kill(Daemon::Agent)?;
    history.start(Daemon::Agent)?;
    history.change_objects()?;
    pass(FULL_FOR);
    history.check()?;
    drop(filler);
    pass(Duration::from_secs(1));

    let (filler, bytes) = Filler::fill(&history.world.controller_data())?;
    pass(FULL_FOR);
    history.check()?;
    history.kill(Daemon::Controller)?;
    history.start(Daemon::Controller)?;
    pass(FULL_FOR);
    let ended = history.ended(Daemon::Controller)?;
    drop(filler);
    // It may end, to be started again; then it has to say why.
    let says_why = ended.as_ref().is_none_or(|words| words.contains("no room"));
    let told = ended.map_or_else(|| "goes on".to_owned(), |words| format!("ends: {words}"));
    history
        .findings
        .see(says_why, format!("controller's disk full ({bytes} bytes), started anew it {told}"));
    Ok(())
}

/// Makes the ledger's directory read-only while the controller is dead: started, it must end and
/// say why.
pub(crate) fn read_only(history: &mut History) -> Result<()> {
    history.kill(Daemon::Controller)?;
    let data = history.world.controller_data();
    let none = None::<&str>;
    mount(Some(&data), &data, none, MsFlags::MS_BIND, none).context("bind the data directory")?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &data, none, flags, none).context("make it read-only")?;
    ensure!(File::create(data.join("probe")).is_err(), "it can be written all the same");
    history.start(Daemon::Controller)?;
    pass(Duration::from_secs(2));
    let words = history.ended(Daemon::Controller)?;
    let words = words.unwrap_or_else(|| "it goes on".to_owned());
    history.findings.see(
        words.contains("Read-only") || words.contains("readonly"),
        format!("with a read-only ledger the controller ends: {words}"),
    );
    umount2(&data, MntFlags::MNT_DETACH).context("make it writable again")?;
    Ok(())
}
