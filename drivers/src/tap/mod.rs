//! `tap`: a network interface of the host kernel.
//!
//! [`TapPort::open`] makes or takes over the interface and runs its script; both may block, so it is called beside
//! control. Each queue is a descriptor of its own with an ingress and an egress (`queue`). Frames carry a virtio-net
//! header of 10 bytes where the kernel has it, and with it go the offloads: the kernel leaves checksums and segmentation
//! to us, as a guest does, and takes frames whose sender did. Without the header, all of that is done before the write.
//!
//! A frame is a `read` or a `writev`. io_uring was measured against that (`cargo bench -p ringyard-benches --bench
//! tap_io`; Linux 6.18, registered descriptor, 8, 32 or 64 frames an enter; times as fast as a call a frame, the worst
//! and the best median of two runs): reads 0.79 to 0.94 for 64 B, 0.79 to 0.90 for 1500 B, 0.86 to 0.91 for 64 KiB;
//! writes 0.83 to 1.02, 0.88 to 1.01, 0.98 to 1.01. A call's way into the kernel is a small part of what tun does for a
//! frame, and a submission costs as much. With SQPOLL, which takes a core besides, reads are at 0.41 to 1.01, and writes
//! at 0.73 to 1.36. What does help is fewer frames: `train`. Looking again for 10 to 100 us before the doorbell is armed,
//! and IFF_NAPI, made no difference to TCP or UDP that stood out of the spread.

mod device;
mod helper;
mod life;
mod macvtap;
mod queue;
mod train;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use ringyard_dataplane::port::Attachment;

use crate::errno;
use crate::line::Line;
use crate::links::Links;
use crate::minder::{Alarm, Minder, Stop};
use crate::program::{Program, is_refusal};
use crate::sandbox::Errand;
use crate::store::Drawer;
use device::Device;
pub use device::VnetHeader;
use life::{Life, Origin};

/// Queues of an interface, at most (the kernel's limit).
pub const QUEUES_MAX: u16 = 256;

/// What workers call for it.
pub(crate) const CALLS: &[std::ffi::c_long] = &[libc::SYS_read, libc::SYS_writev];

/// Where the interface comes from.
#[derive(Debug)]
pub enum TapSource {
    /// Made, or attached to if it is persistent, by us.
    Name {
        /// Its name; `None` lets the kernel choose `tap0`, `tap1`, …
        ifname: Option<String>,
        /// Descriptors to open.
        queues: u16,
        /// Whether frames carry a virtio-net header.
        vnet_hdr: VnetHeader,
    },
    /// Made by somebody else, a descriptor a queue.
    Fds(Vec<OwnedFd>),
    /// Made by a helper, on a bridge.
    Helper {
        /// The path of a program, or, with spaces in it, a shell command.
        helper: String,
        /// The bridge's name.
        bridge: String,
    },
}

/// All that opening a tap needs.
#[derive(Debug)]
pub struct TapOptions {
    /// Where it comes from.
    pub source: TapSource,
    /// Run with the interface's name when it is there.
    pub script: Option<PathBuf>,
    /// Run with the interface's name before it goes.
    pub downscript: Option<PathBuf>,
    /// Bytes that the kernel may queue for one writer; `i32::MAX` is no limit.
    pub sndbuf_bytes: i32,
    /// Where an interface that we opened outlives this process. What one before left there is taken instead of opening, and
    /// no script is run for it.
    pub drawer: Drawer,
}

/// Why a tap could not be opened, in QEMU's words.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    fn new(doing: impl fmt::Display, error: io::Error) -> OpenError {
        OpenError(format!("{doing}: {}", errno::text(error)))
    }
}

/// An open tap. Dropping it closes its descriptors without running the downscript.
pub struct TapPort {
    ifname: String,
    queues: usize,
    downscript: Option<PathBuf>,
    /// Until it is asked for once the port is started: what is attached later is the thread's, and this must not keep it.
    attachment: Mutex<Attachment>,
    /// Until the port is started.
    life: Option<Life>,
    minder: Option<Minder>,
    /// Is closed when the thread has ended, and with it the last use of the descriptors.
    ended: Option<Receiver<()>>,
}

impl TapPort {
    /// Opens the interface and runs the script. Blocks as long as the script, or the helper, runs.
    pub fn open(options: TapOptions) -> Result<TapPort, OpenError> {
        let TapOptions { source, script, downscript, sndbuf_bytes, drawer } = options;
        let links = Links::open().map_err(|error| OpenError::new("watching interfaces", error))?;
        let alarm = Alarm::new().map_err(|error| OpenError::new("making an eventfd", error))?;
        let restored = life::restore(&source, &script, &drawer);
        let is_restored = restored.is_some();
        let (devices, origin) = match restored {
            Some(restored) => restored,
            None => open_source(source, script.clone(), &links)?,
        };
        for device in &devices {
            device
                .set_sndbuf(sndbuf_bytes)
                .map_err(|error| OpenError::new("TUNSETSNDBUF ioctl failed", error))?;
        }
        let ifname = devices.first().map(|device| device.ifname().to_owned()).unwrap_or_default();
        if let Some(script) = script.as_ref().filter(|_| !is_restored) {
            run_script(script, &ifname)?;
        }
        let life = Life::new(origin, sndbuf_bytes, devices, links, Arc::new(alarm)).kept_in(drawer);
        let attachment = life.attachment();
        let queues = attachment.ingress.len();
        let (attachment, life) = (Mutex::new(attachment), Some(life));
        Ok(TapPort { ifname, queues, downscript, attachment, life, minder: None, ended: None })
    }

