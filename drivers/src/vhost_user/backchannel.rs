//! The channel on which a back end asks something of its front end. We have one thing to say: the configuration changed.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use vhost::vhost_user::message::BackendReq;

/// Our end of the channel.
pub(super) struct Backchannel(OwnedFd);

impl Backchannel {
    /// Takes a socket from a front end. Anything else could make us wait when we write to it.
    pub(super) fn new(fd: OwnedFd) -> Result<Backchannel, String> {
        let stat =
            rustix::fs::fstat(&fd).map_err(|error| format!("looking at the back-end channel: {error}"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err("the back-end channel is no socket".into());
        }
        Ok(Backchannel(fd))
    }

    /// Tells the front end that the configuration space changed; false when nobody listens any more. Never waits: where
    /// there is no room, as much is unread already, and whoever reads that looks at the space as it is then.
    #[must_use = "a channel that is gone is not told again"]
    pub(super) fn tell_config_changed(&self) -> bool {
        let header = [BackendReq::CONFIG_CHANGE_MSG as u32, VERSION, 0].map(u32::to_ne_bytes);
        let message = header.as_flattened();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(&self.0, &[IoSlice::new(message)], &mut SendAncillaryBuffer::default(), flags);
        match sent {
            Ok(count) => count == message.len(),
            Err(error) => error == Errno::AGAIN || error == Errno::INTR,
        }
    }
}

/// The protocol's version, in the lowest bits of the flags.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_front_end_that_does_not_read_is_not_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let channel = Backchannel::new(ours.into()).unwrap();
        for _ in 0..100_000 {
            assert!(channel.tell_config_changed());
        }
        let mut message = [0; 12];
        theirs.read_exact(&mut message).unwrap();
        assert_eq!(message, *[2, 1, 0].map(u32::to_ne_bytes).as_flattened());
        drop(theirs);
        assert!(!channel.tell_config_changed());
    }

    #[test]
    fn only_a_socket_is_a_channel() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(Backchannel::new(reader).is_err() && Backchannel::new(writer).is_err());
    }
}
