//! Tasks.

use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use serde_json::{Value, json};

use crate::say;

/// How many tries after the first refusal: a bomb does not give up.
const MORE_TRIES: u64 = 20;

#[derive(clap::Args)]
pub(crate) struct Bomb {
    /// Never more children than this.
    #[arg(long)]
    at_most: u64,
    /// How long to keep trying after a first refusal.
    #[arg(long, default_value_t = 2000)]
    keep_trying_ms: u64,
}

/// Children that sit until their input is closed, which happens when their parent ends, however
/// it ends.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn bomb(args: &Bomb) -> Result<Value> {
    let program = env::current_exe().context("find own program")?;
    let mut sit = Command::new(program);
    sit.arg("sit").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut children = Children(Vec::new());
    let (mut forked, mut refused, mut errno) = (0_u64, 0_u64, None);
    let pause = Duration::from_millis(args.keep_trying_ms / MORE_TRIES);
    while forked < args.at_most && refused <= MORE_TRIES {
        match sit.spawn() {
            Ok(child) => {
                children.0.push(child);
                forked += 1;
            }
            Err(error) => {
                refused += 1;
                errno = error.raw_os_error().map(|raw| format!("{:?}", Errno::from_raw(raw)));
                thread::sleep(pause);
            }
        }
    }
    let result = json!({ "forked": forked, "refused": refused, "errno": errno });
    // While all of them still live.
    say(&json!({ "ready": result }));
    crate::wait_for_end_of_input();
    Ok(result)
}
