//! The hot half of a stream: one connection, both ways.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::port::{
    Arming, Attachment, Doorbell, Egress, EgressScratch, Ingress, IngressEnd, IngressScratch,
};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

use super::reader::{Collected, Reader};
use super::writer::Writer;
use crate::minder::Alarm;

/// A connected socket. Whoever minds it is told by its alarms what there is to be done.
pub(super) struct Connection {
    socket: OwnedFd,
    /// It has ended.
    over: Alarm,
    /// A part of a frame could not be sent.
    cut: Alarm,
    /// Used by the worker that has the duty, a burst at a time.
    incoming: Mutex<Incoming>,
    /// Used by one worker at a time, a burst long.
    writer: Mutex<Writer>,
}

struct Incoming {
    reader: Reader,
    /// The last read took all that there was, so the next one waits for the doorbell.
    drained: bool,
    /// Nothing will come any more.
    ended: Option<Ending>,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer closed it.
    Closed,
    /// It sent a record that is longer than any frame.
    Oversized,
    /// The kernel says so.
    Failed(Errno),
    /// A worker gave it up, which is our own mistake.
    Abandoned,
}

impl Connection {
    /// Of a connected stream socket.
    ///
    /// Errors: no descriptors to be had.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Arc<Connection>> {
        // Nothing depends on it while the socket does not block.
        let _ = set_socket_timeout(&socket, Timeout::Recv, Some(READ_TIME_MAX));
        let incoming = Incoming { reader: Reader::new(), drained: true, ended: None };
        let (incoming, writer) = (Mutex::new(incoming), Mutex::new(Writer::new()));
        Ok(Arc::new(Connection { socket, over: Alarm::new()?, cut: Alarm::new()?, incoming, writer }))
    }

    /// What workers get of it.
    pub(super) fn attachment(self: &Arc<Self>) -> Attachment {
        let end = IngressEnd {
            queue: 0,
            ingress: self.clone(),
            doorbell: self.clone(),
            linger_us: 0,
            discard: None,
        };
        Attachment {
            carrier: true,
            ingress: vec![Arc::new(end)],
            egress: vec![self.clone()],
            ..Attachment::default()
        }
    }

    /// Readable when the connection has ended.
    pub(super) fn over(&self) -> BorrowedFd<'_> {
        self.over.fd()
    }

    /// Readable when a part of a frame could not be sent: it is to be [flushed](Self::flush) if nothing follows it.
    pub(super) fn cut(&self) -> BorrowedFd<'_> {
        self.cut.fd()
    }

    /// Sends what is left of a frame that was cut. Whether it is all gone, or lost; if not, it can go on when the socket
    /// takes more.
    pub(super) fn flush(&self) -> bool {
        self.cut.clear();
        let mut writer = lock(&self.writer);
        let flushed = writer.flush(self.socket.as_fd());
        self.hang_up(&writer);
        flushed
    }

    /// The socket, to wait for.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Why it has ended, if it has.
    pub(super) fn ending(&self) -> Option<Ending> {
        let broken = lock(&self.writer).broken();
        let ended = self.incoming().ended;
        // We hang up ourselves when the kernel takes nothing any more.
        if ended == Some(Ending::Closed) { broken.map(Ending::Failed).or(ended) } else { ended }
    }

    /// Ends both ways of a stream that can't be sent to: the reader takes what has come by now, and then finds the end.
    fn hang_up(&self, writer: &Writer) {
        if writer.broken().is_some() {
            let _ = shutdown(&self.socket, Shutdown::Both);
        }
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        lock(&self.incoming)
    }

    /// Reads what there is, if there is something.
    fn read(&self, incoming: &mut Incoming) {
        let room = incoming.reader.room();
        let wanted = room.len();
        let read = loop {
            // The socket does not block, and for a moment at most if somebody else has it, too, and changes that.
            match rustix::io::read(&self.socket, &mut *room) {
                Err(Errno::INTR) => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => self.end(incoming, Ending::Closed),
            Ok(len) => {
                incoming.reader.advance(len);
                incoming.drained = len < wanted;
            }
            Err(Errno::AGAIN) => incoming.drained = true,
            Err(error) => self.end(incoming, Ending::Failed(error)),
        }
    }

    #[cold]
    fn end(&self, incoming: &mut Incoming, ending: Ending) {
        incoming.ended.get_or_insert(ending);
        self.over.raise();
    }
}

impl Ingress for Connection {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut incoming = self.incoming();
        let incoming = &mut *incoming;
        let mut collected = incoming.reader.collect();
        if incoming.reader.is_empty() && collected == Collected::All {
            if incoming.drained || incoming.ended.is_some() {
                return 0;
            }
            self.read(incoming);
            collected = incoming.reader.collect();
        }
        if !incoming.reader.is_empty() {
            return incoming.reader.lend(scratch, forward);
        }
        if collected == Collected::Oversized {
            incoming.reader.give_up(scratch);
            self.end(incoming, Ending::Oversized);
            return 1;
        }
        0
    }
}

impl Doorbell for Connection {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    /// Epoll itself looks for new bytes when it is armed.
    fn arm(&self) -> Arming {
        let mut incoming = self.incoming();
        let collected = incoming.reader.collect();
        if !incoming.reader.is_empty() || collected != Collected::All {
            return Arming::Work;
        }
        match incoming.ended {
            Some(_) => Arming::Dead,
            None if incoming.drained => Arming::Quiet,
            None => Arming::Work,
        }
    }

    fn disarm(&self) {
        self.incoming().drained = false;
    }

    fn fail(&self) {
        self.end(&mut self.incoming(), Ending::Abandoned);
    }
}

impl Egress for Connection {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut writer = lock(&self.writer);
        let was_broken = writer.broken().is_some();
        let settled = writer.send(self.socket.as_fd(), burst, picks, &mut scratch.tally);
        // A worker does not hang up itself.
        if writer.is_cut() || !was_broken && writer.broken().is_some() {
            self.cut.raise();
        }
        settled
    }
}

/// What a read waits for, if ever it waits; the kernel makes a tick of it.
const READ_TIME_MAX: Duration = Duration::from_millis(1);

/// Whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
