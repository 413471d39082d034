//! The compiled table against the plain rules of [`RxFilter::admits`].

use proptest::prelude::*;

use super::*;
use crate::frame::BurstScratch;

const PORTS: u16 = 6;

/// A small world of addresses, so that tables and frames meet.
fn mac(index: u8) -> Mac {
    match index {
        0 => Mac::BROADCAST,
        1..=4 => Mac([0x52, 0x54, 0, 0, 0, index]),
        _ => Mac([0x01, 0, 0x5e, 0, 0, index]),
    }
}

fn any_mac() -> impl Strategy<Value = Mac> {
    (0u8..9).prop_map(mac)
}

fn any_state() -> impl Strategy<Value = RxState> {
    prop_oneof![Just(RxState::None), Just(RxState::Normal), Just(RxState::All)]
}

fn any_filter() -> impl Strategy<Value = RxFilter> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    let states = (any_state(), any_state(), any_state());
    let tables = (
        prop::collection::vec(any_mac(), 0..4),
        prop::collection::vec(any_mac(), 0..4),
        prop::collection::vec(3u16..6, 0..3),
    );
    (flags, states, tables, 1u8..5).prop_map(|(flags, states, tables, own)| RxFilter {
        promiscuous: flags.3,
        multicast: states.0,
        unicast: states.1,
        vlan: states.2,
        broadcast_allowed: flags.0,
        multicast_overflow: flags.1,
        unicast_overflow: flags.2,
        main_mac: mac(own),
        vlan_table: tables.2.into_iter().collect(),
        unicast_table: tables.0,
        multicast_table: tables.1,
    })
}

