//! The program that hands an interface's frames to AF_XDP sockets, by bpf(2).
//!
//! It is five instructions: a frame goes to the socket that stands in the map at the number of the queue that it came
//! in on, and up the kernel's stack as ever if none does. It is attached by a link, so it is gone with our descriptor,
//! whatever becomes of us. A switch that is confined has all of it done by its opener.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Request, opener};
use crate::sys::bpf::{self, Instruction};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attach {
    /// In the driver, before the kernel makes a packet of a frame.
    Native,
    /// Behind the driver, with any of them.
    Skb,
}

/// Where programs look up the socket of a queue.
pub struct SocketMap(OwnedFd);

impl SocketMap {
    /// An empty one for the queues below `queues`.
    pub fn new(queues: u32) -> io::Result<SocketMap> {
        if let Some(opener) = opener() {
            return opener.ask(&Request::MakeMap { queues }, &[])?.1.pop().map(SocketMap).ok_or_else(nothing);
        }
        Ok(SocketMap(bpf::make_socket_map(queues)?))
    }

    /// One that somebody pinned to a file of bpffs.
    pub fn open(path: &Path) -> io::Result<SocketMap> {
        if let Some(opener) = opener() {
            let request = Request::OpenMap(path.to_owned());
            return opener.ask(&request, &[])?.1.pop().map(SocketMap).ok_or_else(nothing);
        }
        Ok(SocketMap(bpf::open(path)?))
    }

    /// Gives it a file in bpffs, by which others find it.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        if let Some(opener) = opener() {
            return opener.ask(&Request::PinMap(path.to_owned()), &[self.0.as_fd()]).map(drop);
        }
        Ok(bpf::pin(&self.0, path)?)
    }

    /// Puts `socket` at `queue`. It leaves the map when it is closed.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(opener) = opener() {
            return opener.ask(&Request::Insert { queue }, &[self.0.as_fd(), socket]).map(drop);
        }
        Ok(bpf::insert_socket(&self.0, queue, socket)?)
    }
}

/// The program, attached to an interface until it is dropped.
pub struct Redirect {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Attaches one that looks up `map` to the interface number `index`.
    pub fn attach(map: &SocketMap, index: u32, how: Attach) -> io::Result<Redirect> {
        if let Some(opener) = opener() {
            let (_, fds) = opener.ask(&Request::Attach { index, how }, &[map.0.as_fd()])?;
            let [program, link] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| nothing())?;
            return Ok(Redirect { _program: program, _link: link });
        }
        // A kernel before 6.3, and some drivers, do not know of frames in several buffers.
        Redirect::attach_with(map, index, how, bpf::PROGRAM_HAS_FRAGS)
            .or_else(|_| Redirect::attach_with(map, index, how, 0))
    }

    fn attach_with(map: &SocketMap, index: u32, how: Attach, flags: u32) -> io::Result<Redirect> {
        let program = bpf::load_xdp(&instructions(&map.0), NAME, LICENSE, flags)?;
        let mode = match how {
            Attach::Native => bpf::XDP_FLAGS_DRV_MODE,
            Attach::Skb => bpf::XDP_FLAGS_SKB_MODE,
        };
        let link = bpf::attach_xdp(&program, index, mode)?;
        Ok(Redirect { _program: program, _link: link })
    }
}

impl From<OwnedFd> for SocketMap {
    /// Of a map that was made or found by these functions.
    fn from(fd: OwnedFd) -> SocketMap {
        SocketMap(fd)
    }
}

impl From<SocketMap> for OwnedFd {
    fn from(map: SocketMap) -> OwnedFd {
        map.0
    }
}

impl From<Redirect> for Vec<OwnedFd> {
    /// Program and link.
    fn from(redirect: Redirect) -> Vec<OwnedFd> {
        vec![redirect._program, redirect._link]
    }
}

/// The opener's answer had no descriptor with it.
fn nothing() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// `return bpf_redirect_map(map, context->rx_queue_index, XDP_PASS)`; the last argument is what is done where the map has
/// no socket (Linux 5.3).
fn instructions(map: &OwnedFd) -> [Instruction; 6] {
    let instruction = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    [
        // r2 = *(u32 *)(r1 + 16)
        instruction(LOAD_WORD, 0x12, RX_QUEUE_INDEX, 0),
        // r1 = map, in two slots
        instruction(LOAD_DOUBLE, PSEUDO_MAP << 4 | 1, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0),
        // r3 = XDP_PASS
        instruction(MOVE, 3, 0, XDP_PASS),
        instruction(CALL, 0, 0, HELPER_REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0),
    ]
}

const XDP_PASS: i32 = 2;
const HELPER_REDIRECT_MAP: i32 = 51;
/// BPF_LDX | BPF_MEM | BPF_W.
const LOAD_WORD: u8 = 0x61;
/// BPF_LD | BPF_IMM | BPF_DW.
const LOAD_DOUBLE: u8 = 0x18;
/// BPF_ALU64 | BPF_MOV | BPF_K.
const MOVE: u8 = 0xb7;
/// BPF_JMP | BPF_CALL.
const CALL: u8 = 0x85;
/// BPF_JMP | BPF_EXIT.
const EXIT: u8 = 0x95;
const PSEUDO_MAP: u8 = 1;
/// Where `struct xdp_md` has it.
const RX_QUEUE_INDEX: i16 = 16;
const NAME: &[u8; 16] = b"ringyard\0\0\0\0\0\0\0\0";
/// None that the helper above would ask for.
const LICENSE: &CStr = c"Apache-2.0 OR MIT";
