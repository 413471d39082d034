//! `SocketAddress`: where a socket is, as several types of netdev have it among their members.
//!
//! It is the flat form: the members of its kind stand beside `type`. Nothing is looked up here.

use crate::qapi::{options, union};

union! {
    /// Where a socket is.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum SocketAddress as "SocketAddress" by "SocketAddressType" {
        /// Of IPv4 or IPv6.
        "inet" => Inet(InetSocketAddress),
        /// In the file system, or an abstract one.
        "unix" => Unix(UnixSocketAddress),
        /// Of a virtual machine, or of the host for its machines.
        "vsock" => Vsock(VsockSocketAddress),
        /// Open already.
        "fd" => Fd(FdSocketAddress),
    }
}

options! {
    /// An internet address. Members beyond host and port say how to find it and what the socket shall be like.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct InetSocketAddress as "InetSocketAddress" {
        /// A name or an address; empty: every one of this host.
        pub host: String,
        /// A number or a service's name.
        pub port: String,
        /// Whether host and port are numbers for sure, so that nothing is looked up.
        pub numeric: Option<bool>,
        /// The last port to try, where a server may have any from `port` on.
        pub to: Option<u16>,
        /// Whether IPv4 may be used.
        pub ipv4: Option<bool>,
        /// Whether IPv6 may be used.
        pub ipv6: Option<bool>,
        /// Whether the kernel looks after idle connections; of a client only.
        pub keep_alive: Option<bool>,
        /// Whether to use multipath TCP.
        pub mptcp: Option<bool>,
    }
}

options! {
    /// A unix socket's address.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct UnixSocketAddress as "UnixSocketAddress" {
        /// The path, or the abstract name without its leading zero.
        pub path: String,
        /// Whether the name is abstract.
        pub is_abstract: Option<bool> = "abstract",
        /// Whether an abstract name ends where it ends; else zeros fill its address up. The default is that it does.
        pub tight: Option<bool>,
    }
}

options! {
    /// A vsock's address.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct VsockSocketAddress as "VsockSocketAddress" {
        /// The machine's number.
        pub cid: String,
        /// The port's number.
        pub port: String,
    }
}

options! {
    /// A descriptor instead of an address.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct FdSocketAddress as "FdSocketAddress" {
        /// A number, or a name of `getfd`.
        pub str: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, Visitor, parse_keyval};
    use serde_json::{Value, json};

    fn visited(address: Value) -> Result<SocketAddress, String> {
        let Value::Object(members) = json!({"addr": address}) else { unreachable!("it is one") };
        Visitor::new(members, Form::Json).required("addr").map_err(|error| error.desc)
    }

    #[test]
    fn texts_for_what_is_wrong_with_an_address_are_those_of_qemu() {
        let inet = |name: &str, value: Value| {
            let mut address = json!({"type": "inet", "host": "a", "port": "1"});
            address[name] = value;
            address
        };
        for (address, text) in [
            (json!(1), "Invalid parameter type for 'addr', expected: object"),
            (json!({}), "Parameter 'addr.type' is missing"),
            (json!({"type": "bogus"}), "Parameter 'type' does not accept value 'bogus'"),
            (json!({"type": "inet", "port": "1"}), "Parameter 'addr.host' is missing"),
            (inet("port", json!(1)), "Invalid parameter type for 'addr.port', expected: string"),
            (inet("to", json!(70000)), "Parameter 'to' expects uint16_t"),
            (inet("to", json!("x")), "Parameter 'addr.to' expects uint64"),
            (inet("keep-alive", json!(2)), "Invalid parameter type for 'addr.keep-alive', expected: boolean"),
            (inet("mptcp", json!(1)), "Invalid parameter type for 'addr.mptcp', expected: boolean"),
            (inet("path", json!("p")), "Parameter 'addr.path' is unexpected"),
            (json!({"type": "unix"}), "Parameter 'addr.path' is missing"),
            (json!({"type": "vsock", "port": "1"}), "Parameter 'addr.cid' is missing"),
            (json!({"type": "fd"}), "Parameter 'addr.str' is missing"),
        ] {
            assert_eq!(visited(address.clone()), Err(text.into()), "{address}");
        }
    }

    #[test]
    fn address_is_shown_as_it_was_given() {
        for address in [
            json!({"type": "inet", "host": "::1", "port": "ssh"}),
            json!({"type": "inet", "host": "h", "port": "1", "numeric": false, "to": 9, "ipv4": true,
                   "ipv6": false, "keep-alive": true, "mptcp": false}),
            json!({"type": "unix", "path": "p"}),
            json!({"type": "unix", "path": "p", "abstract": true, "tight": false}),
            json!({"type": "vsock", "cid": "2", "port": "1"}),
            json!({"type": "fd", "str": "name"}),
        ] {
            let shown = serde_json::to_value(visited(address.clone()).expect("it is well-formed"));
            assert_eq!(shown.expect("it has string keys"), address);
        }
    }

    #[test]
    fn command_line_spells_an_address_with_dots() {
        let text = "stream,addr.type=inet,addr.host=::1,addr.port=9,addr.to=12,addr.ipv6=on";
        let members = parse_keyval(text, "type", Flags::Refused).expect("it is well-formed");
        let address = Visitor::new(members, Form::Keyval).required("addr");
        let expected = InetSocketAddress {
            host: "::1".into(),
            port: "9".into(),
            to: Some(12),
            ipv6: Some(true),
            ..InetSocketAddress::default()
        };
        assert_eq!(address, Ok(SocketAddress::Inet(expected)));
    }
}
