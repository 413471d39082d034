//! A thread of a running program that is made to do a system call, as code would that somebody has brought into it.
//!
//! The thread must be waiting in a system call. It is stopped (ptrace(2)), sent back to the instruction that it came by,
//! with other registers, and stopped again behind it. x86-64 only.

#![allow(unsafe_code)] // ptrace(2), which no crate in use has

use std::fs;
use std::io;
use std::mem;
use std::ptr;

use crate::error::{Doing, Error, Result};

/// See the module. Dropping it lets the thread go on as if nothing had been.
pub struct Puppet {
    process: u32,
    thread: i32,
    registers: libc::user_regs_struct,
    is_alive: bool,
    /// Bytes of the thread's stack that are in use below its end.
    used: u64,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this, below 0 the negative error.
    Returned(i64),
    /// It ended the process by this signal.
    Killed(i32),
}

/// Bytes under the stack's end that the thread may use without saying so (x86-64 psABI, 3.2.2), and more.
const RED_ZONE: u64 = 4096;
/// `syscall`.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

impl Puppet {
    /// Stops the thread `name` of a process.
    pub fn stop(process: u32, name: &str) -> Result<Puppet> {
        let thread = find(process, name)?;
        ptrace(libc::PTRACE_ATTACH, thread, 0).doing("attaching to the thread")?;
        await_stop(thread)?;
        // SAFETY: numbers.
        let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
        ptrace(libc::PTRACE_GETREGS, thread, (&raw mut registers).addr()).doing("reading registers")?;
        let puppet = Puppet { process, thread, registers, is_alive: true, used: RED_ZONE };
        let came_by = puppet.read(registers.rip - 2, 2)?;
        if came_by != INSTRUCTION {
            return Err(Error::new(format!("{name} is not in a system call: {came_by:x?}")));
        }
        Ok(puppet)
    }

    /// Puts bytes where the thread can name them.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        self.used += (bytes.len() as u64).next_multiple_of(16);
        let address = self.registers.rsp - self.used;
        let ours = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let theirs = libc::iovec { iov_base: address as *mut _, iov_len: bytes.len() };
        // SAFETY: our vector is read; that of the other process is no pointer to us.
        let count = unsafe { libc::process_vm_writev(self.process as i32, &ours, 1, &theirs, 1, 0) };
        if count < 0 {
            Err(io::Error::last_os_error()).doing("writing to the thread's stack")
        } else {
            Ok(address)
        }
    }

    /// Puts a string.
    pub fn put_text(&mut self, text: &str) -> Result<u64> {
        self.put(&[text.as_bytes(), &[0]].concat())
    }

    /// Has it do a system call.
    pub fn call(&mut self, number: i64, arguments: &[u64]) -> Result<Outcome> {
        let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
        let mut registers = self.registers;
        registers.rip -= 2;
        (registers.rax, registers.orig_rax) = (number as u64, u64::MAX);
        (registers.rdi, registers.rsi, registers.rdx) = (argument(0), argument(1), argument(2));
        (registers.r10, registers.r8, registers.r9) = (argument(3), argument(4), argument(5));
        ptrace(libc::PTRACE_SETREGS, self.thread, (&raw mut registers).addr()).doing("setting registers")?;
        ptrace(libc::PTRACE_SINGLESTEP, self.thread, 0).doing("letting the thread go on")?;
        if let Some(signal) = await_stop(self.thread)? {
            self.is_alive = false;
            return Ok(Outcome::Killed(signal));
        }
        ptrace(libc::PTRACE_GETREGS, self.thread, (&raw mut registers).addr()).doing("reading registers")?;
        Ok(Outcome::Returned(registers.rax as i64))
    }

    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let ours = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        let theirs = libc::iovec { iov_base: address as *mut _, iov_len: len };
        // SAFETY: our vector is filled; that of the other process is no pointer to us.
        let count = unsafe { libc::process_vm_readv(self.process as i32, &ours, 1, &theirs, 1, 0) };
        if count < 0 {
            Err(io::Error::last_os_error()).doing("reading the thread's memory")
        } else {
            Ok(bytes)
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        if self.is_alive {
            // A process that has ended needs neither.
            let _ = ptrace(libc::PTRACE_SETREGS, self.thread, (&raw mut self.registers).addr());
            let _ = ptrace(libc::PTRACE_DETACH, self.thread, 0);
        }
    }
}

fn find(process: u32, name: &str) -> Result<i32> {
    let tasks = format!("/proc/{process}/task");
    for task in fs::read_dir(&tasks).doing(format!("listing {tasks}"))?.flatten() {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.trim() == name {
            let number = task.file_name().to_string_lossy().parse();
            return number.doing("reading a thread's number");
        }
    }
    Err(Error::new(format!("process {process} has no thread {name}")))
}

fn ptrace(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: for the requests used here, the data is 0 or the address of registers, which are exclusively borrowed.
    let result = unsafe { libc::ptrace(request, thread, ptr::null_mut::<()>(), data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until the thread has stopped; the signal that ended it, if one has.
fn await_stop(thread: i32) -> Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: a place for a number.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    if waited < 0 {
        return Err(io::Error::last_os_error()).doing("waiting for the thread");
    }
    if libc::WIFSIGNALED(status) { Ok(Some(libc::WTERMSIG(status))) } else { Ok(None) }
}
