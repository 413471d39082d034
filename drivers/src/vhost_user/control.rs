//! What a guest's driver said over the control queue (virtio 1.2, 5.1.6.5), and what follows from it.
//!
//! A command is checked whole before anything changes; one that is not right in every byte changes nothing. Tables are as
//! in QEMU's virtio-net: 64 addresses, unicast and multicast together, and whichever table does not fit lets its whole
//! class through.

use ringyard_dataplane::filter::{MAC_TABLE_MAX, RxFilter, RxState, VlanSet};
use ringyard_dataplane::mac::Mac;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_NOMULTI,
    VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD,
    VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
};

use super::known::{KnownTable, KnownWishes};

/// What a driver that uses its control queue wants.
pub(super) struct Wishes {
    features: u64,
    pairs_max: u16,
    /// The address that the driver has: the nic's as it was negotiated, or what it set since. `None`: nobody knows.
    own_mac: Option<Mac>,
    /// The nic's present address, for want of a better one.
    nic_mac: Option<Mac>,
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Table,
    multicast: Table,
    vlans: VlanSet,
    pairs: u16,
    announces: bool,
}

/// A table of addresses: those that are stored, or none since there were too many.
#[derive(Clone, Default)]
struct Table {
    macs: Vec<Mac>,
    overflow: bool,
}

/// What a command changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What the guest receives.
    Filter,
    /// How many queue pairs it receives on.
    Pairs,
    /// That the guest was to announce itself.
    Announced,
}

/// A command that is not right; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong;

impl Wishes {
    /// Those of a driver that has said nothing yet. It receives everything, in no VLAN where it can choose; one that cannot
    /// choose what it receives goes by its address.
    pub(super) fn new(features: u64, pairs_max: u16, nic_mac: Option<Mac>) -> Wishes {
        let has = |bit: u32| features & 1 << bit != 0;
        Wishes {
            features,
            pairs_max,
            own_mac: nic_mac.filter(|_| has(VIRTIO_NET_F_MAC)),
            nic_mac,
            promiscuous: has(VIRTIO_NET_F_CTRL_RX),
            all_multicast: !has(VIRTIO_NET_F_CTRL_RX),
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
            vlans: VlanSet::none(),
            pairs: if has(VIRTIO_NET_F_MQ) { 1 } else { pairs_max },
            announces: false,
        }
    }

    /// For the journal.
    pub(super) fn known(&self) -> KnownWishes {
        let bytes = |mac: Option<Mac>| mac.map(|Mac(mac)| mac);
        KnownWishes {
            own_mac: bytes(self.own_mac),
            nic_mac: bytes(self.nic_mac),
            promiscuous: self.promiscuous,
            all_multicast: self.all_multicast,
            all_unicast: self.all_unicast,
            no_multicast: self.no_multicast,
            no_unicast: self.no_unicast,
            no_broadcast: self.no_broadcast,
            unicast: self.unicast.known(),
            multicast: self.multicast.known(),
            vlans: self.vlans.iter().collect(),
            pairs: self.pairs,
            announces: self.announces,
        }
    }

    /// The reverse of [`Self::known`]; what cannot be is left out.
    pub(super) fn restore(features: u64, pairs_max: u16, known: &KnownWishes) -> Wishes {
        let mut vlans = VlanSet::none();
        known.vlans.iter().filter(|&&vlan| vlan < VLANS).for_each(|&vlan| vlans.insert(vlan));
        let unicast = Table::restore(&known.unicast, MAC_TABLE_MAX);
        let multicast = Table::restore(&known.multicast, MAC_TABLE_MAX - unicast.macs.len());
        Wishes {
            own_mac: known.own_mac.map(Mac),
            nic_mac: known.nic_mac.map(Mac),
            promiscuous: known.promiscuous,
            all_multicast: known.all_multicast,
            all_unicast: known.all_unicast,
            no_multicast: known.no_multicast,
            no_unicast: known.no_unicast,
            no_broadcast: known.no_broadcast,
            unicast,
            multicast,
            vlans,
            pairs: known.pairs.clamp(1, pairs_max),
            announces: known.announces,
            ..Wishes::new(features, pairs_max, None)
        }
    }

