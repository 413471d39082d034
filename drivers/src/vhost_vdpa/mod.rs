//! `vhost-vdpa`: a vDPA device of the host, driven by us through `/dev/vhost-vdpa-N`.
//!
//! What other switches let a guest do with such a device, we do: its receive queues are our ingresses, its transmit queues our
//! egresses (`ringyard_dataplane::ring`'s driver role), in one piece of memory of ours that the device is given to reach. The
//! data path is between us and the device alone: the kernel relays kicks and calls, and hardware not even kicks.
//!
//! [`plan`] decides how a device is used, [`session`] does it, [`control`] is its control queue; [`abi`] and [`device`] are
//! the kernel's interface. A device that breaks a rule of virtio, or asks for a reset, loses its carrier, is reset, and
//! starts anew; its link state is followed.

mod abi;
mod control;
mod device;
mod plan;
mod session;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ringyard_dataplane::port::Attachment;
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::bucket::Bucket;
use crate::errno;
use crate::line::{Line, Unplugged};
use crate::minder::{Minder, Stop, Wait};
use device::Device;
use session::Session;

/// Queue pairs of a port, at most.
pub const QUEUES_MAX: u16 = plan::QUEUES_MAX;

/// Where the device comes from.
#[derive(Debug)]
pub enum VdpaSource {
    /// Opened by us.
    Path(String),
    /// Opened by somebody else.
    Fd(OwnedFd),
}

/// A port on a vDPA device.
pub struct VhostVdpaPort {
    /// Until it is asked for once the port is started: what is attached later is the thread's, and this must not keep it.
    attachment: Mutex<Attachment>,
    pairs: u16,
    has_control: bool,
    /// Until its thread has it.
    keeper: Option<Keeper>,
    watch: Option<(Minder, Receiver<()>)>,
}

impl VhostVdpaPort {
    /// Opens and starts the device, with up to `queues` queue pairs.
    ///
    /// Errors: what could not be done, for the user.
    pub fn open(source: VdpaSource, queues: u16) -> Result<VhostVdpaPort, String> {
        let device = match source {
            VdpaSource::Path(path) => Device::open(&path)?,
            VdpaSource::Fd(fd) => Device::take_over(fd),
        };
        let keeper = Keeper::new(device, queues.clamp(1, QUEUES_MAX))?;
        let (pairs, has_control) =
            keeper.session.as_ref().map_or((1, false), |session| (session.pairs(), session.has_control()));
        Ok(VhostVdpaPort {
            attachment: Mutex::new(keeper.attachment()),
            pairs,
            has_control,
            keeper: Some(keeper),
            watch: None,
        })
    }

    /// What workers get at first; to be asked for once when the port is started.
    pub fn attachment(&self) -> Attachment {
        let mut first = self.attachment.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keeper.is_some() { first.clone() } else { std::mem::take(&mut first) }
    }

    /// Queue pairs.
    pub fn pairs(&self) -> u16 {
        self.pairs
    }

    /// Whether the device has a control queue in use.
    pub fn has_control(&self) -> bool {
        self.has_control
    }

    /// Looks after the device from now on; only once.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(&mut self, line: Line) -> io::Result<()> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        let (ended, end): (Sender<()>, _) = bounded(0);
        let minder = Minder::start("vhost-vdpa", move |stop| {
            while let Ok(true) = keeper.turn(&line, stop) {}
            // The device is reset and closed before anybody is told that it is.
            drop(keeper);
            drop(ended);
        })?;
        self.watch = Some((minder, end));
        Ok(())
    }

    /// Resets and closes the device. No worker may use it any more.
    ///
    /// Errors: that takes too long.
    pub fn close(self) -> Result<(), String> {
        let VhostVdpaPort { watch, attachment, .. } = self;
        drop(attachment);
        let Some((minder, end)) = watch else { return Ok(()) };
        drop(minder);
        match end.recv_timeout(CLOSE_TIME_MAX) {
            Err(RecvTimeoutError::Timeout) => Err("the vDPA device takes long to reset".into()),
            _ => Ok(()),
        }
    }
}

/// Who looks after a device.
struct Keeper {
    /// `None` while the device cannot be started.
    session: Option<Session>,
    device: Arc<Device>,
    queues: u16,
    trouble: Arc<OwnedFd>,
    changed: OwnedFd,
    bucket: Bucket,
    carrier: bool,
}

