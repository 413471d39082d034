//! Interfaces that go and come back under an open tap. They need CAP_SYS_ADMIN.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use ringyard_dataplane::frame::BurstScratch;
use ringyard_dataplane::port::EgressScratch;

use super::super::{TapOptions, TapPort, TapSource};
use super::*;
use crate::line::{News, PortKey, Switchboard};
use crate::testing::in_namespace;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// A port with control at the other end of its line: a thread that answers, and passes on what it is told.
struct Yard {
    port: Option<TapPort>,
    news: Receiver<Told>,
    /// What workers have now.
    attachment: Attachment,
    dropped: u64,
}

enum Told {
    Attached(Attachment),
    Shown(String),
    Dropped(u64),
}

impl Yard {
    fn open(source: TapSource) -> Yard {
        let options = TapOptions {
            source,
            script: None,
            downscript: None,
            sndbuf_bytes: i32::MAX,
            drawer: Drawer::default(),
        };
        let mut port = TapPort::open(options).unwrap();
        let board = Switchboard::new().unwrap();
        port.start(board.line(PortKey(1)), "well".into()).unwrap();
        let (tell, news) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let mut fds = [PollFd::from_borrowed_fd(board.fd(), PollFlags::IN)];
                let _ = poll(&mut fds, None);
                for report in board.drain() {
                    let told = match report.news {
                        News::Attached { attachment, done } => {
                            let told = tell.send(Told::Attached(attachment));
                            let _ = done.send(());
                            told
                        }
                        News::State { text } => tell.send(Told::Shown(text)),
                        News::Dropped { frames } => tell.send(Told::Dropped(frames)),
                        _ => Ok(()),
                    };
                    if told.is_err() {
                        return;
                    }
                }
            }
        });
        let attachment = port.attachment();
        Yard { port: Some(port), news, attachment, dropped: 0 }
    }

    fn named(ifname: &str, vnet_hdr: VnetHeader) -> Yard {
        Yard::open(TapSource::Name { ifname: Some(ifname.into()), queues: 1, vnet_hdr })
    }

    /// Waits until the carrier is as wanted, and the text, if one is given, is shown.
    fn wait(&mut self, carrier: bool, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut shown = text.is_empty();
        while self.attachment.carrier != carrier || !shown {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(Told::Attached(attachment)) => self.attachment = attachment,
                Ok(Told::Shown(now)) => shown |= now == text,
                Ok(Told::Dropped(frames)) => self.dropped += frames,
                Err(_) => panic!("carrier {}, in vain for {carrier} and '{text}'", self.attachment.carrier),
            }
        }
    }

    /// Sends one frame; whether it went out.
    fn send(&self) -> bool {
        let bytes = [0xffu8; 60];
        let mut burst = BurstScratch::default();
        let mut builder = burst.begin(0);
        builder.push_slice(&bytes).unwrap();
        let mut scratch = EgressScratch::default();
        assert_eq!(self.attachment.egress[0].send(&mut scratch, &builder.burst(), &[0]), 1);
        scratch.tally.frames == 1
    }

    fn close(mut self) {
        self.attachment = Attachment::default();
        self.port.take().unwrap().close().unwrap();
    }
}

#[test]
fn interface_that_is_set_down_takes_the_carrier_until_it_is_up() {
    in_namespace(|| {
        let mut yard = Yard::named("t0", VnetHeader::IfSupported);
        // It was never up, and nobody misses it; as soon as it is, frames pass.
        assert!(yard.attachment.carrier && !yard.send());
        ip("link set t0 up");
        assert!(yard.send());
        for _ in 0..3 {
            // Nobody sends anything, and yet it is noticed.
            ip("link set t0 down");
            yard.wait(false, "error: the interface t0 is down");
            ip("link set t0 up");
            yard.wait(true, "well");
            assert!(yard.send());
        }
        yard.close();
        assert!(Links::open().unwrap().by_name("t0").unwrap().is_none(), "it goes with the port");
    });
}