    /// What the guest receives. One whose address nobody knows receives all unicast: its driver chose an address by itself,
    /// and may lack the command that would tell.
    pub(super) fn filter(&self) -> RxFilter {
        let state = |none: bool, all: bool| match (none, all) {
            (true, _) => RxState::None,
            (_, true) => RxState::All,
            _ => RxState::Normal,
        };
        RxFilter {
            promiscuous: self.promiscuous,
            multicast: state(self.no_multicast, self.all_multicast),
            unicast: state(self.no_unicast, self.all_unicast || self.own_mac.is_none()),
            vlan: state(
                self.has(VIRTIO_NET_F_CTRL_VLAN) && self.vlans.iter().next().is_none(),
                !self.has(VIRTIO_NET_F_CTRL_VLAN),
            ),
            broadcast_allowed: !self.no_broadcast,
            multicast_overflow: self.multicast.overflow,
            unicast_overflow: self.unicast.overflow,
            main_mac: self.mac().unwrap_or(Mac([0; 6])),
            vlan_table: self.vlans.clone(),
            unicast_table: self.unicast.macs.clone(),
            multicast_table: self.multicast.macs.clone(),
        }
    }

    /// The guest's address, as far as we know.
    pub(super) fn mac(&self) -> Option<Mac> {
        self.own_mac.or(self.nic_mac)
    }

    /// The nic has another address, or there is one now, or none. A driver that knows its address does not hear of it.
    pub(super) fn set_nic_mac(&mut self, mac: Option<Mac>) {
        self.nic_mac = mac;
    }

    /// The driver wrote its address to the configuration space.
    pub(super) fn set_own_mac(&mut self, mac: Mac) {
        self.own_mac = Some(mac);
    }

    /// The queue pairs on which the guest receives.
    pub(super) fn pairs(&self) -> u16 {
        self.pairs
    }

    /// The guest was asked to announce itself, and has not said that it did.
    pub(super) fn announces(&self) -> bool {
        self.announces
    }

    /// Asks the guest to announce itself; whether it can.
    pub(super) fn ask_to_announce(&mut self) -> bool {
        self.announces |= self.has(VIRTIO_NET_F_GUEST_ANNOUNCE);
        self.announces
    }

    /// Does what a command says: class, number, data.
    pub(super) fn command(&mut self, command: &[u8]) -> Result<Change, Wrong> {
        let [class, number, data @ ..] = command else { return Err(Wrong) };
        match u32::from(*class) {
            VIRTIO_NET_CTRL_RX => self.set_mode((*number).into(), data),
            VIRTIO_NET_CTRL_MAC => match u32::from(*number) {
                VIRTIO_NET_CTRL_MAC_TABLE_SET => self.set_tables(data),
                VIRTIO_NET_CTRL_MAC_ADDR_SET => self.set_address(data),
                _ => Err(Wrong),
            },
            VIRTIO_NET_CTRL_VLAN => self.set_vlan((*number).into(), data),
            VIRTIO_NET_CTRL_ANNOUNCE => self.acknowledge((*number).into(), data),
            VIRTIO_NET_CTRL_MQ => self.set_pairs((*number).into(), data),
            _ => Err(Wrong),
        }
    }

    fn set_mode(&mut self, number: u32, data: &[u8]) -> Result<Change, Wrong> {
        let &[on] = data else { return Err(Wrong) };
        let (mode, needed) = match number {
            VIRTIO_NET_CTRL_RX_PROMISC => (&mut self.promiscuous, VIRTIO_NET_F_CTRL_RX),
            VIRTIO_NET_CTRL_RX_ALLMULTI => (&mut self.all_multicast, VIRTIO_NET_F_CTRL_RX),
            VIRTIO_NET_CTRL_RX_ALLUNI => (&mut self.all_unicast, VIRTIO_NET_F_CTRL_RX_EXTRA),
            VIRTIO_NET_CTRL_RX_NOMULTI => (&mut self.no_multicast, VIRTIO_NET_F_CTRL_RX_EXTRA),
            VIRTIO_NET_CTRL_RX_NOUNI => (&mut self.no_unicast, VIRTIO_NET_F_CTRL_RX_EXTRA),
            VIRTIO_NET_CTRL_RX_NOBCAST => (&mut self.no_broadcast, VIRTIO_NET_F_CTRL_RX_EXTRA),
            _ => return Err(Wrong),
        };
        if self.features & 1 << needed == 0 {
            return Err(Wrong);
        }
        *mode = on != 0;
        Ok(Change::Filter)
    }

    fn set_tables(&mut self, data: &[u8]) -> Result<Change, Wrong> {
        self.needs(VIRTIO_NET_F_CTRL_RX)?;
        let (unicast, rest) = table(data)?;
        let (multicast, rest) = table(rest)?;
        if !rest.is_empty() {
            return Err(Wrong);
        }
        self.unicast = Table::of(unicast, MAC_TABLE_MAX);
        self.multicast = Table::of(multicast, MAC_TABLE_MAX - self.unicast.macs.len());
        Ok(Change::Filter)
    }

