//! Frames that the switch sends in a guest's name, so that others learn where its address is.
//!
//! An announcement is a reverse ARP request (RFC 903) from the address for itself, as QEMU and Linux send it after a
//! guest has moved. It comes into the switch by the guest's own port and goes where a broadcast of the guest would go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::frame::{BURST_FRAMES, Burst, Taken};
use crate::mac::Mac;
use crate::port::{Arming, Doorbell, Ingress, IngressEnd, IngressScratch};

/// Length of an announcement: the least that Ethernet has, without the FCS.
pub const ANNOUNCEMENT_LEN: usize = 60;

/// Announcements of one port that wait to be sent; a further one is left out.
pub const WAITING_MAX: usize = BURST_FRAMES;

type Announcement = [u8; ANNOUNCEMENT_LEN];

/// An ingress that has a frame whenever it is told to.
pub struct Announcer {
    /// Control adds, the worker takes, each for as long as a burst takes at most.
    waiting: Mutex<Vec<Announcement>>,
    bell: OwnedFd,
}

impl Announcer {
    /// Errors: no descriptor to be had.
    pub fn new() -> io::Result<Arc<Announcer>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Announcer { waiting: Mutex::new(Vec::with_capacity(WAITING_MAX)), bell }))
    }

    /// Has `mac` announced once.
    pub fn announce(&self, mac: Mac) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX {
            waiting.push(announcement(mac));
        }
        drop(waiting);
        crate::eventfd::add(&self.bell);
    }

    /// What the port's attachment gets besides its driver's ends. The worker of the first queue has it.
    pub fn end(self: &Arc<Self>) -> Arc<IngressEnd> {
        Arc::new(IngressEnd {
            queue: 0,
            ingress: self.clone(),
            doorbell: self.clone(),
            linger_us: 0,
            discard: None,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Announcement>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingress for Announcer {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut waiting = self.waiting();
        let mut builder = scratch.burst.begin(0);
        for frame in waiting.iter() {
            // Cannot fail: it is a frame, and fewer wait than fit into a burst.
            let _ = builder.push_slice(frame);
        }
        let before = builder.len();
        if before == 0 {
            return 0;
        }
        let taken = forward(&builder.burst());
        let mut index = 0..;
        waiting.retain(|_| index.next().is_some_and(|index| !taken.settled(index)));
        before - waiting.len()
    }
}

impl Doorbell for Announcer {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    /// The bell is silenced first, so that it rings for all that is not seen here.
    fn arm(&self) -> Arming {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        if self.waiting().is_empty() { Arming::Quiet } else { Arming::Work }
    }

    fn disarm(&self) {}
}

/// Destination, source and type; then hardware and protocol type, their address lengths, and the operation, 3; then the
/// sender's addresses and the target's, of which only the hardware ones are known.
fn announcement(Mac(mac): Mac) -> Announcement {
    const HEAD: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    let mut frame = [0; ANNOUNCEMENT_LEN];
    let parts = [(0, &[0xff; 6][..]), (6, &mac), (12, &HEAD), (22, &mac), (32, &mac)];
    for (start, bytes) in parts {
        frame[start..start + bytes.len()].copy_from_slice(bytes);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

    fn poll(announcer: &Announcer, taken: Taken) -> (Vec<Vec<u8>>, usize) {
        let (mut scratch, mut lent) = (IngressScratch::default(), Vec::new());
        let gone = announcer.poll(&mut scratch, &mut |burst| {
            lent.extend(burst.frames().map(|frame| frame.header().to_vec()));
            taken
        });
        (lent, gone)
    }

    #[test]
    fn an_announcement_is_a_reverse_arp_request_for_the_address_itself() {
        let announcer = Announcer::new().expect("an eventfd can be made");
        announcer.announce(GUEST);
        let (lent, gone) = poll(&announcer, Taken::ALL);
        // As QEMU 7.2 was seen to send it.
        let mut expected = vec![0xff; 6];
        expected.extend([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        expected.extend([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0, 0, 0, 0]);
        expected.extend([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0, 0, 0, 0]);
        expected.extend([0; 18]);
        assert_eq!((lent, gone), (vec![expected], 1));
        assert_eq!(poll(&announcer, Taken::ALL), (vec![], 0));
    }

    #[test]
    fn what_is_held_is_sent_later_and_no_more_than_a_burst_waits() {
        let announcer = Announcer::new().expect("an eventfd can be made");
        (0..WAITING_MAX + 1).for_each(|_| announcer.announce(GUEST));
        assert_eq!(poll(&announcer, Taken(1)).1, 1);
        let (lent, gone) = poll(&announcer, Taken::ALL);
        assert_eq!((lent.len(), gone), (WAITING_MAX - 1, WAITING_MAX - 1));
    }

    #[test]
    fn it_is_quiet_until_it_is_told_to_announce() {
        let announcer = Announcer::new().expect("an eventfd can be made");
        assert_eq!(announcer.arm(), Arming::Quiet);
        announcer.announce(GUEST);
        assert_eq!(announcer.arm(), Arming::Work);
        poll(&announcer, Taken::ALL);
        assert_eq!(announcer.arm(), Arming::Quiet);
    }
}
