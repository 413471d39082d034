//! Why a frame was not delivered. Every drop has one of these names and a counter; there is no other way to lose one.

use std::fmt;

/// The reason of a drop, counted at the ingress that read the frame or at the egress that refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than an Ethernet header (14 bytes).
    Runt,
    /// The virtio-net header is cut or asks for something that was not negotiated.
    Malformed,
    /// Longer than [`crate::frame::FRAME_LEN_MAX`], or than any buffer the receiver can ever offer.
    TooLong,
    /// The port's rx-filter refuses its own exact address (VLAN not admitted, unicast `none`).
    Filtered,
    /// The link of this port is down: by `set_link`, or because nobody is connected.
    LinkDown,
    /// The link is up but the ring that should take or give the frame is not started or not enabled.
    NotReady,
    /// The receiver had no room.
    NoRoom,
    /// Nobody takes this address, or the port is on no hub.
    NoReceiver,
    /// A system call failed on this frame.
    IoError,
    /// It is not from the port's peer: another cookie, session or source address.
    Stranger,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = 10;

    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; DropReason::COUNT] = [
        DropReason::Runt,
        DropReason::Malformed,
        DropReason::TooLong,
        DropReason::Filtered,
        DropReason::LinkDown,
        DropReason::NotReady,
        DropReason::NoRoom,
        DropReason::NoReceiver,
        DropReason::IoError,
        DropReason::Stranger,
    ];

    /// The name that statistics print.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Runt => "runt",
            DropReason::Malformed => "malformed",
            DropReason::TooLong => "too_long",
            DropReason::Filtered => "filtered",
            DropReason::LinkDown => "link_down",
            DropReason::NotReady => "not_ready",
            DropReason::NoRoom => "no_room",
            DropReason::NoReceiver => "no_receiver",
            DropReason::IoError => "io_error",
            DropReason::Stranger => "stranger",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_place() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
