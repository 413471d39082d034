//! `netdev_add`: the id, the type, and the members that this type has.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    AfPacket, AfXdp, Bridge, Dgram, Hubport, L2tpv3, Netmap, Nic, NicSpec, Socket, Stream, Tap, User, Vde,
    Vduse, VhostUser, VhostUserSpec, VhostVdpa, VmnetBridged, VmnetHost, VmnetShared,
};
use crate::port::PortSpec;
use crate::qapi::{Described, FromMembers, Member, QapiEnum, QapiError, Schema, Visitor, check_id};

/// The members of one type of netdev, as given.
pub trait Members: fmt::Debug + Send + Sync {
    /// The type's name in the schema.
    fn type_name(&self) -> &'static str;

    /// Checks what the members say together.
    fn resolve(&self) -> Result<NetdevKind, QapiError>;

    /// The members that `netdev_add` would need to make it again; mostly [`written`](crate::qapi::written).
    fn shown(&self) -> Map<String, Value>;
}

/// A netdev's type and members as they were given.
#[derive(Clone, Debug)]
pub struct Netdev(Arc<dyn Members>);

impl<T: Members + 'static> From<T> for Netdev {
    fn from(members: T) -> Self {
        Netdev(Arc::new(members))
    }
}

impl PartialEq for Netdev {
    fn eq(&self, other: &Netdev) -> bool {
        (self.0.type_name(), self.0.shown()) == (other.0.type_name(), other.0.shown())
    }
}

impl Eq for Netdev {}

/// The arguments of `netdev_add`, types checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevAdd {
    /// A well-formed identifier.
    pub id: String,
    /// The type and its members.
    pub netdev: Netdev,
}

/// A netdev that is ready to be opened.
#[derive(Clone, Debug)]
pub struct NetdevSpec {
    /// A well-formed identifier.
    pub id: String,
    /// What was asked for, to be shown.
    pub given: Netdev,
    /// What that means, to be opened.
    pub kind: NetdevKind,
}

/// What a netdev is to become.
#[derive(Clone, Debug)]
pub enum NetdevKind {
    /// A guest behind a socket.
    VhostUser(VhostUserSpec),
    /// A port that is opened beside control.
    Port(Arc<dyn PortSpec>),
    /// A port of a hub.
    Hubport(Hubport),
    /// The guest's side of another netdev.
    Nic(NicSpec),
}

impl NetdevAdd {
    /// Checks types, then the id, then whether this program has the type. Ends the visit.
    pub fn visit(mut visitor: Visitor) -> Result<Self, QapiError> {
        let id: String = visitor.required("id")?;
        let Type { name, visit, .. } = visitor.required("type")?;
        let netdev = match visit {
            Visit::Here(visit) => Some(visit(&mut visitor)?),
            Visit::Elsewhere(check) => check(&mut visitor).map(|()| None)?,
        };
        visitor.finish()?;
        check_id(&id)?;
        let absent = || format!("network backend '{name}' is not compiled into this binary");
        Ok(NetdevAdd { id, netdev: netdev.ok_or_else(|| QapiError::generic(absent()))? })
    }

    /// The members as they would be given over QMP, `id` and `type` among them.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("id".into(), json!(self.id));
        members.insert("type".into(), json!(self.netdev.0.type_name()));
        members.extend(self.netdev.0.shown());
        members
    }

    /// Checks what the members say together. Whether the id is taken comes before this.
    pub fn resolve(self) -> Result<NetdevSpec, QapiError> {
        let kind = self.netdev.0.resolve()?;
        Ok(NetdevSpec { id: self.id, given: self.netdev, kind })
    }
}

/// What is given decides what it means.
impl PartialEq for NetdevSpec {
    fn eq(&self, other: &NetdevSpec) -> bool {
        (&self.id, &self.given) == (&other.id, &other.given)
    }
}

