//! The driver's end against the device's end of the same ring, and against a device that is written by hand.

use super::*;
use crate::frame::Taken;
use crate::port::IngressScratch;
use crate::ring::{self, MemoryTable, Ring, RingEnd, RingOptions, RingSignals, RingView};

const BUFFERS: usize = 0x4000;
const FRAME_LEN: usize = 60;
/// A virtio-net header and a frame.
const LEN: u32 = 12 + FRAME_LEN as u32;

struct Rig {
    driver: SplitDriver,
    device: RingEnd,
    memory: Arc<DriverMemory>,
    scratch: IngressScratch,
}

impl Rig {
    fn new(size: u16, options: DriverOptions) -> Rig {
        let memory = Arc::new(DriverMemory::new("test", 0x1_0000).unwrap());
        let driver = SplitDriver::new(memory.clone(), 0, size, options);
        let table = Arc::new(MemoryTable::new(vec![memory.region()]).unwrap());
        let ring_options = RingOptions {
            event_idx: options.event_idx,
            indirect: true,
            mergeable: true,
            version_1: true,
            ..RingOptions::default()
        };
        let view = RingView::new(table, driver.layout(), ring_options, RingSignals::default()).unwrap();
        let device = ring::ingress(Arc::new(view), Arc::new(Ring::new(0, 0)), 0, None);
        Rig { driver, device, memory, scratch: IngressScratch::default() }
    }

    fn polled(&mut self) -> Vec<usize> {
        let mut lens = Vec::new();
        self.device.ingress.poll(&mut self.scratch, &mut |burst| {
            lens.extend(burst.frames().map(|frame| frame.len()));
            Taken::ALL
        });
        lens
    }

    /// Writes a used entry as a device would.
    fn use_by_hand(&self, position: u16, id: u32, written: u32) {
        let slot = usize::from(position & (self.driver.size - 1));
        let entry = u64::from(id) | u64::from(written) << 32;
        self.memory.write_u64(self.driver.used + 4 + 8 * slot, entry);
    }

    fn set_used_index(&self, index: u16) {
        self.memory.word(self.driver.used + 2).store(index.to_le(), Ordering::Release);
    }
}

fn part(offset: usize, len: u32) -> Part {
    Part { offset, len, writable: false }
}

#[test]
fn what_is_added_reaches_the_device_only_when_published() {
    let mut rig = Rig::new(8, DriverOptions::default());
    rig.driver.add(part(BUFFERS, LEN)).unwrap();
    assert!(rig.polled().is_empty());
    assert!(rig.driver.publish(), "this device never asked for silence");
    assert_eq!(rig.polled(), [FRAME_LEN]);
    assert_eq!(rig.driver.collect(), Ok(Some(Used { head: 0, written: Some(0) })));
    assert_eq!(rig.driver.collect(), Ok(None));
}

#[test]
fn ring_goes_round_more_often_than_its_index() {
    let mut rig = Rig::new(4, DriverOptions::default());
    for round in 0..0x1_0010u32 {
        let head = rig.driver.add(part(BUFFERS, LEN)).unwrap();
        rig.driver.publish();
        assert_eq!(rig.polled().len(), 1, "round {round}");
        assert_eq!(rig.driver.collect().unwrap().map(|used| used.head), Some(head));
    }
    assert_eq!(rig.driver.room(), 4);
}

#[test]
fn chains_and_indirect_tables_come_back_whole() {
    let mut rig = Rig::new(4, DriverOptions::default());
    let chain = rig.driver.add_chain(&[part(BUFFERS, 12), part(BUFFERS + 64, 20), part(BUFFERS + 96, 30)]);
    let indirect = rig.driver.add_indirect(BUFFERS + 0x100, &[part(BUFFERS, 12), part(BUFFERS + 64, 44)]);
    assert_eq!((chain, indirect, rig.driver.room()), (Some(0), Some(3), 0));
    rig.driver.publish();
    assert_eq!(rig.polled(), [50, 44]);
    assert_eq!(rig.driver.collect().unwrap().map(|used| used.head), chain);
    assert_eq!(rig.driver.room(), 3);
    assert_eq!(rig.driver.collect().unwrap().map(|used| used.head), indirect);
    assert_eq!(rig.driver.free.peek(9).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn device_that_asked_for_silence_is_not_kicked() {
    use crate::port::Arming;
    for event_idx in [false, true] {
        let mut rig = Rig::new(8, DriverOptions { event_idx, ..DriverOptions::default() });
        rig.device.doorbell.disarm();
        rig.driver.add(part(BUFFERS, LEN)).unwrap();
        assert!(!rig.driver.publish(), "event_idx {event_idx}");
        assert_eq!(rig.polled().len(), 1);
        assert_eq!(rig.device.doorbell.arm(), Arming::Quiet);
        rig.driver.add(part(BUFFERS, LEN)).unwrap();
        assert!(rig.driver.publish(), "event_idx {event_idx}");
    }
}

#[test]
fn asking_for_calls_sees_what_is_back_already() {
    for event_idx in [false, true] {
        let mut rig = Rig::new(8, DriverOptions { event_idx, ..DriverOptions::default() });
        assert!(!rig.driver.ask_for_calls());
        rig.driver.ask_for_silence();
        rig.driver.add(part(BUFFERS, LEN)).unwrap();
        rig.driver.publish();
        rig.polled();
        assert!(rig.driver.ask_for_calls());
    }
}

#[test]
fn one_used_entry_stands_for_a_run_when_in_order() {
    let mut rig = Rig::new(4, DriverOptions { in_order: true, ..DriverOptions::default() });
    for _ in 0..4 {
        rig.driver.add(part(BUFFERS, LEN)).unwrap();
    }
    rig.driver.publish();
    rig.use_by_hand(0, 2, 7);
    rig.use_by_hand(3, 3, 9);
    rig.set_used_index(4);
    let mut back = Vec::new();
    while let Some(used) = rig.driver.collect().unwrap() {
        back.push((used.head, used.written));
    }
    assert_eq!(back, [(0, None), (1, None), (2, Some(7)), (3, Some(9))]);
    assert_eq!(rig.driver.room(), 4);
}

#[test]
fn device_that_lies_is_found_out() {
    let mut rig = Rig::new(4, DriverOptions::default());
    rig.set_used_index(1);
    assert_eq!(rig.driver.collect(), Err(DeviceFault::IndexJump));

    for id in [1, 4, 0x1_0000] {
        let mut rig = Rig::new(4, DriverOptions::default());
        rig.driver.add(part(BUFFERS, LEN)).unwrap();
        rig.driver.publish();
        rig.use_by_hand(0, id, 0);
        rig.set_used_index(1);
        assert_eq!(rig.driver.collect(), Err(DeviceFault::NotInFlight), "id {id}");
    }

    let mut rig = Rig::new(4, DriverOptions { in_order: true, ..DriverOptions::default() });
    rig.driver.add(part(BUFFERS, LEN)).unwrap();
    rig.driver.publish();
    rig.use_by_hand(0, 3, 0);
    rig.set_used_index(1);
    assert_eq!(rig.driver.collect(), Err(DeviceFault::NotInFlight));
}