fn frame_bytes(destination: Mac, vlan: Option<u16>) -> Vec<u8> {
    let mut bytes = destination.0.to_vec();
    bytes.extend([0x52, 0x54, 0, 0, 0, 0x77]);
    if let Some(vlan) = vlan {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.resize(60, 0);
    bytes
}

/// Who takes the frame, and who refuses it, each in rising order.
fn ask(table: &HubTable, sender: u16, bytes: &[u8]) -> (Vec<u16>, Vec<(u16, DropReason)>) {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(bytes).unwrap();
    let (mut takes, mut refuses) = (Vec::new(), Vec::new());
    table.for_each_taker(PortIndex(sender), &builder.burst().frame(0), |verdict| match verdict {
        Verdict::Take(port) => takes.push(port.0),
        Verdict::Refuse(port, reason) => refuses.push((port.0, reason)),
    });
    takes.sort_unstable();
    refuses.sort_unstable_by_key(|refusal| refusal.0);
    (takes, refuses)
}

proptest! {
    #[test]
    fn compiled_table_agrees_with_the_rules(
        members in prop::collection::vec((any::<bool>(), prop::option::of(any_filter())), PORTS as usize),
        sender in 0..PORTS,
        destination in any_mac(),
        vlan in prop::option::of(3u16..7),
    ) {
        let members: Vec<Member> = members
            .into_iter()
            .enumerate()
            .map(|(port, (up, filter))| Member { port: PortIndex(port as u16), up, filter: filter.map(Arc::new) })
            .collect();
        let expected: Vec<u16> = members
            .iter()
            .filter(|m| m.port.0 != sender && m.up)
            .filter(|m| m.filter.as_ref().is_none_or(|filter| filter.admits(destination, vlan)))
            .map(|m| m.port.0)
            .collect();
        let (takes, refuses) = ask(&HubTable::new(&members), sender, &frame_bytes(destination, vlan));
        prop_assert_eq!(&takes, &expected);
        for (port, _) in refuses {
            prop_assert!(port != sender && !takes.contains(&port), "one verdict a port");
        }
    }
}

fn member(port: u16, up: bool, filter: Option<RxFilter>) -> Member {
    Member { port: PortIndex(port), up, filter: filter.map(Arc::new) }
}

#[test]
fn exact_address_that_is_refused_is_told_and_a_wide_set_is_not() {
    let down = member(1, false, Some(RxFilter::new(mac(1))));
    let mut deaf = RxFilter::new(mac(2));
    (deaf.unicast, deaf.broadcast_allowed) = (RxState::None, false);
    let mut vlan_4 = RxFilter::new(mac(3));
    vlan_4.vlan = RxState::Normal;
    vlan_4.vlan_table = [4].into_iter().collect();
    let table = HubTable::new(&[down, member(2, true, Some(deaf)), member(3, true, Some(vlan_4))]);
    let refused = |destination, vlan| ask(&table, 0, &frame_bytes(destination, vlan)).1;
    assert_eq!(refused(mac(1), None), [(1, DropReason::LinkDown)]);
    assert_eq!(refused(mac(2), None), [(2, DropReason::Filtered)]);
    assert_eq!(refused(mac(3), Some(5)), [(3, DropReason::Filtered)]);
    assert_eq!(refused(mac(3), Some(4)), []);
    assert_eq!(refused(Mac::BROADCAST, Some(5)), []);
}

/// A hub that learns: on it are 1 and 2, wide, 3 with the address `mac(3)`, and 4 that is wide but for VLANs, of which it
/// admits 4 only.
fn learning_hub() -> (HubTable, Arc<Fdb>) {
    let mut vlan_4 = RxFilter::new(mac(4));
    (vlan_4.unicast, vlan_4.vlan) = (RxState::All, RxState::Normal);
    vlan_4.vlan_table = [4].into_iter().collect();
    let ports = [None, None, Some(RxFilter::new(mac(3))), Some(vlan_4)];
    let members: Vec<Member> = (1..).zip(ports).map(|(port, filter)| member(port, true, filter)).collect();
    let fdb = Arc::new(Fdb::new(10).unwrap());
    (HubTable::new(&members).learning(fdb.clone()), fdb)
}

/// Who takes a frame from `source`, in rising order.
fn hear(table: &HubTable, sender: u16, source: Mac, destination: Mac, vlan: Option<u16>) -> Vec<u16> {
    let mut bytes = frame_bytes(destination, vlan);
    bytes[6..12].copy_from_slice(&source.0);
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(&bytes).unwrap();
    let mut takes = Vec::new();
    table.classifier(PortIndex(sender), 0).for_each_taker(&builder.burst().frame(0), |verdict| {
        if let Verdict::Take(port) = verdict {
            takes.push(port.0);
        }
    });
    takes.sort_unstable();
    takes
}

/// Addresses that nobody lists.
const X: Mac = Mac([2, 0, 0, 0, 0, 1]);
const Y: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn unicast_goes_where_its_address_was_heard_from_and_nowhere_else() {
    let (table, fdb) = learning_hub();
    assert_eq!(hear(&table, 1, X, Y, None), [2, 4], "flooded while nobody knows where it is");
    assert_eq!(hear(&table, 2, Y, X, None), [1]);
    assert_eq!(hear(&table, 1, X, Y, None), [2]);
    assert_eq!(hear(&table, 3, mac(3), X, None), [1]);
    assert_eq!(hear(&table, 1, X, Mac::BROADCAST, None), [2, 3, 4], "broadcasts reach all");
    assert_eq!(hear(&table, 1, X, mac(5), None), [2, 3, 4], "and so do groups");
    fdb.flush(None);
    assert_eq!(hear(&table, 1, X, Y, None), [2, 4]);
}

#[test]
fn frame_for_the_senders_own_side_is_given_to_nobody() {
    let (table, _) = learning_hub();
    assert_eq!(hear(&table, 1, X, mac(3), None), [3]);
    assert_eq!(hear(&table, 1, Y, X, None), [] as [u16; 0]);
}

#[test]
fn listed_address_is_not_flooded_and_cannot_be_stolen() {
    let (table, fdb) = learning_hub();
    assert_eq!(hear(&table, 1, X, mac(3), None), [3]);
    // 2 claims the address that 3 lists, and one that was heard from 1.
    assert_eq!(hear(&table, 2, mac(3), Y, None), [1, 4]);
    assert_eq!(
        hear(&table, 1, X, mac(3), None),
        [2, 3],
        "3 still has it; 2 hears everything that is unknown anyhow"
    );
    assert_eq!(hear(&table, 2, Y, mac(3), None), [3], "even from whoever claims it");
    // 3 takes its own address only: claiming others gives it nothing, and takes nothing from 1.
    assert_eq!(hear(&table, 3, X, Mac::BROADCAST, None), [1, 2, 4]);
    assert_eq!(fdb.find(X.key(), 0), Some(PortIndex(3)));
    assert_eq!(hear(&table, 2, Y, X, None), [1, 4]);
}

#[test]
fn static_entry_keeps_an_address_from_being_claimed() {
    let (table, fdb) = learning_hub();
    fdb.add_static(X, PortIndex(1), 0).unwrap();
    hear(&table, 2, X, Mac::BROADCAST, None);
    assert_eq!(hear(&table, 3, mac(3), X, None), [1]);
    assert_eq!(hear(&table, 2, Y, X, None), [1]);
}

#[test]
fn port_that_does_not_admit_the_vlan_narrows_nothing() {
    let (table, _) = learning_hub();
    hear(&table, 4, X, Mac::BROADCAST, Some(4));
    assert_eq!(hear(&table, 1, Y, X, Some(4)), [4], "learned in one VLAN, known in all");
    assert_eq!(hear(&table, 1, Y, X, None), [4]);
    assert_eq!(hear(&table, 1, Y, X, Some(5)), [2]);
}

#[test]
fn address_behind_a_port_that_is_down_is_flooded() {
    let (_, fdb) = learning_hub();
    let members = [member(1, true, None), member(2, false, None), member(3, true, None)];
    let table = HubTable::new(&members).learning(fdb.clone());
    fdb.add_static(X, PortIndex(2), 0).unwrap();
    assert_eq!(hear(&table, 1, Y, X, None), [3]);
    fdb.add_static(X, PortIndex(900), 0).unwrap();
    assert_eq!(hear(&table, 1, Y, X, None), [3], "nor does one that is not on the hub narrow anything");
}

#[test]
fn burst_is_learned_frame_by_frame() {
    let (table, fdb) = learning_hub();
    let frames: Vec<Vec<u8>> = [(X, Y), (X, Y), (Y, X), (Mac::BROADCAST, X), (Mac([0; 6]), X)]
        .map(|(source, destination)| {
            let mut bytes = frame_bytes(destination, None);
            bytes[6..12].copy_from_slice(&source.0);
            bytes
        })
        .into();
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
    let mut classifier = table.classifier(PortIndex(1), 0);
    let mut takers = Vec::new();
    for frame in builder.burst().frames() {
        let mut count = 0;
        classifier.for_each_taker(&frame, |_| count += 1);
        takers.push(count);
    }
    assert_eq!(takers, [2, 2, 0, 0, 0], "from the third on, X is known to be here");
    assert_eq!((fdb.find(X.key(), 0), fdb.find(Y.key(), 0)), (Some(PortIndex(1)), Some(PortIndex(1))));
    assert_eq!(fdb.counters().entries, 2, "neither broadcast nor nobody is a source");
}

#[test]
fn cut_vlan_tag_reaches_only_ports_that_take_everything() {
    let table = HubTable::new(&[member(1, true, Some(RxFilter::new(mac(1)))), member(2, true, None)]);
    let mut bytes = frame_bytes(Mac::BROADCAST, Some(4));
    bytes.truncate(15);
    assert_eq!(ask(&table, 0, &bytes).0, [2]);
}

#[test]
fn a_thousand_ports_find_theirs() {
    let own = |port: u16| Mac([0x52, 0x54, 1, 0, (port >> 8) as u8, port as u8]);
    let members: Vec<Member> =
        (0..1024).map(|port| member(port, true, Some(RxFilter::new(own(port))))).collect();
    let table = HubTable::new(&members);
    for port in 1..1024 {
        assert_eq!(ask(&table, 0, &frame_bytes(own(port), None)).0, [port]);
    }
    assert_eq!(ask(&table, 0, &frame_bytes(own(0), None)).0, [] as [u16; 0], "never back to the sender");
    assert_eq!(ask(&table, 0, &frame_bytes(Mac::BROADCAST, None)).0.len(), 1023);
    assert_eq!(ask(&table, 0, &frame_bytes(own(2000), None)).0, [] as [u16; 0]);
}

proptest! {
    /// What forwarding relies on when it decides a run of frames by its first.
    #[test]
    fn frames_that_begin_alike_are_taken_alike(
        rows in proptest::collection::vec((0..5usize, 0..5usize, 0..4usize, 14..20usize, 1..6usize), 1..12),
    ) {
        let addresses = [X, Y, mac(3), mac(5), Mac([0; 6])];
        let tags: [[u8; 4]; 4] = [[8, 0, 1, 2], [0x81, 0, 0, 4], [0x81, 0, 0x20, 4], [0x81, 0, 0, 5]];
        let bytes = rows.iter().flat_map(|&(source, destination, tag, len, count)| {
            let parts = [&addresses[destination].0[..], &addresses[source].0, &tags[tag], &[0; 4]];
            vec![parts.concat()[..len].to_vec(); count]
        });
        let bytes: Vec<Vec<u8>> = bytes.collect();
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        bytes.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        let burst = builder.burst();
        let decide = |classifier: &mut Classifier<'_>, index: usize| {
            let mut verdicts = Vec::new();
            classifier.for_each_taker(&burst.frame(index), |verdict| verdicts.push(verdict));
            verdicts
        };
        let ((each_table, each_fdb), (run_table, run_fdb)) = (learning_hub(), learning_hub());
        [each_fdb, run_fdb].iter().for_each(|fdb| fdb.add_static(Y, PortIndex(4), 0).unwrap());
        let mut each = each_table.classifier(PortIndex(1), 0);
        let mut runs = run_table.classifier(PortIndex(1), 0);
        let mut index = 0;
        while index < burst.len() {
            let verdicts = decide(&mut runs, index);
            let run = 1 + burst.alike_after(index);
            for at in index..index + run {
                prop_assert_eq!(&decide(&mut each, at), &verdicts, "frame {} of a run from {}", at, index);
            }
            index += run;
        }
    }
}