impl NetdevSpec {
    /// The members that `netdev_add` would need to make it again, `id` and `type` among them. `query-netdev` shows them
    /// for backends, after the open netdev has put in what only it knows, such as a tap's name.
    pub fn members(&self) -> Map<String, Value> {
        NetdevAdd { id: self.id.clone(), netdev: self.given.clone() }.members()
    }

    /// The type as the schema names it.
    pub fn type_name(&self) -> &'static str {
        self.given.0.type_name()
    }
}

/// A type of the schema.
#[derive(Clone, Copy)]
struct Type {
    name: &'static str,
    visit: Visit,
    describe: fn(&mut Schema) -> String,
}

/// What takes a type's members.
#[derive(Clone, Copy)]
enum Visit {
    /// Of a type that this program has.
    Here(fn(&mut Visitor) -> Result<Netdev, QapiError>),
    /// Of one that it does not have; it may know the members all the same.
    Elsewhere(fn(&mut Visitor) -> Result<(), QapiError>),
}

/// A type that this program has.
const fn here<T: Members + FromMembers + Described + 'static>(name: &'static str) -> (&'static str, Type) {
    let visit = Visit::Here(|visitor| T::from_members(visitor).map(Netdev::from));
    (name, Type { name, visit, describe: T::describe })
}

/// A type that this program does not have, and whose members are checked all the same.
const fn known<T: FromMembers + Described>(name: &'static str) -> (&'static str, Type) {
    let visit = Visit::Elsewhere(|visitor| T::from_members(visitor).map(drop));
    (name, Type { name, visit, describe: T::describe })
}

/// A type that this program does not have, without members of its own.
const fn elsewhere(name: &'static str) -> (&'static str, Type) {
    let visit = Visit::Elsewhere(|_| Ok(()));
    (name, Type { name, visit, describe: <()>::describe })
}

impl QapiEnum for Type {
    const TYPE: &'static str = "NetClientDriver";
    const NAMES: &'static [(&'static str, Self)] = &[
        here::<VhostUser>("vhost-user"),
        here::<Tap>("tap"),
        here::<L2tpv3>("l2tpv3"),
        here::<Vde>("vde"),
        here::<Stream>("stream"),
        here::<Socket>("socket"),
        here::<Dgram>("dgram"),
        here::<AfXdp>("af-xdp"),
        here::<Netmap>("netmap"),
        here::<Hubport>("hubport"),
        here::<Nic>("nic"),
        here::<AfPacket>("af-packet"),
        here::<Bridge>("bridge"),
        here::<User>("user"),
        here::<VhostVdpa>("vhost-vdpa"),
        here::<Vduse>("x-vduse"),
        elsewhere("none"),
        known::<VmnetHost>("vmnet-host"),
        known::<VmnetShared>("vmnet-shared"),
        known::<VmnetBridged>("vmnet-bridged"),
    ];
}

/// The arguments of `netdev_add`.
impl Described for NetdevAdd {
    fn describe(schema: &mut Schema) -> String {
        schema.union("Netdev", |schema| {
            let members = vec![Member::of::<String>(schema, "id"), Member::of::<Type>(schema, "type")];
            (members, "type", cases(schema))
        })
    }
}

/// What `query-netdev` returns of a netdev: the arguments that would make it again, and to what it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NetdevInfo(Map<String, Value>);

impl NetdevInfo {
    /// Of a netdev with these members; `peer` is the nic or the hub port on it.
    pub fn new(mut members: Map<String, Value>, peer: Option<&str>) -> NetdevInfo {
        members.extend(peer.map(|peer| ("peer-id".to_owned(), peer.into())));
        NetdevInfo(members)
    }
}

impl Described for NetdevInfo {
    fn describe(schema: &mut Schema) -> String {
        schema.union("NetdevInfo", |schema| {
            let is_backend = |name: &&'static str| !["nic", "hubport", "none"].contains(name);
            let cases: Vec<_> = cases(schema).into_iter().filter(|(name, _)| is_backend(name)).collect();
            let kind = schema.enumeration("NetBackend", cases.iter().map(|(name, _)| *name));
            let members = vec![
                Member::of::<String>(schema, "id"),
                Member::required("type", kind),
                Member::of::<Option<String>>(schema, "peer-id"),
            ];
            (members, "type", cases)
        })
    }
}

