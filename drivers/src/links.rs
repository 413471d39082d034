//! Network interfaces of the host, as the kernel tells of them over rtnetlink: found by name or number, and watched.
//!
//! A [`Links`] becomes readable when any interface of its network namespace came, went or changed. Whoever waits for
//! that clears it and asks for the interface it minds; so nothing is lost where the kernel had no room for a message.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interfaces of one network namespace.
pub(crate) struct Links {
    /// Hears of changes.
    events: OwnedFd,
    /// For questions, so that answers and events do not mix.
    questions: OwnedFd,
}

/// An interface, as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its number; never used again for another in its namespace as long as that lives, for all that matters.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Bytes of the largest packet.
    pub mtu: u32,
    flags: u32,
}

impl Link {
    /// Somebody has set it up.
    pub(crate) fn is_up(&self) -> bool {
        self.flags & UP != 0
    }

    /// It is up, and its other side is there: a cable, a veth's peer.
    pub(crate) fn has_carrier(&self) -> bool {
        const LOWER_UP: u32 = 1 << 16;
        self.is_up() && self.flags & LOWER_UP != 0
    }
}

impl Links {
    /// Those of the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Links> {
        Links::hearing(libc::RTMGRP_LINK)
    }

    /// The same; becomes readable when their addresses of IPv4 change, too.
    pub(crate) fn open_with_addresses() -> io::Result<Links> {
        Links::hearing(libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR)
    }

    fn hearing(groups: libc::c_int) -> io::Result<Links> {
        Ok(Links { events: netlink(groups as u32)?, questions: netlink(0)? })
    }

    /// Those of another namespace. The calling thread goes there and comes back.
    pub(crate) fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Links> {
        let home = rustix::fs::open(HOME, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        let links = Links::open();
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
        links
    }

    /// Forgets the changes so far. To be called before an interface is looked at, so that no change is missed. Numbers of
    /// interfaces that were up meanwhile, whatever they are now; not all of them, if there were very many changes.
    pub(crate) fn clear(&self) -> Vec<u32> {
        let mut were_up = Vec::new();
        loop {
            let mut event = [0; HEADER_LEN + INFO_LEN];
            match recv(&self.events, event.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok(_) => {
                    let told = half(&event, 4) == Some(RTM_NEWLINK);
                    let up = word(&event, HEADER_LEN + 8).is_some_and(|flags| flags & UP != 0);
                    were_up.extend(word(&event, HEADER_LEN + 4).filter(|_| told && up));
                }
                Err(Errno::AGAIN | Errno::BADF) => return were_up,
                // Some were lost, which is as good as read.
                Err(_) => {}
            }
        }
    }

    /// The interface `name`; `None` when there is none.
    pub(crate) fn by_name(&self, name: &str) -> io::Result<Option<Link>> {
        let mut attribute = [name.as_bytes(), &[0]].concat();
        let len = (ATTRIBUTE_LEN + attribute.len()) as u16;
        attribute.resize(attribute.len().next_multiple_of(ALIGNMENT), 0);
        self.ask(0, &[&len.to_ne_bytes()[..], &libc::IFLA_IFNAME.to_ne_bytes(), &attribute].concat())
    }

    /// The interface of that number; `None` when there is none.
    pub(crate) fn by_index(&self, index: u32) -> io::Result<Option<Link>> {
        self.ask(index, &[])
    }

    fn ask(&self, index: u32, attributes: &[u8]) -> io::Result<Option<Link>> {
        let mut message = Vec::with_capacity(HEADER_LEN + INFO_LEN + attributes.len());
        message.extend(((HEADER_LEN + INFO_LEN + attributes.len()) as u32).to_ne_bytes());
        message.extend(libc::RTM_GETLINK.to_ne_bytes());
        message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([0; 4]);
        message.extend(index.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(attributes);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.questions, &message, SendFlags::empty(), &kernel)?;
        let mut answer = vec![0; ANSWER_LEN_MAX];
        let (len, _) = recv(&self.questions, answer.as_mut_slice(), RecvFlags::empty())?;
        read_answer(&answer[..len])
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME_MAX))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// `struct nlmsghdr`, then an error number, or `struct ifinfomsg` and attributes.
fn read_answer(answer: &[u8]) -> io::Result<Option<Link>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer has another form");
    let (header, rest) = answer.split_at_checked(HEADER_LEN).ok_or_else(odd)?;
    match half(header, 4).ok_or_else(odd)? {
        RTM_NEWLINK => {}
        NLMSG_ERROR => {
            let error = word(rest, 0).ok_or_else(odd)?.cast_signed();
            return match -error {
                libc::ENODEV => Ok(None),
                error => Err(io::Error::from_raw_os_error(error)),
            };
        }
        _ => return Err(odd()),
    }
    let (info, mut attributes) = rest.split_at_checked(INFO_LEN).ok_or_else(odd)?;
    let mut link = Link {
        index: word(info, 4).ok_or_else(odd)?,
        flags: word(info, 8).ok_or_else(odd)?,
        name: String::new(),
        mtu: 0,
    };
    while let (Some(len), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let len = usize::from(len);
        let value = attributes.get(ATTRIBUTE_LEN..len).ok_or_else(odd)?;
        match kind {
            libc::IFLA_IFNAME => {
                let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(text).into_owned();
            }
            libc::IFLA_MTU => link.mtu = word(value, 0).ok_or_else(odd)?,
            _ => {}
        }
        attributes = attributes.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(Some(link))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Of `struct nlmsghdr`, `struct ifinfomsg` and `struct rtattr`.
const HEADER_LEN: usize = 16;
const INFO_LEN: usize = 16;
const ATTRIBUTE_LEN: usize = 4;
/// Attributes begin at multiples of this.
const ALIGNMENT: usize = 4;
const UP: u32 = libc::IFF_UP as u32;
const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
/// More than an interface has attributes; a longer answer is cut, and an error.
const ANSWER_LEN_MAX: usize = 32 * 1024;
/// The kernel answers before it returns from the question.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);
const HOME: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::testing::in_namespace;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
        assert!(status.success(), "ip {arguments}");
    }

    fn changed(links: &Links) -> bool {
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut [PollFd::new(links, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    /// Waits until the interface is as `is` wants it, and for nothing but changes.
    fn wait_until(links: &Links, name: &str, is: impl Fn(Option<&Link>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            links.clear();
            if is(links.by_name(name).unwrap().as_ref()) {
                return;
            }
            assert!(changed(links) && Instant::now() < deadline, "{:?}", links.by_name(name));
        }
    }

    #[test]
    fn a_change_of_an_interface_is_noticed_and_found() {
        in_namespace(|| {
            let links = Links::open().unwrap();
            assert_eq!(links.by_name("v0").unwrap(), None);
            ip("link add v0 type veth peer name v1");
            wait_until(&links, "v0", |link| link.is_some_and(|link| !link.is_up() && link.mtu == 1500));
            let index = links.by_name("v0").unwrap().unwrap().index;
            assert_eq!(links.by_index(index).unwrap(), links.by_name("v0").unwrap());
            ip("link set v0 up mtu 1400");
            wait_until(&links, "v0", |link| {
                link.is_some_and(|link| link.is_up() && !link.has_carrier() && link.mtu == 1400)
            });
            links.clear();
            ip("link set v1 up");
            wait_until(&links, "v0", |link| link.is_some_and(Link::has_carrier));
            ip("link set v0 down");
            ip("link set v0 up");
            ip("link set v0 down");
            assert!(changed(&links) && links.clear().contains(&index), "it was up for a moment");
            ip("link set v0 mtu 1300");
            assert!(changed(&links) && !links.clear().contains(&index));
            ip("link set v0 up");
            ip("link set v1 down");
            wait_until(&links, "v0", |link| link.is_some_and(|link| !link.has_carrier()));
            ip("link del v0");
            wait_until(&links, "v0", |link| link.is_none());
            assert_eq!(links.by_index(index).unwrap(), None);
        });
    }

    #[test]
    fn more_changes_than_are_kept_are_still_a_change() {
        in_namespace(|| {
            let links = Links::open().unwrap();
            ip("link add v0 type veth peer name v1");
            let mut batch = String::new();
            (0..3000).for_each(|round| batch += &format!("link set v0 mtu {}\n", 1000 + round % 100));
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("batch");
            std::fs::write(&file, batch).unwrap();
            ip(&format!("-batch {}", file.display()));
            wait_until(&links, "v0", |link| link.is_some_and(|link| link.mtu == 1099));
            assert!(!changed_now(&links), "all are cleared");
        });
    }

    fn changed_now(links: &Links) -> bool {
        poll(&mut [PollFd::new(links, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn interfaces_of_another_namespace_are_seen_from_ours() {
        let (namespace, given) = std::sync::mpsc::channel();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            in_namespace(move || {
                ip("link add far type veth peer name v1");
                namespace.send(std::fs::File::open(HOME).unwrap()).unwrap();
                let _ = finished.recv();
            });
        });
        in_namespace(move || {
            let before = rustix::fs::readlink(HOME, Vec::new()).unwrap();
            let links = Links::open_in(given.recv().unwrap().as_fd()).unwrap();
            assert!(links.by_name("far").unwrap().is_some());
            assert_eq!(Links::open().unwrap().by_name("far").unwrap(), None);
            assert_eq!(rustix::fs::readlink(HOME, Vec::new()).unwrap(), before);
        });
        drop(done);
        other.join().unwrap();
    }

    #[test]
    fn an_answer_that_is_cut_or_odd_is_an_error() {
        let whole = {
            let mut answer = vec![0; HEADER_LEN + INFO_LEN];
            answer[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
            answer.extend([8, 0, 4, 0, 0xdc, 5, 0, 0]);
            answer
        };
        assert_eq!(read_answer(&whole).unwrap().unwrap().mtu, u32::from_ne_bytes([0xdc, 5, 0, 0]));
        for len in 0..HEADER_LEN + INFO_LEN {
            assert!(read_answer(&whole[..len]).is_err(), "{len}");
        }
        assert!(read_answer(&whole[..whole.len() - 1]).is_err());
        for len in [0u16, 3, 9, 0xffff] {
            let mut odd = whole.clone();
            odd[HEADER_LEN + INFO_LEN..][..2].copy_from_slice(&len.to_ne_bytes());
            assert!(read_answer(&odd).is_err(), "{len}");
        }
    }
}
