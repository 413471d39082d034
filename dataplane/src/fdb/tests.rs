//! What is learned, kept, moved and forgotten, and what a flood of made-up addresses cannot do.

use std::collections::BTreeMap;
use std::thread;

use super::*;

const A: PortIndex = PortIndex(1);
const B: PortIndex = PortIndex(2);
const C: PortIndex = PortIndex(4095);

fn fdb() -> Fdb {
    Fdb::new(AGEING_S).expect("there is memory")
}

/// Unicast addresses without order, each another one.
fn random(first: u64, count: u64) -> impl Iterator<Item = u64> {
    // A bijection of 48 bits: odd multiples, with the group bit kept clear.
    (first..first + count).map(|number| ((number + 1).wrapping_mul(0x9e37_79b9_7f4b) & ((1 << 47) - 1)) << 1)
}

/// Addresses as a vendor or an attacker counts them up.
fn counted(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|number| {
        let [_, d, e, f] = number.to_be_bytes();
        Mac([0x52, 0x54, 0, d, e, f]).key()
    })
}

fn entries(fdb: &Fdb, now_s: u32) -> BTreeMap<Mac, FdbEntry> {
    let mut entries = BTreeMap::new();
    fdb.for_each_entry(now_s, |entry| {
        assert!(entries.insert(entry.mac, entry).is_none(), "{} is there twice", entry.mac);
        true
    });
    entries
}

/// The counts agree with what is there.
fn assert_consistent(fdb: &Fdb) {
    let entries = entries(fdb, 0);
    assert_eq!(fdb.counters().entries, entries.len() as u64);
    for port in [A, B, C] {
        let of_port = entries.values().filter(|entry| entry.port == port).count();
        assert_eq!(fdb.table.entries_of(port), of_port as i64, "{port:?}");
    }
}

const X: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);

#[test]
fn address_is_where_it_was_heard_from_last() {
    let fdb = fdb();
    assert_eq!(fdb.find(X.key(), 0), None);
    fdb.learn(X.key(), A, 0);
    assert_eq!(fdb.find(X.key(), 0), Some(A));
    fdb.learn(X.key(), C, 0);
    assert_eq!(fdb.find(X.key(), 0), Some(C));
    let counters = FdbCounters { entries: 1, learned: 1, moved: 1, ..FdbCounters::default() };
    assert_eq!(fdb.counters(), counters);
    assert_consistent(&fdb);
}

#[test]
fn groups_broadcast_and_zero_are_never_learned() {
    let fdb = fdb();
    for mac in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([0; 6])] {
        fdb.learn(mac.key(), A, 0);
        assert_eq!(fdb.find(mac.key(), 0), None, "{mac}");
    }
    assert_eq!(fdb.counters(), FdbCounters::default());
}

#[test]
fn silent_address_is_forgotten_and_one_that_speaks_is_not() {
    let fdb = Fdb::new(10).expect("there is memory");
    let silent = Mac([0x52, 0x54, 0, 0, 0, 0x12]);
    fdb.learn(X.key(), A, 100);
    fdb.learn(silent.key(), A, 100);
    fdb.learn(X.key(), A, 105);
    assert_eq!(fdb.find(silent.key(), 109), Some(A));
    assert_eq!((fdb.find(silent.key(), 110), fdb.find(X.key(), 110)), (None, Some(A)));
    assert_eq!(entries(&fdb, 110).keys().collect::<Vec<_>>(), [&X]);
    (0..SWEEP_TURNS).for_each(|_| fdb.sweep(110));
    assert_eq!((fdb.counters().entries, fdb.counters().aged), (1, 1));
    fdb.set_ageing(5);
    assert_eq!(fdb.find(X.key(), 110), None, "a new ageing time holds for what is known");
    fdb.learn(X.key(), B, 111);
    assert_eq!(fdb.find(X.key(), 111), Some(B));
    assert_consistent(&fdb);
}

#[test]
fn stamp_is_written_once_a_second_and_not_for_each_frame() {
    let fdb = fdb();
    fdb.learn(X.key(), A, 7);
    let slot = fdb.table.find(X.key()).expect("it was learned");
    slot.touch(9);
    fdb.learn(X.key(), A, 8);
    fdb.learn(X.key(), A, 9);
    assert_eq!(slot.stamp(), 9, "nor is it set back by a worker whose clock is behind");
    fdb.learn(X.key(), A, 10);
    assert_eq!(slot.stamp(), 10);
}

#[test]
fn flush_is_by_port_or_of_all_and_spares_what_is_static() {
    let fdb = fdb();
    random(0, 1000).for_each(|key| fdb.learn(key, A, 0));
    random(1000, 500).for_each(|key| fdb.learn(key, B, 0));
    assert_eq!(fdb.add_static(X, A, 0), Ok(()));
    fdb.flush(Some(A));
    assert_eq!(fdb.counters().entries, 501);
    assert_consistent(&fdb);
    fdb.flush(None);
    assert_eq!(entries(&fdb, 0).keys().collect::<Vec<_>>(), [&X]);
    fdb.forget(B);
    assert_eq!(fdb.find(X.key(), 0), Some(A));
    fdb.forget(A);
    assert_eq!(fdb.counters().entries, 0);
    assert_consistent(&fdb);
}

#[test]
fn address_can_be_taken_out_alone() {
    let fdb = fdb();
    random(0, 10).for_each(|key| fdb.learn(key, A, 0));
    fdb.learn(X.key(), A, 0);
    assert!(fdb.remove(X) && !fdb.remove(X));
    assert_eq!((fdb.find(X.key(), 0), fdb.counters().entries), (None, 10));
}

