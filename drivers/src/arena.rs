//! Memory of an ingress that is no ring: frames are read into it, lent from it, and stay in it while they are held.
//!
//! [`Extents`] say where the frames of one burst lie, in whatever memory; an [`Arena`] is memory that each frame is read
//! into by a call of its own.

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_BYTES, BURST_FRAMES, Burst, BurstBuilder, Taken};
use ringyard_dataplane::port::IngressScratch;

/// Frames begin at multiples of this: a cache line.
const ALIGNMENT: usize = 64;

/// The frames of one burst, one behind the other.
pub(crate) struct Arena {
    memory: Box<[u8]>,
    frames: Extents,
    /// Bytes that one read may need.
    read_len_max: usize,
}

impl Arena {
    /// For reads of up to `read_len_max` bytes each.
    pub(crate) fn new(read_len_max: usize) -> Arena {
        // The last read begins before BURST_BYTES are reached.
        let len = BURST_BYTES + read_len_max;
        Arena { memory: vec![0; len].into(), frames: Extents::new(), read_len_max }
    }

    /// Whether there are frames that are to be lent (again).
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many these are.
    pub(crate) fn len(&self) -> usize {
        self.frames.count
    }

    /// Reads frames, a call of `read` each, until a burst is full or `read` says that there is none. Only when nothing is
    /// held, so that the order stays.
    pub(crate) fn fill(&mut self, mut read: impl FnMut(&mut [u8]) -> Option<usize>) {
        let mut end = 0;
        while !self.frames.is_full() && end < BURST_BYTES {
            let Some(len) = read(&mut self.memory[end..end + self.read_len_max]) else { break };
            self.frames.push(end, len);
            end += len.next_multiple_of(ALIGNMENT);
        }
    }

    /// As [`Extents::lend`].
    pub(crate) fn lend(
        &mut self,
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
        push: impl for<'b, 'm> Fn(&mut BurstBuilder<'b, 'm>, &'m [u8]) -> Result<(), DropReason>,
    ) -> usize {
        self.frames.lend(&self.memory, queue, scratch, forward, push)
    }
}

/// Where the frames of a burst lie in their ingress's memory, in the order in which they came.
pub(crate) struct Extents {
    list: [Extent; BURST_FRAMES],
    count: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Extent {
    start: usize,
    len: usize,
}

impl Extents {
    /// None yet.
    pub(crate) fn new() -> Extents {
        Extents { list: [Extent::default(); BURST_FRAMES], count: 0, bytes: 0 }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there are as many as a burst takes.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.count == BURST_FRAMES || self.bytes >= BURST_BYTES
    }

    /// Adds a frame of `len` bytes at `start`.
    ///
    /// # Panics
    /// If there is [no room](Self::is_full).
    #[inline]
    pub(crate) fn push(&mut self, start: usize, len: usize) {
        self.list[self.count] = Extent { start, len };
        self.count += 1;
        self.bytes += len;
    }

