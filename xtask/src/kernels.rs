//! What each kernel can do, as the agent's probe found it: committed below docs/kernels, shown in
//! docs/kernels.md, and compared with what the kernels of a test run answer.

mod page;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::command::Cmd;
use crate::demo::{artifacts, programs};
use crate::lab::{self, Guest, LabRun};
use crate::paths;
pub(crate) use page::render;

/// Where the answers are.
const DIRECTORY: &str = "docs/kernels";
/// How the agent is asked.
pub(crate) const ASK: [&str; 3] = ["probe", "--json", "--features"];
/// Who is asked.
pub(crate) const AGENT: &str = "bulkhead-agent";
/// Booting a node and asking.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A place where a kernel can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Place {
    /// This machine.
    Host,
    /// The lab's node with kernel 6.1.
    #[value(name = "6.1")]
    Oldest,
    /// The lab's node with kernel 6.12.
    #[value(name = "6.12")]
    Usual,
    /// The lab's node with kernel 7.
    #[value(name = "7")]
    Newest,
}

impl Place {
    fn guest(self) -> Option<Guest> {
        match self {
            Self::Host => None,
            Self::Oldest => Some(Guest::Oldest),
            Self::Usual => Some(Guest::Usual),
            Self::Newest => Some(Guest::Newest),
        }
    }
}

/// What one kernel answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answers {
    /// "6.12"
    pub(crate) kernel: String,
    /// As `uname -r` gave it.
    pub(crate) release: String,
    /// What kind of machine it was.
    pub(crate) machine: String,
    /// One for each feature.
    pub(crate) features: Vec<Feature>,
}

/// A feature, what we do with it, and the kernel's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Feature {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) used: String,
    pub(crate) fallback: String,
    /// "present", "absent" or "unseen"
    pub(crate) answer: String,
    pub(crate) why: Option<String>,
}

impl Feature {
    /// "present", or "absent (EINVAL)"
    fn told(&self) -> String {
        let why = self.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{}{why}", self.answer)
    }
}

impl Answers {
    /// Takes them out of what the agent's probe prints.
    pub(crate) fn of_probe(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the probe's answer is no JSON")?;
        let release = word(&value, "kernel_release")?;
        let systemd = if value["systemd"] == true { "systemd" } else { "no systemd" };
        let v1 = value["controllers_bound_to_v1"].as_array().is_some_and(|list| !list.is_empty());
        let cgroups = if v1 { "cgroup v1 holds the controllers" } else { "unified cgroup v2" };
        Ok(Self {
            kernel: major_minor(&release)?,
            machine: format!("{systemd}, {cgroups}"),
            features: features(&value)?,
            release,
        })
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is no JSON")?;
        Ok(Self {
            kernel: word(&value, "kernel")?,
            release: word(&value, "release")?,
            machine: word(&value, "machine")?,
            features: features(&value)?,
        })
    }

    fn text(&self) -> Result<String> {
        let features: Vec<Value> = self.features.iter().map(json_of).collect();
        let Self { kernel, release, machine, .. } = self;
        let value = json!({
            "kernel": kernel, "release": release, "machine": machine, "features": features,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// With a release of numbers only.
    fn without_suffix(mut self) -> Self {
        let end = self.release.find(|c: char| !c.is_ascii_digit() && c != '.');
        self.release.truncate(end.unwrap_or(self.release.len()));
        self
    }

    fn find(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }
}

fn json_of(feature: &Feature) -> Value {
    let Feature { group, name, used, fallback, answer, why } = feature;
    json!({
        "group": group, "name": name, "used": used, "fallback": fallback, "answer": answer,
        "why": why,
    })
}

fn features(value: &Value) -> Result<Vec<Feature>> {
    let list = value["features"].as_array().context("it has no list of features")?;
    ensure!(!list.is_empty(), "its list of features is empty");
    let feature = |one: &Value| {
        Ok(Feature {
            group: word(one, "group")?,
            name: word(one, "name")?,
            used: word(one, "used")?,
            fallback: word(one, "fallback")?,
            answer: word(one, "answer")?,
            why: one["why"].as_str().map(str::to_owned),
        })
    };
    list.iter().map(feature).collect()
}

fn word(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("it has no {key}"))
}

/// "6.12" of "6.12.73+deb13-cloud-amd64"
fn major_minor(release: &str) -> Result<String> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if !major.is_empty() && !minor.is_empty() => {
            Ok(format!("{major}.{minor}"))
        }
        _ => bail!("{release:?} is no kernel release"),
    }
}

