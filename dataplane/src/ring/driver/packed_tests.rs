//! The driver's end against a device that is written by hand, slowly and to the letter of the specification.

use super::*;

const BUFFERS: usize = 0x10_0000;
const TABLES: usize = 0x11_0000;
const LEN: u32 = 72;
const OPTIONS: DriverOptions = DriverOptions { packed: true, event_idx: false, in_order: false };

/// One descriptor as the device reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    addr: u64,
    len: u32,
    writable: bool,
}

/// A chain that the device took: its id, its descriptors in the ring, and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    id: u16,
    count: u16,
    parts: Vec<Seen>,
}

/// A device: it keeps its two places as counts since the start, and computes wrap counters from them.
struct Device {
    memory: Arc<DriverMemory>,
    size: u64,
    taken: u64,
    used: u64,
}

impl Device {
    fn flag(&self, at: u64) -> bool {
        (at / self.size).is_multiple_of(2)
    }

    fn descriptor(&self, at: u64) -> (u64, u64) {
        let offset = 16 * (at % self.size) as usize;
        (self.memory.read_u64(offset), self.memory.read_u64(offset + 8))
    }

    fn is_available(&self, at: u64) -> bool {
        let flags = self.descriptor(at).1 >> 48;
        (flags >> 7 & 1 == 1) == self.flag(at) && (flags >> 15 & 1 == 1) != self.flag(at)
    }

    fn take(&mut self) -> Option<Chain> {
        if !self.is_available(self.taken) {
            return None;
        }
        let (mut parts, first) = (Vec::new(), self.taken);
        loop {
            assert!(self.is_available(self.taken), "the rest of a chain came after its first descriptor");
            let (addr, rest) = self.descriptor(self.taken);
            let flags = rest >> 48;
            self.taken += 1;
            if flags & 4 != 0 {
                for place in 0..(rest as u32 / 16) as usize {
                    let offset = (addr - DriverMemory::GUEST_ADDR) as usize + 16 * place;
                    parts.push(seen(self.memory.read_u64(offset), self.memory.read_u64(offset + 8)));
                }
            } else {
                parts.push(seen(addr, rest));
            }
            if flags & 1 == 0 {
                return Some(Chain { id: (rest >> 32) as u16, count: (self.taken - first) as u16, parts });
            }
        }
    }

    /// Says that chains of `count` descriptors together are used, in the name of `id`.
    fn give_back(&mut self, id: u16, count: u16, written: Option<u32>) {
        let owner = if self.flag(self.used) { 1 << 7 | 1 << 15 } else { 0 };
        let flags: u64 = owner | if written.is_some() { 2 } else { 0 };
        let rest = u64::from(written.unwrap_or(0xdead)) | u64::from(id) << 32 | flags << 48;
        let offset = 16 * (self.used % self.size) as usize + 8;
        self.memory.double(offset).store(rest.to_le(), Ordering::Release);
        self.used += u64::from(count);
    }
}

fn seen(addr: u64, rest: u64) -> Seen {
    Seen { addr, len: rest as u32, writable: rest >> 49 & 1 == 1 }
}

fn rig(size: u16, options: DriverOptions) -> (PackedDriver, Device) {
    let memory = Arc::new(DriverMemory::new("test", 0x12_0000).unwrap());
    let driver = PackedDriver::new(memory.clone(), 0, size, options);
    (driver, Device { memory, size: u64::from(size), taken: 0, used: 0 })
}

fn part(offset: usize, len: u32) -> Part {
    Part { offset, len, writable: false }
}

fn as_seen(parts: &[Part]) -> Vec<Seen> {
    let addr = |part: &Part| DriverMemory::GUEST_ADDR + part.offset as u64;
    parts.iter().map(|part| Seen { addr: addr(part), len: part.len, writable: part.writable }).collect()
}