impl Keeper {
    fn new(device: Device, queues: u16) -> Result<Keeper, String> {
        let event = || {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            made.map_err(|error| format!("making an eventfd: {}", errno::text(error)))
        };
        // Whoever asks the features of what is no vDPA device is told so; asked again when it is started.
        device.features().map_err(|error| {
            format!("Fail to query features from vhost-vDPA device: {}", errno::text(error))
        })?;
        device.set_owner().map_err(|error| format!("taking the device over: {}", errno::text(error)))?;
        let mut keeper = Keeper {
            session: None,
            device: Arc::new(device),
            queues,
            trouble: Arc::new(event()?),
            changed: event()?,
            bucket: Bucket::new(),
            carrier: false,
        };
        keeper.begin()?;
        Ok(keeper)
    }

    /// Starts the device.
    fn begin(&mut self) -> Result<(), String> {
        let session = Session::start(self.device.clone(), self.queues, &self.trouble, &self.changed)?;
        self.carrier = session
            .link_is_up()
            .map_err(|error| format!("reading the device's configuration: {}", errno::text(error)))?;
        tracing::info!(
            features = format!("{:#x}", session.features()),
            pairs = session.pairs(),
            "vhost-vdpa: device started"
        );
        self.session = Some(session);
        Ok(())
    }

    fn attachment(&self) -> Attachment {
        self.session.as_ref().map_or_else(Attachment::default, |session| session.attachment(self.carrier))
    }

    /// Waits for one thing to happen, and sees to it. False: the port goes away.
    fn turn(&mut self, line: &Line, stop: &Stop) -> Result<bool, Unplugged> {
        let fds = [(self.trouble.as_fd(), PollFlags::IN), (self.changed.as_fd(), PollFlags::IN)];
        match stop.wait(&fds, None) {
            Wait::Stopped => return Ok(false),
            Wait::TimedOut => return Ok(true),
            Wait::Ready(_) => {}
        }
        self.bucket.take();
        for eventfd in [&*self.trouble, &self.changed] {
            let _ = rustix::io::read(eventfd, &mut [0; 8]);
        }
        match self.look() {
            Ok(link) if link == self.carrier => Ok(true),
            Ok(link) => {
                self.carrier = link;
                line.attach(self.attachment())?;
                line.show(if link { INFO.to_owned() } else { format!("{INFO},link down") });
                Ok(true)
            }
            Err(why) => self.restart(&why, line, stop),
        }
    }

    /// Whether the link is up, of a device that is well.
    ///
    /// Errors: what is wrong with it.
    fn look(&self) -> Result<bool, String> {
        let Some(session) = &self.session else { return Err("it is not started".into()) };
        if let Some(fault) = session.fault() {
            return Err(fault.to_string());
        }
        let text = |error| format!("it cannot be asked: {}", errno::text(error));
        if session.needs_reset().map_err(text)? {
            return Err("it needs a reset".into());
        }
        session.link_is_up().map_err(text)
    }

    /// Takes the device away from the workers, and tries to start it anew until that works. False: the port goes away.
    fn restart(&mut self, why: &str, line: &Line, stop: &Stop) -> Result<bool, Unplugged> {
        tracing::warn!(why, "vhost-vdpa: the device is reset");
        self.carrier = false;
        line.attach(Attachment::default())?;
        line.show(format!("error: {why}"));
        if let Some(session) = self.session.take() {
            line.count_dropped(session.held());
        }
        let mut shown = String::new();
        // Not at once, so that a device that is always wrong does not keep the switch busy.
        while stop.sleep(RETRY_PAUSE) {
            match self.begin() {
                Ok(()) => {
                    line.attach(self.attachment())?;
                    line.show(if self.carrier { INFO.to_owned() } else { format!("{INFO},link down") });
                    return Ok(true);
                }
                Err(error) if error != shown => {
                    tracing::warn!(error, "vhost-vdpa: the device does not start");
                    line.show(format!("error: {error}"));
                    shown = error;
                }
                Err(_) => {}
            }
        }
        Ok(false)
    }
}

/// What `info network` shows of a device that is well.
pub const INFO: &str = "vhost-vdpa";
/// Before a device that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A device may be a process that has other things to do.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_said_in_qemus_words() {
        let error = |source| VhostVdpaPort::open(source, 1).err().expect("it is none");
        let path = VdpaSource::Path("/nonexist".into());
        assert_eq!(error(path), "Could not open '/nonexist': No such file or directory");
        let null = VdpaSource::Path("/dev/null".into());
        assert_eq!(
            error(null),
            "Fail to query features from vhost-vDPA device: Inappropriate ioctl for device"
        );
    }
}
