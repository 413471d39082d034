//! The tun driver's character device: the ioctls of `linux/if_tun.h`, and a frame in one `writev`.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ringyard_dataplane::frame::{Burst, Frame};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offload, Offloads, Payload, Segments};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::train::{TRAIN_PIECES_MAX, Train};
use super::{OpenError, macvtap};
use crate::sys::ioctl::ioctl;
use crate::sys::tap;
use crate::sys::vector::{Vector, write_vectors};

const TUN: &str = "/dev/net/tun";
/// Body pieces that one `writev` takes here; Linux takes 1024 in all.
const PIECES_MAX: usize = 62;

/// Whether frames carry a virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VnetHeader {
    /// If the kernel can.
    IfSupported,
    /// Or else fail.
    Required,
    /// No.
    Off,
}

/// One queue of a tap interface.
pub(super) struct Device {
    fd: OwnedFd,
    ifname: String,
    /// IFF_…
    flags: c_int,
    net_header_len: usize,
    offloads: Offloads,
}

/// What has become of a queue's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It is there.
    Whole,
    /// It was deleted.
    Gone,
    /// Somebody has given frames another header.
    OtherHeader,
}

impl Device {
    /// Opens a queue of the interface `ifname`, made if it is not there. A macvtap has a device file of its own.
    pub(super) fn open(
        ifname: Option<&str>,
        multi_queue: bool,
        header: VnetHeader,
    ) -> Result<Device, OpenError> {
        let macvtap = ifname.map(macvtap::device_of).transpose()?.flatten();
        let path = macvtap.as_deref().unwrap_or(TUN);
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| OpenError::new(format!("could not open {path}"), error.into()))?;
        let mut features = 0;
        if ioctl(&fd, tap::GET_FEATURES, &mut features).is_err() {
            features = 0;
        }
        let supports = |flag: c_int| features & flag as c_uint != 0;
        if header == VnetHeader::Required && !supports(libc::IFF_VNET_HDR) {
            return Err(OpenError(
                "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available".into(),
            ));
        }
        if multi_queue && !supports(libc::IFF_MULTI_QUEUE) {
            return Err(OpenError(
                "multiqueue required, but no kernel support for IFF_MULTI_QUEUE available".into(),
            ));
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if header != VnetHeader::Off && supports(libc::IFF_VNET_HDR) {
            flags |= libc::IFF_VNET_HDR;
        }
        if multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let name = ifname.unwrap_or("tap%d");
        let failed =
            |error: Errno| OpenError::new(format!("could not configure {path} ({name})"), error.into());
        let ifname = tap::set_interface(&fd, name, flags).map_err(failed)?;
        Device::set_up(fd, ifname, flags).map_err(failed)
    }

    /// A queue that somebody else opened.
    pub(super) fn take_over(fd: OwnedFd) -> Result<Device, OpenError> {
        let number = fd.as_raw_fd();
        let failed =
            |error: Errno| OpenError::new(format!("Unable to query TUNGETIFF on FD {number}"), error.into());
        let (ifname, flags) = tap::interface(&fd).map_err(failed)?;
        if flags & libc::IFF_TAP == 0 {
            return Err(OpenError(format!("FD {number} is a tun device, and a tap is needed")));
        }
        rustix::io::ioctl_fionbio(&fd, true).map_err(failed)?;
        Device::set_up(fd, ifname, flags).map_err(failed)
    }

    fn set_up(fd: OwnedFd, ifname: String, flags: c_int) -> Result<Device, Errno> {
        let (mut net_header_len, mut offloads) = (0, Offloads::NONE);
        if flags & libc::IFF_VNET_HDR != 0 {
            net_header_len = NET_HEADER_LEN;
            ioctl(&fd, tap::SET_HEADER_LEN, &mut (NET_HEADER_LEN as c_int))?;
            offloads = take_offloads(&fd)?;
        }
        Ok(Device { fd, ifname, flags, net_header_len, offloads })
    }

    /// The same by the name that users know it by: it may have been given another one since.
    pub(super) fn known_as(self, ifname: &str) -> Device {
        Device { ifname: ifname.to_owned(), ..self }
    }

    /// Makes the descriptor one of the interface of the same name again, after it was deleted and made anew.
    pub(super) fn take_back(&self) -> io::Result<()> {
        const SHAPE: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        tap::set_interface(&self.fd, &self.ifname, self.flags & SHAPE)?;
        self.put_header_right()?;
        if self.net_header_len > 0 {
            take_offloads(&self.fd)?;
        }
        // A macvtap's descriptor takes its flags from whomever, attached or not.
        if self.condition() == Condition::Whole { Ok(()) } else { Err(Errno::BADFD.into()) }
    }

    /// What has become of the interface.
    pub(super) fn condition(&self) -> Condition {
        if tap::interface(&self.fd).is_err() {
            return Condition::Gone;
        }
        let mut len: c_int = 0;
        let known = self.net_header_len > 0 && ioctl(&self.fd, tap::GET_HEADER_LEN, &mut len).is_ok();
        let other = known && len != self.net_header_len as c_int;
        if other { Condition::OtherHeader } else { Condition::Whole }
    }

    /// Gives frames the header again that they had.
    pub(super) fn put_header_right(&self) -> io::Result<()> {
        match self.net_header_len {
            0 => Ok(()),
            len => self.set_header_len(len as c_int),
        }
    }

    pub(super) fn set_header_len(&self, mut len: c_int) -> io::Result<()> {
        ioctl(&self.fd, tap::SET_HEADER_LEN, &mut len)?;
        Ok(())
    }

