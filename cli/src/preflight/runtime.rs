//! What a container runtime and a kubelet are expected to do. Without NRI everything is enforced
//! but for a pod's first moments: it is found by its cgroup, after it was made.

use super::{Level, Line, version};

/// For containerd 1.7, whose NRI is off unless this is written.
const CONTAINERD: &str = "\
in /etc/containerd/config.toml:
  [plugins.\"io.containerd.nri.v1.nri\"]
    disable = false
then: systemctl restart containerd (pods go on)";
/// For CRI-O.
const CRIO: &str = "\
in /etc/crio/crio.conf.d/10-nri.conf:
  [crio.nri]
  enable_nri = true
then: systemctl restart crio (pods go on); `crio config | grep enable_nri` says whether it is on";

const LATE: &str = "a pod can send before it is known, for as long as it takes to see its cgroup";

/// From `containerd://1.7.24`.
pub(super) fn line(runtime: &str) -> Line {
    use Level::{Good, NotEnforced, Note};
    let (name, number) = runtime.split_once("://").unwrap_or((runtime, ""));
    let number = version(number);
    let (level, means, mend) = match (name, number) {
        ("containerd", Some(number)) if number >= (2, 0) => (
            Good,
            "NRI is on unless it was turned off: pods are known before they run".into(),
            None,
        ),
        ("containerd", Some((1, 7))) => (
            NotEnforced,
            format!("it has NRI, but off unless turned on, which cannot be seen from here: {LATE}"),
            Some(CONTAINERD),
        ),
        ("containerd", Some(_)) => {
            (NotEnforced, format!("it has no NRI (from 1.7 on): {LATE}"), Some("containerd 2"))
        }
        ("cri-o", Some(number)) if number >= (1, 30) => {
            (Note, "NRI is expected to be on; not tried with CRI-O".to_owned(), Some(CRIO))
        }
        ("cri-o", Some(number)) if number >= (1, 26) => (
            NotEnforced,
            format!("it has NRI, perhaps off, which cannot be seen from here: {LATE}"),
            Some(CRIO),
        ),
        ("cri-o", Some(_)) => {
            (NotEnforced, format!("it has no NRI (from 1.26 on): {LATE}"), Some("CRI-O 1.30"))
        }
        _ => (
            NotEnforced,
            format!("it is not known to have NRI: {LATE}"),
            Some("containerd from 2.0 on, or CRI-O from 1.30 on"),
        ),
    };
    Line {
        about: "runtime",
        level,
        found: runtime.to_owned(),
        means,
        mend: mend.map(ToOwned::to_owned),
    }
}

/// The same where an agent runs, which knows better.
pub(super) fn beside_an_agent(runtime: &str) -> Line {
    let expected = line(runtime);
    if expected.level == Level::Good {
        return expected;
    }
    let means = format!("expected, and its agent's log knows better: {}", expected.means);
    Line { level: Level::Note, means, ..expected }
}

/// From "v1.30.2".
pub(super) fn kubelet(found: &str) -> Line {
    let (level, means) = match version(found) {
        Some(number) if number >= (1, 20) => (Level::Good, "expected to work; 1.20 was tried"),
        _ => (Level::Note, "older than any that was tried (1.20)"),
    };
    Line { about: "kubelet", level, found: found.to_owned(), means: means.to_owned(), mend: None }
}

/// What the API server does not say.
pub(super) fn cgroups() -> Line {
    Line {
        about: "cgroups",
        level: Level::Note,
        found: "cannot be seen from here".to_owned(),
        means: "the agent needs the kubelet's pods in cgroup v2: on the node, `stat -fc %T \
                /sys/fs/cgroup` must say cgroup2fs"
            .to_owned(),
        mend: None,
    }
}
