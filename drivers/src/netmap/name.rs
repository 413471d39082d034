//! How a port is named: `netmap:em0`, `vale0:a`, or plain `em0`, and behind it which of its rings, as netmap(4) and
//! libnetmap's port specifications have it.

use crate::sys::netmap::NAME_LEN;

/// A port's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortName {
    /// What the kernel knows it by: without `netmap:`, with a pipe's `{1`.
    pub(super) kernel: String,
    /// The rings that are wanted.
    pub(super) rings: Rings,
    /// Nobody else may have them (`/x`).
    pub(super) exclusive: bool,
    /// Frames only come in (`/R`) or only go out (`/T`).
    pub(super) only: Option<Direction>,
    /// The memory that the port's buffers are to be in (`@2`).
    pub(super) memory: Option<u16>,
}

/// Which rings of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rings {
    /// Those of the hardware, or all that a port without hardware has.
    All,
    /// One of these (`-1`).
    One(u16),
    /// Those to and from the host's own network stack (`^`).
    Host,
    /// One of these (`^1`).
    HostOne(u16),
    /// Hardware and host (`*`).
    AllAndHost,
}

/// Into the switch, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl PortName {
    /// Errors: what is wrong with it, for people.
    pub(super) fn parse(text: &str) -> Result<PortName, String> {
        let name = text.strip_prefix("netmap:").unwrap_or(text);
        let mut end = name.find(ENDS).unwrap_or(name.len());
        if name.is_empty() || end == 0 {
            return Err("the port has no name".into());
        }
        if name[end..].starts_with(['{', '}']) {
            let id = name[end + 1..].find(ENDS).unwrap_or(name.len() - end - 1);
            if id == 0 {
                return Err("the pipe has no name".into());
            }
            end += 1 + id;
        }
        let kernel = name[..end].to_owned();
        if kernel.len() >= NAME_LEN || kernel.contains('\0') {
            return Err(format!("the name has more than {} bytes", NAME_LEN - 1));
        }
        let mut port = PortName { kernel, rings: Rings::All, exclusive: false, only: None, memory: None };
        port.read_mode(&name[end..])?;
        Ok(port)
    }

    /// Whether it is a port of a VALE switch.
    pub(super) fn is_vale(&self) -> bool {
        self.kernel.starts_with("vale")
    }

    /// The interface that a pipe is on, or the port itself.
    pub(super) fn interface(&self) -> &str {
        self.kernel.split(['{', '}']).next().unwrap_or_default()
    }

    fn read_mode(&mut self, mut left: &str) -> Result<(), String> {
        while let Some(kind) = left.chars().next() {
            let behind = &left[kind.len_utf8()..];
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            let (number, rest) = behind.split_at(digits);
            let number = match number {
                "" => None,
                digits => Some(digits.parse().map_err(|_| format!("'{digits}' is no number of a ring"))?),
            };
            left = rest;
            match (kind, number) {
                ('-', Some(ring)) => self.rings = Rings::One(ring),
                ('^', None) => self.rings = Rings::Host,
                ('^', Some(ring)) => self.rings = Rings::HostOne(ring),
                ('*' | '+', None) => self.rings = Rings::AllAndHost,
                ('@', Some(memory)) => self.memory = Some(memory),
                ('/', None) => {
                    let end = rest.find(ENDS).unwrap_or(rest.len());
                    self.read_flags(&rest[..end])?;
                    left = &rest[end..];
                }
                _ => return Err(format!("'{kind}{behind}' is not understood")),
            }
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &str) -> Result<(), String> {
        for flag in flags.chars() {
            match flag {
                'x' => self.exclusive = true,
                'R' => self.only = Some(Direction::In),
                'T' => self.only = Some(Direction::Out),
                'z' | 't' | 'r' => {
                    return Err(format!("'/{flag}' makes a monitor, which nothing can be sent to"));
                }
                _ => return Err(format!("'/{flag}' is not understood")),
            }
        }
        Ok(())
    }
}

/// What a name ends before.
const ENDS: [char; 8] = ['+', '-', '*', '^', '{', '}', '/', '@'];

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> PortName {
        PortName::parse(text).expect(text)
    }

    #[test]
    fn port_is_named_with_or_without_its_prefix() {
        for (text, kernel, interface) in [
            ("em0", "em0", "em0"),
            ("netmap:em0", "em0", "em0"),
            ("enp3s0.7", "enp3s0.7", "enp3s0.7"),
            ("vale0:a", "vale0:a", "vale0:a"),
            ("valeXXX:YYY", "valeXXX:YYY", "valeXXX:YYY"),
            ("netmap:em0{1", "em0{1", "em0"),
            ("vale1:x}tap", "vale1:x}tap", "vale1:x"),
        ] {
            let port = parsed(text);
            assert_eq!((port.kernel.as_str(), port.interface(), port.rings), (kernel, interface, Rings::All));
            assert_eq!(port.is_vale(), text.starts_with("vale"));
        }
    }

    #[test]
    fn suffix_says_which_rings() {
        for (suffix, rings) in [
            ("-3", Rings::One(3)),
            ("^", Rings::Host),
            ("^2", Rings::HostOne(2)),
            ("*", Rings::AllAndHost),
            ("+", Rings::AllAndHost),
        ] {
            assert_eq!(parsed(&format!("netmap:em0{suffix}")).rings, rings);
            assert_eq!(parsed(&format!("em0{{pipe{suffix}@7/x")).rings, rings);
        }
        let port = parsed("vale0:a@9/xR");
        assert_eq!((port.memory, port.exclusive, port.only), (Some(9), true, Some(Direction::In)));
        assert_eq!(parsed("em0/T-1").only, Some(Direction::Out));
        assert_eq!(parsed("em0/T-1").rings, Rings::One(1));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "e".repeat(64);
        for text in [
            "",
            "netmap:",
            "-1",
            "em0{",
            "em0-",
            "em0-x",
            "em0-70000",
            "em0*1",
            "em0@",
            "em0@conf:rings=2",
            "em0/q",
            "em0/z",
            "em0/rt",
            &long,
        ] {
            assert!(PortName::parse(text).is_err(), "{text}");
        }
        assert!(PortName::parse(&long[1..]).is_ok());
    }
}
