//! What the workers and the thread of a port on an interface tell each other: that the interface fails, that the kernel did
//! not take all that it was given, and how long a packet may be.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ringyard_dataplane::frame::ETHERNET_LEN;

use crate::minder::Alarm;

/// Shared by the queues of a port and its thread.
pub(crate) struct Health {
    alarm: Alarm,
    /// Set by workers, taken back by the thread. Relaxed: nothing hangs on it.
    failed: AtomicBool,
    /// Written by workers and the thread. Relaxed: the alarm carries it.
    flush: AtomicBool,
    /// Bytes of the largest packet. Written by the thread; relaxed, since the kernel itself looks too.
    mtu: AtomicU32,
}

impl Health {
    /// Errors: no descriptor to be had.
    pub(crate) fn new() -> io::Result<Health> {
        let (failed, flush) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Health { alarm: Alarm::new()?, failed, flush, mtu: AtomicU32::new(u32::MAX) })
    }

    /// The interface is down or gone: nothing can be sent.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.alarm.raise();
    }

    /// It is up.
    pub(crate) fn recover(&self) {
        self.failed.store(false, Ordering::Relaxed);
    }

    /// Whether it [failed](Self::fail).
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The kernel is to be woken again, though no further frame may come.
    pub(crate) fn want_flush(&self) {
        self.flush.store(true, Ordering::Relaxed);
        self.alarm.raise();
    }

    /// Whether it is, since this was asked last.
    pub(crate) fn wants_flush(&self) -> bool {
        self.alarm.clear();
        self.flush.swap(false, Ordering::Relaxed)
    }

    /// Readable when there is something to look at.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.alarm.fd()
    }

    /// The interface's MTU.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Whether the interface carries a frame of `len` bytes that begins with `header`: VLAN tags do not count as packet.
    pub(crate) fn carries(&self, header: &[u8], len: usize) -> bool {
        let mtu = self.mtu.load(Ordering::Relaxed) as usize;
        let packet = len.saturating_sub(ETHERNET_LEN);
        packet <= mtu || packet.saturating_sub(tags(header) * TAG_LEN) <= mtu
    }
}

/// VLAN tags in front of a packet, as far as an interface counts them.
fn tags(header: &[u8]) -> usize {
    let is_tag = |index: &usize| {
        let kind = header.get(12 + index * TAG_LEN..).and_then(|rest| rest.first_chunk::<2>());
        matches!(kind, Some([0x81, 0x00] | [0x88, 0xa8]))
    };
    (0..TAGS_MAX).take_while(is_tag).count()
}

const TAG_LEN: usize = 4;
const TAGS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_counts_the_packet_without_up_to_two_tags() {
        let health = Health::new().unwrap();
        let mut header = [0; 64];
        assert!(health.carries(&header, 100_000), "no limit before it is known");
        health.set_mtu(1500);
        assert!(health.carries(&header, 1514) && !health.carries(&header, 1515));
        header[12..14].copy_from_slice(&[0x81, 0]);
        assert!(health.carries(&header, 1518) && !health.carries(&header, 1519));
        header[16..18].copy_from_slice(&[0x81, 0]);
        header[20..22].copy_from_slice(&[0x81, 0]);
        assert!(health.carries(&header, 1522) && !health.carries(&header, 1523));
        header[12..14].copy_from_slice(&[0x88, 0xa8]);
        assert!(health.carries(&header, 1522) && !health.carries(&header, 1523));
        assert!(health.carries(&header[..14], 14));
        health.set_mtu(5);
        assert!(health.carries(&header[..20], 20), "shorter than its tags, and longer than the MTU");
        assert!(!health.carries(&header, 28));
    }

    #[test]
    fn what_workers_find_out_is_told_once() {
        let health = Health::new().unwrap();
        assert!(!health.wants_flush() && !health.has_failed());
        health.want_flush();
        assert!(health.alarm.is_raised());
        assert!(health.wants_flush() && !health.wants_flush() && !health.alarm.is_raised());
        health.fail();
        assert!(health.alarm.is_raised() && health.has_failed() && !health.wants_flush());
    }
}
