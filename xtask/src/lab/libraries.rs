//! Shared libraries that programs of this machine need on a node that has none.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::Cmd;

/// Files of a node, by their paths without the leading slash.
pub(crate) type Files = BTreeMap<PathBuf, PathBuf>;

/// What the programs in `payload` and `more` are linked with, at the places where they are here.
pub(crate) fn of(payload: &Path, more: &Path) -> Result<Files> {
    let mut programs = Files::new();
    tree(payload, Path::new(""), &mut programs)?;
    let mut libraries = Files::new();
    for program in programs.values().map(PathBuf::as_path).chain([more]) {
        if !is_elf(program)? {
            continue;
        }
        // A static one, or one for another kind of machine, is an error to ldd.
        let Ok(said) = Cmd::new("ldd", "see which libraries a program needs").arg(program).read()
        else {
            continue;
        };
        for library in linked(&said).with_context(|| format!("for {}", program.display()))? {
            libraries.insert(library.strip_prefix("/")?.to_owned(), library);
        }
    }
    Ok(libraries)
}

/// Every file below `dir`, to be at the same place below `at`.
pub(super) fn tree(dir: &Path, at: &Path, files: &mut Files) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let (path, at) = (entry.path(), at.join(entry.file_name()));
        if path.is_dir() {
            tree(&path, &at, files)?;
        } else {
            files.insert(at, path);
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut head))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(head == b"\x7fELF")
}

/// Paths in what ldd prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
fn linked(said: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in said.lines() {
        if line.contains("not found") {
            bail!("ldd says {:?}", line.trim());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        paths.extend(path.map(PathBuf::from));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_a_missing_one_is_an_error() {
        let said = "\tlinux-vdso.so.1 (0x00007f69)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f6949)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f694b48c000)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(linked(said).expect("all are there"), paths.map(PathBuf::from));
        assert!(linked("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn a_program_of_this_machine_brings_its_loader() {
        let nothing = tempfile::tempdir().expect("a directory");
        let own = std::env::current_exe().expect("has a path");
        let files = of(nothing.path(), &own).expect("ldd works");
        assert!(files.keys().any(|path| path.to_string_lossy().contains("libc.so")), "{files:?}");
    }
}
