//! The table of needs: what, why, how its presence is seen, where it comes from.

use super::probe::{BpfToolchain, Probe};

/// What a need is for, so that a verb asks for no more than it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Building the kernel programs.
    Bpf,
    /// The virtual machine.
    Lab,
    /// The lab's Kubernetes.
    Kubernetes,
    /// Running the tests and the demo on this machine.
    Test,
    /// Checking style, licences and the gRPC contract.
    Lint,
    /// Checking the manifests and the chart.
    Deploy,
    /// Measuring.
    Bench,
}

impl Group {
    /// Every group.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Bpf,
        Self::Lab,
        Self::Kubernetes,
        Self::Test,
        Self::Lint,
        Self::Deploy,
        Self::Bench,
    ];
}

/// One thing that must be on the machine.
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) groups: &'static [Group],
    pub(super) probe: Probe,
    pub(super) source: Source,
}

/// Where a need comes from.
pub(super) enum Source {
    /// Packages of the machine's own Debian suite.
    Debian(&'static [&'static str]),
    /// Debian packages, from the suite's backports where the suite's own are older than this.
    DebianAtLeast(&'static [&'static str], &'static [u32]),
    /// A program of the crates registry, built into the project's cache.
    Crate {
        name: &'static str,
        version: &'static str,
        flags: &'static [&'static str],
        env: &'static [(&'static str, &'static str)],
    },
    /// A program that a Python wheel carries, unpacked into the project's cache.
    Wheel { name: &'static str, version: &'static str, program: &'static str },
    /// Python packages (`NAME==VERSION`, with all that they need), unpacked into a directory of
    /// this name in the project's cache.
    Modules { name: &'static str, packages: &'static [&'static str] },
}

/// The directory of the modules that check `deploy/`.
pub(crate) const DEPLOY_MODULES: &str = "deploy-checks";

/// Helm's own rendering, the schemas of Kubernetes, and the language of admission policies.
const DEPLOY_PACKAGES: &[&str] = &[
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "cel-expr-python==0.1.3",
    "PyYAML==6.0.3",
    "attrs==26.1.0",
    "importlib_resources==7.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "packaging==26.3",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing_extensions==4.16.0",
];

/// All needs of this project, for the eBPF toolchain that the machine uses.
pub(super) fn table(toolchain: BpfToolchain) -> Vec<Need> {
    let mut table = match toolchain {
        BpfToolchain::Debian => bpf_with_debian(),
        BpfToolchain::Nightly => vec![bpf_linker(&[], &[])],
    };
    table.extend(lab());
    table.extend(kubernetes());
    table.extend(test());
    table.extend(lint());
    table.push(deploy());
    table.extend(bench());
    table
}

fn bpf_with_debian() -> Vec<Need> {
    const LLVM: &str = "/usr/lib/llvm-22";
    vec![
        Need {
            name: "rustc-web",
            why: "a Rust compiler with core prebuilt for bpfel-unknown-none (no nightly with \
                  rust-src is installed)",
            groups: &[Group::Bpf],
            probe: Probe::Packages(&["rustc-web", "libstd-rust-web-dev-bpf"]),
            source: Source::Debian(&["rustc-web", "libstd-rust-web-dev-bpf"]),
        },
        Need {
            name: "llvm-22-dev",
            why: "the LLVM of that compiler, which bpf-linker links against",
            groups: &[Group::Bpf],
            probe: Probe::Packages(LLVM_PACKAGES),
            source: Source::Debian(LLVM_PACKAGES),
        },
        bpf_linker(
            &["--no-default-features", "--features", "llvm-22"],
            &[("LLVM_PREFIX", LLVM), ("LLVM_SYS_221_PREFIX", LLVM)],
        ),
    ]
}

const LLVM_PACKAGES: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

fn bpf_linker(
    flags: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
) -> Need {
    Need {
        name: "bpf-linker",
        why: "links the kernel programs and writes their BTF",
        groups: &[Group::Bpf],
        probe: Probe::Program { program: "bpf-linker", arg: "--version", at_least: &[0, 13, 0] },
        source: Source::Crate { name: "bpf-linker", version: "0.13.0", flags, env },
    }
}

fn lab() -> [Need; 4] {
    [
        Need {
            name: "qemu-system-x86_64",
            why: "runs the lab's virtual machine; before version 10 its emulation corrupts guests",
            groups: &[Group::Lab],
            probe: Probe::Program {
                program: "qemu-system-x86_64",
                arg: "--version",
                at_least: &[10],
            },
            source: Source::DebianAtLeast(&["qemu-system-x86"], &[10]),
        },
        Need {
            name: "setpriv",
            why: "has the kernel end the virtual machine when xtask dies",
            groups: &[Group::Lab],
            probe: Probe::Program { program: "setpriv", arg: "--version", at_least: &[2, 33] },
            source: Source::Debian(&["util-linux"]),
        },
        Need {
            name: "mmdebstrap",
            why: "makes the root file system of the lab's virtual machine",
            groups: &[Group::Lab],
            probe: Probe::Program { program: "mmdebstrap", arg: "--version", at_least: &[1] },
            source: Source::Debian(&["mmdebstrap"]),
        },
        Need {
            name: "mke2fs",
            why: "makes disks for the virtual machine and reads them back without mounting them",
            groups: &[Group::Lab],
            probe: Probe::Program { program: "mke2fs", arg: "-V", at_least: &[1, 46] },
            source: Source::Debian(&["e2fsprogs"]),
        },
    ]
}

/// Go, etcd and the source of Kubernetes are unpacked into the cache: see `lab::kubernetes`.
fn kubernetes() -> [Need; 5] {
    let need = |name, why, probe, package| Need {
        name,
        why,
        groups: &[Group::Kubernetes],
        probe,
        source: Source::Debian(package),
    };
    let program = |program, arg| Probe::Program { program, arg, at_least: &[] };
    [
        need(
            "make",
            "writes the generated part of the lab's Kubernetes",
            program("make", "--version"),
            &["make"],
        ),
        need(
            "rsync",
            "is what the build of the lab's Kubernetes copies with",
            program("rsync", "--version"),
            &["rsync"],
        ),
        need(
            "jq",
            "is what the build of the lab's Kubernetes reads JSON with",
            program("jq", "--version"),
            &["jq"],
        ),
        Need {
            name: "openssl",
            why: "makes the certificates and keys of the lab's Kubernetes",
            groups: &[Group::Kubernetes, Group::Test],
            probe: Probe::Program { program: "openssl", arg: "version", at_least: &[3] },
            source: Source::Debian(&["openssl"]),
        },
        need(
            "ssh",
            "runs commands on the nodes of the lab's Kubernetes",
            program("ssh", "-V"),
            &["openssh-client"],
        ),
    ]
}

fn test() -> [Need; 3] {
    [
        Need {
            name: "c++",
            why: "builds libFuzzer, which leads the fuzz targets",
            groups: &[Group::Test],
            probe: Probe::Program { program: "c++", arg: "--version", at_least: &[] },
            source: Source::Debian(&["g++"]),
        },
        Need {
            name: "ip",
            why: "makes the network namespaces in which tests put the hosts of virtual clusters",
            groups: &[Group::Test, Group::Bench],
            probe: Probe::Program { program: "ip", arg: "-Version", at_least: &[] },
            source: Source::Debian(&["iproute2"]),
        },
        Need {
            name: "cargo-nextest",
            why: "runs the tests, each in a process of its own with a time limit",
            groups: &[Group::Test],
            probe: Probe::Program {
                program: "cargo-nextest",
                arg: "--version",
                at_least: &[0, 9, 100],
            },
            source: Source::Crate {
                name: "cargo-nextest",
                version: "0.9.143",
                flags: &["--no-default-features", "--features", "default-no-update"],
                env: &[],
            },
        },
    ]
}

fn lint() -> [Need; 2] {
    [
        Need {
            name: "cargo-deny",
            why: "checks licences, banned crates and where crates come from",
            groups: &[Group::Lint],
            probe: Probe::Program { program: "cargo-deny", arg: "--version", at_least: &[0, 18] },
            source: Source::Crate {
                name: "cargo-deny",
                version: "0.20.2",
                flags: &["--no-default-features"],
                env: &[],
            },
        },
        Need {
            name: "buf",
            why: "checks the style of the gRPC contract, and that it breaks no older client",
            groups: &[Group::Lint],
            probe: Probe::Program { program: "buf", arg: "--version", at_least: &[1, 60] },
            source: Source::Wheel { name: "buf-bin", version: "1.75.0", program: "buf" },
        },
    ]
}

fn deploy() -> Need {
    Need {
        name: DEPLOY_MODULES,
        why: "renders the chart, and checks manifests against the schemas of Kubernetes",
        groups: &[Group::Deploy],
        probe: Probe::Modules { name: DEPLOY_MODULES, packages: DEPLOY_PACKAGES },
        source: Source::Modules { name: DEPLOY_MODULES, packages: DEPLOY_PACKAGES },
    }
}

fn bench() -> [Need; 2] {
    [
        Need {
            name: "nft",
            why: "is what a packet's verdict is measured against",
            groups: &[Group::Bench],
            probe: Probe::Program { program: "nft", arg: "--version", at_least: &[1] },
            source: Source::Debian(&["nftables"]),
        },
        Need {
            name: "chrt",
            why: "keeps other processes off the processor while something short is measured",
            groups: &[Group::Bench],
            probe: Probe::Program { program: "chrt", arg: "--version", at_least: &[2] },
            source: Source::Debian(&["util-linux"]),
        },
    ]
}
