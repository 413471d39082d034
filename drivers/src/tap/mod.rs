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
mod queue;
mod train;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};

use crate::errno;
use device::Device;
pub use device::VnetHeader;
use queue::TapQueue;

/// Queues of an interface, at most (the kernel's limit).
pub const QUEUES_MAX: u16 = 256;

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
    downscript: Option<PathBuf>,
    attachment: Attachment,
}

impl TapPort {
    /// Opens the interface and runs the script. Blocks as long as the script runs.
    pub fn open(options: TapOptions) -> Result<TapPort, OpenError> {
        let devices = match options.source {
            TapSource::Name { ifname, queues, vnet_hdr } => open_queues(ifname, queues, vnet_hdr)?,
            TapSource::Fds(fds) => take_over(fds)?,
        };
        for device in &devices {
            device
                .set_sndbuf(options.sndbuf_bytes)
                .map_err(|error| OpenError::new("TUNSETSNDBUF ioctl failed", error))?;
        }
        let ifname = devices.first().map(|device| device.ifname().to_owned()).unwrap_or_default();
        if let Some(script) = &options.script {
            run_script(script, &ifname)?;
        }
        Ok(TapPort { ifname, downscript: options.downscript, attachment: attachment(devices) })
    }

    /// The interface's name.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Its queues.
    pub fn queues(&self) -> usize {
        self.attachment.ingress.len()
    }

    /// What workers get; the same each time.
    pub fn attachment(&self) -> Attachment {
        self.attachment.clone()
    }

    /// Runs the downscript and closes. Blocks as long as the script runs. The interface is gone once nobody has its
    /// attachment either.
    ///
    /// Errors: the script's; the tap is closed all the same.
    pub fn close(self) -> Result<(), OpenError> {
        match &self.downscript {
            Some(script) => run_script(script, &self.ifname),
            None => Ok(()),
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

fn attachment(devices: Vec<Device>) -> Attachment {
    let mut attachment = Attachment { carrier: true, ..Attachment::default() };
    for (index, device) in devices.into_iter().enumerate() {
        let queue = Arc::new(TapQueue::new(device, index as u16));
        attachment.ingress.push(Arc::new(IngressEnd {
            queue: index as u16,
            ingress: queue.clone(),
            doorbell: queue.clone(),
            linger_us: 0,
            discard: None,
        }));
        attachment.egress.push(queue as Arc<dyn Egress>);
    }
    attachment
}

fn run_script(script: &Path, ifname: &str) -> Result<(), OpenError> {
    const NOT_RUN: i32 = 1 << 8;
    let status = Command::new(script).arg(ifname).stdin(Stdio::null()).status();
    // As a shell would have it: what cannot be started exits with 1.
    let raw = status.map_or(NOT_RUN, |status| status.into_raw());
    if raw == 0 {
        return Ok(());
    }
    Err(OpenError(format!("network script {} failed with status {raw}", script.display())))
}

#[cfg(test)]
#[path = "../tap_tests.rs"]
mod tests;