#[test]
fn what_is_added_reaches_the_device_only_when_published() {
    let (mut driver, mut device) = rig(8, OPTIONS);
    let parts = [part(BUFFERS, LEN), Part { writable: true, ..part(BUFFERS + 0x1000, 2000) }];
    parts.iter().for_each(|&part| assert!(driver.add(part).is_some()));
    assert_eq!(device.take(), None);
    assert!(driver.publish(), "this device never asked for silence");
    assert!(!driver.publish(), "nothing is new");
    for (id, part) in (0..).zip(&parts) {
        assert_eq!(device.take(), Some(Chain { id, count: 1, parts: as_seen(&[*part]) }));
    }
    assert_eq!((device.take(), driver.collect()), (None, Ok(None)));
    device.give_back(1, 1, Some(1500));
    assert_eq!(driver.collect(), Ok(Some(Used { head: 1, written: Some(1500) })));
    device.give_back(0, 1, None);
    assert_eq!(driver.collect(), Ok(Some(Used { head: 0, written: Some(0) })), "nothing was written");
    assert_eq!(driver.collect(), Ok(None));
}

#[test]
fn ring_of_any_size_goes_round() {
    for size in [1, 2, 3, 5, 7, 64, 1000, 32_767, 32_768] {
        let (mut driver, mut device) = rig(size, OPTIONS);
        for round in 0..3 * u32::from(size) + 2 {
            let id = driver.add(part(BUFFERS, LEN)).unwrap();
            driver.publish();
            let chain = device.take().unwrap();
            assert_eq!((chain.id, device.take()), (id, None), "{size}: {round}");
            assert_eq!(driver.collect(), Ok(None));
            device.give_back(id, 1, None);
            assert_eq!(driver.collect().unwrap().map(|used| used.head), Some(id));
        }
        assert_eq!(driver.room(), usize::from(size));
    }
}

#[test]
fn full_ring_goes_round() {
    for size in [1, 3, 4, 32_768] {
        let (mut driver, mut device) = rig(size, OPTIONS);
        for _ in 0..5 {
            let mut added = 0;
            while driver.add(part(BUFFERS, LEN)).is_some() {
                added += 1;
            }
            assert_eq!(added, size);
            driver.publish();
            let ids: Vec<u16> = std::iter::from_fn(|| device.take()).map(|chain| chain.id).collect();
            ids.iter().for_each(|&id| device.give_back(id, 1, None));
            let back = std::iter::from_fn(|| driver.collect().unwrap()).map(|used| used.head);
            assert!(ids.len() == usize::from(size) && back.eq(ids.iter().copied()));
        }
    }
}

#[test]
fn chains_run_over_the_end_and_come_back_whole() {
    let (mut driver, mut device) = rig(5, OPTIONS);
    let chain = [part(BUFFERS, 12), part(BUFFERS + 64, 20), part(BUFFERS + 96, 30)];
    let table = [part(BUFFERS, 12), Part { writable: true, ..part(BUFFERS + 64, 44) }];
    for _ in 0..20 {
        let first = driver.add_chain(&chain).unwrap();
        let second = driver.add_indirect(TABLES, &table).unwrap();
        assert_eq!(driver.room(), 1);
        driver.publish();
        assert_eq!(device.take(), Some(Chain { id: first, count: 3, parts: as_seen(&chain) }));
        assert_eq!(device.take(), Some(Chain { id: second, count: 1, parts: as_seen(&table) }));
        device.give_back(second, 1, Some(44));
        device.give_back(first, 3, None);
        assert_eq!(driver.collect().unwrap().map(|used| used.head), Some(second));
        assert_eq!(driver.collect().unwrap().map(|used| used.head), Some(first));
        assert_eq!((driver.room(), driver.free.len()), (5, 5));
    }
}

#[test]
fn one_used_descriptor_stands_for_a_run_when_in_order() {
    let (mut driver, mut device) = rig(5, DriverOptions { in_order: true, ..OPTIONS });
    for _ in 0..7 {
        let first = driver.add_chain(&[part(BUFFERS, 12), part(BUFFERS + 64, 60)]).unwrap();
        let rest = [(); 3].map(|()| driver.add(part(BUFFERS, LEN)).unwrap());
        driver.publish();
        assert_eq!(std::iter::from_fn(|| device.take()).count(), 4);
        assert_eq!(driver.collect(), Ok(None));
        device.give_back(rest[1], 4, Some(7));
        device.give_back(rest[2], 1, None);
        let back: Vec<_> = std::iter::from_fn(|| driver.collect().unwrap()).collect();
        let used = |head, written| Used { head, written };
        let (passed_over, last) = ([first, rest[0]].map(|head| used(head, None)), used(rest[2], Some(0)));
        assert_eq!(back, [passed_over[0], passed_over[1], used(rest[1], Some(7)), last]);
        assert_eq!(driver.room(), 5);
    }
}

