//! Messages that must be refused, and what must end a connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::peer::{Peer, event};
use super::{Bytes, Connection};
use crate::raw::*;

const SET_VRING_ADDR: u32 = 9;
const ADD_MEM_REG: u32 = 37;

/// Descriptors that are no memory, no eventfd and no unix socket.
fn useless(bytes: &mut Bytes<'_>) -> OwnedFd {
    let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
    match bytes.below(4) {
        0 => open("/dev/null"),
        1 => rustix::pipe::pipe().unwrap().1,
        2 => open("/proc/self/maps"),
        _ => rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap(),
    }
}

/// Says something that is refused: who can be told is told, and the connection of anybody else ends.
pub fn refused(peer: &mut Peer, bytes: &mut Bytes<'_>) -> Connection {
    let number = |value: u64| value.to_ne_bytes().to_vec();
    let (event, useless) = (event(), useless(bytes));
    let file = peer.file.try_clone().unwrap();
    let (event, useless, file) = (event.as_fd(), useless.as_fd(), file.as_fd());
    let beyond = [3u32, 255, 256, 0x1_0000, u32::MAX][bytes.below(5)];
    let (request, body, fds): (u32, Vec<u8>, Vec<BorrowedFd<'_>>) = match bytes.below(16) {
        0 => (SET_VRING_NUM, state(beyond, 16), vec![]),
        1 => (SET_VRING_BASE, state(beyond, 0), vec![]),
        2 => (SET_VRING_ENABLE, state(beyond, 1), vec![]),
        3 => (SET_VRING_ENABLE, state(0, 2 + bytes.below(9) as u32), vec![]),
        4 => (SET_VRING_KICK, number(0), vec![useless]),
        5 => (SET_VRING_CALL, number(1), vec![useless]),
        6 => (SET_VRING_ERR, number(1 << 8), vec![event]),
        7 => (SET_VRING_CALL, number(u64::from(beyond) | 1 << 40), vec![event]),
        8 => (SET_VRING_NUM, state(0, [0, 65_536, u32::MAX][bytes.below(3)]), vec![]),
        9 => (SET_MEM_TABLE, regions(&[[0, 0x1000, 0, 0]]), vec![useless]),
        10 => (SET_MEM_TABLE, regions(&[[0, 1 << 40, 0, 0]]), vec![file]),
        11 => (SET_MEM_TABLE, regions(&[[0, 0x1000, 0, 0], [0xfff, 0x1000, 0x9000, 0]]), vec![file; 2]),
        12 => (SET_MEM_TABLE, regions(&[[0, 0x1000, 0, 0]]), vec![file; bytes.below(2) * 2]),
        13 => (SET_FEATURES, number(u64::MAX), vec![]),
        14 => (SET_VRING_ADDR, vec![0; bytes.below(40)], vec![]),
        // Without the protocol's features there is no such request, and nothing to refuse.
        _ if peer.has_negotiated() => (ADD_MEM_REG, vec![0xff; 40], vec![file]),
        _ => (SET_FEATURES, vec![1; 9], vec![]),
    };
    if peer.acknowledges() && bytes.below(4) > 0 {
        assert_eq!(peer.raw.ask(request, &body, &fds), 1, "request {request} with {body:x?}");
        return Connection::Goes;
    }
    peer.raw.send(request, if peer.acknowledges() { 0 } else { NEED_REPLY }, &body, &fds);
    peer.assert_closed();
    Connection::Over
}

/// Says something that no front end says, and that has no answer.
pub fn fatal(peer: &mut Peer, bytes: &mut Bytes<'_>) -> Connection {
    let header = |words: [u32; 3]| words.map(u32::to_ne_bytes).concat();
    let event = event();
    match bytes.below(5) {
        0 => peer.raw.bytes(&header([GET_FEATURES, [0, 2, 1 | 4, 1 | 16][bytes.below(4)], 0]), &[]),
        1 => peer.raw.bytes(&header([SET_FEATURES, 1, 4097 + bytes.below(200) as u32]), &[]),
        2 => peer.raw.send(GET_FEATURES, 0, &[], &[event.as_fd(); 33]),
        3 => peer.raw.send(GET_FEATURES, NEED_REPLY, &[1; 8], &[]),
        _ => peer.raw.send(GET_VRING_BASE, NEED_REPLY, &state(77, 0), &[]),
    }
    peer.assert_closed();
    Connection::Over
}

/// Ends the connection in the midst of a message. Unknown messages, which change nothing, come before it.
pub fn torn(peer: &mut Peer, bytes: &mut Bytes<'_>) -> Connection {
    peer.raw.send(90 + bytes.below(9) as u32, 0, &vec![0xaa; bytes.below(200)], &[]);
    peer.assert_alive();
    let body = regions(&[[0, 0x1000, 0, 0]]);
    let header = [SET_MEM_TABLE, 1 | NEED_REPLY, body.len() as u32].map(u32::to_ne_bytes);
    let message = [header.as_flattened(), &body].concat();
    let file = peer.file.try_clone().unwrap();
    let len = 1 + bytes.below(message.len() - 1);
    peer.raw.bytes(&message[..len], &vec![file.as_fd(); bytes.below(3)]);
    peer.raw.0.shutdown(std::net::Shutdown::Write).unwrap();
    peer.assert_closed();
    Connection::Over
}
