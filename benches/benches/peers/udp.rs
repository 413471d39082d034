//! A flood of small UDP datagrams from one namespace to another: sent by `sendmmsg`, received by `recvmmsg`, counted at
//! the receiver. Neither end looks at what is in them.

#![allow(unsafe_code)] // recvmmsg, which no safe interface here has

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::Netns;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// What became of a flood.
pub struct Flood {
    pub sent: u64,
    pub received: u64,
    pub elapsed: Duration,
}

/// Sends from `left` to `right`, whose address is `address`, for `time`.
pub fn flood(left: &Netns, right: &Netns, address: &str, time: Duration) -> Result<Flood> {
    let receiver = right.enter(|| UdpSocket::bind((address, 0)).doing("binding a receiver"))?;
    let port = receiver.local_addr().doing("asking for the receiver's port")?.port();
    receiver.set_read_timeout(Some(SILENCE)).doing("setting the receiver's time limit")?;
    let sender = left.enter(|| {
        let sender = UdpSocket::bind(("0.0.0.0", 0)).doing("binding a sender")?;
        sender.connect((address, port)).doing("connecting a sender")?;
        Ok(sender)
    })?;
    // A socket stays in the namespace where it was made; threads need not.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, &stop));
        let start = Instant::now();
        let sent = send(&sender, start + time);
        let elapsed = start.elapsed();
        // Relaxed: the flag is all there is to see. What comes later was not received in time.
        stop.store(true, Ordering::Relaxed);
        let received = receiving.join().map_err(|_| Error::new("the receiver panicked"))??;
        Ok(Flood { sent: sent?, received, elapsed })
    })
}

fn send(socket: &UdpSocket, end: Instant) -> Result<u64> {
    let payload = [0x55; PAYLOAD_LEN];
    let slices = [IoSlice::new(&payload)];
    let mut sent = 0;
    while Instant::now() < end {
        let mut controls: [SendAncillaryBuffer; BATCH] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages: Vec<MMsgHdr> =
            controls.iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
        match sendmmsg(socket, &mut messages, SendFlags::empty()) {
            Ok(count) => sent += count as u64,
            // The interface's queue is full: try again.
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => thread::yield_now(),
            Err(error) => return Err(Error::new(format!("sending datagrams: {error}"))),
        }
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<u64> {
    let mut buffers = [[0u8; BUFFER_LEN]; BATCH];
    let mut vectors = buffers
        .each_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER_LEN });
    let mut messages = vectors.each_mut().map(|vector| {
        // SAFETY: all zero is a header of nothing, in which pointers are null and lengths zero.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (vector, 1);
        message
    });
    let mut received = 0;
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: every header points to one vector, every vector to one buffer, and all of them outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        match count {
            0.. => received += count as u64,
            _ => match std::io::Error::last_os_error().kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => continue,
                _ => return Err(Error::new(format!("receiving: {}", std::io::Error::last_os_error()))),
            },
        }
    }
    Ok(received)
}

/// What is left of 64 bytes behind Ethernet, IPv4 and UDP.
const PAYLOAD_LEN: usize = 64 - 14 - 20 - 8;
const BUFFER_LEN: usize = 64;
/// Datagrams in one system call.
const BATCH: usize = 64;
/// How long the receiver waits before it looks whether it is to stop.
const SILENCE: Duration = Duration::from_millis(50);
