//! `netdev_add`: the id, the type, and the members that this type has.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Hubport, Nic, NicSpec, Tap, TapSpec, VhostUser, VhostUserSpec};
use crate::qapi::{QapiEnum, QapiError, Visitor, check_id};

/// The arguments of `netdev_add`, types checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevAdd {
    /// A well-formed identifier.
    pub id: String,
    /// The type and its members.
    pub netdev: Netdev,
}

/// A netdev's members as they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Netdev {
    /// A guest behind a socket.
    VhostUser(VhostUser),
    /// An interface of the host.
    Tap(Box<Tap>),
    /// A port of a hub.
    Hubport(Hubport),
    /// The guest's side of another netdev.
    Nic(Nic),
}

/// A netdev that is ready to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevSpec {
    /// A well-formed identifier.
    pub id: String,
    /// What was asked for, to be shown.
    pub given: Netdev,
    /// What that means, to be opened.
    pub kind: NetdevKind,
}

/// What a netdev is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetdevKind {
    /// A guest behind a socket.
    VhostUser(VhostUserSpec),
    /// An interface of the host.
    Tap(TapSpec),
    /// A port of a hub.
    Hubport(Hubport),
    /// The guest's side of another netdev.
    Nic(NicSpec),
}

impl NetdevAdd {
    /// Checks types, then the id, then whether this program has the type. Ends the visit.
    pub fn visit(mut visitor: Visitor) -> Result<Self, QapiError> {
        let id: String = visitor.required("id")?;
        let netdev = match visitor.required("type")? {
            NetdevType::VhostUser => Netdev::VhostUser(VhostUser::visit(&mut visitor)?),
            NetdevType::Tap => Netdev::Tap(Box::new(Tap::visit(&mut visitor)?)),
            NetdevType::Hubport => Netdev::Hubport(Hubport::visit(&mut visitor)?),
            NetdevType::Nic => Netdev::Nic(Nic::visit(&mut visitor)?),
            NetdevType::NotCompiledIn(name) => {
                check_id(&id)?;
                let text = format!("network backend '{name}' is not compiled into this binary");
                return Err(QapiError::generic(text));
            }
        };
        visitor.finish()?;
        check_id(&id)?;
        Ok(NetdevAdd { id, netdev })
    }

    /// Checks what the members say together. Whether the id is taken comes before this.
    pub fn resolve(self) -> Result<NetdevSpec, QapiError> {
        let kind = match &self.netdev {
            Netdev::VhostUser(members) => NetdevKind::VhostUser(members.resolve()?),
            Netdev::Tap(members) => NetdevKind::Tap(members.resolve()?),
            Netdev::Hubport(members) => NetdevKind::Hubport(members.clone()),
            Netdev::Nic(members) => NetdevKind::Nic(members.resolve()?),
        };
        Ok(NetdevSpec { id: self.id, given: self.netdev, kind })
    }
}

impl NetdevSpec {
    /// The members that `netdev_add` would need to make it again, `id` and `type` among them. `query-netdev` shows them
    /// for backends, after it has put in what only the open netdev knows, such as a tap's name.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("id".into(), json!(self.id));
        if let Ok(Value::Object(given)) = serde_json::to_value(&self.given) {
            members.extend(given);
        }
        if let NetdevKind::VhostUser(spec) = &self.kind {
            members.insert("queues".into(), json!(spec.queues));
        }
        members
    }
}

/// The types of the schema.
#[derive(Clone, Copy)]
enum NetdevType {
    VhostUser,
    Tap,
    Hubport,
    Nic,
    NotCompiledIn(&'static str),
}

impl QapiEnum for NetdevType {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("vhost-user", NetdevType::VhostUser),
        ("tap", NetdevType::Tap),
        ("hubport", NetdevType::Hubport),
        ("nic", NetdevType::Nic),
        ("none", NetdevType::NotCompiledIn("none")),
        ("user", NetdevType::NotCompiledIn("user")),
        ("l2tpv3", NetdevType::NotCompiledIn("l2tpv3")),
        ("socket", NetdevType::NotCompiledIn("socket")),
        ("stream", NetdevType::NotCompiledIn("stream")),
        ("dgram", NetdevType::NotCompiledIn("dgram")),
        ("vde", NetdevType::NotCompiledIn("vde")),
        ("bridge", NetdevType::NotCompiledIn("bridge")),
        ("netmap", NetdevType::NotCompiledIn("netmap")),
        ("vhost-vdpa", NetdevType::NotCompiledIn("vhost-vdpa")),
        ("vmnet-host", NetdevType::NotCompiledIn("vmnet-host")),
        ("vmnet-shared", NetdevType::NotCompiledIn("vmnet-shared")),
        ("vmnet-bridged", NetdevType::NotCompiledIn("vmnet-bridged")),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, parse_keyval};
    use proptest::prelude::*;