    /// Lends the frames, which lie in `memory`, in order, all that one burst may have; `push` adds each to it, or says why
    /// it is none. What `forward` leaves unsettled stays. Returns how many frames are gone.
    #[inline]
    pub(crate) fn lend(
        &mut self,
        memory: &[u8],
        queue: u16,
        scratch: &mut IngressScratch,
        forward: &mut dyn FnMut(&Burst<'_>) -> Taken,
        push: impl for<'b, 'm> Fn(&mut BurstBuilder<'b, 'm>, &'m [u8]) -> Result<(), DropReason>,
    ) -> usize {
        let before = self.count;
        let mut builder = scratch.burst.begin(queue);
        let mut index = 0;
        while index < before && !builder.is_full_of_segments() {
            let Extent { start, len } = self.list[index];
            match push(&mut builder, &memory[start..start + len]) {
                Ok(()) => self.list[builder.len() - 1] = self.list[index],
                Err(reason) => scratch.tally.drop(reason),
            }
            index += 1;
        }
        let lent = builder.len();
        let taken = if lent > 0 { forward(&builder.burst()) } else { Taken::ALL };
        (self.count, self.bytes) = (0, 0);
        if index == before && taken.leading(lent) == lent {
            return before;
        }
        // What the burst had no place for comes behind what is held.
        for index in (0..lent).filter(|&index| !taken.settled(index)).chain(index..before) {
            let Extent { start, len } = self.list[index];
            self.push(start, len);
        }
        before - self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringyard_dataplane::offload::Offloads;

    /// One poll; the first bytes of what was lent, and how many frames are gone.
    fn lend(arena: &mut Arena, taken: Taken) -> (Vec<u8>, usize) {
        let mut scratch = IngressScratch::default();
        let mut lent = Vec::new();
        let mut forward = |burst: &Burst<'_>| {
            lent.extend(burst.frames().map(|frame| frame.header()[0]));
            taken
        };
        let gone = arena.lend(3, &mut scratch, &mut forward, |builder, frame| builder.push_slice(frame));
        (lent, gone)
    }

    fn filled(lens: &[usize]) -> Arena {
        let mut arena = Arena::new(70_000);
        let mut frames = (0..).zip(lens);
        arena.fill(|room| {
            let (number, &len) = frames.next()?;
            room[..len].fill(number);
            Some(len)
        });
        arena
    }

    #[test]
    fn unsettled_frames_are_lent_again_in_order() {
        let mut arena = filled(&[60, 1500, 60, 61, 60]);
        assert_eq!(lend(&mut arena, Taken(0b01001)), (vec![0, 1, 2, 3, 4], 2));
        assert!(!arena.is_empty());
        assert_eq!(lend(&mut arena, Taken(0)), (vec![1, 2, 4], 0));
        assert_eq!(lend(&mut arena, Taken(0b101)), (vec![1, 2, 4], 2));
        assert_eq!(lend(&mut arena, Taken::ALL), (vec![2], 1));
        assert!(arena.is_empty());
        assert_eq!(lend(&mut arena, Taken::ALL), (vec![], 0));
    }

    #[test]
    fn what_is_no_frame_goes_at_once_and_once() {
        let mut arena = filled(&[13, 60, 13, 60]);
        assert_eq!(lend(&mut arena, Taken(0b01)), (vec![1, 3], 3));
        assert_eq!(lend(&mut arena, Taken::ALL), (vec![3], 1));
    }

    #[test]
    fn burst_of_the_longest_or_the_shortest_frames_fits() {
        let mut arena = filled(&[65_551; 64]);
        assert_eq!(lend(&mut arena, Taken::ALL), (vec![0, 1], 2), "128 KiB are reached");
        let mut arena = filled(&[65; 100]);
        assert_eq!(lend(&mut arena, Taken::ALL).1, BURST_FRAMES);
        let mut lens = vec![1985; 64];
        lens.extend([65_551; 4]);
        let arena = filled(&lens);
        assert_eq!(arena.frames.count, 64);
    }

    #[test]
    fn frames_that_one_burst_has_no_place_for_stay_behind_what_is_held() {
        let mut arena = filled(&[652; 4]);
        let mut polls = Vec::new();
        for taken in [Taken(0b01), Taken::ALL, Taken::ALL] {
            let mut scratch = IngressScratch::default();
            let mut lent = 0;
            let gone = arena.lend(
                0,
                &mut scratch,
                &mut |burst| {
                    lent = burst.len();
                    taken
                },
                |builder, _| builder.push_asking(&NET, &DATAGRAMS, Offloads::ALL),
            );
            polls.push((lent, gone));
        }
        assert_eq!(polls, [(2, 1), (2, 2), (1, 1)]);
        assert!(arena.is_empty());
    }

    /// A virtio-net header that asks for segments of one byte, and a frame with 600 of them: UDP over IPv4.
    const NET: [u8; 10] = [1, 5, 0, 0, 1, 0, 34, 0, 6, 0];
    const DATAGRAMS: [u8; 642] = {
        let mut frame = [0; 642];
        (frame[12], frame[14], frame[23]) = (8, 0x45, 17);
        frame
    };
}