#[test]
fn device_that_lies_is_found_out() {
    for in_order in [false, true] {
        for (posted, id) in [(0, 0), (1, 1), (1, 3), (1, 4), (1, u16::MAX)] {
            let (mut driver, mut device) = rig(4, DriverOptions { in_order, ..OPTIONS });
            (0..posted).for_each(|_| assert!(driver.add(part(BUFFERS, LEN)).is_some()));
            driver.publish();
            device.give_back(id, 1, None);
            assert_eq!(driver.collect(), Err(DeviceFault::NotInFlight), "{posted} posted, id {id}");
            assert_eq!(driver.collect(), Err(DeviceFault::NotInFlight), "and nothing comes back after");
        }
    }
    let (mut driver, mut device) = rig(4, OPTIONS);
    (0..4).for_each(|_| assert!(driver.add(part(BUFFERS, LEN)).is_some()));
    driver.publish();
    device.give_back(2, 1, None);
    device.give_back(2, 1, None);
    assert!(driver.collect().is_ok());
    assert_eq!(driver.collect(), Err(DeviceFault::NotInFlight), "the same chain twice");
}

#[test]
fn device_is_kicked_as_it_wishes() {
    let (mut driver, device) = rig(3, OPTIONS);
    let mut publish = |count: u16, wish: u32| {
        device.memory.half(driver.device_event).store(wish.to_le(), Ordering::Relaxed);
        for _ in 0..count {
            let id = driver.add(part(BUFFERS, LEN)).unwrap();
            // The device itself is not asked here: whatever is added is back at once.
            driver.in_flight[usize::from(id)] = 0;
            driver.free.push(id);
            driver.room += 1;
        }
        driver.publish()
    };
    let at = |index: u32, wrap: bool| 2 << 16 | u32::from(wrap) << 15 | index;
    assert!(publish(1, 0) && !publish(1, 1 << 16), "ENABLE, DISABLE");
    // Places 2 of the first round, 0 of the second.
    assert!(publish(2, at(2, true)), "the first of both");
    assert!(!publish(2, at(0, false)), "was before");
    assert!(!publish(1, at(1, true)), "is to come");
    assert!(publish(2, at(1, true)), "the last of both");
    assert!(publish(3, at(1, false)), "a whole round, over the end");
    assert!(publish(3, 3 << 16), "nonsense asks for everything");
}

#[test]
fn calls_are_asked_for_and_what_is_back_already_is_seen() {
    for event_idx in [false, true] {
        let (mut driver, mut device) = rig(3, DriverOptions { event_idx, ..OPTIONS });
        let wish = |driver: &PackedDriver| {
            u32::from_le(device.memory.half(driver.driver_event).load(Ordering::Relaxed))
        };
        assert_eq!(wish(&driver), 0, "a ring begins with calls");
        assert!(!driver.ask_for_calls());
        assert_eq!(wish(&driver), if event_idx { 2 << 16 | 1 << 15 } else { 0 });
        driver.ask_for_silence();
        assert_eq!(wish(&driver), 1 << 16);
        for _ in 0..4 {
            driver.add(part(BUFFERS, LEN)).unwrap();
            driver.publish();
            let chain = device.take().unwrap();
            device.give_back(chain.id, 1, None);
            assert!(driver.ask_for_calls());
            driver.collect().unwrap();
        }
        assert!(!driver.ask_for_calls());
        assert_eq!(
            u32::from_le(device.memory.half(driver.driver_event).load(Ordering::Relaxed)),
            if event_idx { 2 << 16 | 1 } else { 0 }
        );
    }
}
