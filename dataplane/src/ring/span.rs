//! A range of addresses that is looked at while others change it, by a signal handler too: nobody waits, and whoever looks
//! finds a range as it was set, or none.
//!
//! Start and length are two words, so a look could find one of each of two ranges, and a range that never was can cover
//! what is another's. Hence the version: it goes on with every change, and whoever finds another one after the look than
//! before it has found nothing.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// See the module. Written by whoever took it.
pub(super) struct Span {
    /// Modulo [`STATES`]: [`FREE`], [`TAKEN`] or [`SET`], in this order again and again.
    version: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
}

const STATES: usize = 3;
const FREE: usize = 0;
const TAKEN: usize = 1;
const SET: usize = 2;

impl Span {
    /// One that is free.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Span {
        Span { version: AtomicUsize::new(FREE), start: AtomicUsize::new(0), len: AtomicUsize::new(0) }
    }

    /// The model's.
    #[cfg(all(test, loom))]
    fn new() -> Span {
        Span { version: AtomicUsize::new(FREE), start: AtomicUsize::new(0), len: AtomicUsize::new(0) }
    }

    /// Takes it, if it is free. What goes with it may be written then, before it is set.
    pub(super) fn take(&self) -> bool {
        let version = self.version.load(Ordering::Relaxed);
        // Acquire: pairs with the release of whoever had it before.
        version % STATES == FREE
            && self
                .version
                .compare_exchange(version, version + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Sets the range. For whoever took it.
    pub(super) fn set(&self, start: usize, len: usize) {
        let version = self.version.load(Ordering::Relaxed);
        debug_assert_eq!(version % STATES, TAKEN);
        // Whoever sees one of the two words sees this version too; pairs with the fence of a look.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        // Release: pairs with the acquire of a look.
        self.version.store(version + 1, Ordering::Release);
    }

    /// Clears the range, which is set, and gives it up.
    pub(super) fn clear(&self) {
        let version = self.version.load(Ordering::Relaxed);
        debug_assert_eq!(version % STATES, SET);
        self.version.store(version + 1, Ordering::Release);
    }

    /// The range, if `addr` is in it: its start and its length.
    pub(super) fn find(&self, addr: usize) -> Option<(usize, usize)> {
        // Acquire: pairs with the release of `set`.
        let version = self.version.load(Ordering::Acquire);
        if version % STATES != SET {
            return None;
        }
        let (start, len) = (self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        // What was read is no newer than what is read next; pairs with the fence of `set`.
        fence(Ordering::Acquire);
        let is_whole = self.version.load(Ordering::Relaxed) == version;
        (is_whole && addr.wrapping_sub(start) < len).then_some((start, len))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn range_is_found_by_what_is_in_it_while_it_is_set() {
        let span = Span::new();
        assert_eq!(span.find(0), None);
        assert!(span.take() && !span.take());
        assert_eq!(span.find(0), None, "it is not set yet");
        span.set(0x1000, 0x2000);
        assert!(!span.take());
        assert_eq!((span.find(0x1000), span.find(0x2fff)), (Some((0x1000, 0x2000)), Some((0x1000, 0x2000))));
        assert_eq!((span.find(0xfff), span.find(0x3000)), (None, None));
        span.clear();
        assert_eq!(span.find(0x1000), None);
        assert!(span.take());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn use_for(span: &Span, start: usize, len: usize) {
        assert!(span.take());
        span.set(start, len);
    }

    /// The long range never stood where the short ones do; 150 is in none of them.
    #[test]
    fn look_never_finds_parts_of_two_ranges() {
        loom::model(|| {
            let span = Arc::new(Span::new());
            use_for(&span, 100, 10);
            let theirs = span.clone();
            let owner = thread::spawn(move || {
                theirs.clear();
                use_for(&theirs, 1000, 100);
                theirs.clear();
                use_for(&theirs, 100, 20);
            });
            assert_eq!(span.find(150), None);
            owner.join().unwrap();
            assert_eq!(span.find(115), Some((100, 20)));
        });
    }

    #[test]
    fn range_of_one_is_found_while_others_come_and_go() {
        loom::model(|| {
            let spans = Arc::new([Span::new(), Span::new()]);
            use_for(&spans[0], 100, 10);
            let theirs = spans.clone();
            let other = thread::spawn(move || {
                use_for(&theirs[1], 110, 10);
                theirs[1].clear();
            });
            assert_eq!(spans.iter().find_map(|span| span.find(109)), Some((100, 10)));
            other.join().unwrap();
        });
    }

    #[test]
    fn only_one_takes_a_span() {
        loom::model(|| {
            let span = Arc::new(Span::new());
            let theirs = span.clone();
            let other = thread::spawn(move || theirs.take());
            let taken = span.take();
            assert!(taken != other.join().unwrap());
        });
    }
}