    /// The name that the interface has now, and the network namespace that it is in, if we may know that.
    pub(super) fn whereabouts(&self) -> (String, Option<OwnedFd>) {
        let name = tap::interface(&self.fd).map_or_else(|_| self.ifname.clone(), |(name, _)| name);
        (name, tap::namespace(&self.fd).ok())
    }

    /// The network namespace in which the descriptor was opened, if we may know that.
    pub(super) fn home(&self) -> Option<OwnedFd> {
        tap::home(&self.fd).ok()
    }

    /// The interface's name.
    pub(super) fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Bytes of virtio-net header in front of each frame: 0 or 10.
    pub(super) fn net_header_len(&self) -> usize {
        self.net_header_len
    }

    /// What the kernel may ask of us, and what it takes itself.
    pub(super) fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Limits what the kernel queues for this writer.
    pub(super) fn set_sndbuf(&self, bytes: i32) -> io::Result<()> {
        ioctl(&self.fd, tap::SET_SNDBUF, &mut { bytes })?;
        Ok(())
    }

    /// Reads one net header and frame.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Writes one frame, from where it lies, with what it asks if the kernel takes that, and else what stands for it. How
    /// many segments it was cut into; 0 for none. `bounce` has room for any frame and is used for one of more than 62
    /// pieces.
    pub(super) fn write(&self, frame: &Frame<'_>, bounce: &mut [u8]) -> Result<usize, Unwritten> {
        match frame.offload() {
            None => self.write_whole(frame, &[0; NET_HEADER_LEN], bounce).map(|()| 0),
            Some(offload) if self.offloads.has(offload.needs()) => {
                self.write_whole(frame, &net_header(offload), bounce).map(|()| 0)
            }
            Some(_) => self.write_segments(frame, bounce),
        }
    }

    fn write_whole(
        &self,
        frame: &Frame<'_>,
        net: &[u8; NET_HEADER_LEN],
        bounce: &mut [u8],
    ) -> Result<(), Unwritten> {
        let header = frame.header();
        self.write_behind(net, header, &frame.payload(header.len()), bounce)
    }

    /// Each of them whole. When the kernel has room for some of them only, the others are lost.
    fn write_segments(&self, frame: &Frame<'_>, bounce: &mut [u8]) -> Result<usize, Unwritten> {
        let Some(mut segments) = Segments::of(frame) else { return Ok(0) };
        let (count, mut written) = (segments.count(), 0);
        while let Some(payload) = segments.next_payload() {
            let header = segments.header(payload.sum());
            match self.write_behind(&[0; NET_HEADER_LEN], header, &payload, bounce) {
                Ok(()) => written += 1,
                Err(Unwritten::Full) if written > 0 => return Err(Unwritten::Cut),
                Err(error) => return Err(error),
            }
        }
        Ok(if count > 1 { count } else { 0 })
    }

    /// Writes net header, header and body as one frame.
    fn write_behind(
        &self,
        net: &[u8; NET_HEADER_LEN],
        header: &[u8],
        body: &Payload<'_>,
        bounce: &mut [u8],
    ) -> Result<(), Unwritten> {
        let mut vectors = [Vector::EMPTY; PIECES_MAX + 2];
        vectors[0] = Vector::of(&net[..self.net_header_len]);
        vectors[1] = Vector::of(header);
        let mut count = 2;
        for vector in Vector::all_of(body) {
            if count == vectors.len() {
                body.copy_to(bounce).ok_or(Unwritten::Failed)?;
                vectors[2] = Vector::of(&bounce[..body.len()]);
                count = 3;
                break;
            }
            vectors[count] = vector;
            count += 1;
        }
        self.write_vectors(&vectors[..count])
    }

    /// Writes `picks`, of which `train` was made, as one frame.
    pub(super) fn write_train(
        &self,
        train: &Train,
        burst: &Burst<'_>,
        picks: &[u8],
    ) -> Result<(), Unwritten> {
        let mut vectors = [Vector::EMPTY; TRAIN_PIECES_MAX + 2];
        vectors[0] = Vector::of(&train.net);
        vectors[1] = Vector::of(train.header());
        let mut count = 2;
        for &pick in picks {
            for vector in Vector::all_of(&train.payload(&burst.frame(usize::from(pick)))) {
                vectors[count] = vector;
                count += 1;
            }
        }
        self.write_vectors(&vectors[..count])
    }

    fn write_vectors(&self, vectors: &[Vector<'_>]) -> Result<(), Unwritten> {
        write_vectors(&self.fd, vectors).map_err(|error| match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Unwritten::Full,
            Errno::IO => Unwritten::Down,
            Errno::BADFD | Errno::NODEV | Errno::NXIO | Errno::NOLINK => Unwritten::Gone,
            _ => Unwritten::Failed,
        })
    }
}

/// Why a frame was not written.
pub(super) enum Unwritten {
    /// There was no room, and nothing was written.
    Full,
    /// There was no room for the rest of its segments. It can't be written again.
    Cut,
    /// The interface is down.
    Down,
    /// It was deleted.
    Gone,
    /// The kernel does not like the frame, or its memory is gone (EFAULT).
    Failed,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn net_header(offload: &Offload) -> [u8; NET_HEADER_LEN] {
    let whole = offload.net_header(0);
    std::array::from_fn(|at| whole[at])
}

/// Has the kernel leave to us whatever it can. What it leaves to us is also what it takes from us: both came with the
/// same release, USO with Linux 6.2.
fn take_offloads(fd: &OwnedFd) -> Result<Offloads, Errno> {
    const TCP: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    const USO: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if tap::set_offload(fd, TCP | USO).is_ok() {
        return Ok(Offloads::ALL);
    }
    tap::set_offload(fd, TCP)?;
    Ok(Offloads::ALL.without(Offloads::USO4.with(Offloads::USO6)))
}
