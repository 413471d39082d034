//! A nic's receive filter as `query-rx-filter` shows it and `x-set-rx-filter` changes it.
//!
//! The value is the data plane's; what is here is how it is shown, and the rule by which a change turns one into the next.

use ringyard_dataplane::filter::{MAC_TABLE_MAX, RxFilter, RxState, VlanSet};
use ringyard_dataplane::mac::Mac;
use serde_json::Value;

use super::check_unicast;
use crate::qapi::{
    Described, FromQapi, Place, QapiEnum, QapiError, Schema, Visitor, Word, answer, arguments,
};

impl QapiEnum for RxState {
    const TYPE: &'static str = "RxState";
    const NAMES: &'static [(&'static str, Self)] =
        &[("normal", RxState::Normal), ("none", RxState::None), ("all", RxState::All)];
}

/// A VLAN's number, 0 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanId(u16);

impl Described for VlanId {
    fn describe(schema: &mut Schema) -> String {
        u16::describe(schema)
    }
}

impl FromQapi for VlanId {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match u16::try_from(i64::from_qapi(value, place)?) {
            Ok(id @ 0..=4095) => Ok(VlanId(id)),
            _ => Err(place.expects("a VLAN id from 0 to 4095")),
        }
    }
}

answer! {
    /// A nic's filter, as `query-rx-filter` returns it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RxFilterInfo as "RxFilterInfo" {
        /// The nic.
        pub name: String,
        /// Everything is taken.
        pub promiscuous: bool,
        /// Groups: all, none, or those of the table.
        pub multicast: Word<RxState>,
        /// Stations: all, none, or those of the table and the nic itself.
        pub unicast: Word<RxState>,
        /// VLANs: all, none, or those of the table.
        pub vlan: Word<RxState>,
        /// Broadcasts are taken.
        pub broadcast_allowed: bool,
        /// The guest wanted more groups than a table holds.
        pub multicast_overflow: bool,
        /// The guest wanted more stations than a table holds.
        pub unicast_overflow: bool,
        /// The nic's address.
        pub main_mac: String,
        /// Highest first; where none is filtered all 4096, or none if the reply would be too long.
        pub vlan_table: Vec<u16>,
        /// Last first.
        pub unicast_table: Vec<String>,
        /// Last first.
        pub multicast_table: Vec<String>,
    }
}

impl RxFilterInfo {
    /// All ids of a filter that takes every VLAN.
    pub fn all_vlans() -> Vec<u16> {
        (0..4096).rev().collect()
    }

    /// Of the nic `name`, without the ids of a filter that takes every VLAN.
    pub fn new(filter: &RxFilter, name: &str) -> RxFilterInfo {
        let addresses = |table: &[Mac]| -> Vec<String> { table.iter().rev().map(Mac::to_string).collect() };
        RxFilterInfo {
            name: name.to_owned(),
            promiscuous: filter.promiscuous,
            multicast: Word(filter.multicast),
            unicast: Word(filter.unicast),
            vlan: Word(filter.vlan),
            broadcast_allowed: filter.broadcast_allowed,
            multicast_overflow: filter.multicast_overflow,
            unicast_overflow: filter.unicast_overflow,
            main_mac: filter.main_mac.to_string(),
            vlan_table: match filter.vlan {
                RxState::All | RxState::None => Vec::new(),
                RxState::Normal => filter.vlan_table.iter().rev().collect(),
            },
            unicast_table: addresses(&filter.unicast_table),
            multicast_table: addresses(&filter.multicast_table),
        }
    }
}

arguments! {
    /// The arguments of `x-set-rx-filter`: a nic's name and the members of its filter that change.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XSetRxFilter as "q_obj_x-set-rx-filter-arg" {
        /// The nic.
        pub name: String,
        promiscuous: Option<bool>,
        multicast: Option<RxState>,
        unicast: Option<RxState>,
        vlan: Option<RxState>,
        broadcast_allowed: Option<bool>,
        multicast_overflow: Option<bool>,
        unicast_overflow: Option<bool>,
        main_mac: Option<Mac>,
        vlan_table: Option<Vec<VlanId>>,
        unicast_table: Option<Vec<Mac>>,
        multicast_table: Option<Vec<Mac>>,
    }
}

