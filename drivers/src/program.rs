//! Programs that the switch starts: scripts, helpers. By itself, or, where it is confined, by its opener; then they are no
//! children of ours, and not confined.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use crossbeam_channel::{Receiver, TryRecvError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::sandbox::{self, Errand, Order, PASSED, Request, Slot};
use crate::sys::process::leave_open;

/// What to start. Its standard input is nothing and its outputs are our standard error, unless it is given others: our own
/// may be a monitor's.
pub(crate) struct Program {
    errand: Errand,
    leads: bool,
    sweeps: bool,
    fds: Vec<(Slot, OwnedFd)>,
}

/// One that was started.
pub(crate) struct Running {
    id: i32,
    ended: OwnedFd,
    leads: bool,
    sweeps: bool,
    how: How,
}

enum How {
    Ours { child: Child, reaped: bool },
    Openers(Receiver<ExitStatus>),
}

impl Program {
    pub(crate) fn new(errand: Errand) -> Program {
        Program { errand, leads: false, sweeps: false, fds: Vec::new() }
    }

    /// It leads a group of its own, all of which is killed together.
    pub(crate) fn leading(mut self) -> Program {
        self.leads = true;
        self
    }

    /// The same; and when it ends, what is left of the group is killed.
    pub(crate) fn sweeping(mut self) -> Program {
        (self.leads, self.sweeps) = (true, true);
        self
    }

    pub(crate) fn input(self, fd: OwnedFd) -> Program {
        self.with(Slot::Input, fd)
    }

    pub(crate) fn output(self, fd: OwnedFd) -> Program {
        self.with(Slot::Output, fd)
    }

    pub(crate) fn errors(self, fd: OwnedFd) -> Program {
        self.with(Slot::Errors, fd)
    }

    /// It has `fd`, too, one at most, and is told its number.
    pub(crate) fn passing(self, fd: OwnedFd) -> Program {
        self.with(Slot::Passed, fd)
    }

    fn with(mut self, slot: Slot, fd: OwnedFd) -> Program {
        self.fds.push((slot, fd));
        self
    }

    /// Starts it.
    ///
    /// Errors: also a sentence of the opener's (`PermissionDenied`), which says why it does not.
    pub(crate) fn start(self) -> io::Result<Running> {
        match sandbox::opener() {
            None => self.start_here(),
            Some(opener) => {
                let slots = self.fds.iter().map(|(slot, _)| *slot).collect();
                let (leads, sweeps) = (self.leads, self.sweeps);
                let order = Order { errand: self.errand, leads, sweeps, fds: slots };
                let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(|(_, fd)| fd.as_fd()).collect();
                let (id, ended, end) = opener.start(&Request::Start(order), &fds)?;
                Ok(Running { id, ended, leads, sweeps, how: How::Openers(end) })
            }
        }
    }

    fn start_here(self) -> io::Result<Running> {
        let passed = self.fds.iter().find(|(slot, _)| *slot == Slot::Passed);
        let (program, arguments) = self.errand.words(passed.map_or(PASSED, |(_, fd)| fd.as_raw_fd()));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(io::stderr());
        if self.leads {
            command.process_group(0);
        }
        for (slot, fd) in self.fds {
            match slot {
                Slot::Input => _ = command.stdin(fd),
                Slot::Output => _ = command.stdout(fd),
                Slot::Errors => _ = command.stderr(fd),
                Slot::Passed => leave_open(&mut command, fd),
            }
        }
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(ended) => {
                let how = How::Ours { child, reaped: false };
                let id = pid.as_raw_nonzero().get();
                Ok(Running { id, ended, leads: self.leads, sweeps: self.sweeps, how })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }
}

impl Running {
    /// Becomes readable when it ends.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.how {
            How::Ours { child, reaped } => {
                let status = child.try_wait()?;
                *reaped |= status.is_some();
                Ok(status)
            }
            How::Openers(end) => match end.try_recv() {
                Ok(status) => Ok(Some(status)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(nobody_knows()),
            },
        }
    }

    /// How it ended; waits for that.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.how {
            How::Ours { child, reaped } => {
                if self.sweeps && !*reaped {
                    // Before it is waited for, while its number is its own.
                    while poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], None) == Err(Errno::INTR) {}
                    // None is left: that is what it is for.
                    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                }
                *reaped = true;
                child.wait()
            }
            How::Openers(end) => end.recv().map_err(|_| nobody_knows()),
        }
    }

    /// Kills it, and all of its group if it leads one.
    pub(crate) fn kill(&mut self) {
        match &mut self.how {
            // Its number may be another process's by now.
            How::Ours { reaped: true, .. } => {}
            How::Ours { child, .. } if self.leads => {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            }
            How::Ours { child, .. } => _ = child.kill(),
            How::Openers(_) => {
                if let Some(opener) = sandbox::opener() {
                    // One that has ended cannot be killed.
                    let _ = opener.ask(&Request::Kill(self.id), &[]);
                }
            }
        }
    }
}

/// Whether the opener has said no, and why.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

fn nobody_knows() -> io::Error {
    io::Error::other("the process that started it has ended")
}
