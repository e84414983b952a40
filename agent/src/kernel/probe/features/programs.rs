//! eBPF: programs that load, attach and do their work.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::answer::{Answer, Row};
use super::bpf::{Kind, MapAttr, attach, batches, iterate, load, map, number, returns, update};
use super::btf;
use super::local_storage;
use super::scene::Scene;

/// Without it the agent does not start, and says so.
const NEEDED: &str = "none: the agent does not start, and names what is missing";
const NOT_USED: &str = "not used yet";

/// `enum bpf_prog_type`
const CGROUP_SKB: u32 = 8;
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_SOCKOPT: u32 = 25;
const TRACING: u32 = 26;
const LSM: u32 = 29;

/// `enum bpf_attach_type`
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const CONNECT: [u32; 2] = [10, 11];
const SENDMSG: [u32; 2] = [14, 15];
const SETSOCKOPT: u32 = 22;
const RAW_TRACEPOINT: u32 = 23;
const LSM_MAC: u32 = 27;
const ITERATOR: u32 = 28;
const LSM_CGROUP: u32 = 43;

/// `BPF_F_BEFORE` of a link.
const BEFORE: u32 = 1 << 3;
/// Maps: `BPF_MAP_TYPE_HASH`, `…_ARRAY`, and `BPF_F_MMAPABLE`.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const MMAPABLE: u32 = 1 << 10;

pub(super) const ROWS: &[Row] = &[
    ("cgroup_skb ingress and egress", "judge and count every packet", NEEDED, packets),
    ("cgroup connect4/6, sendmsg4/6", "refuse at once what may not be reached", NEEDED, calls),
    ("BPF_LINK_UPDATE on cgroup links", "a new agent's programs with no gap", NEEDED, link_update),
    ("batches of map entries", "write tables", "entry by entry", map_batches),
    ("sk_storage from cgroup_skb", "remember a socket's verdict", NEEDED, socket_storage),
    (
        "iterator over cgroups (iter/cgroup)",
        "read CPU time of many cgroups at once",
        "pread of each cpu.stat",
        cgroup_iterator,
    ),
    (
        "maps that can be mapped (BPF_F_MMAPABLE)",
        "read the iterator's results",
        "pread of each cpu.stat",
        mappable,
    ),
    ("iterator over TCP sockets (iter/tcp)", "new rates for live sockets", NOT_USED, tcp_iterator),
    ("cgroup setsockopt hook", "keep a tenant from raising its rate", NOT_USED, setsockopt),
    ("egress verdict 2 and 3", "limit rates without EPERM to the sender", NOT_USED, congestion),
    ("order among cgroup programs (BPF_F_BEFORE)", "stand first among others", NOT_USED, before),
    ("BPF LSM (lsm/socket_create)", "deny AF_PACKET", NOT_USED, lsm),
    ("BPF LSM per cgroup (lsm_cgroup)", "deny AF_PACKET to members only", NOT_USED, lsm_cgroup),
    ("BTF tracepoint (tp_btf/sched_switch)", "who waits for whom", NOT_USED, tracepoint),
];

fn plain(program: u32, attach: u32) -> Kind {
    Kind { program, attach, btf_id: 0 }
}

/// Loads a program that allows everything, and attaches it to the cgroup.
fn on_cgroup(scene: &Scene, kind: Kind, flags: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let program = load(kind, &returns(1))?;
    let link = attach(&program, number(scene.as_fd()), kind.attach, flags)?;
    Ok((program, link))
}

/// All of these load and attach.
fn each(scene: &Scene, program: u32, places: &[u32]) -> Answer {
    let one = |place: &u32| on_cgroup(scene, plain(program, *place), 0).map(drop);
    places.iter().try_for_each(one).into()
}

fn packets(scene: &Scene) -> Answer {
    each(scene, CGROUP_SKB, &[INGRESS, EGRESS])
}

fn calls(scene: &Scene) -> Answer {
    each(scene, CGROUP_SOCK_ADDR, &[CONNECT, SENDMSG].concat())
}

