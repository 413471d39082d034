//! bpf(2), as far as AF_XDP needs it.

use std::ffi::{CStr, CString, c_long};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::{checked, owned};

/// A map of sockets for the queues below `queues` (BPF_MAP_TYPE_XSKMAP).
pub(crate) fn make_socket_map(queues: u32) -> Result<OwnedFd, Errno> {
    let attributes = MapCreate { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues };
    // SAFETY: numbers.
    unsafe { bpf_fd(MAP_CREATE, attributes) }
}

/// What somebody pinned to a file of bpffs.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let path = c_path(path)?;
    let attributes = Object { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
    // SAFETY: a path that ends with a zero, and lives on.
    unsafe { bpf_fd(OBJ_GET, attributes) }
}

/// Gives `object` a file in bpffs.
pub(crate) fn pin(object: impl AsFd, path: &Path) -> Result<(), Errno> {
    let path = c_path(path)?;
    let attributes = Object { pathname: address(path.as_ptr()), bpf_fd: number(object), file_flags: 0 };
    // SAFETY: as above.
    unsafe { bpf(OBJ_PIN, attributes) }.map(drop)
}

/// Puts `socket` into a map of sockets at `queue`.
pub(crate) fn insert_socket(map: impl AsFd, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let value = number(socket);
    let (key, value) = (address(&raw const queue), address(&raw const value));
    let attributes = MapElement { map_fd: number(map), _pad: 0, key, value, flags: 0 };
    // SAFETY: key and value of a map of sockets have 4 bytes. Of another map that somebody pinned, the kernel would take
    // what stands behind them, too; it changes neither.
    unsafe { bpf(MAP_UPDATE_ELEM, attributes) }.map(drop)
}

/// Loads an XDP program, with flags BPF_F_….
pub(crate) fn load_xdp(
    instructions: &[Instruction],
    name: &[u8; 16],
    license: &CStr,
    flags: u32,
) -> Result<OwnedFd, Errno> {
    let attributes = ProgramLoad {
        prog_type: PROGRAM_TYPE_XDP,
        insn_cnt: instructions.len() as u32,
        insns: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: flags,
        prog_name: *name,
        prog_ifindex: 0,
        expected_attach_type: ATTACH_TYPE_XDP,
    };
    // SAFETY: as many instructions as are told, and a license that ends with a zero; both live on.
    unsafe { bpf_fd(PROGRAM_LOAD, attributes) }
}

/// Attaches `program` to the interface number `index`, with flags XDP_FLAGS_…, as long as what is returned is open.
pub(crate) fn attach_xdp(program: impl AsFd, index: u32, flags: u32) -> Result<OwnedFd, Errno> {
    let attributes =
        LinkCreate { prog_fd: number(program), target_ifindex: index, attach_type: ATTACH_TYPE_XDP, flags };
    // SAFETY: numbers.
    unsafe { bpf_fd(LINK_CREATE, attributes) }
}

/// An instruction of `linux/bpf.h`; the source register is in the upper half of `registers`.
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
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

fn number(object: impl AsFd) -> u32 {
    object.as_fd().as_raw_fd() as u32
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

/// Does `command`.
///
/// # Safety
/// These are the members that the command has, at their places; what they point to is alive, and the kernel only reads it.
unsafe fn bpf<T>(command: c_long, attributes: T) -> Result<c_long, Errno> {
    let size = size_of::<T>();
    // SAFETY: the caller's, and the size is told.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size) })
}

/// As [`bpf`], of a command that makes a descriptor; the kernel sets close-on-exec on all of them.
///
/// # Safety
/// As of [`bpf`], and that it is such a command.
unsafe fn bpf_fd<T>(command: c_long, attributes: T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { owned(fd) })
}

const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const PROGRAM_LOAD: c_long = 5;
const OBJ_PIN: c_long = 6;
const OBJ_GET: c_long = 7;
const LINK_CREATE: c_long = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROGRAM_TYPE_XDP: u32 = 6;
/// BPF_F_XDP_HAS_FRAGS (Linux 5.18).
pub(crate) const PROGRAM_HAS_FRAGS: u32 = 1 << 5;
const ATTACH_TYPE_XDP: u32 = 37;
/// Behind the driver.
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// In the driver.
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
