//! Gathers a frame from the buffers of a chain: the net header and the frame's header are copied, across buffers where
//! they must be, and the rest is lent.

#![allow(unsafe_code)] // lends guest memory

use super::walk::{Buffer, copy_in};
use crate::drops::DropReason;
use crate::frame::{BurstBuilder, FRAME_LEN_MAX, check_len};
use crate::offload::{Offload, Offloads, is_plain};

/// Room for a virtio-net header of any size served here.
const NET_HEADER_MAX: usize = 12;

/// What a chain turned out to be.
pub(crate) enum Outcome {
    Lent,
    Dropped(DropReason),
    /// There is no room for it in this burst.
    Later,
}

/// A frame being gathered, at the front of the next slot of a burst.
pub(crate) struct Gathering<'b, 's, 'v> {
    builder: &'b mut BurstBuilder<'s, 'v>,
    net_header: [u8; NET_HEADER_MAX],
    net_len: usize,
    net_have: usize,
    /// What the sender may ask for.
    sender: Offloads,
    header_have: usize,
    frame_len: usize,
    pieces: usize,
    verdict: Option<Outcome>,
}

impl<'b, 's, 'v> Gathering<'b, 's, 'v> {
    pub(crate) fn new(builder: &'b mut BurstBuilder<'s, 'v>, net_len: usize, sender: Offloads) -> Self {
        let net_header = [0; NET_HEADER_MAX];
        Gathering {
            builder,
            net_header,
            net_len,
            net_have: 0,
            sender,
            header_have: 0,
            frame_len: 0,
            pieces: 0,
            verdict: None,
        }
    }

    /// Whether the walk is to go on.
    pub(crate) fn take(&mut self, buffer: Buffer, writable: bool) -> bool {
        if writable {
            return self.give_up(Outcome::Dropped(DropReason::Malformed));
        }
        let Buffer { mut start, len } = buffer;
        let mut left = len as usize;
        let net = left.min(self.net_len - self.net_have);
        // SAFETY: `net` bytes of the buffer are mapped; net_have + net stays within the header.
        unsafe { copy_in(start, self.net_header[self.net_have..].as_mut_ptr(), net) };
        self.net_have += net;
        // SAFETY: within the buffer.
        start = unsafe { start.add(net) };
        left -= net;
        if self.frame_len + left > FRAME_LEN_MAX {
            return self.give_up(Outcome::Dropped(DropReason::TooLong));
        }
        self.frame_len += left;
        let slot = self.header_slot();
        let header = left.min(slot.len());
        // SAFETY: `header` bytes of the buffer are mapped, and the slot has as many left.
        unsafe { copy_in(start, slot.as_mut_ptr(), header) };
        self.header_have += header;
        left -= header;
        if left == 0 {
            return true;
        }
        if self.builder.is_full(1) {
            let alone = self.builder.is_empty();
            return self.give_up(if alone {
                Outcome::Dropped(DropReason::Malformed)
            } else {
                Outcome::Later
            });
        }
        // SAFETY: within the buffer.
        let body = unsafe { start.add(header) };
        // SAFETY: `left` bytes from there end the buffer, mapped as long as the view that `'v` borrows.
        unsafe { self.builder.push_piece(body, left as u32) };
        self.pieces += 1;
        true
    }

    /// What is left of the place for the header copy: a longer one if the net header, which comes first, asks for
    /// something.
    fn header_slot(&mut self) -> &mut [u8] {
        let slot = if self.asks() {
            &mut self.builder.long_header_slot()[..]
        } else {
            &mut self.builder.header_slot()[..]
        };
        &mut slot[self.header_have..]
    }

    fn asks(&self) -> bool {
        !is_plain(std::array::from_fn(|at| self.net_header[at]))
    }

    fn give_up(&mut self, outcome: Outcome) -> bool {
        self.verdict = Some(outcome);
        false
    }

    pub(crate) fn finish(mut self) -> Outcome {
        let outcome = match self.verdict.take() {
            Some(outcome) => outcome,
            None => match self.commit() {
                Ok(()) => return Outcome::Lent,
                Err(reason) => Outcome::Dropped(reason),
            },
        };
        self.builder.abandon(self.pieces);
        outcome
    }

    fn commit(&mut self) -> Result<(), DropReason> {
        if self.net_have < self.net_len {
            return Err(DropReason::Malformed);
        }
        check_len(self.frame_len)?;
        if !self.asks() {
            self.builder.commit(self.frame_len, self.pieces);
            return Ok(());
        }
        let net = std::array::from_fn(|at| self.net_header[at]);
        let header = &self.builder.long_header_slot()[..self.header_have];
        let offload = Offload::parse(&net, header, self.frame_len, self.sender)?;
        self.builder.commit_asking(self.frame_len, self.pieces, offload.ok_or(DropReason::Malformed)?);
        Ok(())
    }
}
