//! IPv4 addresses and ports as `dgram` and `socket` have them written: with the freedoms of C, and errors in QEMU's words.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, ToSocketAddrs};

/// The address that `host` and `port` name. A name is looked up, which may take its time.
///
/// Errors: the text for the user; of the host first.
pub fn resolve(host: &str, port: &str) -> Result<SocketAddrV4, String> {
    let address = match host.bytes().next() {
        None => Ipv4Addr::UNSPECIFIED,
        Some(b'0'..=b'9') => {
            literal(host).ok_or_else(|| format!("host address '{host}' is not a valid IPv4 address"))?
        }
        Some(_) => look_up(host).ok_or_else(|| format!("can't resolve host address '{host}'"))?,
    };
    let number = leading_number(port).ok_or_else(|| format!("port number '{port}' is invalid"))?;
    // As C puts it into 16 bits.
    Ok(SocketAddrV4::new(address, number as u16))
}

/// The same of `host:port`; the host ends at the first colon.
pub fn resolve_pair(pair: &str) -> Result<SocketAddrV4, String> {
    let (host, port) = pair
        .split_once(':')
        .ok_or_else(|| format!("host address '{pair}' doesn't contain ':' separating host from port"))?;
    resolve(host, port)
}

/// The address that `text` is, in any form that C's `inet_aton` takes: one to four numbers, decimal, octal or hexadecimal,
/// of which the last one fills what is left.
pub fn literal(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    if bytes.len() > 3 || bytes.iter().any(|&byte| byte > 0xff) {
        return None;
    }
    let bits = 32 - 8 * bytes.len();
    if last >> bits != 0 {
        return None;
    }
    let front = bytes.iter().fold(0, |front, byte| front << 8 | byte);
    Some(Ipv4Addr::from_bits((front << bits | last) as u32))
}

fn look_up(host: &str) -> Option<Ipv4Addr> {
    // An address of IPv6 is no name.
    if host.contains(':') {
        return None;
    }
    let mut found = (host, 0).to_socket_addrs().ok()?;
    found.find_map(|address| match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// All of `text` as a number of C, without a sign.
fn number(text: &str) -> Option<u64> {
    let (radix, digits) = radix(text);
    let first = digits.chars().next()?;
    first.is_digit(radix).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// The number that `text` begins with, as C's `strtol` finds it.
fn leading_number(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(|blank: char| blank.is_ascii_whitespace() || blank == '\x0b');
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (mut radix, mut digits) = radix(text);
    if radix == 16 && !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        // "0x" alone is a zero with something behind it.
        (radix, digits) = (10, text);
    }
    let end = digits.find(|next: char| !next.is_digit(radix)).unwrap_or(digits.len());
    let magnitude = i64::from_str_radix(&digits[..end], radix).ok()?;
    Some(sign * magnitude)
}

fn radix(text: &str) -> (u32, &str) {
    match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', _, ..] => (8, text),
        _ => (10, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_as_c_reads_them() {
        for (host, port, address) in [
            ("", "13", "0.0.0.0:13"),
            ("127.0.0.1", "1", "127.0.0.1:1"),
            ("127.1", "0x50", "127.0.0.1:80"),
            ("0x7f.0.1", "013", "127.0.0.1:11"),
            ("1", " 80", "0.0.0.1:80"),
            ("255.255.255.255", "+13", "255.255.255.255:13"),
            ("4294967295", "80x", "255.255.255.255:80"),
            ("10.070", "70000", "10.0.0.56:4464"),
            ("10.0.65535", "-1", "10.0.255.255:65535"),
            ("localhost", "0x", "127.0.0.1:0"),
        ] {
            let found = resolve(host, port).map(|found| found.to_string());
            assert_eq!(found.as_deref(), Ok(address), "{host} {port}");
        }
        assert_eq!(resolve_pair("1:2:3").map(|found| found.to_string()), Ok("0.0.0.1:2".into()));
        assert_eq!(resolve_pair(":5").map(|found| found.to_string()), Ok("0.0.0.0:5".into()));
    }

    #[test]
    fn what_is_wrong_is_said_in_qemus_words_and_of_the_host_first() {
        for host in
            ["1.2.3.4.5", "256.1.1.1", "1.", "1..2", "1.2.3.256", "08", "1x", "4294967296", "0x", "1.+2"]
        {
            let expected = format!("host address '{host}' is not a valid IPv4 address");
            assert_eq!(resolve(host, "x"), Err(expected));
        }
        for host in ["::1", "no.such.host.invalid", "-"] {
            assert_eq!(resolve(host, "x"), Err(format!("can't resolve host address '{host}'")));
        }
        for port in ["", "abc", "99999999999999999999", "-", "x1", " "] {
            assert_eq!(resolve("1.2.3.4", port), Err(format!("port number '{port}' is invalid")));
        }
        let text = "host address '5' doesn't contain ':' separating host from port";
        assert_eq!(resolve_pair("5"), Err(text.into()));
    }
}