#[test]
fn interface_of_ours_that_is_deleted_is_made_again() {
    in_namespace(|| {
        for header in [VnetHeader::Required, VnetHeader::Off] {
            let mut yard = Yard::named("t0", header);
            for _ in 0..3 {
                ip("link set t0 up");
                let deadline = Instant::now() + Duration::from_secs(10);
                while !yard.send() {
                    assert!(Instant::now() < deadline);
                    yard.news.try_iter().for_each(|told| {
                        if let Told::Attached(attachment) = told {
                            yard.attachment = attachment;
                        }
                    });
                    if !yard.attachment.carrier {
                        yard.wait(true, "");
                    }
                }
                ip("link del t0");
                yard.wait(false, "error: the interface t0 was deleted");
                yard.wait(true, "well");
            }
            yard.close();
        }
    });
}

#[test]
fn interface_that_somebody_else_made_is_waited_for() {
    in_namespace(|| {
        ip("tuntap add t0 mode tap");
        let mut yard = Yard::named("t0", VnetHeader::IfSupported);
        ip("link set t0 up");
        ip("link del t0");
        yard.wait(false, "error: could not find the interface t0: No such device");
        assert!(Links::open().unwrap().by_name("t0").unwrap().is_none());
        ip("tuntap add t0 mode tap");
        yard.wait(true, "well");
        ip("link set t0 up");
        ip("link set t0 down");
        yard.wait(false, "error: the interface t0 is down");
        yard.close();
        assert!(Links::open().unwrap().by_name("t0").unwrap().is_some(), "it is not ours");
    });
}

#[test]
fn descriptor_that_was_given_finds_its_interface_again() {
    in_namespace(|| {
        ip("tuntap add t0 mode tap");
        let device = Device::open(Some("t0"), false, VnetHeader::Required).unwrap();
        let fd = device.as_fd().try_clone_to_owned().unwrap();
        drop(device);
        let mut yard = Yard::open(TapSource::Fds(vec![fd]));
        ip("link set t0 up");
        ip("link del t0");
        yard.wait(false, "error: could not find the interface t0: No such device");
        ip("tuntap add t0 mode tap");
        yard.wait(true, "well");
        ip("link set t0 up");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !yard.send() {
            yard.wait(true, "");
            assert!(Instant::now() < deadline);
            for told in yard.news.try_iter() {
                if let Told::Attached(attachment) = told {
                    yard.attachment = attachment;
                }
            }
        }
        yard.close();
    });
}

#[test]
fn interface_is_watched_in_the_namespace_that_it_moved_to() {
    let (namespace, given) = mpsc::channel::<OwnedFd>();
    let (orders, taken) = mpsc::channel::<&str>();
    let (answers, done) = mpsc::channel();
    let other = std::thread::spawn(move || {
        in_namespace(move || {
            namespace.send(File::open(HOME).unwrap().into()).unwrap();
            for order in taken {
                ip(order);
                answers.send(()).unwrap();
            }
        });
    });
    in_namespace(move || {
        let there = given.recv().unwrap();
        let order = |text| {
            orders.send(text).unwrap();
            done.recv().unwrap();
        };
        let mut yard = Yard::named("t0", VnetHeader::IfSupported);
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&there));
        ip(&format!("link set t0 netns {path}"));
        order("link set t0 name t9");
        for _ in 0..2 {
            order("link set t9 up");
            yard.wait(true, "");
            // The thread may not have seen it yet.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !yard.send() {
                assert!(Instant::now() < deadline);
                yard.wait(true, "");
            }
            order("link set t9 down");
            yard.wait(false, "error: the interface t9 is down");
        }
        order("link del t9");
        yard.wait(true, "well");
        assert!(Links::open().unwrap().by_name("t0").unwrap().is_some(), "made again where we are");
        yard.close();
        drop(orders);
    });
    other.join().unwrap();
}

#[test]
fn header_of_another_length_is_noticed_and_put_right() {
    in_namespace(|| {
        let device = Device::open(Some("t0"), false, VnetHeader::Required).unwrap();
        ip("link set t0 up");
        let alarm = Arc::new(Alarm::new().unwrap());
        let home = Links::open().unwrap();
        let origin = Origin::Given { ifname: "t0".into() };
        let mut life = Life::new(origin, i32::MAX, vec![device], home, alarm.clone());
        assert!(matches!(life.look(&[]), State::Attached));
        life.queues[0].device().set_header_len(12).unwrap();
        let State::Down(why) = life.look(&[]) else { panic!("the header is another one") };
        assert_eq!(why, "the virtio-net header of t0 was changed");
        assert!(alarm.is_raised(), "looked at again");
        assert!(matches!(life.look(&[]), State::Attached));
    });
}
