//! The floor under every switch: a loop that copies each frame once from one guest's ring into the other's, and does
//! nothing else. No check, no table, no counter, no notification; one process, one buffer a chain. What a switch costs
//! more than this is the price of being one.

#![allow(unsafe_code)] // the device's end of two rings, without any of the care that the real one takes

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};

use ringyard_dataplane::ring::DriverMemory;

use crate::error::{Doing, Error, Result};
use crate::guest::{Guest, Queue};

/// Frames in a turn, as in a burst of the switch.
const TURN: u16 = 64;

/// A thread that copies between two guests. Dropping it ends it.
pub struct Floor {
    stop: Arc<AtomicBool>,
    /// Whether the thread is to wait, so that it costs nothing while something else is measured.
    paused: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Floor {
    /// Copies both ways between the first queue pairs of `guests` on `core`. The guests must poll, without mergeable
    /// buffers, with one buffer a chain, and outlive the floor's use of their memory by their own `Arc`s.
    pub fn start(guests: [&Guest; 2], core: usize) -> Result<Floor> {
        let [a, b] = guests;
        let way = |from: &Guest, to: &Guest| Way {
            from: Lane::new(from, from.pairs()[0].send.queue()),
            to: Lane::new(to, to.pairs()[0].receive.queue()),
        };
        let mut ways = [way(a, b), way(b, a)];
        let (stop, paused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let (stopping, pausing) = (stop.clone(), paused.clone());
        let run = move || {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                return;
            }
            // Relaxed: the flags are all there is to see.
            while !stopping.load(Ordering::Relaxed) {
                if pausing.load(Ordering::Relaxed) {
                    thread::park();
                    continue;
                }
                ways.iter_mut().for_each(Way::turn);
            }
        };
        let thread = thread::Builder::new().name("floor".into()).spawn(run).doing("starting the floor")?;
        Ok(Floor { stop, paused, thread: Some(thread) })
    }

    /// Lets it run or wait.
    pub fn set_paused(&self, paused: bool) -> Result<()> {
        let thread = self.thread.as_ref().filter(|thread| !thread.is_finished());
        let thread = thread.ok_or_else(|| Error::new("the floor cannot run on that core"))?;
        self.paused.store(paused, Ordering::Relaxed);
        thread.thread().unpark();
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Way {
    from: Lane,
    to: Lane,
}

/// The device's end of a split ring (virtio 1.2, 2.7).
struct Lane {
    /// Keeps what the pointers point to.
    _memory: Arc<DriverMemory>,
    /// What a guest address is more than a pointer.
    bias: u64,
    desc: *const [u64; 2],
    avail: *mut u16,
    used: *mut u16,
    mask: u16,
    position: u16,
}

// SAFETY: the pointers are into `_memory`; one thread has the lane.
unsafe impl Send for Lane {}

impl Lane {
    fn new(guest: &Guest, queue: &Queue) -> Lane {
        let memory = guest.memory().clone();
        let (region, layout) = (memory.region(), queue.layout());
        let start = region.mapping.start();
        let place = |addr: u64| {
            // SAFETY: the guest laid the ring out inside its memory.
            unsafe { start.add((addr - region.user_addr) as usize) }
        };
        let lane = Lane {
            bias: region.guest_addr.wrapping_sub(start.expose_provenance() as u64),
            desc: place(layout.desc).cast_const().cast(),
            avail: place(layout.avail).cast(),
            used: place(layout.used).cast(),
            mask: layout.size - 1,
            position: 0,
            _memory: memory,
        };
        // VRING_USED_F_NO_NOTIFY: it looks by itself.
        lane.used(0).store(1, Ordering::Relaxed);
        lane
    }

    /// Word `index` of the used ring: its flags, or its index.
    #[inline(always)]
    fn used(&self, index: usize) -> &AtomicU16 {
        // SAFETY: the used ring begins with these words.
        let word = unsafe { self.used.add(index) };
        // SAFETY: aligned, mapped as long as `_memory`, and only ever accessed atomically.
        unsafe { AtomicU16::from_ptr(word) }
    }

    /// Word `index` of the available ring.
    #[inline(always)]
    fn avail(&self, index: usize) -> &AtomicU16 {
        // SAFETY: the callers ask for the index, and for entries that there are.
        let word = unsafe { self.avail.add(index) };
        // SAFETY: aligned, mapped as long as `_memory`, and only ever accessed atomically.
        unsafe { AtomicU16::from_ptr(word) }
    }

    #[inline(always)]
    fn waiting(&self) -> u16 {
        self.avail(1).load(Ordering::Acquire).wrapping_sub(self.position)
    }

    /// Head, address and length of the buffer `ahead` places on.
    #[inline(always)]
    fn buffer(&self, ahead: u16) -> (u16, *mut u8, u32) {
        let slot = usize::from(self.position.wrapping_add(ahead) & self.mask);
        let head = self.avail(2 + slot).load(Ordering::Relaxed);
        // SAFETY: the guest is one of ours and keeps its heads in the table.
        let place = unsafe { self.desc.add(usize::from(head)) };
        // SAFETY: as above.
        let [addr, rest] = unsafe { place.read_volatile() };
        let pointer = std::ptr::with_exposed_provenance_mut(addr.wrapping_sub(self.bias) as usize);
        (head, pointer, rest as u32)
    }

    #[inline(always)]
    fn set_used(&self, ahead: u16, head: u16, written: u32) {
        let slot = usize::from(self.position.wrapping_add(ahead) & self.mask);
        let entry = u64::from(head) | u64::from(written) << 32;
        // SAFETY: entries of four words begin at the third word, and slot is less than the ring's size.
        let place = unsafe { self.used.add(2 + 4 * slot) };
        // SAFETY: as above; an entry is 4-byte aligned.
        unsafe { place.cast::<u64>().write_unaligned(entry) };
    }

    #[inline(always)]
    fn publish(&mut self, count: u16) {
        self.position = self.position.wrapping_add(count);
        self.used(1).store(self.position, Ordering::Release);
    }
}

impl Way {
    #[inline(always)]
    fn turn(&mut self) {
        let count = self.from.waiting().min(self.to.waiting()).min(TURN);
        if count == 0 {
            return;
        }
        for ahead in 0..count {
            let (head, source, len) = self.from.buffer(ahead);
            let (to_head, target, _) = self.to.buffer(ahead);
            // SAFETY: both guests are ours: frames are whole, and every receive buffer has room for one.
            unsafe { std::ptr::copy_nonoverlapping(source, target, len as usize) };
            self.from.set_used(ahead, head, 0);
            self.to.set_used(ahead, to_head, len);
        }
        self.to.publish(count);
        self.from.publish(count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guest::{Features, GuestConfig};
    use crate::load;
    use crate::traffic::Faults;

    #[test]
    fn floor_carries_every_frame_while_it_runs_and_none_while_it_is_paused() {
        let features = Features { mergeable: false, in_order: false, event_idx: false, ..Features::SPLIT };
        let guest = || Guest::new(&GuestConfig::default(), features).unwrap();
        let (mut from, mut to) = (guest(), guest());
        let floor = Floor::start([&from, &to], 0).unwrap();
        floor.set_paused(false).unwrap();
        load::open_way(&mut from, &mut to).unwrap();
        for frame_len in [64, 1500] {
            let round = load::measure(&mut from, &mut to, frame_len, Duration::from_millis(50)).unwrap();
            assert_eq!(round.faults, Faults::default());
            assert!(round.frames > 0);
        }
        floor.set_paused(true).unwrap();
    }
}
