//! Walks descriptor chains (virtio 1.2, 2.7.5 to 2.7.8 and 2.8.5 to 2.8.8): every shared word once, every bound ours.

#![allow(unsafe_code)] // indirect tables lie in guest memory

use std::marker::PhantomData;

use super::Fault;
use super::format::{Chain, Format};
use super::memory::Window;
use super::view::{Descriptor, RingView};
use crate::frame::{BURST_FRAMES, HEADER_LEN};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
const DESCRIPTOR_LEN: u64 = 16;
/// Descriptors of a chain, at most, in a ring that is larger; QEMU's devices take no more. Empty ones fill no burst, so a
/// poll could walk 64 chains of 32,768.
pub(super) const CHAIN_MAX: u16 = 1024;

/// A stretch of guest memory that was found to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub start: *mut u8,
    pub len: u32,
}

/// A chain that was looked up: where its buffer lies, if it is one in one region; else it has to be walked.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub chain: Chain,
    /// Null: call [`Walker::walk`].
    start: *mut u8,
}

/// The chains that one call looked up before it uses the first: by then the others' memory is on its way. A worker's
/// memory, made once.
pub(crate) type Lookahead = Box<[Found; BURST_FRAMES]>;

/// An empty [`Lookahead`].
pub(crate) fn lookahead() -> Lookahead {
    Box::new([Found { chain: Chain::default(), start: std::ptr::null_mut() }; BURST_FRAMES])
}

impl Found {
    /// The whole chain, if it is one buffer in one region.
    #[inline]
    pub(crate) fn single(&self) -> Option<Buffer> {
        (!self.start.is_null()).then_some(Buffer { start: self.start, len: self.chain.first.len })
    }

    /// Whether the device may write the first buffer.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.chain.first.flags & WRITE != 0
    }
}

/// Turns guest addresses into pointers, remembering the last region.
pub(crate) struct Walker<'v, F> {
    view: &'v RingView,
    window: Window,
    walked: usize,
    format: PhantomData<F>,
}

/// Takes the buffers of a chain in order: the buffer, and whether the device may write it. Says whether to go on.
pub(crate) type Visit<'f> = &'f mut dyn FnMut(Buffer, bool) -> bool;

impl<'v, F: Format> Walker<'v, F> {
    pub(crate) fn new(view: &'v RingView) -> Walker<'v, F> {
        Walker { view, window: Window::NONE, walked: 0, format: PhantomData }
    }

    /// Descriptors visited by [`Self::walk`] so far: for whoever bounds the work that a guest can make.
    pub(crate) fn walked(&self) -> usize {
        self.walked
    }

    /// Where the chain lies. The common case ends here: one buffer, in one region.
    #[inline]
    pub(crate) fn look_up(&mut self, chain: Chain) -> Found {
        let Descriptor { addr, len, flags, .. } = chain.first;
        let start = if flags & (NEXT | INDIRECT) == 0 { self.find(addr, u64::from(len)) } else { None };
        Found { chain, start: start.unwrap_or(std::ptr::null_mut()) }
    }

    /// Visits all buffers of `chain`, until `visit` has enough.
    pub(crate) fn walk(&mut self, chain: &Chain, visit: Visit<'_>) -> Result<(), Fault> {
        let (mut descriptor, mut place) = (chain.first, chain.start);
        let mut left = self.view.size().min(CHAIN_MAX);
        loop {
            if descriptor.flags & INDIRECT != 0 {
                return self.walk_indirect(descriptor, left, visit);
            }
            if !self.visit_range(descriptor, visit)? {
                return Ok(());
            }
            let Some(next) = F::follow(self.view, chain, &mut place, &descriptor)? else { return Ok(()) };
            left -= 1;
            if left == 0 {
                return Err(Fault::ChainLength);
            }
            descriptor = next;
        }
    }

    /// The table ends the chain: nothing may follow it, it may hold no other, and it is no longer than a chain.
    fn walk_indirect(&mut self, table: Descriptor, left: u16, visit: Visit<'_>) -> Result<(), Fault> {
        let bytes = u64::from(table.len);
        let entries = bytes / DESCRIPTOR_LEN;
        let fits = entries > 0 && bytes.is_multiple_of(DESCRIPTOR_LEN) && entries <= u64::from(left);
        if !self.view.options().indirect || table.flags & NEXT != 0 || !fits {
            return Err(Fault::Indirect);
        }
        table.addr.checked_add(bytes - 1).ok_or(Fault::Address)?;
        let mut index = 0;
        for _ in 0..entries {
            let entry = self.indirect_entry(table.addr + index * DESCRIPTOR_LEN)?;
            if entry.flags & INDIRECT != 0 {
                return Err(Fault::Indirect);
            }
            if !self.visit_range(entry, visit)? {
                return Ok(());
            }
            if F::TABLES_ARE_SEQUENTIAL {
                index += 1;
                continue;
            }
            if entry.flags & NEXT == 0 {
                return Ok(());
            }
            index = u64::from(entry.next);
            if index >= entries {
                return Err(Fault::DescriptorIndex);
            }
        }
        if F::TABLES_ARE_SEQUENTIAL { Ok(()) } else { Err(Fault::ChainLength) }
    }

    /// Copies one entry of an indirect table, which may lie across regions and need not be aligned.
    fn indirect_entry(&mut self, addr: u64) -> Result<Descriptor, Fault> {
        let mut words = [0u64; 2];
        let mut place = words.as_mut_ptr().cast::<u8>();
        self.ranges(addr, DESCRIPTOR_LEN, |buffer| {
            // SAFETY: `ranges` found the buffer mapped; the lengths of its calls add up to the 16 bytes of `words`.
            unsafe { std::ptr::copy_nonoverlapping(buffer.start, place, buffer.len as usize) };
            // SAFETY: stays within `words` or one past it, as above.
            place = unsafe { place.add(buffer.len as usize) };
            true
        })?;
        opaque();
        Ok(F::table_entry(words))
    }

    fn visit_range(&mut self, descriptor: Descriptor, visit: Visit<'_>) -> Result<bool, Fault> {
        self.walked += 1;
        let writable = descriptor.flags & WRITE != 0;
        self.ranges(descriptor.addr, u64::from(descriptor.len), |buffer| visit(buffer, writable))
    }

    /// Splits a range over the regions it lies in; all of it must be somewhere, also what `visit` has no use for.
    fn ranges(&mut self, addr: u64, len: u64, mut visit: impl FnMut(Buffer) -> bool) -> Result<bool, Fault> {
        addr.checked_add(len).ok_or(Fault::Address)?;
        let (mut addr, mut left, mut wanted) = (addr, len, true);
        loop {
            if let Some(start) = self.find(addr, left) {
                return Ok(wanted && visit(Buffer { start, len: left as u32 }));
            }
            let (start, here) = self.window.find_start(addr).ok_or(Fault::Address)?;
            wanted = wanted && visit(Buffer { start, len: here as u32 });
            (addr, left) = (addr + here, left - here);
        }
    }

    /// Where the whole range lies; else leaves the window that holds `addr`, or none, behind.
    #[inline]
    fn find(&mut self, addr: u64, len: u64) -> Option<*mut u8> {
        if let Some(start) = self.window.find(addr, len) {
            return Some(start);
        }
        self.window = self.view.window(addr).unwrap_or(Window::NONE);
        self.window.find(addr, len)
    }
}

/// Copies `len` bytes of guest memory into memory of ours, of which only the copy is used from here on.
///
/// # Safety
/// `from` is mapped and `to` is writable for `len` bytes.
#[inline]
pub(crate) unsafe fn copy_in(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's; memory of ours and of a guest do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    opaque();
}

/// Copies between two guests.
///
/// # Safety
/// Both are mapped for `len` bytes. They may be the same memory by double mapping, which garbles only that memory.
#[inline]
pub(crate) unsafe fn copy_across(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's; two mappings never overlap in our address space.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

/// Bytes of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// Brings the cache line at `start` near, to be read.
#[inline(always)]
pub(crate) fn prefetch(start: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that touches no memory, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(start.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) start, options(nostack, preserves_flags, readonly));
    }
}

