//! Whether somebody has shut a socket down for reading, so that it says for ever that there is something to read.
//!
//! Asked by an epoll of its own, since workers may wait by epoll and by nothing else.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Asks after one socket.
pub(crate) struct Ending(Option<OwnedFd>);

impl Ending {
    /// Where there is no descriptor to be had, nothing ever seems to be shut down.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Ending {
        let made = epoll::create(CreateFlags::CLOEXEC).and_then(|epoll| {
            epoll::add(&epoll, socket, EventData::new_u64(0), EventFlags::RDHUP)?;
            Ok(epoll)
        });
        Ending(made.ok())
    }

    /// Whether it has come.
    #[cold]
    pub(crate) fn has_come(&self) -> bool {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = EventFlags::RDHUP | EventFlags::HUP;
        let count = self.0.as_ref().and_then(|epoll| epoll::wait(epoll, &mut events, Some(&now)).ok());
        let flags = events[0].flags;
        count == Some(1) && flags.intersects(ended)
    }
}
