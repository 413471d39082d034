//! A ring in the driver role: the other end of [`super::RingIngress`] and [`super::RingEgress`], for built-in guests,
//! load, tests, and ports on devices that we drive. [`split`] and [`packed`] are the two forms of it; [`receive`] and [`send`]
//! are a port's two directions on top.
//!
//! The driver keeps its own copy of all that it wrote, so the device is believed in one place only, what it says that it
//! used, and checked there.

mod free;
mod packed;
mod queue;
mod receive;
mod send;
mod split;

use std::fmt;
use std::sync::Arc;

use super::{DriverMemory, RingError, RingLayout, is_ring_size};
use packed::PackedDriver;
pub use queue::DeviceQueue;
pub use receive::{DriverIngress, MERGED_MAX};
pub use send::{DriverEgress, SEND_BUFFER_LEN_MIN};
use split::SplitDriver;

/// What was negotiated, as far as the driver's end of a ring cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// VIRTIO_F_RING_PACKED.
    pub packed: bool,
    /// VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// VIRTIO_F_IN_ORDER: what names one used buffer may stand for a run of them (virtio 1.2, 2.7.9 and 2.8.9).
    pub in_order: bool,
}

/// A stretch of the driver's memory that the device may read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte, from the start of the memory.
    pub offset: usize,
    /// Bytes.
    pub len: u32,
    /// The device writes it; else it reads it.
    pub writable: bool,
}

/// A chain that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head that [`DriverRing::add`] gave.
    pub head: u16,
    /// Bytes that the device says it wrote. `None`: the chain was passed over in a run that is used in order, so all of
    /// it was used.
    pub written: Option<u32>,
}

/// What a device did that no device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// The used index is ahead of what was made available.
    IndexJump,
    /// A used entry names a chain that is not with the device.
    NotInFlight,
    /// A used entry says that more was written than the buffer has.
    Overrun,
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceFault::IndexJump => "the used index is ahead of the available one",
            DeviceFault::NotInFlight => "a used entry names a chain that the device does not have",
            DeviceFault::Overrun => "a used entry says that more was written than the buffer has",
        })
    }
}

impl std::error::Error for DeviceFault {}

/// The driver's end of a virtqueue. One thread has it.
pub struct DriverRing {
    form: Form,
}

enum Form {
    Split(SplitDriver),
    Packed(PackedDriver),
}

/// Does the same with either form.
macro_rules! either {
    ($form:expr, $ring:ident => $what:expr) => {
        match $form {
            Form::Split($ring) => $what,
            Form::Packed($ring) => $what,
        }
    };
}

impl DriverRing {
    /// Bytes of memory that a ring of `size` entries takes, in either form.
    pub fn footprint(size: u16) -> usize {
        // A packed ring has two parts of 4 bytes behind its descriptors, which is never more.
        split::footprint(size)
    }

    /// An empty ring of `size` entries at `offset` of `memory`, which is zero there.
    ///
    /// # Panics
    /// If it does not lie inside.
    pub fn new(
        memory: Arc<DriverMemory>,
        offset: usize,
        size: u16,
        options: DriverOptions,
    ) -> Result<DriverRing, RingError> {
        if !is_ring_size(size, options.packed) {
            return Err(RingError::Size);
        }
        if !offset.is_multiple_of(ALIGNMENT) {
            return Err(RingError::Alignment);
        }
        assert!(
            offset <= memory.len() && Self::footprint(size) <= memory.len() - offset,
            "inside the memory"
        );
        let form = if options.packed {
            Form::Packed(PackedDriver::new(memory, offset, size, options))
        } else {
            Form::Split(SplitDriver::new(memory, offset, size, options))
        };
        Ok(DriverRing { form })
    }

    /// Where it lies, in the addresses that vhost-user calls the front end's own.
    pub fn layout(&self) -> RingLayout {
        either!(&self.form, ring => ring.layout())
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        either!(&self.form, ring => ring.size())
    }

    /// Free descriptors.
    #[inline]
    pub fn room(&self) -> usize {
        either!(&self.form, ring => ring.room())
    }

    /// The head that the next [`Self::add`] returns, less than the ring's size and not in use: whoever keeps a buffer for
    /// each fills that one. `None`: no room.
    #[inline]
    pub fn next_head(&self) -> Option<u16> {
        either!(&self.form, ring => ring.next_head())
    }

    /// Adds a buffer of one descriptor and returns its head; `None`: no room. The device sees it after
    /// [`Self::publish`].
    #[inline]
    pub fn add(&mut self, part: Part) -> Option<u16> {
        either!(&mut self.form, ring => ring.add(part))
    }

    /// As [`Self::add`], for up to `count` buffers in a row: `part` says where each is, given its head. Returns how many there
    /// was room for.
    #[inline]
    pub fn add_row(&mut self, count: usize, part: impl FnMut(u16) -> Part) -> usize {
        either!(&mut self.form, ring => ring.add_row(count, part))
    }

