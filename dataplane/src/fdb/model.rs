//! Every interleaving of workers and control on a table of two slots, under loom.

use loom::sync::Arc;
use loom::thread;

use super::*;

const A: PortIndex = PortIndex(1);
const B: PortIndex = PortIndex(2);
const X: Mac = Mac([2, 0, 0, 0, 0, 1]);
const Y: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Runs `sides` beside each other on a table that `before` made, and looks at what they left.
fn model(before: fn(&Fdb), sides: [fn(&Fdb); 2], after: fn(&Fdb)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let fdb = Arc::new(Fdb::new(10).expect("there is memory"));
        before(&fdb);
        let beside = fdb.clone();
        let worker = thread::spawn(move || sides[0](&beside));
        sides[1](&fdb);
        worker.join().unwrap();
        assert_consistent(&fdb);
        after(&fdb);
    });
}

/// No address stands there twice, and the counts are those of what is there.
fn assert_consistent(fdb: &Fdb) {
    for mac in [X, Y] {
        assert!(fdb.table.candidates(mac.key()).filter(|slot| slot.entry.key() == mac.key()).count() < 2);
    }
    let (mut all, mut of_a) = (0, 0);
    for slot in (0..Table::GROUPS).flat_map(|group| fdb.table.group(group)) {
        all += 1;
        of_a += i64::from(slot.entry.port() == A);
    }
    assert_eq!(fdb.counters().entries, all);
    assert_eq!(fdb.table.entries_of(A), of_a);
    assert_eq!(fdb.table.entries_of(B), all as i64 - of_a);
}

#[test]
fn two_workers_enter_the_same_address_once() {
    model(
        |_| (),
        [|fdb| fdb.learn(X.key(), A, 0), |fdb| fdb.learn(X.key(), B, 0)],
        |fdb| {
            assert!(fdb.find(X.key(), 0).is_some());
        },
    );
}

#[test]
fn two_workers_enter_an_address_once_while_another_leaves() {
    let flush_and_learn = |fdb: &Fdb| {
        fdb.flush(Some(B));
        fdb.learn(X.key(), B, 0);
    };
    model(
        |fdb| fdb.learn(Y.key(), B, 0),
        [|fdb| fdb.learn(X.key(), A, 0), flush_and_learn],
        |fdb| {
            assert!(fdb.find(X.key(), 0).is_some() && fdb.find(Y.key(), 0).is_none());
        },
    );
}

#[test]
fn address_that_is_heard_while_it_is_swept_is_there_or_not_but_not_elsewhere() {
    model(
        |fdb| fdb.learn(X.key(), A, 0),
        [|fdb| fdb.learn(X.key(), A, 10), |fdb| (0..SWEEP_TURNS).for_each(|_| fdb.sweep(10))],
        |fdb| assert!(fdb.find(X.key(), 10).is_none_or(|port| port == A)),
    );
}

#[test]
fn flush_takes_out_all_that_was_there_before_it() {
    model(
        |fdb| fdb.learn(X.key(), A, 0),
        [|fdb| fdb.learn(Y.key(), B, 0), |fdb| fdb.flush(Some(A))],
        |fdb| assert_eq!((fdb.find(X.key(), 0), fdb.find(Y.key(), 0)), (None, Some(B))),
    );
}

#[test]
fn static_entry_stays_whoever_claims_its_address() {
    model(
        |_| (),
        [|fdb| fdb.learn(X.key(), B, 0), |fdb| assert_eq!(fdb.add_static(X, A, 0), Ok(()))],
        |fdb| assert_eq!(fdb.find(X.key(), 1000), Some(A)),
    );
}

#[test]
fn full_table_has_never_more_than_it_may() {
    model(
        |fdb| fdb.learn(Y.key(), A, 0),
        [|fdb| fdb.learn(X.key(), A, 0), |fdb| fdb.learn(Mac([2, 0, 0, 0, 0, 3]).key(), B, 0)],
        |fdb| assert!(fdb.counters().entries <= ENTRIES_MAX),
    );
}
