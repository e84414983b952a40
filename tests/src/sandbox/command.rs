//! Running `ip`, loudly.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `ip` with the words of a line.
pub(super) fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `ip {line}` (Debian: iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("`ip {line}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}