    /// Starts the thread that watches the interface; once. `info` is what is shown while all is well.
    pub fn start(&mut self, line: Line, info: String) -> io::Result<()> {
        if let Some(life) = self.life.take() {
            let (ends, ended) = bounded(0);
            let body = move |stop: &Stop| {
                life.run(&line, &info, stop);
                drop(ends);
            };
            self.minder = Some(Minder::start("tap", body)?);
            self.ended = Some(ended);
        }
        Ok(())
    }

    /// The interface's name.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Its queues.
    pub fn queues(&self) -> usize {
        self.queues
    }

    /// What workers get at first; to be asked for once when the port is started.
    pub fn attachment(&self) -> Attachment {
        let mut first = self.attachment.lock().unwrap_or_else(PoisonError::into_inner);
        if self.life.is_some() { first.clone() } else { std::mem::take(&mut first) }
    }

    /// Runs the downscript and closes. Blocks as long as the script runs. The interface is gone once nobody has its
    /// attachment either.
    ///
    /// Errors: the script's; the tap is closed all the same.
    pub fn close(self) -> Result<(), OpenError> {
        let result = match &self.downscript {
            Some(script) => run_script(script, &self.ifname),
            None => Ok(()),
        };
        drop(self.minder);
        // Bounded, for the thread may be running a script or a helper.
        self.ended.iter().for_each(|ended| _ = ended.recv_timeout(END_TIME_MAX));
        result
    }
}

/// The queues, and how they are had again.
fn open_source(
    source: TapSource,
    script: Option<PathBuf>,
    links: &Links,
) -> Result<(Vec<Device>, Origin), OpenError> {
    match source {
        TapSource::Name { ifname, queues, vnet_hdr } => {
            let there = |name: &String| links.by_name(name).is_ok_and(|link| link.is_some());
            let found = ifname.as_ref().is_some_and(there);
            let devices = open_queues(ifname, queues, vnet_hdr)?;
            let ifname = devices.first().map(|device| device.ifname().to_owned()).unwrap_or_default();
            let origin = match found {
                true => Origin::Found { ifname, queues, vnet_hdr },
                false => Origin::Made { ifname, queues, vnet_hdr, script },
            };
            Ok((devices, origin))
        }
        TapSource::Fds(fds) => {
            let devices = take_over(fds)?;
            let ifname = devices.first().map(|device| device.ifname().to_owned()).unwrap_or_default();
            Ok((devices, Origin::Given { ifname }))
        }
        TapSource::Helper { helper, bridge } => {
            let device = Device::take_over(helper::tap(&helper, &bridge)?)?;
            Ok((vec![device], Origin::Helped { helper, bridge }))
        }
    }
}

fn open_queues(ifname: Option<String>, queues: u16, vnet_hdr: VnetHeader) -> Result<Vec<Device>, OpenError> {
    if queues == 0 || queues > QUEUES_MAX {
        return Err(OpenError(format!("tap number of queues must be in range [1, {QUEUES_MAX}]")));
    }
    let mut devices: Vec<Device> = Vec::new();
    for _ in 0..queues {
        // The kernel has chosen the name of the first; the others are its further queues.
        let name = devices.first().map(|first| first.ifname().to_owned()).or_else(|| ifname.clone());
        devices.push(Device::open(name.as_deref(), queues > 1, vnet_hdr)?);
    }
    Ok(devices)
}

fn take_over(fds: Vec<OwnedFd>) -> Result<Vec<Device>, OpenError> {
    let devices = fds.into_iter().map(Device::take_over).collect::<Result<Vec<_>, _>>()?;
    if devices.windows(2).any(|pair| pair[0].net_header_len() != pair[1].net_header_len()) {
        return Err(OpenError("vnet_hdr not consistent across given tap fds".into()));
    }
    Ok(devices)
}

fn run_script(script: &Path, ifname: &str) -> Result<(), OpenError> {
    const NOT_RUN: i32 = 1 << 8;
    let errand = Errand::Script { path: script.to_owned(), ifname: ifname.to_owned() };
    let running = match Program::new(errand).start() {
        Err(error) if is_refusal(&error) => return Err(OpenError(error.to_string())),
        running => running,
    };
    let status = running.and_then(|mut running| running.wait());
    // As a shell would have it: what cannot be started exits with 1.
    let raw = status.map_or(NOT_RUN, |status| status.into_raw());
    if raw == 0 {
        return Ok(());
    }
    Err(OpenError(format!("network script {} failed with status {raw}", script.display())))
}

/// What closing waits for the port's thread.
const END_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "../tap_tests.rs"]
mod tests;