    fn added(arguments: Value) -> Result<NetdevAdd, String> {
        let Value::Object(members) = arguments else { panic!("the test needs an object") };
        NetdevAdd::visit(Visitor::new(members, Form::Json)).map_err(|error| error.desc)
    }

    fn refused(arguments: Value) -> String {
        added(arguments).expect_err("the test's arguments are wrong")
    }

    #[test]
    fn members_are_checked_in_the_order_of_the_schema() {
        assert_eq!(refused(json!({})), "Parameter 'id' is missing");
        assert_eq!(refused(json!({"type": "tap"})), "Parameter 'id' is missing");
        assert_eq!(refused(json!({"id": "1"})), "Parameter 'type' is missing");
        let twice_wrong = json!({"foo": 1, "id": "a", "type": "hubport", "hubid": "x"});
        assert_eq!(refused(twice_wrong), "Invalid parameter type for 'hubid', expected: integer");
        let unknown = json!({"foo": 1, "id": "1", "type": "hubport", "hubid": 1});
        assert_eq!(refused(unknown), "Parameter 'foo' is unexpected");
        let range = json!({"id": "a", "type": "hubport", "hubid": 2147483648u32});
        assert_eq!(refused(range), "Parameter 'hubid' expects int32_t");
    }

    #[test]
    fn the_id_is_checked_before_the_types_presence() {
        let bad_id = |name| json!({"id": "6s", "type": name, "hubid": 1});
        assert_eq!(refused(bad_id("hubport")), "Parameter 'id' expects an identifier");
        assert_eq!(refused(bad_id("user")), "Parameter 'id' expects an identifier");
    }

    #[test]
    fn a_type_of_the_schema_that_is_not_here_says_so() {
        for name in ["none", "user", "stream", "vmnet-host"] {
            let expected = format!("network backend '{name}' is not compiled into this binary");
            assert_eq!(refused(json!({"id": "a", "type": name, "x": 1})), expected);
        }
        let bogus = json!({"id": "a", "type": "bogus"});
        assert_eq!(refused(bogus), "Parameter 'type' does not accept value 'bogus'");
    }

    #[test]
    fn vhost_user_has_1_to_1024_queues() {
        for queues in [-1, 0, 1025, 65536] {
            let add = added(json!({"id": "a", "type": "vhost-user", "chardev": "c", "queues": queues}));
            let error = add.and_then(|add| add.resolve().map_err(|error| error.desc));
            let expected = "vhost-user number of queues must be in range [1, 1024]";
            assert_eq!(error.map(drop), Err(expected.into()));
        }
    }

    #[test]
    fn what_is_shown_can_be_fed_back() {
        for arguments in [
            json!({"id": "a", "type": "vhost-user", "chardev": "c", "queues": 2}),
            json!({"id": "a", "type": "tap", "ifname": "t", "vnet_hdr": true, "poll-us": 1, "sndbuf": 0}),
            json!({"id": "a", "type": "hubport", "hubid": -1, "netdev": "n"}),
            json!({"id": "a", "type": "nic", "netdev": "n", "macaddr": "52:54:00:00:00:01", "vectors": 3}),
        ] {
            let spec = added(arguments.clone()).expect("it is well-formed").resolve();
            assert_eq!(spec.map(|spec| spec.members().into()), Ok(arguments));
        }
    }

    proptest! {
        #[test]
        fn no_option_text_makes_it_panic(
            name in "vhost-user|tap|hubport|nic|user|\\PC{0,4}",
            options in prop::collection::vec(("[a-z_-]{1,9}|hubid|queues|sndbuf|fds|macaddr|addr", "\\PC{0,12}|-?[0-9a-fx:.kMG]{0,20}"), 0..5),
        ) {
            let options: String = options.iter().map(|(key, value)| format!(",{key}={value}")).collect();
            if let Ok(members) = parse_keyval(&format!("{name},id=a{options}"), "type", Flags::Refused) {
                drop(NetdevAdd::visit(Visitor::new(members, Form::Keyval)).and_then(NetdevAdd::resolve));
            }
        }
    }
}
