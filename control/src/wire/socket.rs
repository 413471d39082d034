//! `socket`: the older form of `stream` and `dgram`, in which addresses are texts.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::FdRef;
use super::netdev::{Members, NetdevKind};
use crate::ports::SocketSpec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `socket` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Socket as "NetdevSocketOptions" {
        /// An open socket.
        pub fd: Option<String>,
        /// `[host]:port` to listen at.
        pub listen: Option<String>,
        /// `host:port` to connect to.
        pub connect: Option<String>,
        /// `group:port` of a multicast group.
        pub mcast: Option<String>,
        /// The interface's address for `mcast`, or `host:port` of our side of `udp`.
        pub localaddr: Option<String>,
        /// `host:port` of the other side.
        pub udp: Option<String>,
    }
}

impl Members for Socket {
    fn type_name(&self) -> &'static str {
        "socket"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(self.spec()?)))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl Socket {
    /// Addresses are read when it is opened: they may have to be looked up.
    fn spec(&self) -> Result<SocketSpec, QapiError> {
        let Socket { fd, listen, connect, mcast, localaddr, udp } = self;
        let forms = [fd, listen, connect, mcast, udp];
        if forms.iter().filter(|form| form.is_some()).count() != 1 {
            return refused("exactly one of listen=, connect=, mcast= or udp= is required");
        }
        if localaddr.is_some() && mcast.is_none() && udp.is_none() {
            return refused("localaddr= is only valid with mcast= or udp=");
        }
        if let Some(fd) = fd {
            return FdRef::parse(fd).map(SocketSpec::Fd);
        }
        if let Some(pair) = listen {
            return Ok(SocketSpec::Listen(pair.clone()));
        }
        if let Some(pair) = connect {
            return Ok(SocketSpec::Connect(pair.clone()));
        }
        if let Some(group) = mcast {
            return Ok(SocketSpec::Multicast { group: group.clone(), interface: localaddr.clone() });
        }
        match (udp, localaddr) {
            (Some(remote), Some(local)) => {
                Ok(SocketSpec::Udp { remote: remote.clone(), local: local.clone() })
            }
            _ => refused("localaddr= is mandatory with udp="),
        }
    }
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Form, Visitor};
    use serde_json::json;

    fn spec(members: Value) -> Result<SocketSpec, String> {
        let Value::Object(members) = members else { panic!("the test needs an object") };
        let socket = Visitor::new(members, Form::Json).whole::<Socket>().expect("these are texts");
        socket.spec().map_err(|error| error.desc)
    }

    #[test]
    fn there_is_exactly_one_form() {
        let text = "exactly one of listen=, connect=, mcast= or udp= is required";
        for members in [
            json!({}),
            json!({"localaddr": "a"}),
            json!({"fd": "x", "listen": "y"}),
            json!({"listen": ":1", "connect": ":1", "localaddr": "a"}),
            json!({"mcast": "a", "udp": "b", "localaddr": "c"}),
        ] {
            assert_eq!(spec(members.clone()), Err(text.into()), "{members}");
        }
    }

    #[test]
    fn local_address_is_for_datagrams_and_needed_for_udp() {
        for form in ["fd", "listen", "connect"] {
            let mut members = json!({"localaddr": "a"});
            members[form] = json!("7x");
            assert_eq!(spec(members), Err("localaddr= is only valid with mcast= or udp=".into()));
        }
        assert_eq!(spec(json!({"udp": "a"})), Err("localaddr= is mandatory with udp=".into()));
        let udp = SocketSpec::Udp { remote: "a".into(), local: "b".into() };
        assert_eq!(spec(json!({"udp": "a", "localaddr": "b"})), Ok(udp));
        let multicast = |interface| SocketSpec::Multicast { group: "a".into(), interface };
        assert_eq!(spec(json!({"mcast": "a"})), Ok(multicast(None)));
        assert_eq!(spec(json!({"mcast": "a", "localaddr": "b"})), Ok(multicast(Some("b".into()))));
    }

    #[test]
    fn descriptor_is_a_number_or_a_name() {
        assert_eq!(spec(json!({"fd": "7"})), Ok(SocketSpec::Fd(FdRef::Number(7))));
        assert_eq!(spec(json!({"fd": ""})), Ok(SocketSpec::Fd(FdRef::Name(String::new()))));
        assert_eq!(spec(json!({"fd": "7x"})), Err("Invalid file descriptor number '7x'".into()));
    }
}
