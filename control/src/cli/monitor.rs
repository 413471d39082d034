//! `-qmp`: where a monitor's clients come from, in the older syntax of QEMU's character devices.

use std::fmt;
use std::time::Duration;

use ringyard_drivers::stream::{Address, InetAddress};

use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{reconnect_pause, unix_path};

/// A QMP monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Where its clients come from.
    pub source: MonitorSource,
    /// Whether it writes for people: many lines for one message.
    pub pretty: bool,
}

/// Where the clients of a monitor come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorSource {
    /// They connect.
    Listen {
        /// Where to; never a vsock's.
        address: Address,
        /// Whether the run begins only with the first of them. Not as in QEMU, this is not so unless it is asked for.
        wait: bool,
    },
    /// There is one, to which we connect.
    Connect {
        /// Where to; never a vsock's.
        address: Address,
        /// The pause before it is tried again. Without it, the first attempt must succeed, and is the last.
        reconnect: Option<Duration>,
    },
    /// A descriptor that we inherit: a socket that listens, or is connected.
    Fd(i32),
    /// Stdin and stdout.
    Stdio,
}

impl MonitorConfig {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Result<MonitorConfig, QapiError> {
        let mut visitor = Visitor::new(parse_keyval(text, "address", Flags::Accepted)?, Form::Keyval);
        let place: String = visitor.required("address")?;
        let pretty = visitor.optional("pretty")?.unwrap_or(false);
        let source = match place.split_once(':') {
            None if place == "stdio" => MonitorSource::Stdio,
            Some(("fd", number)) => MonitorSource::Fd(descriptor(number)?),
            Some(("unix", path)) => {
                let address = unix_address(path, &mut visitor)?;
                of_socket(address, &mut visitor)?
            }
            Some(("tcp", place)) => {
                let address = Address::Inet(inet_address(place, &mut visitor)?);
                of_socket(address, &mut visitor)?
            }
            _ => {
                return Err(QapiError::generic(format!("'{place}' is no place for a monitor: {FORMS}")));
            }
        };
        visitor.finish()?;
        Ok(MonitorConfig { source, pretty })
    }

    /// Whether there cannot be `other` beside it.
    pub(super) fn excludes(&self, other: &MonitorConfig) -> bool {
        // Port 0 is another one each time, and a peer may want two connections.
        let of_many = match &self.source {
            MonitorSource::Listen { address, .. } => matches!(address, Address::Inet(_)),
            MonitorSource::Connect { .. } => true,
            MonitorSource::Fd(_) | MonitorSource::Stdio => false,
        };
        !of_many && self.source == other.source
    }
}

/// The option's value, which is read back as the same; without what is as it is unless something is said.
impl fmt::Display for MonitorConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            MonitorSource::Listen { address, wait } => {
                let wait = if *wait { "on" } else { "off" };
                write!(out, "{},server=on,wait={wait}", Place(address))?;
            }
            MonitorSource::Connect { address, reconnect } => {
                write!(out, "{}", Place(address))?;
                if let Some(pause) = reconnect {
                    write!(out, ",reconnect-ms={}", pause.as_millis())?;
                }
            }
            MonitorSource::Fd(number) => write!(out, "fd:{number}")?,
            MonitorSource::Stdio => write!(out, "stdio")?,
        }
        out.write_str(if self.pretty { ",pretty=on" } else { "" })
    }
}

/// An address with the members that belong to it.
struct Place<'a>(&'a Address);

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |value: bool| if value { "on" } else { "off" };
        match self.0 {
            Address::Unix { path, tight } => {
                write!(out, "unix:{}", path.replace(',', ",,"))?;
                match tight {
                    None => Ok(()),
                    Some(tight) => write!(out, ",abstract=on,tight={}", on_off(*tight)),
                }
            }
            Address::Inet(inet) => {
                let host = inet.host.replace(',', ",,");
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                write!(out, "tcp:{host}:{}", inet.port.replace(',', ",,"))?;
                for (name, value) in [("ipv4", inet.ipv4), ("ipv6", inet.ipv6)] {
                    value.map_or(Ok(()), |value| write!(out, ",{name}={}", on_off(value)))?;
                }
                inet.to.map_or(Ok(()), |to| write!(out, ",to={to}"))
            }
            Address::Vsock { cid, port } => write!(out, "vsock:{cid}:{port}"),
        }
    }
}

/// Who connects to whom.
fn of_socket(address: Address, visitor: &mut Visitor) -> Result<MonitorSource, QapiError> {
    let is_server = visitor.optional("server")?.unwrap_or(false);
    let wait: Option<bool> = visitor.optional("wait")?;
    let reconnect = reconnect_pause(visitor.optional("reconnect")?, visitor.optional("reconnect-ms")?)?;
    let incompatible = |option: &str, role: &str| {
        Err(QapiError::generic(format!("'{option}' option is incompatible with socket in {role} mode")))
    };
    match (is_server, wait, reconnect) {
        (true, wait, None) => Ok(MonitorSource::Listen { address, wait: wait.unwrap_or(false) }),
        (true, _, Some(_)) => incompatible("reconnect", "server listen"),
        (false, None, reconnect) => Ok(MonitorSource::Connect { address, reconnect }),
        (false, Some(_), _) => incompatible("wait", "client connect"),
    }
}

fn unix_address(path: &str, visitor: &mut Visitor) -> Result<Address, QapiError> {
    let is_abstract = visitor.optional("abstract")?.unwrap_or(false);
    let tight: Option<bool> = visitor.optional("tight")?;
    let tight = is_abstract.then_some(tight.unwrap_or(true));
    unix_path(path)?;
    Ok(Address::Unix { path: path.to_owned(), tight })
}

