//! `cargo xtask codegen`: the gRPC code and the CRDs, from the contract and the Rust types.
//!
//! The generator is a crate of its own (`bulkhead-codegen`), so that the other verbs need not
//! wait for what it is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;
use crate::kernels;
use crate::paths;

/// Directories of the work tree that hold nothing but generated files.
const GENERATED: [&str; 3] = ["deploy/crds", "deploy/helm/bulkhead/crds", "proto/src/generated"];

/// A generated file among others.
const PAGE: &str = "docs/kernels.md";

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell whether the committed files are current.
    #[arg(long)]
    pub(crate) check: bool,
    /// First ask these kernels what they can do, and write down what they answer.
    #[arg(long, value_enum, value_name = "KERNEL", conflicts_with = "check")]
    pub(crate) probe: Vec<kernels::Place>,
}

impl Args {
    /// Only tell.
    pub(crate) const CHECK: Self = Self { check: true, probe: Vec::new() };
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    let made = paths::target().join("codegen");
    if made.exists() {
        fs::remove_dir_all(&made).with_context(|| format!("empty {}", made.display()))?;
    }
    Cmd::new(env!("CARGO"), "generate code and CRDs")
        .args(["run", "--quiet", "--package", "bulkhead-codegen", "--"])
        .arg(paths::root())
        .arg(&made)
        .step("generate code and CRDs")?;
    if !args.probe.is_empty() {
        kernels::renew(&args.probe)?;
    }
    write_page(&made.join(PAGE))?;
    let stale = differences(paths::root(), &made)?;
    if args.check {
        if stale.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = stale.iter().map(|file| file.display().to_string()).collect();
        bail!("not current: {}; run `cargo xtask codegen` and commit", names.join(", "));
    }
    for file in &stale {
        update(&paths::root().join(file), &made.join(file))?;
        eprintln!("  wrote {}", file.display());
    }
    Ok(())
}

/// The page about kernels, from what they have answered.
fn write_page(to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let page = kernels::render(&kernels::committed()?);
    fs::write(to, page).with_context(|| format!("write {}", to.display()))
}

/// Generated files, relative to the root, that are missing, other, or no longer generated.
fn differences(tree: &Path, made: &Path) -> Result<Vec<PathBuf>> {
    let mut files = BTreeSet::from([PathBuf::from(PAGE)]);
    for dir in GENERATED {
        for root in [tree, made] {
            files.extend(names(&root.join(dir))?.into_iter().map(|name| Path::new(dir).join(name)));
        }
    }
    let mut stale = Vec::new();
    for file in files {
        if content(&tree.join(&file))? != content(&made.join(&file))? {
            stale.push(file);
        }
    }
    Ok(stale)
}

/// Names of the files in a directory; none where there is no directory.
fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    listed
        .map(|entry| Ok(PathBuf::from(entry?.file_name())))
        .collect::<Result<_>>()
        .with_context(|| format!("list {}", dir.display()))
}

/// What a file holds; `None` where there is none.
fn content(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    fs::read(path).map(Some).with_context(|| format!("read {}", path.display()))
}

/// Brings one file of the tree to what was made; it goes away where nothing was.
fn update(committed: &Path, made: &Path) -> Result<()> {
    match content(made)? {
        None => fs::remove_file(committed),
        Some(bytes) => {
            if let Some(dir) = committed.parent() {
                fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
            }
            fs::write(committed, bytes)
        }
    }
    .with_context(|| format!("update {}", committed.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_missing_and_a_left_over_file_are_named_and_mended() {
        let tree = tempfile::tempdir().expect("a directory");
        let made = tempfile::tempdir().expect("a directory");
        let crds = |root: &Path, name: &str| root.join("deploy/crds").join(name);
        for root in [tree.path(), made.path()] {
            fs::create_dir_all(root.join("deploy/crds")).expect("a directory");
            fs::write(crds(root, "same.yaml"), "same").expect("a file");
        }
        fs::write(crds(tree.path(), "changed.yaml"), "old").expect("a file");
        fs::write(crds(made.path(), "changed.yaml"), "new").expect("a file");
        fs::write(crds(made.path(), "missing.yaml"), "new").expect("a file");
        fs::write(crds(tree.path(), "left-over.yaml"), "old").expect("a file");

        let stale = differences(tree.path(), made.path()).expect("comparable");
        let names: Vec<_> = stale.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!(names, ["changed.yaml", "left-over.yaml", "missing.yaml"]);
        for file in &stale {
            update(&tree.path().join(file), &made.path().join(file)).expect("writable");
        }
        let stale = differences(tree.path(), made.path()).expect("comparable");
        assert_eq!(stale, Vec::<PathBuf>::new());
        assert!(!crds(tree.path(), "left-over.yaml").exists());
    }
}
