//! The custom resource definitions.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes one file for each kind into `out`.
pub(crate) fn generate(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    for (name, yaml) in bulkhead_api::crd::files().context("write CRDs as YAML")? {
        let path = out.join(name);
        fs::write(&path, yaml).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