/// `HOST:PORT`, where the host may be in brackets, and the members that go with it. Nothing is looked up here.
fn inet_address(place: &str, visitor: &mut Visitor) -> Result<InetAddress, QapiError> {
    let in_brackets = place.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    let (host, port) = match in_brackets.or_else(|| place.split_once(':')) {
        Some((host, port)) if !port.is_empty() && !port.contains(':') => (host, port),
        _ => {
            let text = format!("'{place}' is not HOST:PORT; an IPv6 address stands in brackets");
            return Err(QapiError::generic(text));
        }
    };
    // Ours are never delayed; scripts may say so or not.
    visitor.optional::<bool>("delay")?;
    Ok(InetAddress {
        host: host.to_owned(),
        port: port.to_owned(),
        to: visitor.optional("to")?,
        ipv4: visitor.optional("ipv4")?,
        ipv6: visitor.optional("ipv6")?,
        ..InetAddress::default()
    })
}

fn descriptor(number: &str) -> Result<i32, QapiError> {
    let parsed = number.parse().ok().filter(|number| *number >= 0);
    parsed.ok_or_else(|| QapiError::generic(format!("Invalid file descriptor number '{number}'")))
}

const FORMS: &str =
    "write unix:PATH or tcp:HOST:PORT, with server=on,wait=off to listen there; fd:NUMBER; or stdio";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        MonitorConfig::parse(text).expect_err(text).desc
    }

    fn unix(path: &str, tight: Option<bool>) -> Address {
        Address::Unix { path: path.into(), tight }
    }

    fn tcp(host: &str, port: &str) -> Address {
        Address::Inet(InetAddress { host: host.into(), port: port.into(), ..InetAddress::default() })
    }

    #[test]
    fn each_form_is_read_and_written_back() {
        let listen = |address, wait| MonitorSource::Listen { address, wait };
        let connect = |address, ms: Option<u64>| MonitorSource::Connect {
            address,
            reconnect: ms.map(Duration::from_millis),
        };
        for (text, source, written) in [
            ("unix:/q,server=on,wait=off", listen(unix("/q", None), false), None),
            ("unix:/q,server=on,wait=on", listen(unix("/q", None), true), None),
            ("unix:/q,server", listen(unix("/q", None), false), Some("unix:/q,server=on,wait=off")),
            ("unix:/q,server,nowait", listen(unix("/q", None), false), Some("unix:/q,server=on,wait=off")),
            ("unix:a,,b:c", connect(unix("a,b:c", None), None), None),
            ("unix:/q,server=off,reconnect=0", connect(unix("/q", None), None), Some("unix:/q")),
            ("unix:/q,reconnect=2", connect(unix("/q", None), Some(2000)), Some("unix:/q,reconnect-ms=2000")),
            ("unix:n,abstract=on,tight=off", connect(unix("n", Some(false)), None), None),
            ("unix:n,abstract", connect(unix("n", Some(true)), None), Some("unix:n,abstract=on,tight=on")),
            ("tcp:h:9,server=on,wait=off", listen(tcp("h", "9"), false), None),
            ("tcp::http,server=on,wait=off", listen(tcp("", "http"), false), None),
            ("tcp:[::1]:9", connect(tcp("::1", "9"), None), None),
            (
                "tcp:h:9,nodelay,reconnect-ms=5",
                connect(tcp("h", "9"), Some(5)),
                Some("tcp:h:9,reconnect-ms=5"),
            ),
            ("fd:7", MonitorSource::Fd(7), None),
            ("stdio", MonitorSource::Stdio, None),
        ] {
            let config = MonitorConfig::parse(text).expect(text);
            assert_eq!(config, MonitorConfig { source, pretty: false }, "{text}");
            assert_eq!(config.to_string(), written.unwrap_or(text));
            let pretty = MonitorConfig::parse(&format!("{text},pretty=on")).expect(text);
            assert_eq!(MonitorConfig::parse(&pretty.to_string()), Ok(pretty));
        }
    }

    #[test]
    fn members_of_an_internet_address_are_kept() {
        let text = "tcp:h:9,ipv4=on,ipv6=off,to=11,server=on,wait=off";
        let config = MonitorConfig::parse(text).expect(text);
        assert_eq!(MonitorConfig::parse(&config.to_string()), Ok(config));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("", "Parameter 'address' is missing"),
            ("pty", "'pty' is no place for a monitor"),
            ("udp:h:9", "'udp:h:9' is no place for a monitor"),
            ("unix:", "UNIX socket path is empty or contains a NUL"),
            ("tcp:9", "'9' is not HOST:PORT"),
            ("tcp:h:", "'h:' is not HOST:PORT"),
            ("tcp:::1:9", "'::1:9' is not HOST:PORT; an IPv6 address stands in brackets"),
            ("fd:x", "Invalid file descriptor number 'x'"),
            ("fd:-1", "Invalid file descriptor number '-1'"),
            ("fd:7,server=on", "Parameter 'server' is unexpected"),
            ("stdio,x=1", "Parameter 'x' is unexpected"),
            ("unix:/q,ipv4=on", "Parameter 'ipv4' is unexpected"),
            ("unix:/q,wait=off", "'wait' option is incompatible with socket in client connect mode"),
            (
                "unix:/q,server=on,reconnect=1",
                "'reconnect' option is incompatible with socket in server listen mode",
            ),
            ("unix:/q,reconnect=1,reconnect-ms=1", "'reconnect' and 'reconnect-ms' are mutually exclusive"),
            ("unix:/q,reconnect=-1", "'reconnect' must be in range [0, 4294967295]"),
        ] {
            assert!(refused(text).starts_with(why), "{text}: {}", refused(text));
        }
    }
}
