//! The kernel programs: attached once, at the root of the hierarchy, they find the virtual
//! cluster of a packet or call by its cgroup, judge its far end, and count.
//!
//! Each entry point is one match from a typed result to a verdict of its hook.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod call;
mod error;
mod farewell;
mod maps;
mod member;
mod packet;
mod port;
mod socket;
mod usage;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};
use bulkhead_abi::{Direction, Verdict};

use crate::{call::Call, error::Unjudged};

/// Drop; at egress and at calls the sender gets EPERM.
const REFUSE: i32 = 0;
/// Pass.
const PASS: i32 = 1;
/// Drop without an error, egress only: UDP succeeds, TCP takes it for loss and sends again.
const DROP_SILENTLY: i32 = 2;

#[cgroup_skb(egress)]
fn bulkhead_egress(ctx: SkBuffContext) -> i32 {
    match packet::judge(&ctx, Direction::Egress) {
        Ok(Verdict::Deny) | Err(Unjudged::TooShort) => REFUSE,
        Ok(Verdict::DropSilently) | Err(Unjudged::UnknownCgroup) => DROP_SILENTLY,
        Ok(Verdict::Pass) | Err(Unjudged::NotReady | Unjudged::NotBelow | Unjudged::NotIp) => PASS,
    }
}

#[cgroup_skb(ingress)]
fn bulkhead_ingress(ctx: SkBuffContext) -> i32 {
    match packet::judge(&ctx, Direction::Ingress) {
        Ok(Verdict::DropSilently | Verdict::Deny)
        | Err(Unjudged::UnknownCgroup | Unjudged::TooShort) => REFUSE,
        Ok(Verdict::Pass) | Err(Unjudged::NotReady | Unjudged::NotBelow | Unjudged::NotIp) => PASS,
    }
}

#[cgroup_sock_addr(connect4)]
fn bulkhead_connect4(ctx: SockAddrContext) -> i32 {
    call_verdict(call::judge_v4(&ctx, Call::Connect))
}

#[cgroup_sock_addr(connect6)]
fn bulkhead_connect6(ctx: SockAddrContext) -> i32 {
    call_verdict(call::judge_v6(&ctx, Call::Connect))
}

#[cgroup_sock_addr(sendmsg4)]
fn bulkhead_sendmsg4(ctx: SockAddrContext) -> i32 {
    call_verdict(call::judge_v4(&ctx, Call::Sendmsg))
}

#[cgroup_sock_addr(sendmsg6)]
fn bulkhead_sendmsg6(ctx: SockAddrContext) -> i32 {
    call_verdict(call::judge_v6(&ctx, Call::Sendmsg))
}

/// A call is refused or goes on: what must vanish without an error, the packet hook drops.
#[inline(always)]
fn call_verdict(judged: Result<Verdict, Unjudged>) -> i32 {
    match judged {
        Ok(Verdict::Deny) => REFUSE,
        Ok(Verdict::Pass | Verdict::DropSilently) | Err(_) => PASS,
    }
}

/// The licence that the kernel asks for.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// What the agent and `build-ebpf` read before anything is loaded.
#[unsafe(link_section = "bulkhead.abi")]
#[unsafe(no_mangle)]
static BULKHEAD_ABI_VERSION: u32 = bulkhead_abi::ABI_VERSION;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program can reach this: the verifier refuses what could.
    loop {}
}