/// How the answers of a kernel are called: the lab's newest rolls on.
fn file_name(answers: &Answers) -> String {
    match answers.kernel.split_once('.') {
        Some(("7", _)) => "7.json".to_owned(),
        _ => format!("{}.json", answers.kernel),
    }
}

fn directory() -> PathBuf {
    paths::root().join(DIRECTORY)
}

/// All committed answers, the oldest kernel first.
pub(crate) fn committed() -> Result<Vec<Answers>> {
    let dir = directory();
    let mut all = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            all.push(read(&path)?);
        }
    }
    let number = |part: &str| part.parse::<u32>().unwrap_or_default();
    all.sort_by_key(|answers| answers.kernel.split('.').map(number).collect::<Vec<_>>());
    Ok(all)
}

fn read(path: &Path) -> Result<Answers> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Answers::parse(&text).with_context(|| format!("in {}", path.display()))
}

/// What a kernel answers otherwise than is committed; `None`: nothing is committed for such a
/// kernel, or, outside the lab, not on a machine that is set up as this one.
pub(crate) fn compare(seen: &Answers, is_lab: bool) -> Result<Option<Vec<String>>> {
    let path = directory().join(file_name(seen));
    if !path.exists() {
        return Ok(None);
    }
    let committed = read(&path)?;
    if !is_lab && committed.machine != seen.machine {
        return Ok(None);
    }
    Ok(Some(differences(&committed, seen, is_lab)))
}

/// A machine of our own making must answer as it did; on another one a feature that could not be
/// tried, there or here, is no difference.
fn differences(committed: &Answers, seen: &Answers, is_lab: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for new in &seen.features {
        let told = match committed.find(&new.name) {
            None => "not asked".to_owned(),
            Some(old) if old == new => continue,
            Some(old) if !is_lab && [&old.answer, &new.answer].iter().any(|a| *a == "unseen") => {
                continue;
            }
            Some(old) if old.told() == new.told() => "described in other words".to_owned(),
            Some(old) => old.told(),
        };
        problems.push(format!("{}: {}, and was {told}", new.name, new.told()));
    }
    let gone = committed.features.iter().filter(|old| seen.find(&old.name).is_none());
    problems.extend(gone.map(|old| format!("{}: is not asked any more", old.name)));
    if problems.is_empty() {
        return problems;
    }
    let renew = if is_lab { file_name(seen).replace(".json", "") } else { "host".to_owned() };
    let mut text = format!(
        "kernel {} answers otherwise than docs/kernels says (`cargo xtask codegen --probe {renew}` \
         renews it):",
        seen.release
    );
    for problem in problems {
        let _ = write!(text, "\n    {problem}");
    }
    vec![text]
}

/// Asks kernels, and writes down what they answer.
pub(crate) fn renew(places: &[Place]) -> Result<()> {
    let logs = paths::target().join("kernels");
    let arguments = ["--bins", "--package", AGENT];
    let built = artifacts::build("Building the agent", &arguments, &logs.join("build.log"))?;
    let payload = logs.join("payload");
    fs::create_dir_all(&payload).with_context(|| format!("create {}", payload.display()))?;
    let agent = payload.join(AGENT);
    programs::install(built.programs.get(AGENT).context("cargo has built no agent")?, &agent)?;
    for place in places {
        let answers = match place.guest() {
            // What a machine calls its own kernel tells nobody anything.
            None => ask_here(&agent).map(Answers::without_suffix)?,
            Some(guest) => ask_guest(guest, &payload, &logs.join(format!("{guest}")))?,
        };
        let path = directory().join(file_name(&answers));
        fs::create_dir_all(directory()).with_context(|| format!("create {DIRECTORY}"))?;
        fs::write(&path, answers.text()?).with_context(|| format!("write {}", path.display()))?;
        eprintln!("  wrote {}", path.display());
    }
    Ok(())
}

