//! What cargo has built, by what it says itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::Cmd;
use crate::test::stage::{self, Output};

/// Executables, by the names of their targets.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Artifacts {
    /// Programs.
    pub(crate) programs: BTreeMap<String, PathBuf>,
    /// Integration tests of the package bulkhead-tests that need a real kernel, by their names.
    pub(crate) kernel_tests: BTreeMap<String, PathBuf>,
}

/// When building is given up: everything, from nothing, on two cores takes a third of that.
const BUILD_TIMEOUT: Duration = Duration::from_mins(25);

/// Runs `cargo build` with these arguments.
pub(crate) fn build(what: &str, arguments: &[&str], log: &Path) -> Result<Artifacts> {
    let messages = log.with_extension("json");
    let cargo = Cmd::new("cargo", "build what runs").arg("build").args(arguments).args([
        "--locked",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = Output { stdout: &messages, stderr: log };
    stage::run(what, cargo, BUILD_TIMEOUT, output)?.success()?;
    let text = std::fs::read_to_string(&messages).context("read what cargo says it has built")?;
    Ok(parse(&text))
}

/// Takes the executables out of cargo's messages, one JSON object a line.
fn parse(messages: &str) -> Artifacts {
    let mut artifacts = Artifacts::default();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        let Some(name) = message["target"]["name"].as_str() else {
            continue;
        };
        let is_kind = |wanted: &str| {
            let kinds = message["target"]["kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == wanted))
        };
        let tests = message["profile"]["test"] == true;
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        if is_kind("bin") && !tests {
            artifacts.programs.insert(name.to_owned(), executable.into());
        } else if is_kind("test")
            && tests
            && name.starts_with("kernel_")
            && manifest.ends_with("/tests/Cargo.toml")
        {
            artifacts.kernel_tests.insert(name.to_owned(), executable.into());
        }
    }
    artifacts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_integration_tests_are_told_apart() {
        let line = |kind: &str, name: &str, test: bool, executable: &str| {
            let dir = if name == "kernel_bpf" { "tests" } else { "cli" };
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},
                "manifest_path":"/w/{dir}/Cargo.toml",
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
            .replace('\n', "")
        };
        let messages = [
            line("bin", "agent", false, "\"/t/agent\""),
            line("bin", "agent", true, "\"/t/deps/agent-1\""),
            line("test", "kernel_bpf", true, "\"/t/deps/kernel-2\""),
            line("test", "plain", true, "\"/t/deps/plain-4\""),
            line("lib", "core", true, "\"/t/deps/core-3\""),
            line("lib", "core", false, "null"),
            "not JSON".to_owned(),
        ];
        let artifacts = parse(&messages.join("\n"));
        assert_eq!(artifacts.programs, BTreeMap::from([("agent".into(), "/t/agent".into())]));
        let tests = BTreeMap::from([("kernel_bpf".into(), "/t/deps/kernel-2".into())]);
        assert_eq!(artifacts.kernel_tests, tests);
    }
}