impl XSetRxFilter {
    /// Visits the command's arguments. Ends the visit.
    pub fn visit(visitor: Visitor) -> Result<Self, QapiError> {
        let change: XSetRxFilter = visitor.whole()?;
        change.main_mac.map(check_unicast).transpose()?;
        Ok(change)
    }

    /// The filter that `current` becomes. A VLAN table that comes without `vlan` switches VLAN filtering on: to `normal`,
    /// or to `none` when it is empty.
    pub fn apply(self, current: &RxFilter) -> RxFilter {
        let implied = |table: &VlanSet| match table.iter().next() {
            Some(_) => RxState::Normal,
            None => RxState::None,
        };
        let vlan_table = self.vlan_table.map(vlan_set);
        let vlan = self.vlan.or_else(|| vlan_table.as_ref().map(implied));
        let mut next = RxFilter {
            promiscuous: self.promiscuous.unwrap_or(current.promiscuous),
            multicast: self.multicast.unwrap_or(current.multicast),
            unicast: self.unicast.unwrap_or(current.unicast),
            vlan: vlan.unwrap_or(current.vlan),
            broadcast_allowed: self.broadcast_allowed.unwrap_or(current.broadcast_allowed),
            main_mac: self.main_mac.unwrap_or(current.main_mac),
            vlan_table: vlan_table.unwrap_or_else(|| current.vlan_table.clone()),
            ..current.clone()
        };
        // As with the driver's own command, a new table starts without overflow.
        let kept = current.unicast_overflow && self.unicast_table.is_none();
        next.unicast_overflow = self.unicast_overflow.unwrap_or(kept);
        let kept = current.multicast_overflow && self.multicast_table.is_none();
        next.multicast_overflow = self.multicast_overflow.unwrap_or(kept);
        next.unicast_table = self.unicast_table.map_or(next.unicast_table, last_first);
        next.multicast_table = self.multicast_table.map_or(next.multicast_table, last_first);
        fit_tables(&mut next);
        next
    }
}

fn vlan_set(ids: Vec<VlanId>) -> VlanSet {
    ids.into_iter().map(|VlanId(id)| id).collect()
}

/// Tables are shown last first, so they are read last first: what was shown can be given back.
fn last_first(mut table: Vec<Mac>) -> Vec<Mac> {
    table.reverse();
    table
}