fn cases(schema: &mut Schema) -> Vec<(&'static str, String)> {
    Type::NAMES.iter().map(|(name, kind)| (*name, (kind.describe)(schema))).collect()
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
        let hubport = json!({"id": "6s", "type": "hubport", "hubid": 1});
        assert_eq!(refused(hubport), "Parameter 'id' expects an identifier");
        let none = json!({"id": "6s", "type": "none"});
        assert_eq!(refused(none), "Parameter 'id' expects an identifier");
    }

    #[test]
    fn a_type_of_the_schema_that_is_not_here_says_so() {
        let expected = |name: &str| format!("network backend '{name}' is not compiled into this binary");
        assert_eq!(refused(json!({"id": "a", "type": "none"})), expected("none"));
        let unknown = json!({"id": "a", "type": "none", "x": 1});
        assert_eq!(refused(unknown), "Parameter 'x' is unexpected");
        let bridged = json!({"id": "a", "type": "vmnet-bridged", "ifname": "en0", "isolated": true});
        assert_eq!(refused(bridged), expected("vmnet-bridged"));
        assert_eq!(refused(json!({"id": "1", "type": "vmnet-host"})), "Parameter 'id' expects an identifier");
        assert_eq!(refused(json!({"id": "a", "type": "vmnet-host"})), expected("vmnet-host"));
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
            json!({"id": "a", "type": "l2tpv3", "src": "::1", "dst": "::1", "ipv6": true, "cookie64": false,
                "txcookie": u64::MAX, "rxcookie": 0, "txsession": 1, "rxsession": 2, "offset": 256}),
            json!({"id": "a", "type": "vde", "sock": "/s", "port": 3, "group": "g", "mode": 432}),
            json!({"id": "a", "type": "af-packet", "ifname": "v0", "queues": 2, "fanout": "lb", "promisc": false}),
            json!({"id": "a", "type": "stream", "addr": {"type": "inet", "host": "h", "port": "1", "ipv6": true},
                   "server": false, "reconnect": 1}),
            json!({"id": "a", "type": "socket", "udp": "h:1", "localaddr": ":2"}),
            json!({"id": "a", "type": "dgram", "local": {"type": "inet", "host": "", "port": "1"},
                   "remote": {"type": "inet", "host": "h", "port": "2"}}),
            json!({"id": "a", "type": "tap", "helper": "/bin/h", "br": "lan"}),
            json!({"id": "a", "type": "bridge", "br": "lan"}),
            json!({"id": "a", "type": "hubport", "hubid": -1, "netdev": "n"}),
            json!({"id": "a", "type": "nic", "netdev": "n", "macaddr": "52:54:00:00:00:01", "vectors": 3}),
        ] {
            let spec = added(arguments.clone()).expect("it is well-formed").resolve();
            assert_eq!(spec.map(|spec| spec.members().into()).ok(), Some(arguments));
        }
    }

    proptest! {
        #[test]
        fn no_option_text_makes_it_panic(
            name in "vhost-user|tap|l2tpv3|vde|hubport|nic|user|af-packet|\\PC{0,4}",
            options in prop::collection::vec(("[a-z_-]{1,9}|hubid|queues|sndbuf|fds|macaddr|addr", "\\PC{0,12}|-?[0-9a-fx:.kMG]{0,20}"), 0..5),
        ) {
            let options: String = options.iter().map(|(key, value)| format!(",{key}={value}")).collect();
            if let Ok(members) = parse_keyval(&format!("{name},id=a{options}"), "type", Flags::Refused) {
                drop(NetdevAdd::visit(Visitor::new(members, Form::Keyval)).and_then(NetdevAdd::resolve));
            }
        }
    }
}
