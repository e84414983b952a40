//! Kubernetes' own programs, built from Debian's source package and kept in the cache.
//!
//! Nothing is installed: Go and etcd are unpacked from their packages, and the sources and what
//! the compiler leaves are removed when the programs are there.

use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::{image, turn};
use crate::command::Cmd;
use crate::paths;
use crate::progress::{self, Step};
use crate::setup::Archive;

/// The last suite that has the whole of Kubernetes, and Go and etcd of its time.
const SUITE: &str = "bookworm";
const VERSION: &str = "v1.20.2";
const GO_PACKAGES: &[&str] = &["golang-1.19-src", "golang-1.19-go"];
const GO_ROOT: &str = "usr/lib/go-1.19";
const ETCD_PACKAGE: &str = "etcd-server";
const PROGRAMS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// The packages in which a Kubernetes program looks for its own version.
const VERSION_PACKAGES: &[&str] = &["client-go/pkg/version", "component-base/version"];

/// Raised when this file builds in another way.
const RECIPE: u32 = 2;

/// The programs, in the cache.
pub(super) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// The cached ones; built when they are absent, which takes some ten minutes on two
    /// processors.
    pub(super) fn get() -> Result<Self> {
        let cache = paths::cache()?;
        let programs = Self { dir: cache.join(format!("kubernetes-{:016x}", recipe())) };
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        // Two builders at once: the second waits, then finds what the first has made.
        let building = cache.join("kubernetes-building");
        fs::create_dir_all(&building).with_context(|| format!("create {}", building.display()))?;
        let _turn = turn(&building)?;
        if !programs.dir.is_dir() {
            let what = format!("Building Kubernetes {VERSION}");
            progress::during(what, |step| programs.build(&building.join("work"), step))?;
        }
        Ok(programs)
    }

    /// Where they are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of them.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    fn build(&self, work: &Path, step: &Step) -> Result<()> {
        image::remove_tree(work, step)?;
        let tree = work.join("gopath/src/k8s.io/kubernetes");
        let made = work.join("programs");
        for dir in [&tree, &made] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let archive = Archive::of_this_machine()?;
        for package in GO_PACKAGES.iter().chain([&ETCD_PACKAGE]) {
            archive.unpack(SUITE, package, &work.join("root"), step)?;
        }
        unpack_source(&archive, work, &tree, step)?;
        mend(&tree)?;
        generate(work, &tree, step)?;
        compile(work, &tree, &made, step)?;
        image::take(&work.join("root"), "usr/bin/etcd", &made.join("etcd"))?;
        // The rename is what makes them: a build that was cut short is never taken for one.
        fs::rename(&made, &self.dir)
            .with_context(|| format!("move the programs to {}", self.dir.display()))?;
        image::remove_tree(work, step)
    }
}

/// Says whether the recipe is the one that programs were built by.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    (SUITE, VERSION, GO_PACKAGES, ETCD_PACKAGE, PROGRAMS, VERSION_PACKAGES, RECIPE)
        .hash(&mut hasher);
    hasher.finish()
}

fn unpack_source(archive: &Archive, work: &Path, tree: &Path, step: &Step) -> Result<()> {
    let dir = work.join("source");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    archive.source(SUITE, "kubernetes", &dir, step)?;
    let entries = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let of_upstream = |path: &PathBuf| path.to_string_lossy().contains(".orig.tar.");
    let found = entries.flatten().map(|entry| entry.path()).find(of_upstream);
    let Some(tarball) = found else {
        bail!("the source package kubernetes of {SUITE} has no original archive");
    };
    let version = VERSION.trim_start_matches('v');
    if !tarball.to_string_lossy().contains(version) {
        bail!("{SUITE} has {}, not version {version}: change the recipe", tarball.display());
    }
    Cmd::new("tar", "unpack Kubernetes")
        .args(["--extract", "--strip-components=1", "--no-same-owner", "--file"])
        .arg(&tarball)
        .arg("--directory")
        .arg(tree)
        .quietly(step)
}

/// A vendored library calls a function of Go's runtime that has other arguments since Go 1.18: the
/// API server dies over the first custom resource (<https://github.com/modern-go/reflect2/pull/23>).
fn mend(tree: &Path) -> Result<()> {
    let path = tree.join("vendor/github.com/modern-go/reflect2/unsafe_link.go");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mended = mended(&text).with_context(|| format!("mend {}", path.display()))?;
    fs::write(&path, mended).with_context(|| format!("write {}", path.display()))
}