    /// Adds a buffer of several descriptors. `None`: no room, or no parts.
    pub fn add_chain(&mut self, parts: &[Part]) -> Option<u16> {
        either!(&mut self.form, ring => ring.add_chain(parts))
    }

    /// Adds a buffer of several parts by one descriptor and a table, which is written at `table` and must stay there
    /// until the chain is back. `None`: no room, or no parts.
    pub fn add_indirect(&mut self, table: usize, parts: &[Part]) -> Option<u16> {
        either!(&mut self.form, ring => ring.add_indirect(table, parts))
    }

    /// Makes all that was added since the last call available. Whether the device wants to be kicked for it (virtio 1.2,
    /// 2.7.10 and 2.8.14).
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(&mut self.form, ring => ring.publish())
    }

    /// The next chain that came back, if there is one.
    #[inline]
    pub fn collect(&mut self) -> Result<Option<Used>, DeviceFault> {
        either!(&mut self.form, ring => ring.collect())
    }

    /// As [`Self::collect`], for up to `count` chains in a row that came back as most do: one descriptor each, in order, with
    /// an entry each. `see` says whether it takes the chain; one that it does not take stays. Returns how many it took. What
    /// is left, if anything, is for [`Self::collect`].
    #[inline]
    pub fn collect_row(&mut self, count: usize, see: impl FnMut(Used) -> bool) -> Result<usize, DeviceFault> {
        either!(&mut self.form, ring => ring.collect_row(count, see))
    }

    /// Shows the heads of up to `count` chains that are back and not collected, as far as the device is believed: for
    /// whoever wants their memory near before the first is used. A head may be anything.
    #[inline]
    pub fn peek_used(&mut self, count: usize, see: impl FnMut(u16)) {
        either!(&mut self.form, ring => ring.peek_used(count, see));
    }

    /// Shows the heads that the next `count` calls of [`Self::add`] take, as far as there are free ones.
    #[inline]
    pub fn peek_free(&self, count: usize, see: impl FnMut(u16)) {
        either!(&self.form, ring => ring.peek_free(count, see));
    }

    /// Asks to be called for the next chain that comes back; whether one is back already.
    pub fn ask_for_calls(&self) -> bool {
        either!(&self.form, ring => ring.ask_for_calls())
    }

    /// Says that calls are not needed; a hint.
    pub fn ask_for_silence(&self) {
        either!(&self.form, ring => ring.ask_for_silence());
    }
}

/// Where a part of a ring lies, in the addresses that vhost-user calls the front end's own.
fn user_addr(offset: usize) -> u64 {
    DriverMemory::USER_ADDR + offset as u64
}

/// Parts begin at cache lines, so that each side writes lines of its own.
const ALIGNMENT: usize = 64;

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RING_SIZE_MAX;

    const PACKED: DriverOptions = DriverOptions { packed: true, event_idx: false, in_order: false };

    fn part(len: u32) -> Part {
        Part { offset: 0x4000, len, writable: false }
    }

    #[test]
    fn rings_of_no_size_or_place_are_refused() {
        let memory = Arc::new(DriverMemory::new("test", 0x1_0000).unwrap());
        let error = |offset, size, options| DriverRing::new(memory.clone(), offset, size, options).err();
        let split = DriverOptions::default();
        assert_eq!(error(0, 0, split), Some(RingError::Size));
        assert_eq!(error(0, 3, split), Some(RingError::Size));
        assert_eq!(error(8, 4, split), Some(RingError::Alignment));
        assert_eq!(error(0, 0, PACKED), Some(RingError::Size));
        assert_eq!(error(0, RING_SIZE_MAX + 1, PACKED), Some(RingError::Size));
        assert_eq!(error(8, 4, PACKED), Some(RingError::Alignment));
        assert_eq!(error(0, 3, PACKED), None, "a packed ring may have any size");
    }

    #[test]
    fn full_ring_takes_no_more() {
        for options in [DriverOptions::default(), PACKED] {
            let memory = Arc::new(DriverMemory::new("test", 0x1_0000).unwrap());
            let mut driver = DriverRing::new(memory, 0, 2, options).unwrap();
            assert!(driver.add(part(72)).is_some());
            let chain = driver.add_chain(&[part(12), part(60)]);
            assert!(chain.is_none(), "one descriptor is left");
            assert!(driver.add_chain(&[]).is_none() && driver.add_indirect(0x4000, &[]).is_none());
            assert_eq!((driver.room(), driver.next_head()), (1, Some(1)));
            assert_eq!(driver.add(part(72)), Some(1));
            assert_eq!((driver.room(), driver.next_head()), (0, None));
            assert!(driver.add(part(72)).is_none());
        }
    }
}
