//! The rings between us and the kernel (`linux/if_xdp.h`): single producer, single consumer, a power of two of places.
//!
//! Each index of a ring is written by one side only. Ours is kept here and never read back; the kernel's is read once a
//! call, and a difference that no ring can have counts as none. The other end is the kernel, which loom cannot run: what is
//! handed over by an index is whole as in the model of the data plane's rings.

#![allow(unsafe_code)] // memory that the kernel shares

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A ring as the kernel maps it.
struct Ring<T> {
    map: NonNull<u8>,
    len: usize,
    offsets: libc::xdp_ring_offset,
    places: u32,
    entries: PhantomData<T>,
}

// SAFETY: it owns its mapping; entries are plain values.
unsafe impl<T: Copy + Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps the ring of `places` places, a power of two, that stands at `page_offset` of `socket`.
    fn map(
        socket: BorrowedFd<'_>,
        page_offset: u64,
        offsets: libc::xdp_ring_offset,
        places: u32,
    ) -> io::Result<Ring<T>> {
        assert!(places.is_power_of_two());
        let unknown = || io::Error::other("the kernel's rings have a form that is not known here");
        let entries_len = places as usize * size_of::<T>();
        let len = (offsets.desc as usize).checked_add(entries_len).ok_or_else(unknown)?;
        let word = size_of::<AtomicU32>() as u64;
        let inside = [offsets.producer, offsets.consumer, offsets.flags]
            .iter()
            .all(|at| at % word == 0 && at.checked_add(word).is_some_and(|end| end <= len as u64));
        if !inside || !offsets.desc.is_multiple_of(align_of::<T>() as u64) {
            return Err(unknown());
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping, wherever the kernel likes.
        let map = unsafe { mmap(ptr::null_mut(), len, protection, flags, socket, page_offset) }?;
        let map = NonNull::new(map.cast()).expect("nothing is mapped at address 0");
        Ok(Ring { map, len, offsets, places, entries: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        let word = self.map.as_ptr().wrapping_add(offset as usize).cast();
        // SAFETY: `map` checked that the word lies in the mapping and is aligned; both sides use it as an atomic.
        unsafe { AtomicU32::from_ptr(word) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    fn entry(&self, index: u32) -> *mut T {
        let place = (index & (self.places - 1)) as usize;
        self.map.as_ptr().wrapping_add(self.offsets.desc as usize + place * size_of::<T>()).cast()
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; references into it borrow the ring.
        let _ = unsafe { munmap(self.map.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// The end at which we put entries in: of the fill ring and of the transmit ring.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Where the next entry goes.
    next: u32,
    /// Up to where the kernel may look.
    published: u32,
}

impl<T: Copy> Producer<T> {
    /// As [`Ring::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: u64,
        offsets: libc::xdp_ring_offset,
        places: u32,
    ) -> io::Result<Producer<T>> {
        let ring = Ring::map(socket, page_offset, offsets, places)?;
        Ok(Producer { ring, next: 0, published: 0 })
    }

    /// Places that are free.
    pub(super) fn free(&self) -> u32 {
        self.ring.places.saturating_sub(self.waiting_before(self.next))
    }

    /// Published entries that the kernel has not taken yet.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting_before(self.published)
    }

    /// Puts an entry in, to be published. Without a free place the entry is lost; callers look first.
    pub(super) fn put(&mut self, entry: T) {
        // SAFETY: a place of the ring, aligned, that the kernel does not look at before it is published.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the kernel look at all that was put in.
    pub(super) fn publish(&mut self) {
        if self.next != self.published {
            self.published = self.next;
            // Release: the entries come first; the kernel reads the index with acquire.
            self.ring.producer().store(self.next, Ordering::Release);
        }
    }

    /// Whether the kernel does not look by itself.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.word(self.ring.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn waiting_before(&self, end: u32) -> u32 {
        // Acquire: the kernel has read its entries before it says so.
        end.wrapping_sub(self.ring.consumer().load(Ordering::Acquire)).min(self.ring.places)
    }
}

/// The end at which we take entries out: of the receive ring and of the completion ring.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// The entry that comes next.
    next: u32,
}

impl<T: Copy> Consumer<T> {
    /// As [`Ring::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: u64,
        offsets: libc::xdp_ring_offset,
        places: u32,
    ) -> io::Result<Consumer<T>> {
        Ok(Consumer { ring: Ring::map(socket, page_offset, offsets, places)?, next: 0 })
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> u32 {
        // Acquire: the kernel stores the index with release, behind the entries.
        let waiting = self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.next);
        if waiting > self.ring.places { 0 } else { waiting }
    }

    /// The entry `index` places behind the next one, of those that [wait](Self::waiting).
    pub(super) fn peek(&self, index: u32) -> T {
        // SAFETY: a place of the ring, aligned, that holds an entry; the kernel writes there only once it is released.
        unsafe { self.ring.entry(self.next.wrapping_add(index)).read() }
    }

    /// Gives the places of the next `count` entries back.
    pub(super) fn release(&mut self, count: u32) {
        if count > 0 {
            self.next = self.next.wrapping_add(count);
            // Release: the entries were read before.
            self.ring.consumer().store(self.next, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// A ring in a memory file, which both ends map: the kernel's end is the other kind of ours.
    fn pair(places: u32) -> (Producer<u64>, Consumer<u64>) {
        let file = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 1 << 16).unwrap();
        let offsets = || libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc: 192 };
        let producer = Producer::map(file.as_fd(), 0, offsets(), places).unwrap();
        (producer, Consumer::map(file.as_fd(), 0, offsets(), places).unwrap())
    }

    #[test]
    fn entries_come_out_in_order_over_the_end_of_the_ring() {
        let (mut producer, mut consumer) = pair(8);
        let mut numbers = 0..;
        let mut expected = 0..;
        for round in 0..20 {
            let count = round % 9;
            assert_eq!(producer.free(), 8);
            (0..count).for_each(|_| producer.put(numbers.next().unwrap()));
            assert_eq!((producer.free(), consumer.waiting()), (8 - count, 0), "not published");
            producer.publish();
            assert_eq!((producer.waiting(), consumer.waiting()), (count, count));
            for index in 0..count {
                assert_eq!(consumer.peek(index), expected.next().unwrap());
            }
            consumer.release(count);
            assert_eq!(producer.waiting(), 0);
        }
    }

    #[test]
    fn index_that_no_ring_can_have_is_no_entries_and_no_places() {
        let (producer, consumer) = pair(8);
        for index in [9, 1 << 31, u32::MAX - 20] {
            producer.ring.producer().store(index, Ordering::Relaxed);
            assert_eq!(consumer.waiting(), 0);
            producer.ring.consumer().store(index, Ordering::Relaxed);
            assert_eq!(producer.free(), 0);
        }
    }

    #[test]
    fn ring_of_an_unknown_form_is_refused() {
        let file = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        for (producer, consumer, flags, desc) in
            [(2, 64, 128, 192), (0, 1 << 20, 128, 192), (0, 64, u64::MAX, 192), (0, 64, 128, 193)]
        {
            let offsets = libc::xdp_ring_offset { producer, consumer, flags, desc };
            assert!(Producer::<u64>::map(file.as_fd(), 0, offsets, 8).is_err());
        }
    }
}