/// Gives the slots to the unicast table first; a table that does not fit is emptied and marked.
fn fit_tables(filter: &mut RxFilter) {
    if filter.unicast_table.len() > MAC_TABLE_MAX {
        filter.unicast_table.clear();
        filter.unicast_overflow = true;
    }
    if filter.multicast_table.len() > MAC_TABLE_MAX - filter.unicast_table.len() {
        filter.multicast_table.clear();
        filter.multicast_overflow = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::Form;
    use serde_json::json;

    const MAIN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn shown(filter: &RxFilter, name: &str) -> Value {
        serde_json::to_value(RxFilterInfo::new(filter, name)).expect("it has string keys")
    }

    fn visited(arguments: Value) -> Result<XSetRxFilter, String> {
        let Value::Object(members) = arguments else { panic!("the test needs an object") };
        XSetRxFilter::visit(Visitor::new(members, Form::Json)).map_err(|error| error.desc)
    }

    fn table(length: usize) -> Vec<String> {
        (0..length).map(|last| format!("52:54:00:00:01:{last:02x}")).collect()
    }

    fn applied(arguments: Value, current: &RxFilter) -> RxFilter {
        visited(arguments).expect("it is valid").apply(current)
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        let given = json!({
            "name": "n", "promiscuous": true, "multicast": "none", "unicast": "all", "vlan": "normal",
            "broadcast-allowed": false, "multicast-overflow": false, "unicast-overflow": true,
            "main-mac": "52:54:00:aa:bb:cc", "vlan-table": [4, 0],
            "unicast-table": ["52:54:00:00:00:03", "52:54:00:00:00:02"],
            "multicast-table": ["01:00:5e:00:00:01", "01:00:5e:00:00:02"],
        });
        assert_eq!(shown(&applied(given.clone(), &RxFilter::new(MAIN)), "n"), given);
    }

    #[test]
    fn members_that_are_not_given_stay() {
        let current = RxFilter::new(MAIN);
        assert_eq!(applied(json!({"name": "n"}), &current), current);
    }

    #[test]
    fn tables_are_given_and_shown_last_first() {
        let filter = applied(json!({"name": "n", "unicast-table": table(2)}), &RxFilter::new(MAIN));
        assert_eq!(filter.unicast_table[0], Mac([0x52, 0x54, 0, 0, 1, 1]));
        assert_eq!(shown(&filter, "n")["unicast-table"], json!(table(2)));
        assert_eq!(shown(&filter, "n")["vlan-table"], json!([]), "the ids of all are another's to add");
    }

    #[test]
    fn the_tables_share_64_slots() {
        let overflow = |unicast: usize, multicast: usize| {
            let both =
                json!({"name": "n", "unicast-table": table(unicast), "multicast-table": table(multicast)});
            let filter = applied(both, &RxFilter::new(MAIN));
            let stored = (filter.unicast_table.len(), filter.multicast_table.len());
            (filter.unicast_overflow, filter.multicast_overflow, stored)
        };
        assert_eq!(overflow(64, 0), (false, false, (64, 0)));
        assert_eq!(overflow(40, 24), (false, false, (40, 24)));
        assert_eq!(overflow(40, 25), (false, true, (40, 0)));
        assert_eq!(overflow(65, 64), (true, false, (0, 64)));
        assert_eq!(overflow(65, 65), (true, true, (0, 0)));
    }

    #[test]
    fn a_table_that_fits_ends_an_overflow() {
        let over = applied(json!({"name": "n", "multicast-table": table(65)}), &RxFilter::new(MAIN));
        assert!(over.multicast_overflow);
        assert!(applied(json!({"name": "n", "unicast-table": table(1)}), &over).multicast_overflow);
        assert!(!applied(json!({"name": "n", "multicast-table": table(1)}), &over).multicast_overflow);
    }

    #[test]
    fn a_vlan_table_switches_filtering_on() {
        let current = RxFilter::new(MAIN);
        let vlan = |arguments| applied(arguments, &current).vlan;
        assert_eq!(vlan(json!({"name": "n", "vlan-table": [4]})), RxState::Normal);
        assert_eq!(vlan(json!({"name": "n", "vlan-table": []})), RxState::None);
        assert_eq!(vlan(json!({"name": "n", "vlan-table": [4], "vlan": "all"})), RxState::All);
    }

    #[test]
    fn addresses_and_vlans_are_checked() {
        let refused = |arguments| visited(arguments).expect_err("the test's arguments are wrong");
        let vlan = "Parameter 'vlan-table[1]' expects a VLAN id from 0 to 4095";
        assert_eq!(refused(json!({"name": "n", "vlan-table": [4095, 4096]})), vlan);
        assert_eq!(refused(json!({"name": "n", "vlan-table": [0, -1]})), vlan);
        let mac = "Parameter 'unicast-table[0]' expects a MAC address such as 52:54:00:12:34:56";
        assert_eq!(refused(json!({"name": "n", "unicast-table": ["7"]})), mac);
        let multicast = "NIC cannot have multicast MAC address (odd 1st byte)";
        assert_eq!(refused(json!({"name": "n", "main-mac": "01:00:00:00:00:00"})), multicast);
        assert_eq!(refused(json!({})), "Parameter 'name' is missing");
        assert_eq!(refused(json!({"name": "n", "x": 1})), "Parameter 'x' is unexpected");
    }
}
