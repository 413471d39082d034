//! The messages of `linux/vduse.h` (API version 0, as of Linux 6.12): what the kernel asks, and what it is answered.

use crate::sys::vduse::RingPosition;

/// Bytes of `vduse_dev_request` and of `vduse_dev_response`.
pub(super) const MESSAGE_LEN: usize = 152;
/// Where the union of either begins.
const BODY: usize = 24;

/// What the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// VDUSE_GET_VQ_STATE: where this ring got to.
    Position {
        /// Its index.
        ring: u32,
    },
    /// VDUSE_SET_STATUS: the driver wrote the device's status.
    Status(u8),
    /// VDUSE_UPDATE_IOTLB: these addresses mean something else from now on, if they mean anything.
    Remapped,
    /// A later kernel's.
    Unknown,
}

/// A request with the number that its answer carries.
pub(super) fn parse(message: &[u8; MESSAGE_LEN]) -> (u32, Request) {
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| message[at + byte]));
    let request = match word(0) {
        0 => Request::Position { ring: word(BODY) },
        1 => Request::Status(message[BODY]),
        2 => Request::Remapped,
        _ => Request::Unknown,
    };
    (word(4), request)
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// VDUSE_REQ_RESULT_OK.
    Done,
    /// The same, with where this ring got to.
    Position(u32, RingPosition),
    /// VDUSE_REQ_RESULT_FAILED.
    Failed,
}

/// The answer to request number `id`.
pub(super) fn encode(id: u32, answer: Answer) -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[..4].copy_from_slice(&id.to_ne_bytes());
    let failed = u32::from(answer == Answer::Failed);
    message[4..8].copy_from_slice(&failed.to_ne_bytes());
    if let Answer::Position(ring, RingPosition { words }) = answer {
        message[BODY..BODY + 4].copy_from_slice(&ring.to_ne_bytes());
        for (place, word) in words.iter().enumerate() {
            let at = BODY + 4 + 2 * place;
            message[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as the kernel writes it.
    fn request(kind: u32, body: &[u8]) -> [u8; MESSAGE_LEN] {
        let mut message = [0; MESSAGE_LEN];
        message[..4].copy_from_slice(&kind.to_ne_bytes());
        message[4..8].copy_from_slice(&77u32.to_ne_bytes());
        message[24..24 + body.len()].copy_from_slice(body);
        message
    }

    #[test]
    fn every_request_is_known_by_its_number() {
        assert_eq!(parse(&request(0, &3u32.to_ne_bytes())), (77, Request::Position { ring: 3 }));
        assert_eq!(parse(&request(1, &[0x0f])), (77, Request::Status(0x0f)));
        assert_eq!(parse(&request(2, &[0xff; 16])), (77, Request::Remapped));
        assert_eq!(parse(&request(3, &[])), (77, Request::Unknown));
        assert_eq!(parse(&[0xff; MESSAGE_LEN]), (u32::MAX, Request::Unknown));
    }

    #[test]
    fn an_answer_carries_its_requests_number_and_a_position_its_ring() {
        let done = encode(77, Answer::Done);
        assert_eq!((&done[..4], &done[4..]), (&77u32.to_ne_bytes()[..], &[0; MESSAGE_LEN - 4][..]));
        assert_eq!(encode(77, Answer::Failed)[4..8], 1u32.to_ne_bytes());
        let position = encode(77, Answer::Position(1, RingPosition { words: [1, 2, 3, 4] }));
        assert_eq!(position[24..28], 1u32.to_ne_bytes());
        let words: Vec<u8> = [1u16, 2, 3, 4].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!((&position[28..36], &position[36..]), (&words[..], &[0; MESSAGE_LEN - 36][..]));
    }
}
