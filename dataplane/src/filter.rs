//! A port's rx-filter: which frames its guest wants, in the words of `RxFilterInfo` (qapi/net.json).
//!
//! [`RxFilter::verdict`] is the plain statement of the rules; [`crate::hub`] compiles them into tables and is tested
//! against it.

use crate::mac::Mac;

/// Addresses that a guest may list, unicast and multicast together (QEMU's virtio-net has 64 shared slots).
pub const MAC_TABLE_MAX: usize = 64;

/// What is let through of a class of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxState {
    /// Nothing.
    None,
    /// What the table lists.
    Normal,
    /// Everything.
    All,
}

/// A set of VLAN numbers, 0 to 4095.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// No VLAN.
    pub fn none() -> VlanSet {
        VlanSet(Box::new([0; 64]))
    }

    /// Adds a number; what is beyond 4095 is no VLAN.
    pub fn insert(&mut self, vlan: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vlan / 64)) {
            *word |= 1 << (vlan % 64);
        }
    }

    /// Takes a number out.
    pub fn remove(&mut self, vlan: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vlan / 64)) {
            *word &= !(1 << (vlan % 64));
        }
    }

    /// Whether the number is in the set.
    #[inline]
    pub fn contains(&self, vlan: u16) -> bool {
        self.0.get(usize::from(vlan / 64)).is_some_and(|word| word >> (vlan % 64) & 1 == 1)
    }

    /// The numbers in rising order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u16> + '_ {
        (0..4096).filter(|&vlan| self.contains(vlan))
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vlans: I) -> VlanSet {
        let mut set = VlanSet::none();
        vlans.into_iter().for_each(|vlan| set.insert(vlan));
        set
    }
}

impl std::fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// All of `RxFilterInfo` but the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RxFilter {
    /// Takes everything, whatever else is said here.
    pub promiscuous: bool,
    /// Multicast other than broadcast.
    pub multicast: RxState,
    /// Unicast.
    pub unicast: RxState,
    /// Tagged frames.
    pub vlan: RxState,
    /// Broadcasts are received.
    pub broadcast_allowed: bool,
    /// The guest listed more multicast addresses than there is room for: all are let through.
    pub multicast_overflow: bool,
    /// The same of unicast addresses.
    pub unicast_overflow: bool,
    /// The NIC's own address.
    pub main_mac: Mac,
    /// VLANs let through while `vlan` is `Normal`.
    pub vlan_table: VlanSet,
    /// Further own addresses.
    pub unicast_table: Vec<Mac>,
    /// Groups.
    pub multicast_table: Vec<Mac>,
}

impl RxFilter {
    /// A NIC's filter until a better source speaks: its own address, all groups, broadcast, all VLANs.
    pub fn new(main_mac: Mac) -> RxFilter {
        RxFilter {
            promiscuous: false,
            multicast: RxState::All,
            unicast: RxState::Normal,
            vlan: RxState::All,
            broadcast_allowed: true,
            multicast_overflow: false,
            unicast_overflow: false,
            main_mac,
            vlan_table: VlanSet::none(),
            unicast_table: Vec::new(),
            multicast_table: Vec::new(),
        }
    }

    /// Whether a frame to `destination` in `vlan` is wanted. The order of the checks is that of QEMU's virtio-net.
    pub fn admits(&self, destination: Mac, vlan: Option<u16>) -> bool {
        if self.promiscuous {
            return true;
        }
        if vlan.is_some_and(|vlan| !self.admits_vlan(vlan)) {
            return false;
        }
        self.admits_address(destination)
    }

    fn admits_vlan(&self, vlan: u16) -> bool {
        match self.vlan {
            RxState::None => false,
            RxState::Normal => self.vlan_table.contains(vlan),
            RxState::All => vlan < 4096,
        }
    }

    fn admits_address(&self, destination: Mac) -> bool {
        if destination == Mac::BROADCAST {
            return self.broadcast_allowed;
        }
        let (state, overflow) = if destination.is_multicast() {
            (self.multicast, self.multicast_overflow)
        } else {
            (self.unicast, self.unicast_overflow)
        };
        match state {
            RxState::None => false,
            RxState::All => true,
            RxState::Normal => overflow || self.lists(destination),
        }
    }

    fn lists(&self, destination: Mac) -> bool {
        if destination.is_multicast() {
            self.multicast_table.contains(&destination)
        } else {
            destination == self.main_mac || self.unicast_table.contains(&destination)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);

    #[test]
    fn fresh_nic_takes_its_address_groups_and_broadcast() {
        let filter = RxFilter::new(OWN);
        assert!(filter.admits(OWN, None) && filter.admits(OWN, Some(7)));
        assert!(filter.admits(GROUP, None) && filter.admits(Mac::BROADCAST, None));
        assert!(!filter.admits(OTHER, None));
    }

    #[test]
    fn promiscuous_comes_before_everything() {
        let mut filter = RxFilter::new(OWN);
        (filter.vlan, filter.unicast, filter.broadcast_allowed) = (RxState::None, RxState::None, false);
        filter.promiscuous = true;
        assert!(filter.admits(OTHER, Some(5)) && filter.admits(Mac::BROADCAST, None));
    }

    #[test]
    fn vlan_comes_before_the_address_and_spares_untagged() {
        let mut filter = RxFilter::new(OWN);
        filter.vlan = RxState::Normal;
        filter.vlan_table = [4].into_iter().collect();
        assert!(filter.admits(OWN, Some(4)) && filter.admits(OWN, None));
        assert!(!filter.admits(OWN, Some(5)) && !filter.admits(Mac::BROADCAST, Some(5)));
        filter.vlan = RxState::None;
        assert!(filter.admits(OWN, None) && !filter.admits(OWN, Some(4)));
    }

    #[test]
    fn none_refuses_even_what_is_listed() {
        let mut filter = RxFilter::new(OWN);
        (filter.unicast, filter.multicast) = (RxState::None, RxState::None);
        (filter.unicast_overflow, filter.multicast_overflow) = (true, true);
        filter.multicast_table = vec![GROUP];
        assert!(!filter.admits(OWN, None) && !filter.admits(GROUP, None));
        assert!(filter.admits(Mac::BROADCAST, None), "broadcast ignores the multicast state");
    }

    #[test]
    fn overflow_lets_the_class_through() {
        let mut filter = RxFilter::new(OWN);
        filter.multicast = RxState::Normal;
        assert!(!filter.admits(GROUP, None) && !filter.admits(OTHER, None));
        (filter.unicast_overflow, filter.multicast_overflow) = (true, true);
        assert!(filter.admits(GROUP, None) && filter.admits(OTHER, None));
    }

    #[test]
    fn an_address_counts_in_the_table_of_its_class_only() {
        let mut filter = RxFilter::new(OWN);
        filter.multicast = RxState::Normal;
        (filter.unicast_table, filter.multicast_table) = (vec![GROUP], vec![OTHER]);
        assert!(!filter.admits(GROUP, None) && !filter.admits(OTHER, None));
    }
}
