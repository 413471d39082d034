//! Programs that are started for the switch, as its own children would be: with the opener's environment, working directory
//! and rights, which were the switch's. None but those that its start has named.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::sandbox::PASSED;
use crate::sandbox::allowed::{Allowed, Errand};
use crate::sandbox::messages::{Order, Slot};
use crate::sys::process::put_in_place;

/// See the module.
pub(super) struct Programs {
    allowed: Allowed,
    running: BTreeMap<i32, Running>,
    asked: bool,
    place: Place,
}

/// Keeps the number [`PASSED`] for the programs.
pub(super) struct Place(OwnedFd);

impl Place {
    pub(super) fn keep() -> io::Result<Place> {
        let null = std::fs::File::open("/dev/null")?;
        let place = rustix::io::fcntl_dupfd_cloexec(&null, PASSED)?;
        if place.as_raw_fd() == PASSED { Ok(Place(place)) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }
}

struct Running {
    child: Child,
    handle: OwnedFd,
    /// It leads a group of its own.
    leads: bool,
    /// What is left of that is killed.
    sweeps: bool,
}

impl Programs {
    pub(super) fn new(allowed: Allowed, place: Place) -> Programs {
        Programs { allowed, running: BTreeMap::new(), asked: false, place }
    }

    /// Starts one; its number, and what becomes readable at its end.
    pub(super) fn start(
        &mut self,
        order: Order,
        fds: impl Iterator<Item = OwnedFd>,
    ) -> io::Result<(i32, OwnedFd)> {
        self.allowed.judge(&order.errand).map_err(io::Error::other)?;
        let (program, mut arguments) = match &order.errand {
            // What to be it is told by the switch; it judges that by what we tell it.
            Errand::UserHelper { .. } => {
                Errand::UserHelper { program: "/proc/self/exe".into() }.words(PASSED)
            }
            errand => errand.words(PASSED),
        };
        if let Errand::UserHelper { .. } = order.errand {
            arguments.push(serde_json::to_string(&self.allowed)?);
        }
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(io::stderr());
        if order.leads {
            command.process_group(0);
        }
        for (slot, fd) in order.fds.iter().zip(fds) {
            match slot {
                Slot::Input => _ = command.stdin(fd),
                Slot::Output => _ = command.stdout(fd),
                Slot::Errors => _ = command.stderr(fd),
                Slot::Passed => put_in_place(&mut command, fd, self.place.0.as_fd()),
            }
        }
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        let theirs = handle.try_clone()?;
        let number = pid.as_raw_nonzero().get();
        self.running.insert(number, Running { child, handle, leads: order.leads, sweeps: order.sweeps });
        Ok((number, theirs))
    }

    /// Kills one, which has not ended, with all of its group.
    pub(super) fn kill(&mut self, program: i32) -> io::Result<()> {
        let running = self.running.get_mut(&program).ok_or(Errno::SRCH)?;
        if running.leads {
            kill_process_group(Pid::from_child(&running.child), Signal::KILL)?;
        } else {
            running.child.kill()?;
        }
        Ok(())
    }

    /// Waits until there is a request, or programs have ended: these, with their status.
    pub(super) fn wait(&mut self, socket: &OwnedFd) -> io::Result<Vec<(i32, i32)>> {
        let mut fds = vec![PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        fds.extend(
            self.running
                .values()
                .map(|running| PollFd::from_borrowed_fd(running.handle.as_fd(), PollFlags::IN)),
        );
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        self.asked = !fds[0].revents().is_empty();
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let ended: Vec<i32> =
            self.running.keys().zip(ready).filter(|(_, ready)| *ready).map(|(number, _)| *number).collect();
        let mut told = Vec::new();
        for number in ended {
            let Some(Running { mut child, sweeps, .. }) = self.running.remove(&number) else { continue };
            if sweeps {
                // What it started and left behind. While it is not waited for, its number is nobody else's.
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            }
            told.push((number, child.wait()?.into_raw()));
        }
        Ok(told)
    }

    /// Whether there was a request when [waited](Self::wait) last.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }
}
