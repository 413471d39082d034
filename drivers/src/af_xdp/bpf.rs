//! The program that hands an interface's frames to AF_XDP sockets, by bpf(2).
//!
//! It is five instructions: a frame goes to the socket that stands in the map at the number of the queue that it came
//! in on, and up the kernel's stack as ever if none does. It is attached by a link, so it is gone with our descriptor,
//! whatever becomes of us. A switch that is confined has all of it done by its opener.

#![allow(unsafe_code)] // bpf(2), which no crate in use has

use std::ffi::{CStr, CString, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Request, opener};

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
        let attributes =
            MapCreate { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues };
        bpf_fd(MAP_CREATE, attributes).map(SocketMap)
    }

    /// One that somebody pinned to a file of bpffs.
    pub fn open(path: &Path) -> io::Result<SocketMap> {
        if let Some(opener) = opener() {
            let request = Request::OpenMap(path.to_owned());
            return opener.ask(&request, &[])?.1.pop().map(SocketMap).ok_or_else(nothing);
        }
        let path = c_path(path)?;
        let attributes = Object { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
        bpf_fd(OBJ_GET, attributes).map(SocketMap)
    }

    /// Gives it a file in bpffs, by which others find it.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        if let Some(opener) = opener() {
            return opener.ask(&Request::PinMap(path.to_owned()), &[self.0.as_fd()]).map(drop);
        }
        let path = c_path(path)?;
        let attributes = Object { pathname: address(path.as_ptr()), bpf_fd: self.number(), file_flags: 0 };
        bpf(OBJ_PIN, attributes).map(drop)
    }

    /// Puts `socket` at `queue`. It leaves the map when it is closed.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(opener) = opener() {
            return opener.ask(&Request::Insert { queue }, &[self.0.as_fd(), socket]).map(drop);
        }
        let value = socket.as_raw_fd() as u32;
        let (key, value) = (address(&raw const queue), address(&raw const value));
        bpf(MAP_UPDATE_ELEM, MapElement { map_fd: self.number(), _pad: 0, key, value, flags: 0 }).map(drop)
    }

    fn number(&self) -> u32 {
        self.0.as_raw_fd() as u32
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
        Redirect::attach_with(map, index, how, PROGRAM_HAS_FRAGS)
            .or_else(|_| Redirect::attach_with(map, index, how, 0))
    }

    fn attach_with(map: &SocketMap, index: u32, how: Attach, flags: u32) -> io::Result<Redirect> {
        let program = load(map, flags)?;
        let mode = match how {
            Attach::Native => XDP_FLAGS_DRV_MODE,
            Attach::Skb => XDP_FLAGS_SKB_MODE,
        };
        let attributes = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: index,
            attach_type: ATTACH_TYPE_XDP,
            flags: mode,
        };
        let link = bpf_fd(LINK_CREATE, attributes)?;
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

/// Loads the program.
fn load(map: &SocketMap, flags: u32) -> io::Result<OwnedFd> {
    let instructions = instructions(map.number());
    let attributes = ProgramLoad {
        prog_type: PROGRAM_TYPE_XDP,
        insn_cnt: instructions.len() as u32,
        insns: address(instructions.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: flags,
        prog_name: *b"ringyard\0\0\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: ATTACH_TYPE_XDP,
    };
    bpf_fd(PROGRAM_LOAD, attributes)
}

/// `return bpf_redirect_map(map, context->rx_queue_index, XDP_PASS)`; the last argument is what is done where the map has
/// no socket (Linux 5.3).
fn instructions(map: u32) -> [Instruction; 6] {
    let instruction = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    [
        // r2 = *(u32 *)(r1 + 16)
        instruction(LOAD_WORD, 0x12, RX_QUEUE_INDEX, 0),
        // r1 = map, in two slots
        instruction(LOAD_DOUBLE, PSEUDO_MAP << 4 | 1, 0, map as i32),
        instruction(0, 0, 0, 0),
        // r3 = XDP_PASS
        instruction(MOVE, 3, 0, XDP_PASS),
        instruction(CALL, 0, 0, HELPER_REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0),
    ]
}

/// An instruction of `linux/bpf.h`; the source register is in the upper half of `registers`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The members of `union bpf_attr` that BPF_MAP_CREATE needs; the kernel takes what is not given as 0.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Of BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct MapElement {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Of BPF_OBJ_GET and BPF_OBJ_PIN.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Of BPF_PROG_LOAD.
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Of BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);
const _: () = assert!(size_of::<MapElement>() == 32);
const _: () = assert!(size_of::<Object>() == 16);
const _: () = assert!(std::mem::offset_of!(ProgramLoad, prog_name) == 48);
const _: () = assert!(size_of::<ProgramLoad>() == 72);

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Does `command`. What `attributes` points to is alive until it is done, and the kernel only reads it.
fn bpf<T>(command: c_long, attributes: T) -> io::Result<c_long> {
    let size = size_of::<T>();
    // SAFETY: each caller passes the members that its command has, at their places and with pointers to live memory.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`bpf`], of a command that makes a descriptor; the kernel sets close-on-exec on all of them.
fn bpf_fd<T>(command: c_long, attributes: T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROGRAM_LOAD: c_long = 5;
const OBJ_PIN: c_long = 6;
const OBJ_GET: c_long = 7;
const LINK_CREATE: c_long = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROGRAM_TYPE_XDP: u32 = 6;
const PROGRAM_HAS_FRAGS: u32 = 1 << 5;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
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
/// None that the helper above would ask for.
const LICENSE: &CStr = c"Apache-2.0 OR MIT";
