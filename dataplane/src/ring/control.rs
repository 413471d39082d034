//! The device's end of a control virtqueue (virtio 1.2, 5.1.6.5): commands that its driver gives, and one byte of answer
//! to each.
//!
//! Nothing here is fast, and nothing is borrowed: a command is copied out of the guest's memory whole, each descriptor of
//! its chain read once, and only the copy is looked at. No worker has such a ring; it belongs to one thread, which may
//! take its time over a command, since only the driver that gave it waits.

#![allow(unsafe_code)] // copies commands out of guest memory, and answers into it

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::format::{Chain, Format};
use super::logged::Logged;
use super::packed::{JournalledPacked, Packed};
use super::signal::empty;
use super::split::Split;
use super::walk::{Buffer, Walker, copy_in};
use super::{Fault, Ring, RingView};

/// Bytes of a command, at most: room for ten thousand addresses. A longer one is answered unseen, like one that is odd.
pub const COMMAND_MAX: usize = 64 << 10;

/// What the driver gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'c> {
    /// Class, number and data.
    Whole(&'c [u8]),
    /// More than [`COMMAND_MAX`] bytes, or bytes to read behind the place for the answer, or no such place.
    Odd,
}

/// See the module.
pub struct ControlRing {
    view: Arc<RingView>,
    ring: Arc<Ring>,
    kick: Option<Arc<OwnedFd>>,
}

impl ControlRing {
    /// `kick` is a non-blocking eventfd, or `None` when the driver never kicks.
    pub fn new(view: Arc<RingView>, ring: Arc<Ring>, kick: Option<Arc<OwnedFd>>) -> ControlRing {
        ControlRing { view, ring, kick }
    }

