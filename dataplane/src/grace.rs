//! Publishing an immutable value to pollers, and knowing when they have all let go of the one before.
//!
//! Quiescent-state reclamation: a [`Reader`] compares one generation number before each use and says which it has seen;
//! while it sleeps it says that too. [`Publisher::swap`] puts a new value in place, and [`Publisher::wait`] returns the
//! old one once every reader has caught up or sleeps, when nobody can reach it any more. Readers never wait and pay one
//! load; the publisher waits for one burst.
//!
//! The loom model at the end runs the same code under every interleaving.

#![allow(unsafe_code)] // readers hold a pointer whose owner waits for them

#[cfg(loom)]
use loom::{
    sync::Arc,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
use std::{
    sync::Arc,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence},
};

/// Set in a reader's word while it sleeps; the rest of the word is twice the generation that it has caught up with.
const ASLEEP: u64 = 1;
/// The word of a reader that is gone: asleep, and ahead of every generation.
const GONE: u64 = u64::MAX;

/// One reader's word, alone in its pair of cache lines. Written by that reader, read by the publisher.
#[repr(align(128))]
struct Seen(AtomicU64);

struct Shared<T> {
    /// The value of `generation`, or already of the next. Written by the publisher.
    current: AtomicPtr<T>,
    /// Written by the publisher, after `current`.
    generation: AtomicU64,
    seen: Box<[Seen]>,
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let last = self.current.load(Ordering::Acquire);
        // SAFETY: it came from a box, was not retired, and publisher and readers are gone.
        drop(unsafe { Box::from_raw(last) });
    }
}

/// The one writer.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// One poller's end.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    slot: usize,
    generation: u64,
    value: *const T,
}

// SAFETY: the pointer is to a value that is kept until this reader has let go; sharing it needs T: Sync.
unsafe impl<T: Send + Sync> Send for Reader<T> {}

/// A value that was swapped out and may still be in use. Dropped without [`Publisher::wait`], it is leaked.
pub struct Retired<T> {
    value: *mut T,
    generation: u64,
}

/// A publisher of `first` and its `readers` readers, all of which have seen it.
pub fn channel<T: Send + Sync>(first: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let value = Box::into_raw(Box::new(first));
    let shared = Arc::new(Shared {
        current: AtomicPtr::new(value),
        generation: AtomicU64::new(0),
        seen: (0..readers).map(|_| Seen(AtomicU64::new(0))).collect(),
    });
    let reader = |slot| Reader { shared: shared.clone(), slot, generation: 0, value: value.cast_const() };
    let readers = (0..readers).map(reader).collect();
    (Publisher { shared }, readers)
}

impl<T> Reader<T> {
    /// Whether a newer value waits. One load.
    #[inline]
    pub fn is_stale(&self) -> bool {
        // Acquire: pairs with the release in `swap`; what is loaded after it is of this generation or newer.
        self.shared.generation.load(Ordering::Acquire) != self.generation
    }

    /// The value that this reader has caught up with; after a sleep perhaps a newer one, but then it is stale.
    #[inline]
    pub fn current(&self) -> &T {
        // SAFETY: the value is of the generation that this reader's word names, or newer. It is not freed before the
        // reader catches up with the next or sleeps; both need `&mut self`, and both replace the pointer.
        unsafe { &*self.value }
    }

    /// Takes the newest value, shows it to `adopt`, and lets go of the old one only then: whatever `adopt` drops that it
    /// has of the old value, it is not the last to have it.
    #[cold]
    pub fn catch_up(&mut self, adopt: impl FnOnce(&T)) {
        self.generation = self.shared.generation.load(Ordering::Acquire);
        self.value = self.shared.current.load(Ordering::Acquire);
        adopt(self.current());
        // Release: our uses of the old value happen before the publisher, which acquires this, frees it.
        self.seen().store(self.generation * 2, Ordering::Release);
    }

