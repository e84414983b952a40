//! One run at a time: two would take each other's payloads, logs and results away.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

/// Takes a directory for this process, for as long as the value lives; an error if another one
/// has it.
pub(crate) fn alone(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    lock.try_lock().with_context(|| {
        format!("another run of this verb uses {}; wait until it has ended", dir.display())
    })?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_to_wait_and_the_next_need_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("new");
        let first = alone(&dir).expect("nobody else is there");
        let error = alone(&dir).expect_err("the first is there").to_string();
        assert!(error.contains("wait until it has ended"), "{error}");
        drop(first);
        assert!(alone(&dir).is_ok());
    }
}
