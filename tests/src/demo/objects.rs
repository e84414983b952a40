//! The objects as files of the controller's `--config` directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Every file, as it is at the beginning.
const FILES: [(&str, &str); 4] = [
    ("bulkhead", include_str!("objects/config.yaml")),
    ("prod", include_str!("objects/prod.yaml")),
    ("dev", include_str!("objects/dev.yaml")),
    ("batch", include_str!("objects/batch.yaml")),
];

/// The directory.
#[derive(Debug)]
pub(crate) struct Objects(PathBuf);

impl Objects {
    /// Writes every file.
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let objects = Self(dir);
        FILES.iter().try_for_each(|(name, text)| objects.write(name, text))?;
        Ok(objects)
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// Writes one object with a piece of the original text replaced, as an editor does.
    pub(crate) fn edit(&self, name: &str, old: &str, new: &str) -> Result<()> {
        self.write(name, &edited(name, old, new)?)
    }

    /// Writes one object as it was at the beginning.
    pub(crate) fn restore(&self, name: &str) -> Result<()> {
        self.write(name, original(name)?)
    }

    /// Writes an object of any text.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<()> {
        self.write(name, text)
    }

    /// Takes an object away; one that is not there is away.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(format!("{name}.yaml"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whole or not at all: beside it first, then in its place.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(format!("{name}.yaml"));
        let beside = self.0.join(format!(".{name}.new"));
        fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
        fs::rename(&beside, &path).with_context(|| format!("replace {}", path.display()))
    }
}

fn original(name: &str) -> Result<&'static str> {
    let file = FILES.iter().find(|(found, _)| *found == name);
    Ok(file.with_context(|| format!("no object \"{name}\""))?.1)
}

fn edited(name: &str, old: &str, new: &str) -> Result<String> {
    let text = original(name)?;
    ensure!(text.matches(old).count() == 1, "\"{old}\" is not once in object \"{name}\"");
    Ok(text.replace(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_replaces_exactly_one_place() {
        let open = edited("dev", "mode: Enforce", "mode: Observe").expect("is there once");
        assert!(open.contains("mode: Observe") && !open.contains("Enforce"), "{open}");
        assert!(edited("dev", "no such text", "").is_err());
        assert!(edited("dev", "dev", "").is_err());
        assert!(edited("nobody", "a", "b").is_err());
    }
}
