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