    /// Becomes readable when there may be a command. `None`: nobody tells, so one looks.
    pub fn kick_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(|kick| kick.as_fd())
    }

    /// Has the next command served, and gives it back with the byte that `serve` answers; whether there was one. A ring
    /// whose driver breaks the rules of chains is broken, like any other.
    pub fn serve(&self, serve: impl FnOnce(Command<'_>) -> u8) -> bool {
        with_form!(self.view, F => self.serve_as::<F>(serve))
    }

    /// Forgets old kicks, asks for the next, and looks once more: whether there is a command already.
    pub fn arm(&self) -> bool {
        with_form!(self.view, F => self.arm_as::<F>())
    }

    fn arm_as<F: Format>(&self) -> bool {
        if let Some(kick) = &self.kick {
            empty(kick);
        }
        let mut state = self.ring.lock();
        F::ask_for_kicks(&self.view, state.next_avail);
        state.waiting::<F>(&self.view) > 0
    }

    fn serve_as<F: Format>(&self, serve: impl FnOnce(Command<'_>) -> u8) -> bool {
        let mut state = self.ring.lock();
        if state.waiting::<F>(&self.view) == 0 {
            return false;
        }
        let chain = match self.read::<F>(state.next_avail) {
            Ok(Some(chain)) => chain,
            Ok(None) => return false,
            Err(fault) => {
                state.fail(&self.view, fault);
                return false;
            }
        };
        // The statistics look at rings, too; they shall not wait for what a command takes.
        drop(state);
        let GivenChain { chain, command, answer_at, is_odd } = chain;
        let is_whole = !is_odd && answer_at.is_some();
        let answer = serve(if is_whole { Command::Whole(&command) } else { Command::Odd });
        if let Some(place) = answer_at {
            // SAFETY: one mapped byte of a device-writable buffer; the view, which `self` has, keeps it mapped. Volatile,
            // since the guest may look at any time.
            unsafe { place.write_volatile(answer) };
            F::wrote(&self.view, place, 1);
        }
        let mut state = self.ring.lock();
        let mut run = F::run(&state);
        F::give_back(&self.view, &mut run, &chain, u32::from(answer_at.is_some()));
        state.next_avail = F::behind(&self.view, state.next_avail, &chain);
        state.publish::<F>(&self.view, run);
        true
    }

    /// Copies the chain at `position` out.
    fn read<F: Format>(&self, position: u16) -> Result<Option<GivenChain>, Fault> {
        let Some(chain) = F::chain(&self.view, position)? else { return Ok(None) };
        let mut given = GivenChain { chain, command: Vec::new(), answer_at: None, is_odd: false };
        Walker::<F>::new(&self.view).walk(&chain, &mut |buffer, writable| {
            given.take(buffer, writable);
            true
        })?;
        Ok(Some(given))
    }
}

/// A command, copied out, and the first byte of where its answer goes.
struct GivenChain {
    chain: Chain,
    command: Vec<u8>,
    answer_at: Option<*mut u8>,
    is_odd: bool,
}

impl GivenChain {
    fn take(&mut self, buffer: Buffer, writable: bool) {
        let len = buffer.len as usize;
        if len == 0 {
            return;
        }
        if writable {
            self.answer_at.get_or_insert(buffer.start);
            return;
        }
        if self.is_odd || self.answer_at.is_some() || len > COMMAND_MAX - self.command.len() {
            self.is_odd = true;
            return;
        }
        let at = self.command.len();
        self.command.resize(at + len, 0);
        // SAFETY: the walker found `len` bytes mapped at the buffer, and as many were just added to the command.
        unsafe { copy_in(buffer.start, self.command[at..].as_mut_ptr(), len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::Offloads;
    use crate::ring::{
        DriverMemory, DriverOptions, DriverRing, MemoryTable, Part, RingOptions, RingSignals, Used,
    };

    const SIZE: u16 = 8;
    const COMMAND_AT: usize = 0x4000;
    const ANSWER_AT: usize = 0x3000;
    const TABLE_AT: usize = 0x3800;
    const MEMORY_LEN: usize = 0x4_0000;

    /// A driver with a control queue.
    struct Driver {
        memory: Arc<DriverMemory>,
        driver: DriverRing,
        control: ControlRing,
        ring: Arc<Ring>,
    }

    impl Driver {
        fn new(options: DriverOptions) -> Driver {
            let memory = Arc::new(DriverMemory::new("control", MEMORY_LEN).unwrap());
            let driver = DriverRing::new(memory.clone(), 0, SIZE, options).unwrap();
            let table = Arc::new(MemoryTable::new(vec![memory.region()]).unwrap());
            let DriverOptions { packed, event_idx, in_order } = options;
            let options = RingOptions {
                packed,
                event_idx,
                in_order,
                indirect: true,
                mergeable: true,
                version_1: true,
                send: Offloads::NONE,
                receive: Offloads::NONE,
            };
            let view =
                Arc::new(RingView::new(table, driver.layout(), options, RingSignals::default()).unwrap());
            let ring = Arc::new(Ring::start(&view, None).unwrap());
            Driver { memory, driver, control: ControlRing::new(view, ring.clone(), None), ring }
        }

        /// Gives the command that lies at [`COMMAND_AT`], in parts of these lengths, and a byte for the answer.
        fn give(&mut self, lens: &[u32], indirect: bool) {
            let mut offset = COMMAND_AT;
            let mut parts: Vec<Part> = Vec::new();
            for &len in lens {
                parts.push(Part { offset, len, writable: false });
                offset += len as usize;
            }
            parts.push(Part { offset: ANSWER_AT, len: 1, writable: true });
            self.memory.write(ANSWER_AT, &[0xee]);
            self.add(&parts, indirect);
        }

        fn add(&mut self, parts: &[Part], indirect: bool) {
            let added = if indirect {
                self.driver.add_indirect(TABLE_AT, parts)
            } else {
                self.driver.add_chain(parts)
            };
            assert!(added.is_some(), "there is room");
            self.driver.publish();
        }

        /// Has the command served and returns what was seen of it, if there was one.
        fn serve(&mut self, answer: u8) -> Option<Option<Vec<u8>>> {
            let mut seen = None;
            self.control
                .serve(|command| {
                    seen = Some(match command {
                        Command::Whole(bytes) => Some(bytes.to_vec()),
                        Command::Odd => None,
                    });
                    answer
                })
                .then(|| seen.unwrap())
        }

        fn answer(&self) -> u8 {
            let mut answer = [0];
            self.memory.read(ANSWER_AT, &mut answer);
            answer[0]
        }
    }

    fn all_forms() -> impl Iterator<Item = DriverOptions> {
        (0..8).map(|bits| DriverOptions {
            packed: bits & 1 != 0,
            event_idx: bits & 2 != 0,
            in_order: bits & 4 != 0,
        })
    }

    #[test]
    fn a_command_is_read_whole_and_answered_with_a_byte() {
        for options in all_forms() {
            let mut driver = Driver::new(options);
            for round in 0..100u8 {
                driver.memory.write(COMMAND_AT, &[round, 1, 2, 3, 4]);
                driver.give(&[2, 0, 3], round % 2 == 0);
                assert!(driver.control.arm());
                assert_eq!(driver.serve(round), Some(Some(vec![round, 1, 2, 3, 4])), "{options:?}");
                assert_eq!(driver.answer(), round);
                let Used { written, .. } = driver.driver.collect().unwrap().unwrap();
                assert_eq!(written, Some(1));
                assert!(!driver.control.arm() && driver.serve(0).is_none());
            }
        }
    }

    #[test]
    fn commands_of_any_length_are_bounded() {
        let mut driver = Driver::new(DriverOptions::default());
        driver.give(&[COMMAND_MAX as u32], false);
        assert_eq!(driver.serve(0).unwrap().map(|command| command.len()), Some(COMMAND_MAX));
        driver.give(&[COMMAND_MAX as u32, 1], true);
        assert_eq!(driver.serve(1), Some(None));
        assert_eq!(driver.answer(), 1);
    }

    #[test]
    fn what_can_be_answered_is_and_all_else_is_given_back() {
        for options in all_forms() {
            let mut driver = Driver::new(options);
            let (read, write) = (
                |offset, len| Part { offset, len, writable: false },
                |offset, len| Part { offset, len, writable: true },
            );
            // Nothing to answer into.
            driver.add(&[read(COMMAND_AT, 2)], false);
            assert_eq!(driver.serve(0), Some(None));
            assert_eq!(driver.driver.collect().unwrap().unwrap().written, Some(0));
            driver.add(&[read(COMMAND_AT, 2), write(ANSWER_AT, 0)], false);
            assert_eq!(driver.serve(0), Some(None));
            assert_eq!(driver.driver.collect().unwrap().unwrap().written, Some(0));
            // No command at all.
            driver.add(&[write(ANSWER_AT, 1)], false);
            assert_eq!(driver.serve(7), Some(Some(Vec::new())));
            assert_eq!((driver.answer(), driver.driver.collect().unwrap().unwrap().written), (7, Some(1)));
            // Something to read behind the answer.
            driver.add(&[read(COMMAND_AT, 2), write(ANSWER_AT, 1), read(COMMAND_AT, 1)], true);
            assert_eq!(driver.serve(8), Some(None));
            assert_eq!(driver.answer(), 8);
            driver.driver.collect().unwrap().unwrap();
            assert_eq!(driver.ring.fault(), None, "{options:?}");
        }
    }

    #[test]
    fn a_chain_that_breaks_the_rules_breaks_the_ring() {
        for options in all_forms() {
            let mut driver = Driver::new(options);
            driver.add(&[Part { offset: COMMAND_AT, len: u32::MAX, writable: false }], false);
            assert_eq!(driver.serve(0), None);
            assert_eq!(driver.ring.fault(), Some(Fault::Address));
            assert!(!driver.control.arm(), "a broken ring has no commands");
        }
    }

    #[test]
    fn a_packed_ring_that_starts_at_zero_begins_anew_unless_it_went_round() {
        let mut driver = Driver::new(DriverOptions { packed: true, ..DriverOptions::default() });
        let start = |driver: &Driver| Ring::start(&driver.control.view, Some(0)).unwrap();
        let view = driver.control.view.clone();
        driver.give(&[2], false);
        let ring = start(&driver);
        assert!(ring.base() == 1 << 15 && ring.is_at_beginning(&view));
        driver.serve(0);
        assert!(!driver.ring.is_at_beginning(&view));
        for _ in 1..SIZE / 2 {
            driver.driver.collect().unwrap();
            driver.give(&[2], false);
            driver.serve(0);
        }
        assert_eq!(driver.ring.base(), 0, "its wrap counter has turned over");
        let ring = start(&driver);
        assert!(ring.base() == 0 && !ring.is_at_beginning(&view));
        driver.driver.collect().unwrap();
        driver.give(&[2], false);
        assert_eq!(start(&driver).base(), 0, "nor does what is available then begin anew");
    }
}
