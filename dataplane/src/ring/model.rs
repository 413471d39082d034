//! What the two ends of a ring tell each other, in every interleaving, under loom.
//!
//! The ends work on memory that another process shares, which loom cannot watch; so the protocol stands here once more, with
//! the orderings of `view.rs`, `view/packed.rs`, `log.rs` and `driver/`. What is a plain access there is one of a cell that
//! loom watches. Four things must hold: what is handed over is whole, in both directions; whoever goes to sleep is woken; a
//! packed run is seen whole or not at all; and a page that is written while a guest is migrated is copied after that.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering, fence};
use loom::thread;

/// A ring of one buffer: an index each way, a wish each way, and whether the other side was told.
struct Shared {
    buffer: UnsafeCell<u32>,
    avail: AtomicU16,
    used: AtomicU16,
    wants_kick: AtomicBool,
    wants_call: AtomicBool,
    kicked: AtomicBool,
    called: AtomicBool,
}

// SAFETY: loom's cell reports every unsynchronised access; that is what the model is for.
unsafe impl Sync for Shared {}

fn shared() -> Arc<Shared> {
    let no = || AtomicBool::new(false);
    Arc::new(Shared {
        buffer: UnsafeCell::new(0),
        avail: AtomicU16::new(0),
        used: AtomicU16::new(0),
        wants_kick: no(),
        wants_call: no(),
        kicked: no(),
        called: no(),
    })
}

/// One end makes `index` say 1 and tells the other if that wishes it.
fn publish(index: &AtomicU16, wish: &AtomicBool, told: &AtomicBool) {
    index.store(1, Ordering::Release);
    // `wants_signal`, `publish`.
    fence(Ordering::SeqCst);
    if wish.load(Ordering::Relaxed) {
        told.store(true, Ordering::Relaxed);
    }
}

/// The other end wishes to be told, and looks once more: whether there is something. If not, it may sleep.
fn ask(index: &AtomicU16, wish: &AtomicBool) -> bool {
    wish.store(true, Ordering::Relaxed);
    // `ask_for_kicks`, `set_device_event`, `ask_for_calls`.
    fence(Ordering::SeqCst);
    index.load(Ordering::Acquire) == 1
}

fn write(buffer: &UnsafeCell<u32>, value: u32) {
    // SAFETY: loom fails the model if the other end has the buffer.
    buffer.with_mut(|buffer| unsafe { *buffer = value });
}

fn read(buffer: &UnsafeCell<u32>) -> u32 {
    // SAFETY: loom fails the model if the other end writes meanwhile.
    buffer.with(|buffer| unsafe { *buffer })
}

#[test]
fn device_that_parks_is_kicked_or_sees_the_buffer_at_its_last_look() {
    loom::model(|| {
        let ring = shared();
        let device = {
            let ring = ring.clone();
            thread::spawn(move || ask(&ring.avail, &ring.wants_kick))
        };
        publish(&ring.avail, &ring.wants_kick, &ring.kicked);
        let saw = device.join().unwrap();
        assert!(saw || ring.kicked.load(Ordering::Relaxed), "it sleeps on work");
    });
}

#[test]
fn buffer_is_whole_for_the_device_and_then_for_the_driver_again() {
    loom::model(|| {
        let ring = shared();
        let device = {
            let ring = ring.clone();
            thread::spawn(move || {
                if ring.avail.load(Ordering::Acquire) == 1 {
                    assert_eq!(read(&ring.buffer), 7);
                    write(&ring.buffer, 8);
                    publish(&ring.used, &ring.wants_call, &ring.called);
                }
            })
        };
        write(&ring.buffer, 7);
        publish(&ring.avail, &ring.wants_kick, &ring.kicked);
        if ask(&ring.used, &ring.wants_call) {
            assert_eq!(read(&ring.buffer), 8);
            write(&ring.buffer, 9);
        }
        device.join().unwrap();
        let used = ring.used.load(Ordering::Acquire) == 1;
        let told = ring.called.load(Ordering::Relaxed);
        assert!(!used || told || read(&ring.buffer) == 9, "the driver sleeps on a used buffer");
    });
}

/// Two descriptors of a packed ring, made available or given back together: the flags of the first are written last.
#[test]
fn packed_run_is_seen_whole_or_not_at_all() {
    const AVAILABLE: u16 = 1;
    const USED: u16 = 2;
    loom::model(|| {
        let words = Arc::new([AtomicU16::new(0), AtomicU16::new(0)]);
        let device = {
            let words = words.clone();
            thread::spawn(move || {
                if words[0].load(Ordering::Acquire) != AVAILABLE {
                    return;
                }
                assert_eq!(words[1].load(Ordering::Acquire), AVAILABLE, "the chain goes on");
                words[1].store(USED, Ordering::Release);
                words[0].store(USED, Ordering::Release);
            })
        };
        words[1].store(AVAILABLE, Ordering::Release);
        words[0].store(AVAILABLE, Ordering::Release);
        if words[0].load(Ordering::Acquire) == USED {
            assert_eq!(words[1].load(Ordering::Acquire), USED, "all of the run is back");
        }
        device.join().unwrap();
    });
}

/// Two pages with a bit in one byte of the log. We write one of them twice; the front end takes the bits and copies what they
/// stand for, once now and once when the guest has stopped.
#[test]
fn page_that_is_written_while_it_is_copied_is_copied_again() {
    const OURS: u8 = 1;
    const ANOTHERS: u8 = 2;
    loom::model(|| {
        let (page, bits) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU8::new(0)));
        let device = {
            let (page, bits) = (page.clone(), bits.clone());
            thread::spawn(move || {
                for value in [1, 2] {
                    page.store(value, Ordering::Relaxed);
                    // `DirtyLog::mark`.
                    bits.fetch_or(OURS, Ordering::Release);
                }
            })
        };
        let mut copy = 0;
        let mut copy_dirty = || {
            if bits.swap(0, Ordering::Acquire) & OURS != 0 {
                copy = page.load(Ordering::Relaxed);
            }
        };
        bits.fetch_or(ANOTHERS, Ordering::Release);
        copy_dirty();
        device.join().unwrap();
        copy_dirty();
        assert_eq!(copy, 2);
    });
}
