//! What a hub has learned: how learning is set, and the commands that show and change the addresses.

use ringyard_dataplane::fdb::AGEING_S_MAX;
use ringyard_dataplane::mac::Mac;
use serde_json::Value;

use crate::qapi::{Described, FromQapi, Place, QapiError, Schema, Visitor, answer, arguments};

/// Entries in one answer, at most: a line of 256 KiB, which is all that qemu.qmp reads, has room for them.
pub const FDB_LIMIT_MAX: u32 = 1000;

/// What `x-set-hub`, `--hub` and `[[hub]]` say: a hub and what changes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XSetHub {
    /// The hub, made on first use.
    pub hubid: i32,
    /// Whether it learns; without, it is as QEMU's.
    pub learning: Option<bool>,
    /// Seconds after which an address is forgotten, 1 to [`AGEING_S_MAX`].
    pub ageing: Option<u32>,
}

arguments! {
    /// The arguments of `x-set-hub`.
    pub struct XSetHubArguments as "q_obj_x-set-hub-arg" {
        hubid: i32,
        learning: Option<bool>,
        ageing: Option<Count<AGEING_S_MAX>>,
    }
}

arguments! {
    /// The arguments of `x-query-fdb`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XQueryFdb as "q_obj_x-query-fdb-arg" {
        /// One hub only.
        pub hubid: Option<i32>,
        /// What is behind one netdev only.
        pub netdev: Option<String>,
        /// So many entries, 1 to [`FDB_LIMIT_MAX`].
        limit: Option<Count<FDB_LIMIT_MAX>>,
    }
}

arguments! {
    /// The arguments of `x-fdb-add`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XFdbAdd as "q_obj_x-fdb-add-arg" {
        /// The hub.
        pub hubid: i32,
        /// A unicast address.
        pub mac: Mac,
        /// Behind which netdev it is.
        pub netdev: String,
    }
}

arguments! {
    /// The arguments of `x-fdb-del`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XFdbDel as "q_obj_x-fdb-del-arg" {
        /// The hub.
        pub hubid: i32,
        /// The address.
        pub mac: Mac,
    }
}

arguments! {
    /// The arguments of `x-fdb-flush`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XFdbFlush as "q_obj_x-fdb-flush-arg" {
        /// One hub only.
        pub hubid: Option<i32>,
        /// What is behind one netdev only.
        pub netdev: Option<String>,
    }
}

answer! {
    /// What `x-query-fdb` returns.
    #[derive(Clone, Debug)]
    pub struct FdbInfo as "FdbInfo" {
        /// By hub and address.
        pub entries: Vec<FdbEntryInfo>,
        /// Whether there are others, for which the answer has no room.
        pub more: bool,
    }
}

answer! {
    /// An address that a hub knows.
    #[derive(Clone, Debug)]
    pub struct FdbEntryInfo as "FdbEntryInfo" {
        /// The hub.
        pub hubid: i32,
        /// The address.
        pub mac: String,
        /// Behind which netdev it is.
        pub netdev: String,
        /// Seconds since it was heard.
        pub age: u32,
        /// Whether `x-fdb-add` entered it.
        pub is_static: bool = "static",
    }
}

/// A number from 1 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MAX: u32>(pub u32);

impl<const MAX: u32> FromQapi for Count<MAX> {
    fn from_qapi(value: Value, place: &Place) -> Result<Self, QapiError> {
        match u32::try_from(i64::from_qapi(value, place)?) {
            Ok(count) if (1..=MAX).contains(&count) => Ok(Count(count)),
            _ => Err(place.expects(&format!("a number from 1 to {MAX}"))),
        }
    }
}

impl<const MAX: u32> Described for Count<MAX> {
    fn describe(schema: &mut Schema) -> String {
        u32::describe(schema)
    }
}

impl XSetHub {
    /// Visits the command's arguments. Ends the visit.
    pub fn visit(visitor: Visitor) -> Result<Self, QapiError> {
        let XSetHubArguments { hubid, learning, ageing } = visitor.whole()?;
        Ok(XSetHub { hubid, learning, ageing: ageing.map(|Count(seconds)| seconds) })
    }

