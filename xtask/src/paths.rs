//! Where things are: the work tree, its target directory, the cache outside the tree.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the work tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The directory that cargo builds into.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What is costly to get and may be thrown away: `$BULKHEAD_CACHE`, else `~/.cache/bulkhead`.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("BULKHEAD_CACHE") {
        return std::path::absolute(&dir)
            .with_context(|| format!("BULKHEAD_CACHE={} is not a path", dir.display()));
    }
    let home = env::var_os("HOME")
        .context("neither BULKHEAD_CACHE nor HOME is set: name a cache directory with one")?;
    Ok(PathBuf::from(home).join(".cache/bulkhead"))
}

/// Tools that `cargo xtask setup` builds or unpacks for this project alone.
pub(crate) fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}
