//! `vmnet-host`, `vmnet-shared`, `vmnet-bridged`: interfaces of macOS's vmnet framework. The schema has them everywhere, with
//! their members; a switch on Linux has none of them.

use crate::qapi::arguments;

arguments! {
    /// The members of a `vmnet-host` netdev: guests, and the host.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct VmnetHost as "NetdevVmnetHostOptions" {
        /// The first address that DHCP gives away, which is the host's; with `end-address` and `subnet-mask`, or none of them.
        pub start_address: Option<String>,
        /// The last address.
        pub end_address: Option<String>,
        /// The mask.
        pub subnet_mask: Option<String>,
        /// Keeps the interface from others of its network.
        pub isolated: Option<bool>,
        /// The network, without DHCP.
        pub net_uuid: Option<String>,
    }
}

arguments! {
    /// The members of a `vmnet-shared` netdev: guests, the host, and the world by address translation.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct VmnetShared as "NetdevVmnetSharedOptions" {
        /// As [`VmnetHost::start_address`].
        pub start_address: Option<String>,
        /// The last address.
        pub end_address: Option<String>,
        /// The mask.
        pub subnet_mask: Option<String>,
        /// Keeps the interface from others of its network.
        pub isolated: Option<bool>,
        /// The prefix of IPv6 addresses.
        pub nat66_prefix: Option<String>,
    }
}

arguments! {
    /// The members of a `vmnet-bridged` netdev: guests on the network of an interface of the host.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct VmnetBridged as "NetdevVmnetBridgedOptions" {
        /// The interface.
        pub ifname: String,
        /// Keeps the interface from others of its network.
        pub isolated: Option<bool>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Form, Visitor};
    use serde_json::{Value, json};

    fn visitor(members: Value) -> Visitor {
        let Value::Object(members) = members else { panic!("the test needs an object") };
        Visitor::new(members, Form::Json)
    }

    #[test]
    fn every_member_of_the_schema_is_known_by_its_name() {
        let range = json!({"start-address": "192.168.0.1", "end-address": "192.168.0.9", "subnet-mask": "255.255.255.0"});
        let with = |name: &str, value: Value| {
            let mut members = range.clone();
            members[name] = value;
            members["isolated"] = json!(true);
            visitor(members)
        };
        let host = with("net-uuid", json!("6fe6b7d7-2d3a-4a4f-a3f5-7f4f8f1c9b11")).whole();
        assert!(host.is_ok_and(|members: VmnetHost| members.net_uuid.is_some()));
        let shared = with("nat66-prefix", json!("fd00::")).whole();
        assert!(shared.is_ok_and(|members: VmnetShared| members.isolated == Some(true)));
        let error = visitor(json!({})).whole::<VmnetBridged>().map_err(|error| error.desc);
        assert_eq!(error, Err("Parameter 'ifname' is missing".into()));
    }
}