    /// The same of a `--hub` option.
    pub fn visit_option(visitor: Visitor) -> Result<Self, QapiError> {
        XSetHub::visit_named(visitor, "ageing")
    }

    /// The same of a `[[hub]]` table.
    pub fn visit_table(visitor: Visitor) -> Result<Self, QapiError> {
        XSetHub::visit_named(visitor, "ageing_s")
    }

    /// Of what no client sends, and the schema does not tell of.
    fn visit_named(mut visitor: Visitor, ageing: &str) -> Result<Self, QapiError> {
        let (hubid, learning) = (visitor.required("id")?, visitor.optional("learning")?);
        let ageing: Option<Count<AGEING_S_MAX>> = visitor.optional(ageing)?;
        visitor.finish()?;
        Ok(XSetHub { hubid, learning, ageing: ageing.map(|Count(seconds)| seconds) })
    }
}

impl XQueryFdb {
    /// So many entries at most.
    pub fn limit(&self) -> u32 {
        self.limit.map_or(FDB_LIMIT_MAX, |Count(limit)| limit)
    }
}

impl XFdbAdd {
    /// Visits the command's arguments. Ends the visit.
    pub fn visit(visitor: Visitor) -> Result<Self, QapiError> {
        let add: XFdbAdd = visitor.whole()?;
        match add.mac.is_multicast() || add.mac == Mac::default() {
            true => Err(QapiError::generic("Parameter 'mac' expects the address of one station")),
            false => Ok(add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, parse_keyval};
    use serde_json::json;

    fn json_visitor(arguments: Value) -> Visitor {
        let Value::Object(members) = arguments else { panic!("the test needs an object") };
        Visitor::new(members, Form::Json)
    }

    #[test]
    fn a_hub_is_set_alike_by_command_option_and_table() {
        let expected = XSetHub { hubid: -3, learning: Some(false), ageing: Some(60) };
        let command = json_visitor(json!({"hubid": -3, "learning": false, "ageing": 60}));
        assert_eq!(XSetHub::visit(command), Ok(expected.clone()));
        let table = json_visitor(json!({"id": -3, "learning": false, "ageing_s": 60}));
        assert_eq!(XSetHub::visit_table(table), Ok(expected.clone()));
        let members = parse_keyval("-3,learning=off,ageing=60", "id", Flags::Refused);
        let option = Visitor::new(members.expect("it is well formed"), Form::Keyval);
        assert_eq!(XSetHub::visit_option(option), Ok(expected));
    }

    #[test]
    fn numbers_have_bounds() {
        let refused = |seconds: i64| {
            XSetHub::visit(json_visitor(json!({"hubid": 0, "ageing": seconds})))
                .expect_err("out of range")
                .desc
        };
        for seconds in [0, -1, 1_000_001, 1 << 40] {
            assert_eq!(refused(seconds), "Parameter 'ageing' expects a number from 1 to 1000000");
        }
        let query = |limit: i64| json_visitor(json!({"limit": limit})).whole::<XQueryFdb>();
        assert!(query(1).is_ok() && query(1000).is_ok());
        assert_eq!(
            query(1001).expect_err("too many").desc,
            "Parameter 'limit' expects a number from 1 to 1000"
        );
    }

    #[test]
    fn only_a_stations_address_can_be_entered() {
        for (mac, expected) in [
            ("01:00:5e:00:00:01", "Parameter 'mac' expects the address of one station"),
            ("00:00:00:00:00:00", "Parameter 'mac' expects the address of one station"),
            ("52:54", "Parameter 'mac' expects a MAC address such as 52:54:00:12:34:56"),
        ] {
            let arguments = json!({"hubid": 0, "mac": mac, "netdev": "n0"});
            assert_eq!(XFdbAdd::visit(json_visitor(arguments)).expect_err(mac).desc, expected);
        }
    }
}