/// Asks the kernel of this machine.
pub(crate) fn ask_here(agent: &Path) -> Result<Answers> {
    let agent = agent.to_str().context("the target directory's path is not UTF-8")?;
    let said = Cmd::privileged(agent, "find out what this kernel can do")?.args(ASK).read()?;
    Answers::of_probe(&said)
}

fn ask_guest(guest: Guest, payload: &Path, results: &Path) -> Result<Answers> {
    if results.exists() {
        fs::remove_dir_all(results).context("clear the results of the last run")?;
    }
    let script = format!("./{AGENT} {} >/results/features.json", ASK.join(" "));
    let outcome = lab::boot_and_run(&LabRun {
        guest,
        payload,
        command: &["sh".to_owned(), "-c".to_owned(), script],
        results,
        timeout: TIMEOUT,
        memory_mib: LabRun::MEMORY_MIB,
    })?;
    ensure!(outcome.exit_code == 0, "the probe ended with status {}", outcome.exit_code);
    let text = fs::read_to_string(results.join("features.json")).context("read its answer")?;
    Answers::of_probe(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn answers(kernel: &str, features: &[(&str, &str, Option<&str>)]) -> Answers {
        let feature = |(name, answer, why): &(&str, &str, Option<&str>)| Feature {
            group: "eBPF".to_owned(),
            name: (*name).to_owned(),
            used: "use".to_owned(),
            fallback: "other way".to_owned(),
            answer: (*answer).to_owned(),
            why: why.map(str::to_owned),
        };
        Answers {
            kernel: kernel.to_owned(),
            release: format!("{kernel}.7-x"),
            machine: "no systemd".to_owned(),
            features: features.iter().map(feature).collect(),
        }
    }

    #[test]
    fn answers_survive_their_file() {
        let old = answers("6.1", &[("a", "present", None), ("b", "absent", Some("EINVAL"))]);
        assert_eq!(Answers::parse(&old.text().expect("is JSON")).expect("is whole"), old);
    }

    #[test]
    fn the_probes_words_become_answers() {
        let feature = json!({
            "group": "g", "name": "n", "used": "u", "fallback": "f", "answer": "present",
            "why": null,
        });
        let said = json!({
            "kernel_release": "6.12.73+deb13-cloud-amd64", "systemd": true,
            "controllers_bound_to_v1": [], "features": [feature],
        });
        let answers = Answers::of_probe(&said.to_string()).expect("is whole");
        assert_eq!(answers.kernel, "6.12");
        assert_eq!(answers.machine, "systemd, unified cgroup v2");
        assert!(Answers::of_probe("{}").is_err());
        assert!(major_minor("six").is_err());
    }

    #[test]
    fn what_a_kernel_answers_otherwise_is_named_with_the_mend() {
        let old = answers("6.1", &[("a", "present", None), ("b", "unseen", Some("x"))]);
        let same_but_for_the_patch = Answers { release: "6.1.99".to_owned(), ..old.clone() };
        assert_eq!(differences(&old, &same_but_for_the_patch, true), Vec::<String>::new());
        let new = answers("6.1", &[("a", "absent", Some("EINVAL")), ("b", "present", None)]);
        let lab = differences(&old, &new, true).join("");
        assert!(lab.contains("a: absent (EINVAL), and was present"), "{lab}");
        assert!(lab.contains("b: present, and was unseen (x)"), "{lab}");
        assert!(lab.contains("codegen --probe 6.1"), "{lab}");
        let host = differences(&old, &new, false).join("");
        assert!(!host.contains("b: "), "{host}");
        let fewer = answers("6.1", &[("a", "present", None)]);
        assert!(differences(&old, &fewer, true)[0].contains("b: is not asked any more"));
        assert!(differences(&fewer, &old, true)[0].contains("b: unseen (x), and was not asked"));
    }
}
