//! A stream of the host that answers guests' connections: connected once, before the helper is confined.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::super::options::Device;

/// Bytes that wait for a device to take them, at most; then the guest's connection fails.
const PENDING_MAX: usize = 1 << 20;

/// See the module.
pub(super) struct OpenDevice {
    /// None: what takes everything and says nothing.
    stream: Option<OwnedFd>,
    /// From guests, until the stream takes them.
    pending: RefCell<Vec<u8>>,
}

impl OpenDevice {
    /// Connects it.
    pub(super) fn open(device: &Device) -> io::Result<OpenDevice> {
        let stream = match device {
            Device::Null => None,
            Device::Unix(path) => Some(UnixStream::connect(path)?.into()),
            Device::Tcp(host, port) => Some(TcpStream::connect((host.as_str(), *port))?.into()),
            Device::Unknown => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(OpenDevice { stream, pending: RefCell::default() })
    }

    /// Takes all of `bytes`. False: there is no room for them, or nobody to take them.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        if self.stream.is_none() {
            return true;
        }
        if self.pending.borrow().len() + bytes.len() > PENDING_MAX {
            return false;
        }
        self.pending.borrow_mut().extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what waits. False: nobody takes it any more.
    pub(super) fn flush(&self) -> bool {
        let Some(stream) = &self.stream else { return true };
        let mut pending = self.pending.borrow_mut();
        while !pending.is_empty() {
            match send(stream, &pending, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => drop(pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    pending.clear();
                    return false;
                }
            }
        }
        true
    }

    /// Whether something waits for the stream to take it.
    pub(super) fn is_full(&self) -> bool {
        !self.pending.borrow().is_empty()
    }

    /// What the stream says, up to the length of `bytes`; `Some(0)` at its end, `None` when there is nothing yet.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Option<usize> {
        let stream = self.stream.as_ref()?;
        match recv(stream, bytes, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Some(count),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(0),
        }
    }

    /// What to wait for; none for a device that says nothing.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    #[test]
    fn bytes_wait_for_a_slow_device_up_to_a_limit() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("device");
        let listener = UnixListener::bind(&path).expect("a socket can be made");
        let device = OpenDevice::open(&Device::Unix(path.display().to_string())).expect("it listens");
        let (mut peer, _) = listener.accept().expect("it connected");
        let mut written = 0;
        while device.write(&[7; 65536]) {
            written += 65536;
        }
        assert!(written >= PENDING_MAX && device.is_full());
        let mut chunk = vec![0; 65536];
        while written > 0 {
            written -= peer.read(&mut chunk).expect("bytes wait");
            assert!(device.flush());
        }
        assert!(!device.is_full());
        drop(peer);
        assert!(!device.write(&[7]));
    }

    #[test]
    fn what_is_no_device_cannot_be_opened() {
        for device in
            [Device::Unknown, Device::Unix("/no/such/socket".into()), Device::Tcp("127.0.0.1".into(), 1)]
        {
            assert!(OpenDevice::open(&device).is_err(), "{device:?}");
        }
        let null = OpenDevice::open(&Device::Null).expect("there always is one");
        assert!(null.write(&[7; 2 * PENDING_MAX]) && !null.is_full());
        assert_eq!(null.read(&mut [0]), None);
    }
}
