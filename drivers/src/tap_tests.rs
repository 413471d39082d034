//! Taps of this kernel. They need CAP_NET_ADMIN and /dev/net/tun.

use std::os::fd::OwnedFd;

use ringyard_dataplane::frame::{BurstScratch, Taken};
use ringyard_dataplane::port::{Arming, Doorbell, EgressScratch, Ingress, IngressScratch};

use super::*;

fn named(ifname: &str) -> TapOptions {
    let source =
        TapSource::Name { ifname: Some(ifname.into()), queues: 1, vnet_hdr: VnetHeader::IfSupported };
    TapOptions { source, script: None, downscript: None, sndbuf_bytes: i32::MAX }
}

fn open_error(options: TapOptions) -> String {
    TapPort::open(options).err().expect("an error").to_string()
}

/// Runs `body` on a thread in a network namespace of its own, so that interfaces are nobody else's.
#[allow(unsafe_code)]
fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: NEWNET takes nothing away that this thread or another holds by reference.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("CAP_SYS_ADMIN for a network namespace");
        body();
    };
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn kernel_chooses_a_name_and_interface_goes_with_the_port() {
    in_namespace(|| {
        let mut options = named("");
        options.source = TapSource::Name { ifname: None, queues: 1, vnet_hdr: VnetHeader::IfSupported };
        let tap = TapPort::open(options).unwrap();
        assert_eq!(tap.ifname(), "tap0");
        assert!(open_error(named("tap0")).ends_with("(tap0): Device or resource busy"));
        tap.close().unwrap();
        assert_eq!(TapPort::open(named("tap0")).unwrap().ifname(), "tap0");
    });
}

#[test]
fn errors_name_device_and_interface() {
    in_namespace(|| {
        assert_eq!(open_error(named("lo")), "could not configure /dev/net/tun (lo): Invalid argument");
        let long = open_error(named("a-name-of-16-byte"));
        assert_eq!(long, "could not configure /dev/net/tun (a-name-of-16-byte): Invalid argument");
    });
}

#[test]
fn descriptor_that_is_no_tap_is_refused() {
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let options = TapOptions { source: TapSource::Fds(vec![null]), ..named("") };
    let text = open_error(options);
    assert!(text.starts_with("Unable to query TUNGETIFF on FD "), "{text}");
    assert!(text.ends_with(": Inappropriate ioctl for device"), "{text}");
}

#[test]
fn failing_script_fails_the_open_and_takes_the_interface_back() {
    in_namespace(|| {
        let script = |path: &str| TapOptions { script: Some(path.into()), ..named("t0") };
        assert_eq!(open_error(script("/bin/false")), "network script /bin/false failed with status 256");
        assert_eq!(open_error(script("/nonexistent")), "network script /nonexistent failed with status 256");
        TapPort::open(named("t0")).unwrap();
    });
}

#[test]
fn several_queues_are_one_interface() {
    in_namespace(|| {
        let source = TapSource::Name { ifname: Some("t0".into()), queues: 3, vnet_hdr: VnetHeader::Required };
        let tap = TapPort::open(TapOptions { source, ..named("") }).unwrap();
        let attachment = tap.attachment();
        assert_eq!((attachment.ingress.len(), attachment.egress.len()), (3, 3));
        assert!(attachment.carrier);
    });
}

#[test]
fn frame_written_by_the_kernel_is_read_and_ours_is_counted() {
    in_namespace(|| {
        let device = Device::open(Some("t0"), false, VnetHeader::IfSupported).unwrap();
        let queue = TapQueue::new(device, 0);
        let up = Command::new("ip").args(["link", "set", "t0", "up"]).status().expect("iproute2");
        assert!(up.success());
        let mut scratch = IngressScratch::default();
        queue.disarm();
        // IPv6 announces itself on an interface that comes up.
        let mut seen = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while seen.is_empty() && std::time::Instant::now() < deadline {
            queue.disarm();
            queue.poll(&mut scratch, &mut |burst| {
                seen.extend(burst.frames().map(|frame| (frame.destination(), frame.len())));
                ringyard_dataplane::frame::Taken::ALL
            });
        }
        assert!(
            seen.iter().all(|(mac, len)| mac.is_multicast() && *len >= 14) && !seen.is_empty(),
            "{seen:?}"
        );
        let mut burst = BurstScratch::default();
        let mut builder = burst.begin(0);
        let bytes = [0xffu8; 200];
        builder.push_slice(&bytes).unwrap();
        let mut scratch = EgressScratch::default();
        assert_eq!(queue.send(&mut scratch, &builder.burst(), &[0]), 1);
        assert_eq!((scratch.tally.frames, scratch.tally.bytes), (1, 200));
        let received = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(received.lines().any(|line| line.contains("t0:") && line.contains(" 200 ")), "{received}");
    });
}

#[test]
fn frames_that_are_held_are_lent_again_before_others() {
    in_namespace(|| {
        let queue = TapQueue::new(Device::open(Some("t0"), false, VnetHeader::IfSupported).unwrap(), 0);
        assert!(Command::new("ip").args(["link", "set", "t0", "up"]).status().expect("iproute2").success());
        let (mut scratch, mut held) = (IngressScratch::default(), Vec::new());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while held.is_empty() && std::time::Instant::now() < deadline {
            queue.disarm();
            let gone = queue.poll(&mut scratch, &mut |burst| {
                held.extend(burst.frames().map(|frame| frame.header().to_vec()));
                Taken(0)
            });
            assert_eq!(gone, 0);
        }
        assert_eq!(queue.arm(), Arming::Work);
        let mut again = Vec::new();
        let gone = queue.poll(&mut scratch, &mut |burst| {
            again.extend(burst.frames().map(|frame| frame.header().to_vec()));
            Taken::ALL
        });
        assert_eq!((&again, gone), (&held, held.len()));
        while queue.poll(&mut scratch, &mut |_| Taken::ALL) > 0 {}
        assert_eq!(queue.arm(), Arming::Quiet);
    });
}
