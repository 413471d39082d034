//! `/dev/vhost-vdpa-N`: a vDPA device as its driver sees it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ringyard_dataplane::ring::{DriverMemory, RingLayout};
use rustix::fs::{Mode, OFlags};

use super::abi::{self, Iotlb};
use crate::errno;
use crate::sys::Plain;
use crate::sys::ioctl::{Bare, Request, ioctl, ioctl_bare};
use crate::sys::vdpa::{self, CONFIG_LEN, IovaRange, VringAddr, VringFile, VringState};

/// An open device. One process has it at a time.
pub(super) struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens the device at `path`.
    ///
    /// Errors: in QEMU's words.
    pub(super) fn open(path: &str) -> Result<Device, String> {
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("Could not open '{path}': {}", errno::text(error)))?;
        Ok(Device { fd })
    }

    /// A device that somebody else opened.
    pub(super) fn take_over(fd: OwnedFd) -> Device {
        Device { fd }
    }

    /// Makes us the one whose memory is meant.
    pub(super) fn set_owner(&self) -> io::Result<()> {
        self.do_bare(vdpa::SET_OWNER)
    }

    /// The virtio device id: 1 is a network device.
    pub(super) fn device_id(&self) -> io::Result<u32> {
        self.get(vdpa::GET_DEVICE_ID)
    }

    /// What the device offers.
    pub(super) fn features(&self) -> io::Result<u64> {
        self.get(vdpa::GET_FEATURES)
    }

    /// What we acknowledge.
    pub(super) fn set_features(&self, features: u64) -> io::Result<()> {
        self.set(vdpa::SET_FEATURES, features)
    }

    /// What the kernel's side of it offers.
    pub(super) fn backend_features(&self) -> io::Result<u64> {
        self.get(vdpa::GET_BACKEND_FEATURES)
    }

    /// What we use of that.
    pub(super) fn set_backend_features(&self, features: u64) -> io::Result<()> {
        self.set(vdpa::SET_BACKEND_FEATURES, features)
    }

    /// The device status (virtio 1.2, 2.1).
    pub(super) fn status(&self) -> io::Result<u8> {
        self.get(vdpa::GET_STATUS)
    }

    /// Writes the status; 0 resets the device.
    pub(super) fn set_status(&self, status: u8) -> io::Result<()> {
        self.set(vdpa::SET_STATUS, status)
    }

    /// Has the device leave its rings alone.
    pub(super) fn suspend(&self) -> io::Result<()> {
        self.do_bare(vdpa::SUSPEND)
    }

    /// The first bytes of the configuration space; those that the device does not have are 0.
    pub(super) fn config(&self) -> io::Result<[u8; CONFIG_LEN]> {
        // Kernels before 5.16 do not tell; all network devices of theirs have these bytes.
        let size: u32 = self.get(vdpa::GET_CONFIG_SIZE).unwrap_or(CONFIG_LEN as u32);
        Ok(vdpa::config(&self.fd, size)?)
    }

    /// Has `eventfd` signalled when the configuration changed.
    pub(super) fn set_config_call(&self, eventfd: impl AsFd) -> io::Result<()> {
        self.set(vdpa::SET_CONFIG_CALL, eventfd.as_fd().as_raw_fd())
    }

    /// Which addresses the device reaches.
    pub(super) fn iova_range(&self) -> io::Result<IovaRange> {
        self.get(vdpa::GET_IOVA_RANGE)
    }

    /// Entries of a ring, at most.
    pub(super) fn ring_size_max(&self) -> io::Result<u16> {
        self.get(vdpa::GET_VRING_NUM)
    }

    /// Rings of the device; `None`: the kernel does not tell.
    pub(super) fn rings(&self) -> Option<u32> {
        self.get(vdpa::GET_VQS_COUNT).ok()
    }

    /// Sets ring `index` up: where it lies in the device's addresses, where it begins, and its eventfds.
    pub(super) fn set_ring(
        &self,
        index: u32,
        layout: RingLayout,
        base: u32,
        kick: impl AsFd,
        call: impl AsFd,
    ) -> io::Result<()> {
        let RingLayout { size, desc, avail, used } = layout;
        self.set(vdpa::SET_VRING_NUM, VringState { index, num: size.into() })?;
        let addr = VringAddr { index, flags: 0, desc, used, avail, log: 0 };
        self.set(vdpa::SET_VRING_ADDR, addr)?;
        self.set(vdpa::SET_VRING_BASE, VringState { index, num: base })?;
        self.set(vdpa::SET_VRING_KICK, VringFile { index, fd: kick.as_fd().as_raw_fd() })?;
        self.set(vdpa::SET_VRING_CALL, VringFile { index, fd: call.as_fd().as_raw_fd() })
    }

    /// Lets the device use ring `index`.
    pub(super) fn enable_ring(&self, index: u32) -> io::Result<()> {
        self.set(vdpa::SET_VRING_ENABLE, VringState { index, num: 1 })
    }

    /// Has the device reach all of `memory`, at the addresses that it has in descriptors.
    pub(super) fn map(&self, memory: &DriverMemory, batch: bool) -> io::Result<()> {
        let (iova, size) = (memory.guest_addr(0), memory.len() as u64);
        let update = Iotlb::Update { iova, size, uaddr: memory.start() as u64 };
        self.change_mappings(update, batch)
    }

    /// Takes that back.
    pub(super) fn unmap(&self, memory: &DriverMemory, batch: bool) -> io::Result<()> {
        let (iova, size) = (memory.guest_addr(0), memory.len() as u64);
        self.change_mappings(Iotlb::Invalidate { iova, size }, batch)
    }

    fn change_mappings(&self, change: Iotlb, batch: bool) -> io::Result<()> {
        if batch {
            self.tell(Iotlb::Begin)?;
        }
        let changed = self.tell(change);
        if batch {
            self.tell(Iotlb::End)?;
        }
        changed
    }

    fn tell(&self, message: Iotlb) -> io::Result<()> {
        match rustix::io::write(&self.fd, &message.encode())? {
            abi::MESSAGE_LEN => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn get<T: Default + Plain>(&self, request: Request<T>) -> io::Result<T> {
        let mut value = T::default();
        ioctl(&self.fd, request, &mut value)?;
        Ok(value)
    }

    fn set<T: Plain>(&self, request: Request<T>, mut value: T) -> io::Result<()> {
        ioctl(&self.fd, request, &mut value)?;
        Ok(())
    }

    fn do_bare(&self, request: Bare) -> io::Result<()> {
        ioctl_bare(&self.fd, request, 0)?;
        Ok(())
    }
}
