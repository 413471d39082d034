//! The hot half of a tap: reads into memory of its own, writes from wherever a frame lies.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_BYTES, BURST_FRAMES, Burst, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::{Arming, Doorbell, Egress, EgressScratch, Ingress, IngressScratch};
use rustix::io::Errno;

use super::device::{Device, Unwritten};

/// Room for the frames of one poll: they lie one behind the other, and the last may be of any length.
const ARENA_LEN: usize = BURST_BYTES + 2 * (FRAME_LEN_MAX + 64);

/// One queue of a tap, both ways.
pub(super) struct TapQueue {
    device: Device,
    queue: u16,
    /// Where frames are read to. The worker that has the duty uses it, a burst at a time.
    arena: Mutex<Box<[u8]>>,
    /// For frames of very many pieces. Used by one worker at a time, a burst long.
    bounce: Mutex<Box<[u8]>>,
    /// The last read found nothing, so the next one waits for the doorbell. Written by the worker that has the duty;
    /// relaxed, since that is the only one that reads it.
    drained: AtomicBool,
    /// The interface was deleted. As `drained`.
    gone: AtomicBool,
}

impl TapQueue {
    pub(super) fn new(device: Device, queue: u16) -> TapQueue {
        TapQueue {
            device,
            queue,
            arena: Mutex::new(vec![0; ARENA_LEN].into()),
            bounce: Mutex::new(vec![0; FRAME_LEN_MAX].into()),
            drained: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        }
    }

    /// Reads frames into the arena; says where each lies.
    fn fill(&self, arena: &mut [u8], extents: &mut [(usize, usize); BURST_FRAMES]) -> usize {
        let net_len = self.device.net_header_len();
        let (mut count, mut end, mut bytes) = (0, 0, 0);
        while count < BURST_FRAMES && bytes < BURST_BYTES {
            // One byte more than the longest frame, so that a longer one is seen to be.
            let Some(room) = arena.get_mut(end..end + net_len + FRAME_LEN_MAX + 1) else { break };
            match self.device.read(room) {
                Ok(len) if len > net_len => {
                    extents[count] = (end + net_len, len - net_len);
                    count += 1;
                    bytes += len - net_len;
                    end += len.next_multiple_of(64);
                }
                Ok(_) => {}
                Err(error) => {
                    self.gone
                        .store(error.raw_os_error() == Some(Errno::BADFD.raw_os_error()), Ordering::Relaxed);
                    self.drained.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        count
    }
}

impl Ingress for TapQueue {
    /// The forwarder settles every frame of an ingress that is no ring.
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        if self.drained.load(Ordering::Relaxed) {
            return 0;
        }
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        let mut extents = [(0, 0); BURST_FRAMES];
        let count = self.fill(&mut arena, &mut extents);
        let mut builder = scratch.burst.begin(self.queue);
        for &(start, len) in &extents[..count] {
            let frame = &arena[start..start + len];
            let pushed = match arena[..start].last_chunk() {
                Some(net) if self.device.net_header_len() == net.len() => {
                    builder.push_asking(net, frame, self.device.offloads())
                }
                _ => builder.push_slice(frame),
            };
            if let Err(reason) = pushed {
                scratch.tally.drop(reason);
            }
        }
        if !builder.is_empty() {
            forward(&builder.burst());
        }
        count
    }
}

impl Doorbell for TapQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    /// Epoll itself looks when it is armed.
    fn arm(&self) -> Arming {
        if self.gone.load(Ordering::Relaxed) { Arming::Dead } else { Arming::Quiet }
    }

    fn disarm(&self) {
        self.drained.store(false, Ordering::Relaxed);
    }
}

impl Egress for TapQueue {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        for (settled, &pick) in picks.iter().enumerate() {
            let frame = burst.frame(usize::from(pick));
            match self.device.write(&frame, &mut bounce) {
                Ok(segments) => {
                    scratch.tally.frames += 1;
                    scratch.tally.bytes += frame.len() as u64;
                    scratch.tally.segments += segments as u64;
                }
                Err(Unwritten::Full) => return settled,
                Err(Unwritten::Cut) => scratch.tally.drop(DropReason::NoRoom),
                Err(Unwritten::Failed) => scratch.tally.drop(DropReason::IoError),
            }
        }
        picks.len()
    }
}
