//! Writes frames into a guest's buffers: whole, into one or over several, or cut and summed on the way.

#![allow(unsafe_code)] // writes guest memory

use super::walk::{Buffer, copy_across};
use crate::frame::{Frame, HEADER_LEN};
use crate::offload::{Payload, Segments, Sum};

/// Writes net header, header copy and body at one place.
///
/// # Safety
/// `to` is mapped for `net_len` plus the frame's length, and the frame's pieces are readable.
#[inline]
pub(crate) unsafe fn write_whole(to: *mut u8, frame: &Frame<'_>, net: [u8; 12], net_len: usize) {
    // SAFETY: the caller's; with 10 bytes of net header the frame's first two are written twice. The length is a
    // constant: no call.
    unsafe { copy_across(net.as_ptr(), to, net.len()) };
    // SAFETY: within what the caller promised.
    let mut to = unsafe { to.add(net_len) };
    let header = frame.header();
    // SAFETY: within what the caller promised.
    unsafe { copy_header_across(header, to) };
    // SAFETY: within what the caller promised, or one past it.
    to = unsafe { to.add(header.len()) };
    for piece in frame.body() {
        // SAFETY: within what the caller promised.
        unsafe { copy_across(piece.start(), to, piece.len()) };
        // SAFETY: within what the caller promised, or one past it.
        to = unsafe { to.add(piece.len()) };
    }
}

/// Copies a frame's header without a call where it has 32 to 64 bytes, as nearly all have: two copies of constant length,
/// which may overlap.
///
/// # Safety
/// `to` is mapped for the header's length.
#[inline(always)]
unsafe fn copy_header_across(header: &[u8], to: *mut u8) {
    const HALF: usize = HEADER_LEN / 2;
    let Some(second) = header.len().checked_sub(HALF).filter(|second| *second <= HALF) else {
        // SAFETY: the caller's.
        return unsafe { copy_other_header_across(header, to) };
    };
    // SAFETY: the header has HALF bytes, and `to` as many as the header.
    unsafe { copy_across(header.as_ptr(), to, HALF) };
    // SAFETY: `second` is HALF bytes before the end of both.
    unsafe { copy_across(header.as_ptr().wrapping_add(second), to.wrapping_add(second), HALF) };
}

/// Not inlined, or the compiler makes one call of all three copies.
///
/// # Safety
/// `to` is mapped for the header's length.
#[inline(never)]
unsafe fn copy_other_header_across(header: &[u8], to: *mut u8) {
    // SAFETY: the caller's.
    unsafe { copy_across(header.as_ptr(), to, header.len()) };
}

/// Writes a net header and one segment. The payload is first: the header takes its sum.
///
/// # Safety
/// The buffers are mapped and have room for `net` and the segment.
pub(crate) unsafe fn write_segment(
    buffers: &[Buffer],
    net: &[u8],
    segments: &mut Segments<'_>,
    payload: Payload<'_>,
) {
    let mut writer = Writer::new(buffers);
    writer.skip(net.len() + segments.header_len());
    let mut sum = Sum::default();
    for piece in payload.pieces() {
        writer.each(piece.len(), |at, to, len| {
            // SAFETY: the caller's; a frame's payload is readable while it is lent.
            sum += unsafe { Sum::of_copy(piece.start().wrapping_add(at), to, len) };
        });
    }
    let mut writer = Writer::new(buffers);
    let header = segments.header(sum);
    // SAFETY: the caller's.
    unsafe { writer.write(net.as_ptr(), net.len()) };
    // SAFETY: the caller's.
    unsafe { writer.write(header.as_ptr(), header.len()) };
}

/// Writes bytes over buffers in turn.
pub(crate) struct Writer<'b> {
    buffers: &'b [Buffer],
    at: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buffers: &'b [Buffer]) -> Writer<'b> {
        Writer { buffers, at: 0 }
    }

    /// # Safety
    /// The buffers are mapped and have room for `net` and the frame; the frame's pieces are readable.
    pub(crate) unsafe fn write_frame(&mut self, frame: &Frame<'_>, net: &[u8]) {
        // SAFETY: the caller's.
        unsafe { self.write(net.as_ptr(), net.len()) };
        // SAFETY: the caller's.
        unsafe { self.write(frame.header().as_ptr(), frame.header().len()) };
        for piece in frame.body() {
            // SAFETY: the caller's.
            unsafe { self.write(piece.start(), piece.len()) };
        }
    }

    /// # Safety
    /// `from` is readable for `len` bytes, for which the buffers have room.
    unsafe fn write(&mut self, from: *const u8, len: usize) {
        // SAFETY: both have `here` bytes there.
        self.each(len, |at, to, here| unsafe { copy_across(from.wrapping_add(at), to, here) });
    }

    /// Leaves `len` bytes as they are.
    fn skip(&mut self, len: usize) {
        self.each(len, |_, _, _| ());
    }

    /// Goes over the next `len` bytes, or what is left of the buffers: shows how many came before, where the next ones
    /// lie, and how many they are.
    fn each(&mut self, len: usize, mut visit: impl FnMut(usize, *mut u8, usize)) {
        let mut done = 0;
        while done < len {
            let Some((buffer, rest)) = self.buffers.split_first() else { return };
            let here = (len - done).min(buffer.len as usize - self.at);
            visit(done, buffer.start.wrapping_add(self.at), here);
            done += here;
            self.at += here;
            if self.at == buffer.len as usize {
                (self.buffers, self.at) = (rest, 0);
            }
        }
    }
}
