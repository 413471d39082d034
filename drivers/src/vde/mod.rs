//! `vde`: a port of a switch of VDE 2 (`vde_switch`), spoken to without its library.
//!
//! Plugging in is [`plug`]'s, frames are the datagram engine's. The port's thread holds the control socket: when it ends,
//! the carrier goes down and the thread plugs in again as soon as there is a switch again.

mod plug;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::port::Attachment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::datagram::{self, Bare, DatagramOptions, DatagramQueue, Destination};
use crate::line::{Line, Unplugged};
use crate::minder::{Alarm, Minder, Stop, Wait};
#[cfg(any(test, fuzzing))]
pub use plug::fuzzing;
use plug::{Failure, Plug, Waited};

/// All that plugging in needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdeOptions {
    /// The switch's directory; none: the first switch at one of the usual places.
    pub sock: Option<PathBuf>,
    /// The number of the switch's port; 0: any.
    pub port: u16,
    /// The group that may use our socket while the switch connects to it.
    pub group: Option<u32>,
    /// Who else may, as permission bits.
    pub mode: u32,
    /// Who we are, for the switch to show.
    pub description: String,
}

/// Why there is no port, in QEMU's words.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl OpenError {
    fn new(failure: &Failure) -> OpenError {
        OpenError(format!("Could not open vde: {failure}"))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

/// A port at a switch.
pub struct VdePort {
    id: String,
    options: VdeOptions,
    /// As it was at first.
    info: String,
    first: Cell<Attachment>,
    /// Until the port's thread has it.
    outlet: Option<Outlet>,
    minder: Option<Minder>,
}

impl VdePort {
    /// Plugs in. May wait some seconds for the switch.
    pub fn open(id: &str, options: VdeOptions) -> Result<VdePort, OpenError> {
        let plug = plug_in(&options).map_err(|failure| OpenError::new(&failure))?;
        let outlet = Outlet::new(plug).map_err(|error| OpenError(format!("Could not open vde: {error}")))?;
        let first = Cell::new(outlet.attachment.clone());
        let info = outlet.info(&options);
        Ok(VdePort { id: id.to_owned(), options, info, first, outlet: Some(outlet), minder: None })
    }

    /// What workers get at first; to be asked once, after [`Self::start`].
    pub fn attachment(&self) -> Attachment {
        self.first.take()
    }

    /// As `info network` shows it at first.
    pub fn info(&self) -> &str {
        &self.info
    }

    /// Starts the thread that holds the control socket.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        let Some(outlet) = self.outlet.take() else { return Ok(()) };
        let holder = Holder { id: self.id.clone(), options: self.options.clone(), line };
        self.minder = Some(Minder::start("vde", move |stop| holder.run(stop, outlet))?);
        Ok(())
    }
}

/// What we have while we are plugged in.
struct Outlet {
    directory: PathBuf,
    control: OwnedFd,
    /// The number of the datagram socket.
    data: i32,
    attachment: Attachment,
    frames: Arc<DatagramQueue<Bare>>,
    /// Raised when the datagram socket is of no use.
    alarm: Arc<Alarm>,
}

impl Outlet {
    fn new(plug: Plug) -> io::Result<Outlet> {
        let Plug { directory, control, data } = plug;
        datagram::make_room(&data);
        let (data, alarm) = (Arc::new(data), Arc::new(Alarm::new()?));
        let number = data.as_raw_fd();
        let options = DatagramOptions {
            receive: data.clone(),
            send: data,
            destination: Destination::Connected,
            queue: 0,
            alarm: alarm.clone(),
        };
        let frames = Arc::new(DatagramQueue::new(Bare, options));
        let attachment = datagram::attachment(frames.clone());
        Ok(Outlet { directory, control, data: number, attachment, frames, alarm })
    }

    fn info(&self, options: &VdeOptions) -> String {
        let sock = options.sock.as_ref().unwrap_or(&self.directory);
        format!("sock={},fd={}", sock.display(), self.data)
    }
}

/// What the port's thread does.
struct Holder {
    id: String,
    options: VdeOptions,
    line: Line,
}

impl Holder {
    fn run(self, stop: &Stop, mut outlet: Outlet) {
        let id = &self.id;
        // A switch says nothing over the control socket: whatever comes is its end.
        while stop.wait(&[(outlet.control.as_fd(), READABLE), (outlet.alarm.fd(), READABLE)], None)
            != Wait::Stopped
        {
            tracing::warn!("vde '{id}': the switch has closed the port");
            let frames = outlet.frames.clone();
            drop(outlet);
            outlet = match self.plug_in_again(frames, stop) {
                Ok(outlet) => outlet,
                Err(Unplugged) => return,
            };
            tracing::info!("vde '{id}': plugged in again");
        }
    }

    /// Takes the carrier down until there is a port again.
    fn plug_in_again(&self, old: Arc<DatagramQueue<Bare>>, stop: &Stop) -> Result<Outlet, Unplugged> {
        self.line.show("error: the switch has closed the port");
        self.line.attach(Attachment::default())?;
        self.line.count_dropped(old.left());
        drop(old);
        let patience = |fd: BorrowedFd<'_>, limit| match stop.wait(&[(fd, READABLE)], Some(limit)) {
            Wait::Ready(_) => Waited::Readable,
            Wait::TimedOut => Waited::TimedOut,
            Wait::Stopped => Waited::Stopped,
        };
        let mut last = None;
        loop {
            // The pause comes first: a switch that hangs up at once does not keep us busy.
            if !stop.sleep(PAUSE) {
                return Err(Unplugged);
            }
            let plugged = Plug::insert(&self.options, &patience).map_err(|failure| failure.to_string());
            match plugged.and_then(|plug| Outlet::new(plug).map_err(|error| error.to_string())) {
                Ok(outlet) => {
                    self.line.show(outlet.info(&self.options));
                    self.line.attach(outlet.attachment.clone())?;
                    return Ok(outlet);
                }
                Err(why) if last.as_ref() != Some(&why) => {
                    tracing::debug!("vde '{}': plugging in again: {why}", self.id);
                    self.line.show(format!("error: {why}"));
                    last = Some(why);
                }
                Err(_) => {}
            }
        }
    }
}

/// A certain port may be that of a netdev that was deleted a moment ago, whose end the switch has yet to notice: then it
/// does not answer, and is asked once more.
fn plug_in(options: &VdeOptions) -> Result<Plug, Failure> {
    if options.port != 0 {
        match Plug::insert(options, &|fd, limit| wait(fd, limit.min(ASK_AGAIN))) {
            Err(failure) if failure == plug::SILENCE => {}
            plugged => return plugged,
        }
    }
    Plug::insert(options, &wait)
}

/// Waits for a descriptor on a thread that nobody stops.
fn wait(fd: BorrowedFd<'_>, limit: Duration) -> Waited {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(fd, READABLE)], Some(&limit)) {
        Ok(0) => Waited::TimedOut,
        _ => Waited::Readable,
    }
}

const READABLE: PollFlags = PollFlags::IN;
/// After a request that was not answered.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Before each attempt to plug in again.
const PAUSE: Duration = Duration::from_millis(500);
