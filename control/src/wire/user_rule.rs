//! The rules by which a `user` netdev forwards: `[tcp|udp]:[host]:port-[guest]:port`, and `[tcp]:[server]:port-TARGET`.
//!
//! They are read as QEMU 7.2 reads them, numbers and addresses with C's freedoms; `unix:PATH-[guest]:port` is of 10.2.

use std::net::Ipv4Addr;

use ringyard_drivers::ipv4;
use ringyard_drivers::user::{Device, GuestForward, GuestTarget, HostEnd, HostForward};

use super::words::words;
use crate::qapi::QapiError;

/// A path of a unix socket has fewer bytes.
const UNIX_PATH_LEN: usize = 108;

/// Reads a rule for what comes in on the host.
pub fn host_forward(rule: &str) -> Result<HostForward, QapiError> {
    let refused = |reason| QapiError::generic(format!("Invalid host forwarding rule '{rule}' ({reason})"));
    let (from, rest) = host_end(rule).map_err(refused)?;
    let (guest, port) = rest.split_once(':').ok_or_else(|| refused("Missing guest address"))?;
    let guest = address(guest).ok_or_else(|| refused("Bad guest address"))?;
    let guest_port = port_of(port, 0).filter(|&port| port > 0).ok_or_else(|| refused("Bad guest port"))?;
    Ok(HostForward { rule: rule.to_owned(), from, guest, guest_port })
}

/// Where the host listens, and the rest of the rule; or why it is none.
fn host_end(rule: &str) -> Result<(HostEnd, &str), &'static str> {
    let (protocol, rest) = rule.split_once(':').ok_or("No : separators")?;
    let make = match protocol {
        "" | "tcp" => HostEnd::Tcp,
        "udp" => HostEnd::Udp,
        "unix" => return unix_end(rest),
        _ => return Err("Bad protocol name"),
    };
    let (host, rest) = rest.split_once(':').ok_or("Missing : separator")?;
    let host = address(host).ok_or("Bad host address")?;
    let (port, rest) = rest.split_once('-').ok_or("Bad host port separator")?;
    let port = port_of(port, 0).ok_or("Bad host port")?;
    Ok((make(host, port), rest))
}

/// The last `-` ends the path, which may have others.
fn unix_end(rest: &str) -> Result<(HostEnd, &str), &'static str> {
    let (path, rest) = rest.rsplit_once('-').ok_or("Missing - separator")?;
    if path.is_empty() {
        return Err("Missing unix socket path");
    }
    if !path.starts_with('/') {
        return Err("unix socket path must be absolute");
    }
    if path.len() >= UNIX_PATH_LEN {
        return Err("Unix socket path is too long");
    }
    Ok((HostEnd::Unix(path.to_owned()), rest))
}

/// Reads what `hostfwd_remove` names: `[tcp|udp]:[host]:port`.
pub fn host_forward_end(text: &str) -> Option<HostEnd> {
    let (protocol, rest) = text.split_once(':')?;
    let (host, port) = rest.split_once(':')?;
    let (number, end) = leading_number(port, 10);
    // What is no port is no rule either.
    let port = i32::try_from(number).ok().filter(|_| end.is_empty() && !port.is_empty())? as u16;
    let host = address(host)?;
    match protocol {
        "" | "tcp" => Some(HostEnd::Tcp(host, port)),
        "udp" => Some(HostEnd::Udp(host, port)),
        _ => None,
    }
}

/// Reads a rule for what guests connect to.
pub fn guest_forward(rule: &str) -> Result<GuestForward, QapiError> {
    let parsed = || {
        let (protocol, rest) = rule.split_once(':')?;
        let (server, rest) = rest.split_once(':')?;
        let (port, target) = rest.split_once('-')?;
        let port = port_of(port, 10).filter(|&port| port > 0)?;
        let server = address(server)?;
        matches!(protocol, "" | "tcp").then_some((server, port, target))
    };
    let refused = || QapiError::generic(format!("Invalid guest forwarding rule '{rule}'"));
    let (server, port, target) = parsed().ok_or_else(refused)?;
    let target = match target.strip_prefix("cmd:") {
        Some(command) => GuestTarget::Command(words(command).ok_or_else(refused)?),
        None => GuestTarget::Device(device(target)),
    };
    Ok(GuestForward { rule: rule.to_owned(), server, port, target })
}

/// A device as QEMU's older syntax for chardevs has it; those that a rule can use.
fn device(text: &str) -> Device {
    let tcp = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Device::Tcp(host.to_owned(), port.parse().ok()?))
    };
    match text.split_once(':') {
        Some(("unix", path)) => Device::Unix(path.to_owned()),
        Some(("tcp", rest)) => tcp(rest).unwrap_or(Device::Unknown),
        None if text == "null" => Device::Null,
        _ => Device::Unknown,
    }
}

/// An address as C's `inet_aton` reads it, which looks no further than a blank; none at all is 0.0.0.0.
fn address(text: &str) -> Option<Ipv4Addr> {
    if text.is_empty() { Some(Ipv4Addr::UNSPECIFIED) } else { literal(text) }
}

/// As [`ipv4::literal`], up to the first blank.
pub(super) fn literal(text: &str) -> Option<Ipv4Addr> {
    ipv4::literal(text.split(|next: char| next.is_ascii_whitespace()).next()?)
}

fn port_of(text: &str, radix: u32) -> Option<u16> {
    let (number, rest) = leading_number(text, radix);
    u16::try_from(number).ok().filter(|_| rest.is_empty())
}