    /// Sleeps by calling `sleep`, unless a newer value waits: then it returns at once with `None`. Meanwhile the
    /// publisher does not wait for this reader. Afterwards [`Self::current`] is what was caught up with, unless
    /// [`Self::is_stale`].
    pub fn sleep<R>(&mut self, sleep: impl FnOnce() -> R) -> Option<R> {
        self.seen().store((self.generation * 2) | ASLEEP, Ordering::Release);
        // Pairs with the fence in `swap`: either the publisher sees us asleep and wakes us where it must, or we see its
        // generation here.
        fence(Ordering::SeqCst);
        let result = if self.is_stale() { None } else { Some(sleep()) };
        self.seen().store(self.generation * 2, Ordering::Relaxed);
        // Pairs with the fence in `swap`: either the publisher sees us awake and waits, or we see its generation here.
        fence(Ordering::SeqCst);
        // Without a newer generation the value stays: a publisher that has put the next one in place, and was put aside
        // before it said so, will wait for us, and what we were not shown by `catch_up` we must not use.
        if self.is_stale() {
            self.value = self.shared.current.load(Ordering::Acquire);
        }
        result
    }

    fn seen(&self) -> &AtomicU64 {
        &self.shared.seen[self.slot].0
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.seen().store(GONE, Ordering::Release);
    }
}