#[test]
fn static_entry_does_not_move_age_or_make_room() {
    let fdb = Fdb::new(10).expect("there is memory");
    fdb.learn(X.key(), B, 0);
    assert_eq!(fdb.add_static(X, A, 0), Ok(()), "it replaces what was learned");
    fdb.learn(X.key(), B, 1);
    assert_eq!(fdb.find(X.key(), 1000), Some(A));
    (0..SWEEP_TURNS).for_each(|_| fdb.sweep(1000));
    random(0, 110_000).for_each(|key| fdb.learn(key, B, 1000));
    random(300_000, 5_000).for_each(|key| fdb.learn(key, C, 1000));
    assert_eq!(fdb.find(X.key(), 1000), Some(A));
    assert!(entries(&fdb, 1000)[&X].is_static);
    assert_eq!(fdb.counters().moved, 0);
    assert_eq!(fdb.add_static(X, C, 1000), Ok(()), "but control may move it");
    assert_eq!(fdb.find(X.key(), 1000), Some(C));
}

#[test]
fn static_entry_finds_room_on_a_full_hub() {
    let fdb = fdb();
    random(0, ENTRIES_MAX + 10).for_each(|key| fdb.learn(key, A, 0));
    assert_eq!(fdb.counters().entries, ENTRIES_MAX);
    assert_eq!(fdb.add_static(X, A, 0), Ok(()));
    assert_eq!((fdb.find(X.key(), 0), fdb.counters().entries), (Some(A), ENTRIES_MAX));
}

#[test]
fn a_hundred_thousand_addresses_are_all_known() {
    for keys in [random(0, ENTRIES_MAX).collect::<Vec<_>>(), counted(ENTRIES_MAX as u32).collect()] {
        let fdb = fdb();
        keys.iter().for_each(|key| fdb.learn(*key, A, 0));
        assert!(keys.iter().all(|key| fdb.find(*key, 0) == Some(A)));
        let counters = FdbCounters { entries: ENTRIES_MAX, learned: ENTRIES_MAX, ..FdbCounters::default() };
        assert_eq!(fdb.counters(), counters);
        assert_consistent(&fdb);
    }
}

#[test]
fn flood_of_made_up_sources_pushes_out_nobody_else_and_grows_nothing() {
    let fdb = fdb();
    let others: Vec<u64> = counted(5000).collect();
    others.iter().for_each(|key| fdb.learn(*key, A, 0));
    for key in random(0, 1_000_000) {
        fdb.learn(key, B, 0);
    }
    assert!(others.iter().all(|key| fdb.find(*key, 0) == Some(A)));
    let counters = fdb.counters();
    assert_eq!((counters.entries, counters.evicted), (ENTRIES_MAX, 0));
    assert_eq!(counters.learned + counters.not_learned, 1_005_000);
    assert_consistent(&fdb);
    // Who comes now gets room, at the cost of the flood.
    let late: Vec<u64> = random(2_000_000, 5000).collect();
    late.iter().for_each(|key| fdb.learn(*key, C, 0));
    assert!(late.iter().filter(|key| fdb.find(**key, 0) == Some(C)).count() >= 4990);
    assert!(others.iter().all(|key| fdb.find(*key, 0) == Some(A)));
    assert!(fdb.counters().evicted >= 4990 && fdb.counters().entries <= ENTRIES_MAX);
    assert_consistent(&fdb);
}

#[test]
fn two_floods_end_with_equal_shares() {
    let fdb = fdb();
    random(0, 110_000).for_each(|key| fdb.learn(key, A, 0));
    random(200_000, 100_000).for_each(|key| fdb.learn(key, B, 0));
    let (a, b) = (fdb.table.entries_of(A), fdb.table.entries_of(B));
    assert!((a - b).abs() <= 2 && a + b == ENTRIES_MAX as i64, "{a} and {b}");
    let evicted = fdb.counters().evicted;
    random(600_000, 10_000).for_each(|key| fdb.learn(key, A, 0));
    assert!(fdb.counters().evicted - evicted <= 2, "they do not take turns");
}

#[test]
fn room_is_made_by_what_is_too_old_first() {
    let fdb = fdb();
    random(0, ENTRIES_MAX).for_each(|key| fdb.learn(key, A, 0));
    let late: Vec<u64> = random(ENTRIES_MAX, 1000).collect();
    late.iter().for_each(|key| fdb.learn(*key, A, AGEING_S));
    assert!(late.iter().filter(|key| fdb.find(**key, AGEING_S) == Some(A)).count() >= 990);
    assert_eq!(fdb.counters().evicted, 0);
}

#[test]
fn workers_that_learn_side_by_side_enter_each_address_once() {
    let fdb = fdb();
    thread::scope(|scope| {
        for port in [A, B, C] {
            scope.spawn({
                let fdb = &fdb;
                move || random(0, 50_000).for_each(|key| fdb.learn(key, port, 0))
            });
        }
        for round in 0..50 {
            fdb.sweep(round);
            fdb.flush(Some(B));
        }
    });
    assert!(fdb.counters().entries <= ENTRIES_MAX);
    assert_consistent(&fdb);
}

#[test]
fn memory_of_a_hub_is_fixed() {
    const { assert!(table::LEN * 8 < 5 << 20) };
}