fn setsockopt(scene: &Scene) -> Answer {
    each(scene, CGROUP_SOCKOPT, &[SETSOCKOPT])
}

fn link_update(scene: &Scene) -> Answer {
    let replace = || {
        let kind = plain(CGROUP_SKB, EGRESS);
        let (_, link) = on_cgroup(scene, kind, 0)?;
        update(&link, &load(kind, &returns(1))?)
    };
    replace().into()
}

fn map_batches(_: &Scene) -> Answer {
    let attr = MapAttr { map_type: HASH, key_size: 4, value_size: 4, ..MapAttr::default() };
    map(MapAttr { entries: 8, ..attr }).and_then(|map| batches(&map)).into()
}

fn mappable(_: &Scene) -> Answer {
    let attr = MapAttr { map_type: ARRAY, key_size: 4, value_size: 8, ..MapAttr::default() };
    map(MapAttr { entries: 8, flags: MMAPABLE, ..attr }).into()
}

fn socket_storage(scene: &Scene) -> Answer {
    let kind = plain(CGROUP_SKB, EGRESS);
    let tried = local_storage::program(kind);
    tried.and_then(|program| attach(&program, number(scene.as_fd()), EGRESS, 0)).into()
}

fn congestion(scene: &Scene) -> Answer {
    let kind = plain(CGROUP_SKB, EGRESS);
    let tried = load(kind, &returns(3));
    tried.and_then(|program| attach(&program, number(scene.as_fd()), EGRESS, 0)).into()
}

fn before(scene: &Scene) -> Answer {
    on_cgroup(scene, plain(CGROUP_SKB, EGRESS), BEFORE).into()
}

fn cgroup_iterator(scene: &Scene) -> Answer {
    // struct { order: this cgroup only; cgroup_fd; cgroup_id }
    iterator("bpf_iter_cgroup", &[1, number(scene.as_fd()), 0, 0])
}

fn tcp_iterator(_: &Scene) -> Answer {
    iterator("bpf_iter_tcp", &[])
}

fn iterator(target: &str, info: &[u32]) -> Answer {
    let try_it = || {
        let btf_id = btf::id(target, btf::Kind::Function)?;
        let program = load(Kind { program: TRACING, attach: ITERATOR, btf_id }, &returns(0))?;
        iterate(&program, ITERATOR, info)
    };
    try_it().into()
}

fn lsm(scene: &Scene) -> Answer {
    security(LSM_MAC, 0, 0).map_or_else(|answer| answer, |()| active(scene))
}

fn lsm_cgroup(scene: &Scene) -> Answer {
    let target = number(scene.as_fd());
    security(LSM_CGROUP, 1, target).map_or_else(|answer| answer, |()| active(scene))
}

/// A program that allows every socket, attached for a moment.
fn security(place: u32, allow: i32, target: u32) -> Result<(), Answer> {
    let try_it = || {
        let btf_id = btf::id("bpf_lsm_socket_create", btf::Kind::Function)?;
        let program = load(Kind { program: LSM, attach: place, btf_id }, &returns(allow))?;
        attach(&program, target, place, 0).map(drop)
    };
    try_it().map_err(Answer::from)
}

/// Programs can be attached, and are never asked, where the module is not among the active ones.
fn active(_: &Scene) -> Answer {
    match std::fs::read_to_string("/sys/kernel/security/lsm") {
        Err(error) => Answer::Unseen(format!("whether bpf is an active LSM: {error}")),
        Ok(modules) if modules.trim().split(',').any(|name| name == "bpf") => Answer::Present,
        Ok(_) => Answer::Absent("bpf is not among the active LSMs (lsm= at boot)".to_owned()),
    }
}

fn tracepoint(_: &Scene) -> Answer {
    let try_it = || {
        let btf_id = btf::id("btf_trace_sched_switch", btf::Kind::Typedef)?;
        let kind = Kind { program: TRACING, attach: RAW_TRACEPOINT, btf_id };
        attach(&load(kind, &returns(0))?, 0, RAW_TRACEPOINT, 0).map(drop)
    };
    try_it().into()
}