    fn set_address(&mut self, data: &[u8]) -> Result<Change, Wrong> {
        self.needs(VIRTIO_NET_F_CTRL_MAC_ADDR)?;
        let mac = Mac(data.try_into().map_err(|_| Wrong)?);
        // QEMU takes groups, too. Nobody can be one.
        if mac.is_multicast() {
            return Err(Wrong);
        }
        self.own_mac = Some(mac);
        Ok(Change::Filter)
    }

    fn set_vlan(&mut self, number: u32, data: &[u8]) -> Result<Change, Wrong> {
        self.needs(VIRTIO_NET_F_CTRL_VLAN)?;
        let vlan = word(data)?;
        if vlan >= VLANS {
            return Err(Wrong);
        }
        match number {
            VIRTIO_NET_CTRL_VLAN_ADD => self.vlans.insert(vlan),
            VIRTIO_NET_CTRL_VLAN_DEL => self.vlans.remove(vlan),
            _ => return Err(Wrong),
        }
        Ok(Change::Filter)
    }

    /// Only an announcement that was asked for can be acknowledged.
    fn acknowledge(&mut self, number: u32, data: &[u8]) -> Result<Change, Wrong> {
        if number != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !data.is_empty() || !self.announces {
            return Err(Wrong);
        }
        self.announces = false;
        Ok(Change::Announced)
    }

    fn set_pairs(&mut self, number: u32, data: &[u8]) -> Result<Change, Wrong> {
        self.needs(VIRTIO_NET_F_MQ)?;
        let pairs = word(data)?;
        if number != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !(1..=self.pairs_max).contains(&pairs) {
            return Err(Wrong);
        }
        self.pairs = pairs;
        Ok(Change::Pairs)
    }

    fn has(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }

    /// A command exists only if what it belongs to was negotiated.
    fn needs(&self, feature: u32) -> Result<(), Wrong> {
        if self.has(feature) { Ok(()) } else { Err(Wrong) }
    }
}

impl Table {
    /// Of `macs`, if they fit into `room` slots.
    fn of(macs: &[[u8; 6]], room: usize) -> Table {
        if macs.len() > room {
            return Table { macs: Vec::new(), overflow: true };
        }
        Table { macs: macs.iter().map(|&mac| Mac(mac)).collect(), overflow: false }
    }

    fn known(&self) -> KnownTable {
        KnownTable { macs: self.macs.iter().map(|&Mac(mac)| mac).collect(), overflow: self.overflow }
    }

    fn restore(known: &KnownTable, room: usize) -> Table {
        let Table { macs, overflow } = Table::of(&known.macs, room);
        Table { macs, overflow: overflow || known.overflow }
    }
}

/// The table that `data` begins with, and what is behind it: a count of 32 bits, then as many addresses.
fn table(data: &[u8]) -> Result<(&[[u8; 6]], &[u8]), Wrong> {
    let (&count, rest) = data.split_first_chunk().ok_or(Wrong)?;
    let (macs, _) = rest.as_chunks();
    let count = u32::from_le_bytes(count) as usize;
    let macs = macs.get(..count).ok_or(Wrong)?;
    Ok((macs, &rest[macs.as_flattened().len()..]))
}

/// A number of 16 bits and nothing else.
fn word(data: &[u8]) -> Result<u16, Wrong> {
    data.try_into().map(u16::from_le_bytes).map_err(|_| Wrong)
}

