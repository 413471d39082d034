//! Tries the `netmap` driver against the real kernel module: frames of all lengths between two ports that hear each other,
//! held frames, doorbells, offloads, and a rate.
//!
//! `cargo run --release -p ringyard-drivers --example netmap -- vale9:a vale9:b`, or two network cards that are joined by a
//! cable. It needs the module `netmap`, and the right to open `/dev/netmap`. Whatever is wrong ends it with an error.

use std::time::{Duration, Instant};
use std::{env, process};

use ringyard_dataplane::frame::{BURST_FRAMES, Burst, BurstScratch, Taken};
use ringyard_dataplane::offload::Offloads;
use ringyard_dataplane::port::{Arming, Attachment, EgressScratch, IngressEnd, IngressScratch};
use ringyard_drivers::line::{PortKey, Switchboard};
use ringyard_drivers::netmap::{NetmapOptions, NetmapPort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

type Result<T> = std::result::Result<T, String>;

fn main() {
    let ports: Vec<String> = env::args().skip(1).collect();
    let [left, right] = ports.as_slice() else {
        eprintln!("usage: netmap PORT PORT");
        process::exit(2);
    };
    if let Err(error) = run(left, right) {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run(left: &str, right: &str) -> Result<()> {
    let (mut left, mut right) = (End::open(left)?, End::open(right)?);
    let longest = if left.name.starts_with("vale") { 65_549 } else { 1514 };
    for length in [60, 64, 1514, 2034, 2036, 2037, 2048, 2049, 4096, 9014, longest] {
        if length <= longest {
            exchange(&mut left, &mut right, length)?;
            exchange(&mut right, &mut left, length)?;
            println!("{length} bytes pass both ways");
        }
    }
    println!("frames of up to {longest} bytes pass both ways");
    hold(&mut left, &mut right)?;
    println!("held frames are lent again");
    ring(&mut left, &mut right)?;
    println!("the doorbell rings");
    // A pipe has no virtio-net header.
    if left.name.starts_with("vale") && !left.name.contains(['{', '}']) {
        offload(&mut left, &mut right)?;
        println!("offloads pass");
    }
    for length in [60, 1514] {
        let rate = rate(&mut left, &mut right, length)?;
        println!("{length} bytes: {:.2} million frames a second", rate / 1e6);
    }
    // A port can be opened again once it is closed.
    let name = left.name.clone();
    drop(left);
    End::open(&name).map(drop)
}

/// One port, and what a worker has for it.
struct End {
    name: String,
    attachment: Attachment,
    _port: NetmapPort,
    _board: Switchboard,
    ingress: IngressScratch,
    egress: EgressScratch,
    burst: BurstScratch,
}

/// What a poll lent: each frame, and whether it asks for something.
type Lent = Vec<(Vec<u8>, bool)>;

impl End {
    fn open(name: &str) -> Result<End> {
        let mut port = NetmapPort::open(&NetmapOptions { ifname: name.into(), devname: None })?;
        let attachment = port.attachment();
        // The port's thread has the kernel look again at what it had no room for.
        let board = Switchboard::new().map_err(|error| error.to_string())?;
        port.start(board.line(PortKey(0))).map_err(|error| error.to_string())?;
        println!("{name}: {} ingresses, {} egresses", attachment.ingress.len(), attachment.egress.len());
        Ok(End {
            name: name.into(),
            attachment,
            _port: port,
            _board: board,
            ingress: IngressScratch::default(),
            egress: EgressScratch::default(),
            burst: BurstScratch::default(),
        })
    }

    /// Sends all of `frames`, with the net header `net` in front of each if there is one.
    fn send(&mut self, frames: &[Vec<u8>], net: Option<&[u8; 10]>) -> Result<()> {
        let mut builder = self.burst.begin(0);
        for frame in frames {
            let pushed = match net {
                None => builder.push_slice(frame),
                Some(net) => builder.push_asking(net, frame, Offloads::ALL),
            };
            pushed.map_err(|reason| format!("pushing a frame of {} bytes: {reason}", frame.len()))?;
        }
        let (burst, deadline) = (builder.burst(), Instant::now() + PATIENCE);
        let picks: Vec<u8> = (0..frames.len() as u8).collect();
        let mut settled = 0;
        while settled < picks.len() {
            settled += self.attachment.egress[0].send(&mut self.egress, &burst, &picks[settled..]);
            if Instant::now() > deadline {
                return Err(format!("{} takes no frames: {settled} of {}", self.name, picks.len()));
            }
        }
        let dropped = std::mem::take(&mut self.egress.tally).dropped();
        if dropped > 0 { Err(format!("{} dropped {dropped} frames", self.name)) } else { Ok(()) }
    }

    /// Polls every ingress once.
    fn poll(&mut self, taken: Taken) -> Result<Lent> {
        let mut lent = Vec::new();
        for end in &self.attachment.ingress {
            end.doorbell.disarm();
            end.ingress.poll(&mut self.ingress, &mut |burst: &Burst<'_>| {
                for frame in burst.frames() {
                    let mut bytes = vec![0; frame.len()];
                    frame.copy_to(&mut bytes);
                    if bytes[12..14] == ETHERTYPE || frame.offload().is_some() {
                        lent.push((bytes, frame.offload().is_some()));
                    }
                }
                taken
            });
        }
        let dropped = std::mem::take(&mut self.ingress.tally).dropped();
        if dropped > 0 { Err(format!("{} lent {dropped} frames that are none", self.name)) } else { Ok(lent) }
    }

    /// Polls until `count` frames came.
    fn receive(&mut self, count: usize) -> Result<Lent> {
        let (mut lent, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        // The poll that finds nothing gives the last slots back, as a worker's does.
        let mut empty = false;
        while lent.len() < count || !empty {
            let more = self.poll(Taken::ALL)?;
            empty = more.is_empty();
            lent.extend(more);
            if Instant::now() > deadline {
                return Err(format!("{} heard {} of {count} frames", self.name, lent.len()));
            }
        }
        Ok(lent)
    }
}

fn frame(number: usize, length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|at| (number + at) as u8).collect();
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame
}

/// So many frames that the rings come round.
fn exchange(from: &mut End, to: &mut End, length: usize) -> Result<()> {
    for round in 0..80 {
        let frames: Vec<Vec<u8>> = (0..16).map(|number| frame(round * 16 + number, length)).collect();
        from.send(&frames, None)?;
        let lent =
            to.receive(frames.len()).map_err(|error| format!("{error} of {length} bytes, round {round}"))?;
        let lent: Vec<Vec<u8>> = lent.into_iter().map(|(bytes, _)| bytes).collect();
        if lent != frames {
            let lens: Vec<usize> = lent.iter().map(Vec::len).collect();
            return Err(format!("{length} bytes, round {round}: other frames came: {lens:?}"));
        }
    }
    Ok(())
}

fn hold(from: &mut End, to: &mut End) -> Result<()> {
    let frames: Vec<Vec<u8>> = (0..4).map(|number| frame(number, 1514)).collect();
    from.send(&frames, None)?;
    let (mut held, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while held.len() < frames.len() && Instant::now() < deadline {
        held = to.poll(Taken(0))?;
    }
    let again = to.receive(frames.len())?;
    let whole = held == again && again.iter().map(|(bytes, _)| bytes).eq(frames.iter());
    if whole {
        Ok(())
    } else {
        Err(format!("{} of {} frames were held and lent again", again.len(), frames.len()))
    }
}

fn ring(from: &mut End, to: &mut End) -> Result<()> {
    let ends: Vec<_> = to.attachment.ingress.clone();
    let quiet = ends.iter().all(|end| end.doorbell.arm() == Arming::Quiet);
    if !quiet || is_ringing(&ends, Duration::ZERO)? {
        return Err(format!("{} is not quiet", to.name));
    }
    from.send(&[frame(0, 60)], None)?;
    match is_ringing(&ends, PATIENCE)? {
        true => to.receive(1).map(drop),
        false => Err(format!("{} does not ring", to.name)),
    }
}

fn is_ringing(ends: &[std::sync::Arc<IngressEnd>], within: Duration) -> Result<bool> {
    let fds: Option<Vec<_>> = ends.iter().map(|end| end.doorbell.fd()).collect();
    let fds = fds.ok_or("an ingress has no doorbell")?;
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: 0 };
    poll(&mut polled, Some(&limit)).map(|ready| ready > 0).map_err(|error| format!("poll: {error}"))
}

/// A TCP packet of 4,000 bytes whose receiver is to cut it.
fn offload(from: &mut End, to: &mut End) -> Result<()> {
    let mut packet = frame(0, 54 + 4000);
    packet[12..15].copy_from_slice(&[8, 0, 0x45]);
    packet[16..18].copy_from_slice(&4040u16.to_be_bytes());
    (packet[20], packet[21], packet[23]) = (0, 0, 6);
    (packet[46], packet[47]) = (0x50, 0x10);
    let net = [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0];
    from.send(std::slice::from_ref(&packet), Some(&net))?;
    match to.receive(1)?.as_slice() {
        [(bytes, true)] if *bytes == packet => Ok(()),
        other => Err(format!("{} frames came, and not the one that was sent", other.len())),
    }
}

/// Frames a second from one port to the other, by one thread.
fn rate(from: &mut End, to: &mut End, length: usize) -> Result<f64> {
    let frames: Vec<Vec<u8>> = (0..BURST_FRAMES).map(|number| frame(number, length)).collect();
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(1) {
        from.send(&frames, None)?;
        for end in &to.attachment.ingress {
            end.doorbell.disarm();
            received += end.ingress.poll(&mut to.ingress, &mut |_| Taken::ALL);
        }
    }
    Ok(received as f64 / start.elapsed().as_secs_f64())
}

/// Local experimental.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const PATIENCE: Duration = Duration::from_secs(5);