impl<T> Publisher<T> {
    /// Makes `next` the value that readers find from now on.
    #[must_use = "the old value is leaked unless `wait` returns it"]
    pub fn swap(&mut self, next: T) -> Retired<T> {
        let next = Box::into_raw(Box::new(next));
        let value = self.shared.current.swap(next, Ordering::AcqRel);
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Release);
        // Pairs with the fences in `Reader::sleep`.
        fence(Ordering::SeqCst);
        Retired { value, generation }
    }

    /// How many values were put in place after the first.
    pub fn generation(&self) -> u64 {
        // Relaxed: only this thread changes it.
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// Whether reader `slot` sleeps.
    pub fn is_asleep(&self, slot: usize) -> bool {
        self.word(slot) & ASLEEP != 0
    }

    /// Whether reader `slot` has caught up with the current value; one that sleeps through a change has not.
    pub fn has_caught_up(&self, slot: usize) -> bool {
        self.word(slot) / 2 >= self.shared.generation.load(Ordering::Relaxed)
    }

    /// Waits, by calling `pause` in between, until no reader can be using the retired value, and returns it.
    pub fn wait(&mut self, retired: Retired<T>, mut pause: impl FnMut()) -> Box<T> {
        for slot in 0..self.shared.seen.len() {
            while !(self.is_asleep(slot) || self.word(slot) / 2 >= retired.generation) {
                pause();
            }
        }
        // SAFETY: it came from a box, it is not `current`, and no reader has it: each has caught up with a newer one, or
        // slept after the swap and so looks at the generation before any use.
        unsafe { Box::from_raw(retired.value) }
    }

    /// Acquire: pairs with the release of a reader that lets go.
    fn word(&self, slot: usize) -> u64 {
        self.shared.seen[slot].0.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn old_value_comes_back_when_every_reader_has_let_go() {
        let (mut publisher, mut readers) = channel(1, 1);
        let mut reader = readers.pop().unwrap();
        let retired = publisher.swap(2);
        assert!(reader.is_stale() && !publisher.has_caught_up(0));
        assert_eq!(*reader.current(), 1, "still there: nobody has waited");
        let mut pauses = 0;
        let old = publisher.wait(retired, || {
            pauses += 1;
            if pauses == 3 {
                reader.catch_up(|value| assert_eq!(*value, 2));
            }
        });
        assert_eq!((*old, pauses), (1, 3));
        assert!(publisher.has_caught_up(0));
    }

    #[test]
    fn sleeping_reader_holds_nobody_up_and_wakes_to_the_new_value() {
        let (mut publisher, mut readers) = channel(1, 1);
        let mut reader = readers.pop().unwrap();
        let slept = reader.sleep(|| {
            assert!(publisher.is_asleep(0));
            let retired = publisher.swap(2);
            *publisher.wait(retired, || panic!("waited for a sleeper"))
        });
        assert_eq!((slept, *reader.current()), (Some(1), 2));
        assert!(reader.is_stale() && !publisher.has_caught_up(0) && !publisher.is_asleep(0));
        reader.catch_up(|value| assert_eq!(*value, 2));
        assert!(publisher.has_caught_up(0));
    }

    #[test]
    fn reader_does_not_sleep_over_news() {
        let (mut publisher, mut readers) = channel(1, 1);
        let mut reader = readers.pop().unwrap();
        let retired = publisher.swap(2);
        assert_eq!(reader.sleep(|| ()), None);
        assert_eq!(*reader.current(), 2);
        reader.catch_up(|_| ());
        assert_eq!(*publisher.wait(retired, || panic!("waited for a reader that has caught up")), 1);
    }

    #[test]
    fn sleeper_that_wakes_in_the_middle_of_a_swap_does_not_use_what_it_was_not_shown() {
        let (mut publisher, mut readers) = channel(1, 1);
        let mut reader = readers.pop().unwrap();
        // The first half of a swap.
        let old =
            reader.sleep(|| publisher.shared.current.swap(Box::into_raw(Box::new(2)), Ordering::AcqRel));
        assert!(!reader.is_stale(), "it was not said yet");
        assert_eq!(*reader.current(), 1);
        // The second half.
        publisher.shared.generation.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        let retired = Retired { value: old.unwrap(), generation: 1 };
        assert!(reader.is_stale() && !publisher.is_asleep(0), "it is waited for");
        reader.catch_up(|value| assert_eq!(*value, 2));
        assert_eq!(*publisher.wait(retired, || panic!("waited for a reader that has caught up")), 1);
    }

    #[test]
    fn reader_that_is_gone_holds_nobody_up() {
        let (mut publisher, readers) = channel(1, 1);
        drop(readers);
        let retired = publisher.swap(2);
        publisher.wait(retired, || panic!("waited for nobody"));
        assert!(publisher.has_caught_up(0));
    }

    #[test]
    fn pollers_never_see_a_freed_value() {
        struct Checked(u64, u64);
        impl Drop for Checked {
            fn drop(&mut self) {
                (self.0, self.1) = (0xdead, 0xbeef);
            }
        }
        fn poll(mut reader: Reader<Checked>) {
            while reader.current().0 < 500 {
                let value = reader.current();
                assert_eq!(value.0, !value.1);
                if value.0.is_multiple_of(3) {
                    reader.sleep(thread::yield_now);
                }
                if reader.is_stale() {
                    reader.catch_up(|_| ());
                }
            }
        }
        let (mut publisher, readers) = channel(Checked(0, !0), 2);
        thread::scope(|scope| {
            readers.into_iter().for_each(|reader| drop(scope.spawn(|| poll(reader))));
            for round in 1..=500 {
                let retired = publisher.swap(Checked(round, !round));
                drop(publisher.wait(retired, thread::yield_now));
            }
        });
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::thread;

    /// A value whose every access loom checks; "freed" once the publisher has it back.
    struct Value {
        alive: UnsafeCell<bool>,
    }

    // SAFETY: loom's cell reports every unsynchronised access; that is what the model is for.
    unsafe impl Sync for Value {}

    fn value() -> Arc<Value> {
        Arc::new(Value { alive: UnsafeCell::new(true) })
    }

    fn assert_alive(value: &Value) {
        // SAFETY: loom fails the model if the publisher writes meanwhile.
        value.alive.with(|alive| assert!(unsafe { *alive }));
    }

    fn free(value: &Value) {
        // SAFETY: loom fails the model if a reader reads meanwhile.
        value.alive.with_mut(|alive| unsafe { *alive = false });
    }

    /// Every interleaving of a reader that does `reads` and ends, and a publisher that publishes `times` and frees.
    fn publish_while(times: usize, reads: impl Fn(&mut Reader<Arc<Value>>) + Send + Sync + Copy + 'static) {
        loom::model(move || {
            let (mut publisher, mut readers) = channel(value(), 1);
            let mut reader = readers.pop().unwrap();
            let poller = thread::spawn(move || reads(&mut reader));
            for _ in 0..times {
                let retired = publisher.swap(value());
                let old = publisher.wait(retired, thread::yield_now);
                free(&old);
            }
            poller.join().unwrap();
        });
    }

    fn look(reader: &mut Reader<Arc<Value>>) {
        assert_alive(reader.current());
        if reader.is_stale() {
            reader.catch_up(|value| assert_alive(value));
        }
        assert_alive(reader.current());
    }

    #[test]
    fn polling_reader_never_uses_a_freed_value() {
        publish_while(2, |reader| {
            look(reader);
            look(reader);
        });
    }

    #[test]
    fn sleeping_and_waking_reader_never_uses_a_freed_value() {
        publish_while(2, |reader| {
            look(reader);
            reader.sleep(|| ());
            look(reader);
        });
    }

    #[test]
    fn reader_that_wakes_has_what_it_was_shown_or_is_stale() {
        publish_while(2, |reader| {
            let shown = Arc::as_ptr(reader.current());
            reader.sleep(|| ());
            let now = Arc::as_ptr(reader.current());
            assert!(now == shown || reader.is_stale());
        });
    }
}