fn mended(text: &str) -> Result<String> {
    let old = "//go:noescape\n//go:linkname mapiterinit reflect.mapiterinit\nfunc mapiterinit(";
    let (before, after) = text.split_once(old).context("it has no mapiterinit as expected")?;
    let (_, after) = after.split_once('\n').context("it ends with mapiterinit")?;
    let (between, after) =
        after.split_once("type hiter struct {").context("it has no type hiter")?;
    let (_, after) = after.split_once("\n}\n").context("the type hiter has no end")?;
    Ok(format!("{before}{ITERATION}{between}{ITERATOR}{after}"))
}

/// As the runtime of Go 1.18 and later has it: the caller brings the iterator.
const ITERATION: &str = "//go:linkname runtimeMapiterinit reflect.mapiterinit
func runtimeMapiterinit(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)

func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter {
\tit := &hiter{}
\truntimeMapiterinit(rtype, m, it)
\treturn it
}
";

/// The whole of the runtime's iterator, which is written to.
const ITERATOR: &str = "type hiter struct {
\tkey, value, t, h, buckets, bptr unsafe.Pointer
\toverflow, oldoverflow *[]unsafe.Pointer
\tstartBucket uintptr
\toffset uint8
\twrapped bool
\tB, i uint8
\tbucket, checkBucket uintptr
}
";

/// The one generated file that is not part of the source: the API server's description of its API.
fn generate(work: &Path, tree: &Path, step: &Step) -> Result<()> {
    let make = Cmd::new("make", "write the generated part of Kubernetes")
        .args(["gen_openapi", "CGO_ENABLED=0", "GOFLAGS=", "GOPROXY=off"])
        .args(["KUBE_GIT_MAJOR=1", "KUBE_GIT_MINOR=20", "KUBE_GIT_COMMIT=unknown"])
        .args(["KUBE_GIT_TREE_STATE=archive", &format!("KUBE_GIT_VERSION={VERSION}")])
        .dir(tree);
    with_go(make, work)?.quietly(step)
}

fn compile(work: &Path, tree: &Path, made: &Path, step: &Step) -> Result<()> {
    let mut flags = "-s -w".to_owned();
    for package in VERSION_PACKAGES {
        let values = [("gitVersion", VERSION), ("gitMajor", "1"), ("gitMinor", "20")];
        for (key, value) in values.into_iter().chain([("gitTreeState", "archive")]) {
            let _ = write!(flags, " -X k8s.io/kubernetes/vendor/k8s.io/{package}.{key}={value}");
        }
    }
    let go = Cmd::new(work.join("root").join(GO_ROOT).join("bin/go"), "build Kubernetes")
        .args(["build", "-ldflags", &flags, "-o"])
        .arg(made)
        .args(PROGRAMS.iter().map(|program| format!("k8s.io/kubernetes/cmd/{program}")))
        .env("GOPATH", work.join("gopath"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0")
        .env("GOPROXY", "off")
        .env("GOFLAGS", "")
        .dir(tree);
    with_go(go, work)?.quietly(step)
}

/// With the unpacked Go, and a cache of its own.
fn with_go(cmd: Cmd, work: &Path) -> Result<Cmd> {
    let root = work.join("root").join(GO_ROOT);
    if !root.join("src").is_dir() {
        // Debian links the library to where its package has it.
        let to = work.join("root/usr/share/go-1.19/src");
        let _ = fs::remove_file(root.join("src"));
        symlink(&to, root.join("src")).with_context(|| format!("link {}", to.display()))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [root.join("bin")].into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(dirs).context("make a search path with Go")?;
    Ok(cmd.env("GOROOT", &root).env("PATH", &path).env("GOCACHE", work.join("gocache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_as_expected_is_mended_and_another_one_is_an_error() {
        let text = "package reflect2\n\n//go:noescape\n//go:linkname mapiterinit \
                    reflect.mapiterinit\nfunc mapiterinit(a, b unsafe.Pointer) (val *hiter)\n\n\
                    type hiter struct {\n\tkey unsafe.Pointer\n}\n\nfunc add() {}\n";
        let mended = mended(text).expect("is as expected");
        assert!(mended.starts_with("package reflect2\n\n//go:linkname runtimeMapiterinit"));
        assert_eq!(mended.matches("type hiter struct").count(), 1);
        assert!(mended.ends_with("\n}\n\nfunc add() {}\n"), "{mended}");
        assert!(super::mended("package reflect2\n").is_err());
    }
}