/// The number that `text` begins with as C's `strtol` finds it, 0 if there is none, and what is behind it. Radix 0: as its
/// prefix says.
pub(super) fn leading_number(text: &str, radix: u32) -> (i64, &str) {
    let trimmed = text.trim_start_matches(|next: char| next.is_ascii_whitespace() || next == '\x0b');
    let (sign, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (-1, &trimmed[1..]),
        Some(b'+') => (1, &trimmed[1..]),
        _ => (1, trimmed),
    };
    let (radix, digits) = match (radix, unsigned.as_bytes()) {
        (0, [b'0', b'x' | b'X', next, ..]) if next.is_ascii_hexdigit() => (16, &unsigned[2..]),
        (0, [b'0', ..]) => (8, unsigned),
        (0, _) => (10, unsigned),
        _ => (radix, unsigned),
    };
    let len = digits.bytes().take_while(|&byte| char::from(byte).is_digit(radix)).count();
    if len == 0 {
        return (0, text);
    }
    let magnitude = i64::from_str_radix(&digits[..len], radix).unwrap_or(i64::MAX);
    (sign * magnitude, &digits[len..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: &str) -> String {
        host_forward(rule).expect_err(rule).desc
    }

    /// Each of these was asked of QEMU 7.2; the last ones are of 10.2.
    #[test]
    fn bad_host_rules_are_refused_with_qemus_reasons() {
        for (rule, reason) in [
            ("", "No : separators"),
            ("a:", "Bad protocol name"),
            ("tcp:", "Missing : separator"),
            ("tcp:x:", "Bad host address"),
            ("tcp::x", "Bad host port separator"),
            ("tcp::x-", "Bad host port"),
            ("tcp::70000-:1", "Bad host port"),
            ("tcp::7777 -:22", "Bad host port"),
            ("tcp::0x1234-", "Missing guest address"),
            ("tcp::7777-x:1", "Bad guest address"),
            ("tcp::-1-:1", "Bad guest address"),
            ("tcp::010-:x", "Bad guest port"),
            ("tcp::7777-:0", "Bad guest port"),
            ("tcp::7777-:22x", "Bad guest port"),
            ("unix:/x", "Missing - separator"),
            ("unix:-:1", "Missing unix socket path"),
            ("unix:x-:1", "unix socket path must be absolute"),
        ] {
            let expected = format!("Invalid host forwarding rule '{rule}' ({reason})");
            assert_eq!(refused(rule), expected);
        }
        let long = format!("unix:/{}-:1", "a".repeat(107));
        assert!(refused(&long).ends_with("(Unix socket path is too long)"));
    }

    #[test]
    fn host_rules_have_the_freedoms_of_c() {
        let any = Ipv4Addr::UNSPECIFIED;
        for (rule, from, guest, port) in [
            ("tcp::2222-:22", HostEnd::Tcp(any, 2222), any, 22),
            ("::-:22", HostEnd::Tcp(any, 0), any, 22),
            (
                "udp:127.1:0x35-10.0.2.15:053",
                HostEnd::Udp([127, 0, 0, 1].into(), 53),
                [10, 0, 2, 15].into(),
                43,
            ),
            ("tcp:: 7777-:22", HostEnd::Tcp(any, 7777), any, 22),
            ("unix:/no/such-dir/s-1.2.3.4:1", HostEnd::Unix("/no/such-dir/s".into()), [1, 2, 3, 4].into(), 1),
        ] {
            let expected = HostForward { rule: rule.into(), from, guest, guest_port: port };
            assert_eq!(host_forward(rule), Ok(expected));
        }
        assert_eq!(host_forward_end("udp:1.2.3.4:5"), Some(HostEnd::Udp([1, 2, 3, 4].into(), 5)));
        assert_eq!(host_forward_end(":: 5"), Some(HostEnd::Tcp(any, 5)));
        for wrong in ["", "tcp", "tcp:", "tcp::x", "tcp::5x", "sctp::5", "tcp:x:5"] {
            assert_eq!(host_forward_end(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn guest_rules_name_a_program_or_a_device() {
        let target =
            |rule: &str| guest_forward(rule).map(|forward| (forward.server, forward.port, forward.target));
        let command = GuestTarget::Command(vec!["/bin/cat".into(), "a b-c".into()]);
        let server = Ipv4Addr::new(10, 0, 2, 100);
        assert_eq!(target("tcp:10.0.2.100: 80-cmd:/bin/cat 'a b-c'"), Ok((server, 80, command)));
        for (text, device) in [
            ("null", Device::Null),
            ("unix:/a:b", Device::Unix("/a:b".into())),
            ("tcp:host:81", Device::Tcp("host".into(), 81)),
            ("tcp:[::1]:81", Device::Tcp("::1".into(), 81)),
            ("tcp:81", Device::Unknown),
            ("tcp:h:1,server=on", Device::Unknown),
            ("bogus", Device::Unknown),
        ] {
            let expected = (server, 80, GuestTarget::Device(device));
            assert_eq!(target(&format!(":10.0.2.100:080-{text}")), Ok(expected), "{text}");
        }
        for rule in ["", "udp:", "tcp::0-null", "tcp::x-null", "tcp:x:80-null", "tcp::80", "tcp::80-cmd:a 'b"]
        {
            let expected = format!("Invalid guest forwarding rule '{rule}'");
            assert_eq!(guest_forward(rule).expect_err(rule).desc, expected);
        }
    }
}
