//! `/dev/vduse/control` and `/dev/vduse/NAME`: devices are made, set up, and told what the kernel wants to know.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::abi::{self, Answer, MESSAGE_LEN, Request};
use crate::errno;
use crate::sys::ioctl::ioctl;
use crate::sys::vduse::{self, DevConfig, IotlbEntry, NAME_MAX, VqConfig, VqEventfd, VqInfo};

pub(crate) const CONTROL: &str = "/dev/vduse/control";

/// A VDUSE device of ours. Dropping it takes it away, unless it is on the vDPA bus.
pub(super) struct Device {
    name: String,
    /// None only while it is dropped: a device that is open is not taken away.
    fd: Option<OwnedFd>,
    control: OwnedFd,
}

impl Device {
    /// Makes a device with `config`, whose name is `name`, and rings of up to `size` entries. One of that name that an
    /// earlier process left behind is taken away first.
    pub(super) fn make(name: &str, mut config: DevConfig, size: u16) -> Result<Device, String> {
        let control = open(CONTROL).map_err(no_control)?;
        ioctl(&control, vduse::SET_API_VERSION, &mut 0)
            .map_err(|error| doing("setting the version of VDUSE's interface", error))?;
        let rings = config.vq_num;
        let mut made = vduse::create(&control, &mut config);
        if made == Err(Errno::EXIST) {
            if destroy(&control, name) == Err(Errno::BUSY) {
                return Err(format!(
                    "the VDUSE device '{name}' is there already and in use: 'vdpa dev del {name}' takes it off the bus"
                ));
            }
            made = vduse::create(&control, &mut config);
        }
        made.map_err(|error| doing(format_args!("making the VDUSE device '{name}'"), error))?;
        let mut device = Device { name: name.to_owned(), fd: None, control };
        let path = format!("/dev/vduse/{name}");
        let fd = open(&path).map_err(|error| format!("Could not open '{path}': {}", errno::text(error)))?;
        for index in 0..rings {
            let mut ring = VqConfig { index, max_size: size, ..VqConfig::default() };
            ioctl(&fd, vduse::VQ_SETUP, &mut ring)
                .map_err(|error| doing(format_args!("setting ring {index} of '{name}' up"), error))?;
        }
        device.fd = Some(fd);
        Ok(device)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Readable when there is a request.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.open_fd().as_fd()
    }

    /// A descriptor of its own, for what signals from elsewhere.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.open_fd().try_clone()
    }

    /// The next request, if there is one.
    pub(super) fn request(&self) -> io::Result<Option<(u32, Request)>> {
        let mut message = [0; MESSAGE_LEN];
        match rustix::io::read(self.open_fd(), &mut message) {
            Ok(MESSAGE_LEN) => Ok(Some(abi::parse(&message))),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a request. One that was taken back meanwhile is nobody's.
    pub(super) fn answer(&self, id: u32, answer: Answer) {
        let _ = rustix::io::write(self.open_fd(), &abi::encode(id, answer));
    }

    /// What the driver acknowledged.
    pub(super) fn features(&self) -> io::Result<u64> {
        let mut features = 0;
        ioctl(self.open_fd(), vduse::DEV_GET_FEATURES, &mut features)?;
        Ok(features)
    }

    /// What the driver said of ring `index`.
    pub(super) fn ring(&self, index: u32) -> io::Result<VqInfo> {
        let mut info = VqInfo { index, ..VqInfo::default() };
        ioctl(self.open_fd(), vduse::VQ_GET_INFO, &mut info)?;
        Ok(info)
    }

    /// Has `kick` signalled when the driver kicks ring `index`.
    pub(super) fn set_kick(&self, index: u32, kick: impl AsFd) -> io::Result<()> {
        let mut eventfd = VqEventfd { index, fd: kick.as_fd().as_raw_fd() };
        ioctl(self.open_fd(), vduse::VQ_SETUP_KICKFD, &mut eventfd)?;
        Ok(())
    }

    /// The first mapping from the address `start` on, with its file; `None`: there is none.
    pub(super) fn mapping(&self, start: u64) -> Option<(IotlbEntry, OwnedFd)> {
        vduse::mapping(self.open_fd(), start)
    }

    fn open_fd(&self) -> &OwnedFd {
        self.fd.as_ref().expect("open as long as the device is not dropped")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.fd.take());
        match destroy(&self.control, &self.name) {
            Ok(()) => {}
            Err(Errno::BUSY) => tracing::warn!(
                "the VDUSE device '{}' stays, since it is on the vDPA bus or in use: 'vdpa dev del {0}' takes it off",
                self.name
            ),
            Err(error) => {
                tracing::warn!("taking the VDUSE device '{}' away: {}", self.name, errno::text(error));
            }
        }
    }
}

/// Tells the driver to look at what ring `index` of the device behind `fd` has used. One that is not running does not
/// care.
pub(super) fn inject(fd: &OwnedFd, index: u32) {
    let _ = ioctl(fd, vduse::VQ_INJECT_IRQ, &mut { index });
}

fn destroy(control: &OwnedFd, name: &str) -> Result<(), Errno> {
    ioctl(control, vduse::DESTROY_DEV, &mut name_bytes(name)).map(drop)
}

/// A name that is short enough, with zeros behind it.
pub(super) fn name_bytes(name: &str) -> [u8; NAME_MAX] {
    let mut bytes = [0; NAME_MAX];
    for (to, from) in bytes.iter_mut().take(NAME_MAX - 1).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

fn no_control(error: Errno) -> String {
    let hint = match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => " (is the kernel module vduse loaded?)",
        _ => "",
    };
    format!("Could not open '{CONTROL}': {}{hint}", errno::text(error))
}

fn doing(what: impl fmt::Display, error: Errno) -> String {
    format!("{what}: {}", errno::text(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_vduse_is_told_from_one_that_refuses() {
        assert_eq!(
            no_control(Errno::NOENT),
            "Could not open '/dev/vduse/control': No such file or directory (is the kernel module vduse loaded?)"
        );
        assert_eq!(no_control(Errno::ACCESS), "Could not open '/dev/vduse/control': Permission denied");
    }

    #[test]
    fn a_name_ends_with_a_zero_whatever_its_length() {
        assert_eq!(name_bytes("v0")[..3], *b"v0\0");
        assert_eq!(name_bytes(&"x".repeat(300))[254..], *b"x\0");
    }
}