/// Brings the cache line at `start` near, to be written.
#[inline(always)]
pub(crate) fn prefetch_for_write(start: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that touches no memory, whatever the address; older processors take it for no instruction at all.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) start, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) start, options(nostack, preserves_flags, readonly));
    }
}

/// After this the compiler knows nothing of any memory, so it cannot read a guest's word again in place of our copy.
#[inline(always)]
fn opaque() {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
}

/// Eight bytes at any address.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word(u64);

/// As [`copy_in`], for a frame's first `len` bytes, at most [`HEADER_LEN`]. Where there are 32 or more, as nearly always,
/// it is two copies of half a header, which may overlap: no call, and no [`opaque`], after which the compiler would load
/// all that it knows again (30 instructions a frame).
///
/// # Safety
/// `from` is mapped and `to` is writable for `len` bytes.
#[inline(always)]
pub(crate) unsafe fn copy_header_in(from: *const u8, to: *mut u8, len: usize) {
    let Some(second) = len.checked_sub(HALF) else {
        // SAFETY: the caller's.
        return unsafe { copy_in(from, to, len) };
    };
    // SAFETY: `len` is HALF or more.
    unsafe { copy_half_in(from, to) };
    // SAFETY: `second` is HALF bytes before the end of both.
    unsafe { copy_half_in(from.wrapping_add(second), to.wrapping_add(second)) };
}

const HALF: usize = HEADER_LEN / 2;

/// # Safety
/// `from` is mapped and `to` is writable for [`HALF`] bytes.
#[inline(always)]
unsafe fn copy_half_in(from: *const u8, to: *mut u8) {
    let (from, to) = (from.cast::<Word>(), to.cast::<Word>());
    for place in 0..HALF / size_of::<Word>() {
        // SAFETY: mapped, and a packed word needs no alignment.
        let word = unsafe { from.wrapping_add(place).read_volatile() };
        // SAFETY: writable, and a packed word needs no alignment.
        unsafe { to.wrapping_add(place).write(word) };
    }
}

/// The first eight bytes of guest memory, read once.
///
/// # Safety
/// `from` is mapped for eight bytes.
#[inline(always)]
pub(crate) unsafe fn read_word(from: *const u8) -> [u8; 8] {
    // SAFETY: the caller's, and a packed word needs no alignment.
    let Word(word) = unsafe { from.cast::<Word>().read_volatile() };
    word.to_ne_bytes()
}
