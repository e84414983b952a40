//! The network, in a namespace of our own: devices, queues, rates.
#![expect(unsafe_code, reason = "system calls of a child process, and unshare of one thread")]

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;

use super::answer::{Answer, Row};
use super::bpf::{self, Kind, instruction, load, returns};
use super::netlink::{attribute, request, words};
use super::process;
use super::scene::Scene;

const NOT_USED: &str = "not used yet";

/// rtnetlink
const NEW_LINK: u16 = 16;
const SET_LINK: u16 = 19;
const NEW_QDISC: u16 = 36;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
/// The loopback of a new namespace.
const LOOPBACK: u32 = 1;

/// eBPF: `SCHED_CLS` and `SOCK_OPS`, and where they are attached.
const SCHED_CLS: u32 = 3;
const SOCK_OPS: u32 = 13;
const TCX_INGRESS: u32 = 46;
const ON_SOCK_OPS: u32 = 3;
const BPF_SETSOCKOPT: i32 = 49;

/// Bytes per second; any number that is no default.
const RATE: i32 = 12_345_678;

pub(super) const ROWS: &[Row] = &[
    ("sock_ops sets SO_MAX_PACING_RATE", "limit bandwidth with no queue", NOT_USED, pacing),
    ("TCX", "see what cgroup hooks do not", NOT_USED, tcx),
    ("clsact qdisc", "the older place for what TCX does", NOT_USED, |_| clsact()),
    ("qdisc fq", "pace UDP", NOT_USED, |_| qdisc("fq", &[])),
    ("qdisc tbf", "a peer in benchmarks", NOT_USED, |_| qdisc("tbf", &tbf())),
    ("qdisc htb", "a peer in benchmarks", NOT_USED, |_| qdisc("htb", &htb())),
    ("qdisc netem", "delay and loss in tests", NOT_USED, |_| {
        qdisc("netem", &words(&[0, 1000, 0, 0, 0, 0]))
    }),
    ("veth", "networks of tests", "none: tests fail", |_| device("veth")),
    ("netkit", "pods without veth", NOT_USED, |_| device("netkit")),
    (
        "SOCK_DESTROY (INET_DIAG_DESTROY)",
        "end a connection whose process cannot be reached",
        "pidfd_getfd and connect(AF_UNSPEC), which is what we do everywhere",
        |_| destroy().into(),
    ),
];

/// Leaves the machine's network for one of this thread's own, with a loopback.
pub(super) fn enter() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("a network namespace: {errno:?}"))?;
    // struct ifinfomsg with IFF_UP in flags and change
    let up = request(SockProtocol::NetlinkRoute, SET_LINK, 0, &words(&[0, LOOPBACK, 1, 1]));
    up.map_err(|error| format!("its loopback: {error}"))
}

fn tcx(_: &Scene) -> Answer {
    let kind = Kind { program: SCHED_CLS, attach: TCX_INGRESS, btf_id: 0 };
    // An older kernel knows no place of that number for any program of this type.
    let program =
        load(kind, &returns(0)).or_else(|_| load(Kind { attach: 0, ..kind }, &returns(0)));
    program.and_then(|program| bpf::attach(&program, LOOPBACK, TCX_INGRESS, 0)).into()
}

/// `struct tcmsg` for a queue of the loopback.
fn queue(handle: u32, parent: u32, kind: &str, options: &[u8]) -> io::Result<()> {
    let mut body = words(&[0, LOOPBACK, handle, parent, 0]);
    body.extend(attribute(1, &name(kind)));
    if !options.is_empty() {
        body.extend(attribute(2, options));
    }
    request(SockProtocol::NetlinkRoute, NEW_QDISC, CREATE | REPLACE, &body)
}

fn qdisc(kind: &str, options: &[u8]) -> Answer {
    queue(0, u32::MAX, kind, options).into()
}

fn clsact() -> Answer {
    queue(0xffff_0000, 0xffff_fff1, "clsact", &[]).into()
}

/// `struct tc_tbf_qopt`: 8 Mbit/s, room for 64 KiB.
fn tbf() -> Vec<u8> {
    let rate = [0x0001_0000, 0, 1_000_000];
    let options = [&rate[..], &[0, 0, 0], &[1 << 20, 1_024_000, 0]].concat();
    attribute(1, &words(&options))
}

/// `struct tc_htb_glob`: version 3.
fn htb() -> Vec<u8> {
    attribute(2, &words(&[3, 10, 0, 0, 0]))
}

fn device(kind: &str) -> Answer {
    let mut body = words(&[0, 0, 0, 0]);
    // IFLA_LINKINFO with IFLA_INFO_KIND
    body.extend(attribute(18, &attribute(1, &name(kind))));
    request(SockProtocol::NetlinkRoute, NEW_LINK, CREATE | EXCLUSIVE, &body).into()
}

fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Has the kernel close a listening socket of ours.
fn destroy() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    // struct inet_diag_req_v2: AF_INET, TCP, every state, local port and address, no cookie
    let mut body = vec![2, 6, 0, 0];
    body.extend(words(&[u32::MAX]));
    body.extend(port.to_be_bytes());
    body.extend([0, 0]);
    body.extend([127, 0, 0, 1]);
    body.extend(words(&[0; 8]));
    body.extend(words(&[u32::MAX; 2]));
    request(SockProtocol::NetlinkSockDiag, 21, 0, &body)
}

/// A connection of a process in the cgroup gets its rate from the program that is attached there.
fn pacing(scene: &Scene) -> Answer {
    let try_it = || {
        let kind = Kind { program: SOCK_OPS, attach: ON_SOCK_OPS, btf_id: 0 };
        let program = load(kind, &set_rate())?;
        let _link = bpf::attach(&program, bpf::number(scene.as_fd()), ON_SOCK_OPS, 0)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        process::fork(scene.as_fd(), || i32::from(!rate_is_set(port)))
    };
    match try_it() {
        Ok(0) => Answer::Present,
        Ok(_) => Answer::Absent("the connection's rate is as before".to_owned()),
        Err(error) => error.into(),
    }
}

/// `bpf_setsockopt(context, SOL_SOCKET, SO_MAX_PACING_RATE, &RATE, 4); return 1`
fn set_rate() -> Vec<u64> {
    vec![
        instruction(0x62, (10, 0), -4, RATE),
        instruction(0xb7, (2, 0), 0, libc::SOL_SOCKET),
        instruction(0xb7, (3, 0), 0, libc::SO_MAX_PACING_RATE),
        instruction(0xbf, (4, 10), 0, 0),
        instruction(0x07, (4, 0), 0, -4),
        instruction(0xb7, (5, 0), 0, 4),
        instruction(0x85, (0, 0), 0, BPF_SETSOCKOPT),
        instruction(0xb7, (0, 0), 0, 1),
        instruction(0x95, (0, 0), 0, 0),
    ]
}

/// In a child: system calls only.
fn rate_is_set(port: u16) -> bool {
    let address = libc::sockaddr_in {
        sin_family: 2,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let size = |bytes: usize| libc::socklen_t::try_from(bytes).unwrap_or_default();
    let mut rate: i32 = 0;
    let mut length = size(size_of::<i32>());
    // SAFETY: pointers are to values that outlive the calls, with their sizes.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let to = std::ptr::from_ref(&address).cast();
        libc::connect(socket, to, size(size_of::<libc::sockaddr_in>())) == 0
            && libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_MAX_PACING_RATE,
                std::ptr::from_mut(&mut rate).cast(),
                &raw mut length,
            ) == 0
            && rate == RATE
    }
}
