//! The probe against recorded files of two machines.

use super::*;
use bulkhead_core::Control;
use std::fs;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const COMMON: &[(&str, &str)] = &[
    ("proc/sys/kernel/random/boot_id", "0c1f7c3e-8a52-4d3e-9d1c-1f1d1a9f6a52\n"),
    ("proc/meminfo", "MemTotal:        8146728 kB\nSwapTotal:             0 kB\n"),
    ("proc/sys/kernel/pid_max", "32768\n"),
    ("sys/devices/system/cpu/online", "0-1\n"),
];

/// Linux 6.18 with hybrid cgroups, no systemd.
fn hybrid(root: &Path) {
    write(root, COMMON);
    write(
        root,
        &[
            ("proc/sys/kernel/osrelease", "6.18.44\n"),
            (
                "proc/self/mountinfo",
                "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
            ),
            (
                "proc/cgroups",
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t1\t1\t1\n\
             cpuacct\t2\t1\t1\nblkio\t7\t1\t1\nmemory\t4\t13\t1\nhugetlb\t0\t1\t1\npids\t8\t1\t1\n",
            ),
            ("sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n"),
            ("sys/kernel/btf/vmlinux", ""),
            ("proc/pressure/cpu", ""),
        ],
    );
}

/// Linux 6.12 with systemd and unified cgroups.
fn unified(root: &Path) {
    write(root, COMMON);
    write(
        root,
        &[
            ("proc/sys/kernel/osrelease", "6.12.73+deb13-cloud-amd64\n"),
            (
                "proc/self/mountinfo",
                "28 23 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
            ),
            (
                "proc/cgroups",
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t60\t1\nblkio\t0\t60\t1\n\
             memory\t0\t60\t1\npids\t0\t60\t1\n",
            ),
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
            ("sys/kernel/security/lsm", "lockdown,capability,landlock,yama,apparmor,bpf"),
            ("run/systemd/system/.keep", ""),
        ],
    );
}

fn reasons(controls: &[ControlSupport]) -> BTreeMap<Control, &str> {
    controls
        .iter()
        .filter_map(|support| Some((support.control, support.result.as_ref().err()?.as_str())))
        .collect()
}

#[test]
fn a_hybrid_node_says_that_v1_holds_its_controllers() {
    let root = tempfile::tempdir().unwrap();
    hybrid(root.path());
    let probe = Probe::read(&Files::below(root.path())).unwrap();
    assert_eq!(probe.kernel_release, "6.18.44");
    assert_eq!(probe.online_cpus, 2);
    assert_eq!(probe.memory_bytes, 8_342_249_472);
    assert_eq!((probe.pid_max, probe.swap_bytes), (32_768, 0));
    assert_eq!((probe.systemd, probe.btf, probe.pressure), (false, true, true));
    assert_eq!(probe.security_modules, None);
    let mount = probe.cgroup2.as_ref().unwrap();
    assert_eq!(mount.mount_point, Path::new("/sys/fs/cgroup/unified"));

    let controls = probe.controls(None);
    let reasons = reasons(&controls);
    assert_eq!(reasons[&Control::MemoryMax], "memory: controller is bound to cgroup v1");
    assert_eq!(reasons[&Control::CpuMax], "cpu: controller is bound to cgroup v1");
    assert_eq!(reasons[&Control::IoMax], "io: controller is bound to cgroup v1");
    assert_eq!(reasons[&Control::PidsMax], "pids: controller is bound to cgroup v1");
    assert!(!reasons.contains_key(&Control::CgroupMaxDepth));
    assert_eq!(reasons.len(), 9);
}

#[test]
fn a_unified_node_enforces_everything_that_it_has() {
    let root = tempfile::tempdir().unwrap();
    unified(root.path());
    let probe = Probe::read(&Files::below(root.path())).unwrap();
    assert!(probe.systemd && !probe.btf);
    assert_eq!(probe.security_modules.as_ref().unwrap().last().unwrap(), "bpf");

    let controls = probe.controls(None);
    let missing = reasons(&controls);
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[&Control::IoWeight].starts_with("io.weight: iocost is on for no block device"));

    // As Debian's cloud kernel has it: no iocost.
    let files = Control::ALL.iter().filter(|control| **control != Control::IoWeight);
    let files = files.map(|control| control.file().to_owned()).collect();
    let controls = probe.controls(Some(&files));
    let reason = "io.weight: file is absent: no iocost or bfq on this node";
    assert_eq!(reasons(&controls), BTreeMap::from([(Control::IoWeight, reason)]));

    let facts =
        probe.node_facts(&controls, BTreeSet::new(), &BTreeSet::new(), Capacities::default());
    assert_eq!(facts.cpu, NanoCores(2_000_000_000));
    assert_eq!(facts.support.missing[&Control::IoWeight], reason);
}

#[test]
fn a_controller_that_nobody_has_is_named_with_the_place() {
    let root = tempfile::tempdir().unwrap();
    unified(root.path());
    write(
        root.path(),
        &[
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\npids\t0\t1\t0\n"),
        ],
    );
    let controls = Probe::read(&Files::below(root.path())).unwrap().controls(None);
    let reasons = reasons(&controls);
    let place = "io: controller is not in cgroup.controllers of /sys/fs/cgroup";
    assert_eq!(reasons[&Control::IoMax], place);
    assert!(reasons[&Control::PidsMax].contains("cgroup_disable="));
}

#[test]
fn an_absent_cgroup2_is_no_error_but_a_reason() {
    let root = tempfile::tempdir().unwrap();
    hybrid(root.path());
    write(root.path(), &[("proc/self/mountinfo", "1 0 254:0 / / rw - ext4 /dev/root rw\n")]);
    let probe = Probe::read(&Files::below(root.path())).unwrap();
    assert_eq!(probe.cgroup2, None);
    let controls = probe.controls(None);
    assert!(reasons(&controls).values().all(|reason| *reason == "cgroup v2 is not mounted"));
    assert!(probe.to_string().contains("cgroup v2          not mounted"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = Probe::read(&Files::below(root.path())).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /proc/meminfo"), "{error}");
}

#[test]
fn this_machine_can_be_probed() {
    let probe = Probe::read(&Files::host()).unwrap();
    assert!(probe.memory_bytes > 0 && probe.online_cpus > 0);
    assert_eq!(probe.boot_id.len(), 36);
}

#[test]
fn only_block_devices_are_devices() {
    let paths = BTreeSet::from(["/dev/null".into(), "/dev/no-such-device".into()]);
    assert_eq!(block_devices(&paths), BTreeMap::new());
}

#[test]
fn a_mount_with_a_name_that_is_no_text_hides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    unified(directory.path());
    let path = directory.path().join("proc/self/mountinfo");
    let mut mounts = b"60 1 0:60 / /mnt/\xff rw - tmpfs t rw\n".to_vec();
    mounts.extend(fs::read(&path).unwrap());
    fs::write(&path, mounts).unwrap();
    let probe = Probe::read(&Files::below(directory.path())).unwrap();
    assert_eq!(probe.cgroup2.unwrap().mount_point, Path::new("/sys/fs/cgroup"));
}
