//! What a target found, so that a person can see it again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::quoted;

/// Longest input that is shown whole.
const SHOWN_BYTES: usize = 2048;
/// Lines of what the target said.
const SAID_LINES: usize = 6;

/// The files of a directory.
pub(super) fn files(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// What was said, and the commands that show it again, here and elsewhere.
pub(super) fn told(target: &str, input: Option<&Path>, log: &str, ended: &str) -> String {
    let mut text = format!("fuzz target {target}: {}", said(log).unwrap_or_else(|| ended.into()));
    let Some(input) = input else {
        return text;
    };
    let path = quoted(&input.to_string_lossy());
    let _ = write!(text, "\n    again: cargo xtask fuzz {target} --input {path}");
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let keep = quoted(&format!("tests/fuzz/regressions/{target}/{name}"));
    let _ = write!(text, "\n    once it is mended, keep it: cp {path} {keep}");
    match fs::read(input) {
        Ok(bytes) if bytes.len() <= SHOWN_BYTES => {
            let _ = write!(text, "\n    elsewhere: printf '{}' > input", printf(&bytes));
        }
        _ => {}
    }
    text
}

/// The panic, or what libFuzzer says of it.
fn said(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let begins = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let at = lines.iter().position(begins)?;
    let end =
        lines[at..].iter().position(|line| line.starts_with("==") || line.starts_with("note:"));
    let end = at + end.filter(|end| *end > 0).unwrap_or(1).min(SAID_LINES);
    Some(lines[at..end].join("\n    "))
}

/// A format of printf(1) that gives these bytes.
fn printf(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'.' | b':' | b'/' | b'{' | b'}' => {
                text.push(char::from(*byte));
            }
            byte => drop(write!(text, "\\{byte:03o}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Cmd;

    #[test]
    fn an_input_is_told_so_that_a_shell_makes_it_again() {
        let bytes: Vec<u8> = (1..=127).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let script = format!("printf '{}' > input", printf(&bytes));
        Cmd::new("sh", "make it").args(["-c", &script]).dir(dir.path()).read().expect("sh runs");
        assert_eq!(fs::read(dir.path().join("input")).expect("it was made"), bytes);
    }

    #[test]
    fn the_panic_is_what_is_told() {
        let log = "INFO: Seed: 1\nthread '<unnamed>' (7) panicked at src/a.rs:1:2:\nleft: 1\n\
                   note: run with RUST_BACKTRACE\n==7== ERROR: libFuzzer: deadly signal\n";
        let text = told("config", Some(Path::new("/x/crash-1")), log, "ended");
        assert!(text.starts_with("fuzz target config: thread"), "{text}");
        assert!(text.contains("left: 1\n    again: cargo xtask fuzz config --input /x/crash-1"));
        assert!(!text.contains("note:"), "{text}");
        let log = "==7== ERROR: libFuzzer: out-of-memory (used: 600Mb; limit: 512Mb)\nmore\n";
        let text = told("config", None, log, "ended");
        assert!(text.ends_with("out-of-memory (used: 600Mb; limit: 512Mb)"), "{text}");
        assert!(told("config", None, "", "it was ended").ends_with("it was ended"));
    }
}