const VLANS: u16 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const ALL: u64 = 1 << 5 | 0x7f << 17;

    fn fresh(features: u64) -> Wishes {
        Wishes::new(features, 4, Some(MAC))
    }

    /// TABLE_SET with these counts, and these many addresses behind each.
    fn tables(unicast: (u32, u8), multicast: (u32, u8)) -> Vec<u8> {
        let mut command = vec![1, 0];
        for ((count, real), first) in [(unicast, 2), (multicast, 1)] {
            command.extend(count.to_le_bytes());
            command.extend((0..real).flat_map(|last| [first, 0, 0x5e, 0, 0, last]));
        }
        command
    }

    /// The command is refused and changes nothing.
    #[track_caller]
    fn refuse(wishes: &mut Wishes, command: &[u8]) {
        let before = (wishes.filter(), wishes.pairs());
        assert_eq!(wishes.command(command), Err(Wrong), "{command:x?}");
        assert_eq!((wishes.filter(), wishes.pairs()), before, "{command:x?}");
    }

    #[test]
    fn a_driver_that_has_said_nothing_receives_everything_in_no_vlan() {
        let filter = fresh(ALL).filter();
        assert!(filter.promiscuous && filter.broadcast_allowed);
        assert_eq!((filter.unicast, filter.multicast), (RxState::Normal, RxState::Normal));
        assert_eq!((filter.vlan, filter.main_mac), (RxState::None, MAC));
    }

    #[test]
    fn a_driver_that_cannot_choose_goes_by_its_address() {
        let mac_only = fresh(1 << 5 | 1 << 17);
        assert_eq!(mac_only.filter(), RxFilter::new(MAC));
        assert_eq!(mac_only.pairs(), 4);
        let unknown = fresh(1 << 17);
        assert_eq!(unknown.filter(), RxFilter { unicast: RxState::All, ..RxFilter::new(MAC) });
        let nameless = Wishes::new(ALL, 1, None);
        assert_eq!(nameless.filter().unicast, RxState::All);
    }

    #[test]
    fn an_address_that_the_driver_set_is_known() {
        let mut wishes = Wishes::new(ALL & !(1 << 5), 1, None);
        assert_eq!(wishes.command(&[1, 1, 2, 0, 0, 0, 0, 7]), Ok(Change::Filter));
        let filter = wishes.filter();
        assert_eq!((filter.unicast, filter.main_mac), (RxState::Normal, Mac([2, 0, 0, 0, 0, 7])));
        for data in [&[1, 1, 2, 0, 0, 0, 0][..], &[1, 1, 2, 0, 0, 0, 0, 0, 0], &[1, 1, 3, 0, 0, 0, 0, 7]] {
            refuse(&mut wishes, data);
        }
    }

    #[test]
    fn wishes_survive_a_journal() {
        let mut wishes = fresh(ALL);
        wishes.command(&tables((2, 2), (70, 70))).unwrap();
        for command in [&[2, 0, 0xff, 0x0f][..], &[0, 5, 1], &[4, 0, 3, 0], &[1, 1, 2, 0, 0, 0, 0, 7]] {
            wishes.command(command).unwrap();
        }
        wishes.ask_to_announce();
        let known = wishes.known();
        let restored = Wishes::restore(ALL, 4, &known);
        assert_eq!((restored.known(), restored.filter()), (known.clone(), wishes.filter()));
        let odd = KnownWishes { vlans: vec![4096, 65_535], pairs: 0, ..known };
        let restored = Wishes::restore(ALL, 4, &odd);
        assert_eq!((restored.pairs(), restored.filter().vlan), (1, RxState::None));
    }

    #[test]
    fn each_mode_is_one_byte() {
        let mut wishes = fresh(ALL);
        type Shown = fn(&RxFilter) -> bool;
        let modes: [(u8, Shown); 6] = [
            (0, |filter| filter.promiscuous),
            (1, |filter| filter.multicast == RxState::All),
            (2, |filter| filter.unicast == RxState::All),
            (3, |filter| filter.multicast == RxState::None),
            (4, |filter| filter.unicast == RxState::None),
            (5, |filter| !filter.broadcast_allowed),
        ];
        for (number, is_on) in modes {
            for on in [0, 1, 255, 0] {
                assert_eq!(wishes.command(&[0, number, on]), Ok(Change::Filter));
                assert_eq!(is_on(&wishes.filter()), on != 0, "{number} {on}");
            }
            refuse(&mut wishes, &[0, number]);
            refuse(&mut wishes, &[0, number, 1, 1]);
        }
        refuse(&mut wishes, &[0, 6, 1]);
    }

    #[test]
    fn g36_tables_must_end_where_the_command_does() {
        let mut wishes = fresh(ALL);
        assert_eq!(wishes.command(&tables((2, 2), (3, 3))), Ok(Change::Filter));
        let filter = wishes.filter();
        assert_eq!((filter.unicast_table.len(), filter.multicast_table.len()), (2, 3));
        for (unicast, multicast) in [
            ((1, 2), (3, 3)),
            ((3, 2), (3, 3)),
            ((2, 2), (2, 3)),
            ((2, 2), (4, 3)),
            ((u32::MAX, 2), (3, 3)),
            ((2, 2), (u32::MAX, 3)),
            ((0x2aaa_aaab, 2), (3, 3)),
        ] {
            refuse(&mut wishes, &tables(unicast, multicast));
        }
        let whole = tables((2, 2), (3, 3));
        for cut in 0..whole.len() {
            refuse(&mut wishes, &whole[..cut]);
        }
        refuse(&mut wishes, &[&whole[..], &[0]].concat());
        assert_eq!(wishes.command(&tables((0, 0), (0, 0))), Ok(Change::Filter));
        assert!(wishes.filter().multicast_table.is_empty());
    }

    #[test]
    fn the_tables_share_64_slots() {
        let mut wishes = fresh(ALL);
        let mut set = |unicast: u8, multicast: u8| {
            let command = tables((unicast.into(), unicast), (multicast.into(), multicast));
            wishes.command(&command).unwrap();
            let filter = wishes.filter();
            let stored = (filter.unicast_table.len(), filter.multicast_table.len());
            (filter.unicast_overflow, filter.multicast_overflow, stored)
        };
        assert_eq!(set(64, 0), (false, false, (64, 0)));
        assert_eq!(set(40, 24), (false, false, (40, 24)));
        assert_eq!(set(40, 25), (false, true, (40, 0)));
        assert_eq!(set(65, 64), (true, false, (0, 64)));
        assert_eq!(set(65, 65), (true, true, (0, 0)));
        assert_eq!(set(1, 1), (false, false, (1, 1)));
    }

    #[test]
    fn vlans_come_and_go_one_by_one() {
        let mut wishes = fresh(ALL);
        for (command, left) in [
            ([2, 0, 4, 0], &[4][..]),
            ([2, 0, 0xff, 0x0f], &[4, 4095]),
            ([2, 0, 0, 0], &[0, 4, 4095]),
            ([2, 1, 4, 0], &[0, 4095]),
            ([2, 1, 5, 0], &[0, 4095]),
        ] {
            assert_eq!(wishes.command(&command), Ok(Change::Filter));
            let filter = wishes.filter();
            assert_eq!(filter.vlan_table.iter().collect::<Vec<_>>(), left);
            assert_eq!(filter.vlan, RxState::Normal);
        }
        for command in
            [&[2, 0, 0, 0x10][..], &[2, 0, 0xff, 0xff], &[2, 0, 4], &[2, 0, 4, 0, 0], &[2, 2, 4, 0]]
        {
            refuse(&mut wishes, command);
        }
        wishes.command(&[2, 1, 0, 0]).unwrap();
        wishes.command(&[2, 1, 0xff, 0x0f]).unwrap();
        assert_eq!(wishes.filter().vlan, RxState::None);
    }

    #[test]
    fn g36_queue_pairs_are_between_one_and_all() {
        let mut wishes = fresh(ALL);
        assert_eq!(wishes.pairs(), 1);
        for pairs in [4, 1, 3] {
            assert_eq!(wishes.command(&[4, 0, pairs, 0]), Ok(Change::Pairs));
            assert_eq!(wishes.pairs(), u16::from(pairs));
        }
        for command in [&[4, 0, 0, 0][..], &[4, 0, 5, 0], &[4, 0, 0xff, 0xff], &[4, 0, 1], &[4, 0, 1, 0, 0]] {
            refuse(&mut wishes, command);
        }
        // Receive-side scaling was not offered.
        refuse(&mut wishes, &[4, 1, 1, 0]);
    }

    #[test]
    fn only_an_announcement_that_was_asked_for_is_acknowledged() {
        let mut wishes = fresh(ALL);
        refuse(&mut wishes, &[3, 0]);
        assert!(wishes.ask_to_announce() && wishes.announces());
        refuse(&mut wishes, &[3, 1]);
        refuse(&mut wishes, &[3, 0, 0]);
        assert_eq!(wishes.command(&[3, 0]), Ok(Change::Announced));
        assert!(!wishes.announces());
        refuse(&mut wishes, &[3, 0]);
        assert!(!fresh(ALL & !(1 << 21)).ask_to_announce());
    }

    #[test]
    fn g36_unknown_and_short_commands_are_wrong() {
        let mut wishes = fresh(ALL);
        for command in [&[][..], &[0], &[1, 2], &[5, 0, 0], &[6, 0, 0], &[0x80, 0, 1], &[0xff, 0xff, 1]] {
            refuse(&mut wishes, command);
        }
        for class in 0..=255 {
            for number in 6..=255 {
                refuse(&mut wishes, &[class, number, 1, 0]);
            }
        }
    }

    #[test]
    fn commands_of_features_that_were_not_negotiated_are_wrong() {
        let mut wishes = fresh(1 << 17);
        for command in [&[0, 0, 0][..], &[0, 2, 1], &[1, 1, 2, 0, 0, 0, 0, 7], &[2, 0, 4, 0], &[4, 0, 1, 0]] {
            refuse(&mut wishes, command);
        }
        refuse(&mut wishes, &tables((0, 0), (0, 0)));
    }
}
