//! `stream`: frames over a stream socket, each behind its length.

use std::sync::Arc;

use ringyard_drivers::stream::{Address, InetAddress};
use serde_json::{Map, Value};

use super::chardev::reconnect_pause;
use super::netdev::{Members, NetdevKind};
use super::{FdRef, InetSocketAddress, SocketAddress, UnixSocketAddress, VsockSocketAddress};
use crate::ports::{StreamSource, StreamSpec};
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `stream` netdev, as given.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Stream as "NetdevStreamOptions" {
        /// Where to listen, or to connect to.
        pub addr: SocketAddress,
        /// Whether we listen.
        pub server: Option<bool>,
        /// Seconds between attempts to connect; 0: there is one attempt.
        pub reconnect: Option<i64>,
        /// The same in milliseconds.
        pub reconnect_ms: Option<i64>,
    }
}

impl Members for Stream {
    fn type_name(&self) -> &'static str {
        "stream"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(StreamSpec { source: self.source()? })))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl Stream {
    fn source(&self) -> Result<StreamSource, QapiError> {
        let server = self.server.unwrap_or(false);
        if server && (self.reconnect.is_some() || self.reconnect_ms.is_some()) {
            return Err(QapiError::generic(
                "'reconnect' and 'reconnect-ms' options are incompatible with socket in server mode",
            ));
        }
        let reconnect = reconnect_pause(self.reconnect, self.reconnect_ms)?;
        let address = match self.addr.clone() {
            SocketAddress::Inet(address) => Address::Inet(inet(address)),
            SocketAddress::Unix(UnixSocketAddress { path, is_abstract, tight }) => {
                let is_abstract = is_abstract.unwrap_or(false);
                Address::Unix { path, tight: is_abstract.then_some(tight.unwrap_or(true)) }
            }
            SocketAddress::Vsock(VsockSocketAddress { cid, port }) => Address::Vsock { cid, port },
            // What is wrong with it is shown later, as with every other address.
            SocketAddress::Fd(fd) => {
                return Ok(match FdRef::parse(&fd.str) {
                    Ok(fd) => StreamSource::Fd { fd, server },
                    Err(error) => StreamSource::Unusable(error.desc),
                });
            }
        };
        Ok(match server {
            true => StreamSource::Listen(address),
            false => StreamSource::Connect { address, reconnect },
        })
    }
}

fn inet(address: InetSocketAddress) -> InetAddress {
    let InetSocketAddress { host, port, numeric, to, ipv4, ipv6, keep_alive, mptcp } = address;
    InetAddress {
        host,
        port,
        numeric: numeric.unwrap_or(false),
        to,
        ipv4,
        ipv6,
        keep_alive: keep_alive.unwrap_or(false),
        mptcp: mptcp.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, Visitor, parse_keyval};
    use serde_json::json;
    use std::time::Duration;

    fn source(text: &str) -> Result<StreamSource, String> {
        let members = parse_keyval(text, "type", Flags::Refused).expect("it is well-formed");
        let mut visitor = Visitor::new(members, Form::Keyval);
        let visited = visitor.required::<String>("type").and_then(|_| visitor.whole());
        visited.and_then(|stream: Stream| stream.source()).map_err(|error| error.desc)
    }

    #[test]
    fn options_of_the_command_line_become_sources() {
        let unix = |path: &str, tight| Address::Unix { path: path.into(), tight };
        let connect = |address, ms: u64| StreamSource::Connect {
            address,
            reconnect: Some(Duration::from_millis(ms)).filter(|pause| !pause.is_zero()),
        };
        for (text, expected) in [
            ("addr.type=unix,addr.path=p,server=on", StreamSource::Listen(unix("p", None))),
            ("addr.type=unix,addr.path=p", connect(unix("p", None), 0)),
            ("addr.type=unix,addr.path=p,reconnect=2", connect(unix("p", None), 2000)),
            ("addr.type=unix,addr.path=p,reconnect-ms=20", connect(unix("p", None), 20)),
            ("addr.type=unix,addr.path=p,addr.abstract=off", connect(unix("p", None), 0)),
            ("addr.type=unix,addr.path=p,addr.abstract=on,reconnect=0", connect(unix("p", Some(true)), 0)),
            (
                "addr.type=unix,addr.path=p,addr.abstract=on,addr.tight=off",
                connect(unix("p", Some(false)), 0),
            ),
            (
                "addr.type=vsock,addr.cid=2,addr.port=9",
                connect(Address::Vsock { cid: "2".into(), port: "9".into() }, 0),
            ),
            ("addr.type=fd,addr.str=7,server=on", StreamSource::Fd { fd: FdRef::Number(7), server: true }),
            (
                "addr.type=fd,addr.str=7x",
                StreamSource::Unusable("Invalid file descriptor number '7x'".into()),
            ),
        ] {
            assert_eq!(source(&format!("stream,{text}")), Ok(expected), "{text}");
        }
    }

    #[test]
    fn reconnecting_is_for_clients_and_said_once() {
        let refused =
            |more: &str| source(&format!("stream,addr.type=unix,addr.path=p,{more}")).expect_err(more);
        let twice = "'reconnect' and 'reconnect-ms' are mutually exclusive";
        assert_eq!(refused("reconnect=1,reconnect-ms=1"), twice);
        let server = "'reconnect' and 'reconnect-ms' options are incompatible with socket in server mode";
        for more in ["reconnect=1", "reconnect-ms=0", "reconnect=1,reconnect-ms=1"] {
            assert_eq!(refused(&format!("server=on,{more}")), server);
        }
        assert!(source("stream,addr.type=unix,addr.path=p,reconnect=-1").is_err());
    }

    #[test]
    fn every_member_of_an_internet_address_is_passed_on() {
        let address = InetAddress {
            host: "h".into(),
            port: "1".into(),
            numeric: true,
            to: Some(9),
            ipv4: Some(false),
            ipv6: Some(true),
            keep_alive: true,
            mptcp: true,
        };
        let text = "stream,addr.type=inet,addr.host=h,addr.port=1,addr.numeric=on,addr.to=9,addr.ipv4=off,addr.ipv6=on,\
                    addr.keep-alive=on,addr.mptcp=on,server=on";
        assert_eq!(source(text), Ok(StreamSource::Listen(Address::Inet(address))));
    }

    #[test]
    fn what_is_shown_is_what_was_given() {
        let members = json!({"addr": {"type": "unix", "path": "p"}, "server": false, "reconnect-ms": 5});
        let Value::Object(given) = members.clone() else { unreachable!("it is one") };
        let stream: Stream = Visitor::new(given, Form::Json).whole().expect("it is well-formed");
        assert_eq!(Value::Object(stream.shown()), members);
    }
}
