//! The one packet that goes although its verdict is to drop it: the bare reset of a TCP socket.
//!
//! When a policy tightens, the agent disconnects the sockets of live connections, and the kernel
//! tells the far end by a reset. Dropped, the far end would wait for minutes for a connection that
//! is gone. Only a real TCP socket's own segment goes, with no data in it: such a socket can have
//! a connection to say farewell to only from the time when that was allowed. What a raw socket
//! makes up is judged like everything else.

use aya_ebpf::{helpers::generated::bpf_sk_fullsock, programs::SkBuffContext};

const IPPROTO_TCP: u8 = 6;
const SOCK_STREAM: u32 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const IPV6_HEADER_BYTES: usize = 40;

/// Where the flags are in a TCP header, and before them the header's length.
const OFFSET_AND_FLAGS: usize = 12;

#[inline(always)]
pub(crate) fn is_farewell(ctx: &SkBuffContext) -> bool {
    is_bare_reset(ctx).unwrap_or(false) && is_of_a_tcp_socket(ctx)
}

/// Whether it is a reset and nothing else; `None`: too short for that.
#[inline(always)]
fn is_bare_reset(ctx: &SkBuffContext) -> Option<bool> {
    let first: u8 = ctx.load(0).ok()?;
    let (header, protocol) = if first >> 4 == 4 {
        let fragment: [u8; 2] = ctx.load(6).ok()?;
        if u16::from_be_bytes(fragment) & 0x3fff != 0 {
            return None;
        }
        (usize::from(first & 0x0f) * 4, ctx.load::<u8>(9).ok()?)
    } else {
        (IPV6_HEADER_BYTES, ctx.load::<u8>(6).ok()?)
    };
    if protocol != IPPROTO_TCP {
        return None;
    }
    let [length, flags]: [u8; 2] = ctx.load(header + OFFSET_AND_FLAGS).ok()?;
    let whole = header + usize::from(length >> 4) * 4;
    Some(flags & RST != 0 && flags & SYN == 0 && ctx.len() as usize == whole)
}

/// Whether a TCP socket made it, and not a raw one.
#[inline(always)]
pub(crate) fn is_of_a_tcp_socket(ctx: &SkBuffContext) -> bool {
    // SAFETY: `sk` of the program's own context; the verifier wants the checks for null.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return false;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() {
            return false;
        }
        (*full).type_ == SOCK_STREAM && (*full).protocol == u32::from(IPPROTO_TCP)
    }
}
