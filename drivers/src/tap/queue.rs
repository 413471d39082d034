//! The hot half of a tap: reads into memory of its own, writes from wherever a frame lies.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{Burst, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch};
use rustix::io::Errno;

use super::device::{Device, Unwritten};
use super::train::Train;
use crate::arena::Arena;
use crate::minder::Alarm;

/// One queue of a tap, both ways.
pub(super) struct TapQueue {
    device: Device,
    queue: u16,
    /// Where frames are read to, and where they stay while they are held. The worker that has the duty uses it, a burst at
    /// a time.
    arena: Mutex<Arena>,
    /// For frames of very many pieces. Used by one worker at a time, a burst long.
    bounce: Mutex<Box<[u8]>>,
    /// The last read found nothing and nothing is held, so the next one waits for the doorbell. Written by the worker that
    /// has the duty; relaxed, since that is the only one that reads it.
    drained: AtomicBool,
    /// The interface was deleted, so that nothing is tried before the port's thread has it again. Written by the workers,
    /// and by that thread; relaxed, since it comes with nothing else.
    gone: AtomicBool,
    /// A frame went out: the interface is, or was, up. As `gone`.
    used: AtomicBool,
    alarm: Arc<Alarm>,
}

impl TapQueue {
    pub(super) fn new(device: Device, queue: u16, alarm: Arc<Alarm>) -> TapQueue {
        // One byte more than the longest frame, so that a longer one is seen to be.
        let arena = Arena::new(device.net_header_len() + FRAME_LEN_MAX + 1);
        TapQueue {
            device,
            queue,
            arena: Mutex::new(arena),
            bounce: Mutex::new(vec![0; FRAME_LEN_MAX].into()),
            drained: AtomicBool::new(true),
            gone: AtomicBool::new(false),
            used: AtomicBool::new(false),
            alarm,
        }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Frames that were lent and not settled.
    pub(super) fn held(&self) -> usize {
        self.arena().len()
    }

    /// Whether a frame went out since the interface was made.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The interface is another one.
    pub(super) fn begin(&self) {
        self.used.store(false, Ordering::Relaxed);
        self.set_back();
    }

    /// The interface is there: frames are read and written again. Whether it was taken for gone.
    pub(super) fn set_back(&self) -> bool {
        self.gone.swap(false, Ordering::Relaxed)
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one net header and frame; `None` when there is none.
    fn read(&self, room: &mut [u8]) -> Option<usize> {
        loop {
            match self.device.read(room) {
                Ok(len) if len > self.device.net_header_len() => return Some(len),
                Ok(_) => {}
                Err(error) => {
                    // EIO is that of an interface that is being deleted.
                    if !matches!(Errno::from_io_error(&error), Some(Errno::AGAIN | Errno::INTR)) {
                        self.gone.store(true, Ordering::Relaxed);
                        self.alarm.raise();
                    }
                    self.drained.store(true, Ordering::Relaxed);
                    return None;
                }
            }
        }
    }

    /// Writes the first of `picks`, and those that can be coupled to it. How many these are, the bytes of their frames, and
    /// what came of it, as [`Device::write`] says.
    fn write_first(
        &self,
        burst: &Burst<'_>,
        picks: &[u8],
        bounce: &mut [u8],
    ) -> (usize, usize, Result<usize, Unwritten>) {
        if let Some(train) = Train::of(burst, picks, self.device.offloads()) {
            match self.device.write_train(&train, burst, &picks[..train.count]) {
                // A kernel that does not like it may like what it was made of.
                Err(Unwritten::Failed) => {}
                result => return (train.count, train.bytes, result.map(|()| 0)),
            }
        }
        let frame = burst.frame(usize::from(picks[0]));
        (1, frame.len(), self.device.write(&frame, bounce))
    }
}

impl Ingress for TapQueue {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        if self.drained.load(Ordering::Relaxed) {
            return 0;
        }
        let mut arena = self.arena();
        if arena.is_empty() {
            arena.fill(|room| self.read(room));
        }
        let (net_len, offloads) = (self.device.net_header_len(), self.device.offloads());
        let malformed = scratch.tally.drops[DropReason::Malformed as usize];
        let gone =
            arena.lend(self.queue, scratch, forward, |builder, bytes| match bytes.split_first_chunk() {
                Some((net, frame)) if net_len == net.len() => builder.push_asking(net, frame, offloads),
                _ => builder.push_slice(bytes),
            });
        if !arena.is_empty() {
            self.drained.store(false, Ordering::Relaxed);
        }
        if scratch.tally.drops[DropReason::Malformed as usize] > malformed {
            // The kernel's headers are true, unless they have come to be of another length.
            self.alarm.raise();
        }
        gone
    }
}

impl Doorbell for TapQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    /// Epoll itself looks for new frames when it is armed.
    fn arm(&self) -> Arming {
        if !self.arena().is_empty() {
            self.drained.store(false, Ordering::Relaxed);
            return Arming::Work;
        }
        if self.gone.load(Ordering::Relaxed) { Arming::Dead } else { Arming::Quiet }
    }

    fn disarm(&self) {
        self.drained.store(false, Ordering::Relaxed);
    }
}

impl Egress for TapQueue {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        if self.gone.load(Ordering::Relaxed) {
            scratch.tally.drops[DropReason::IoError as usize] += picks.len() as u64;
            return picks.len();
        }
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = 0;
        while settled < picks.len() {
            let (count, bytes, result) = self.write_first(burst, &picks[settled..], &mut bounce);
            match result {
                Ok(segments) => {
                    if !self.is_used() {
                        self.used.store(true, Ordering::Relaxed);
                    }
                    scratch.tally.frames += count as u64;
                    scratch.tally.bytes += bytes as u64;
                    scratch.tally.segments += segments as u64;
                }
                Err(Unwritten::Full) => return settled,
                Err(Unwritten::Cut) => scratch.tally.drop(DropReason::NoRoom),
                Err(why @ (Unwritten::Down | Unwritten::Gone)) => {
                    self.gone.fetch_or(matches!(why, Unwritten::Gone), Ordering::Relaxed);
                    self.alarm.raise();
                    scratch.tally.drops[DropReason::IoError as usize] += (picks.len() - settled) as u64;
                    return picks.len();
                }
                Err(Unwritten::Failed) => scratch.tally.drop(DropReason::IoError),
            }
            settled += count;
        }
        picks.len()
    }
}
