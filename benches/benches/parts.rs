//! What each part of a frame's way costs by itself: the checksum, segmentation, reading a frame's headers and its
//! virtio-net header, the rx-filter, the hub's look-up, and a ring's two ends. Run:
//! `cargo bench -p ringyard-benches --bench parts`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use ringyard_benches::bare;
use ringyard_benches::guest::{Features, Guest, GuestConfig};
use ringyard_benches::traffic::{SEQUENCE, Template, guest_mac};
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::frame::{BURST_FRAMES, BurstScratch, OFFLOAD_HEADER_LEN, Taken};
use ringyard_dataplane::hub::{HubTable, Member};
use ringyard_dataplane::offload::{NET_HEADER_LEN, Offload, Offloads, Segments, Sum};
use ringyard_dataplane::port::{EgressScratch, IngressScratch};
use ringyard_dataplane::snapshot::PortIndex;

/// Bytes of Ethernet, IPv4 and TCP headers without options.
const HEADERS_LEN: usize = 54;
const SEGMENT: u16 = 1448;

/// A TCP frame, and the net header that asks for its checksum, and for segments if there is more than one.
fn tcp(len: usize) -> (Vec<u8>, [u8; NET_HEADER_LEN]) {
    let builder = PacketBuilder::ethernet2(guest_mac(0).0, guest_mac(1).0)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4);
    let payload = vec![0x5a; len - HEADERS_LEN];
    let mut frame = Vec::with_capacity(len);
    builder.write(&mut frame, &payload).expect("a frame that fits");
    let [low, high] = SEGMENT.to_le_bytes();
    let several = payload.len() > usize::from(SEGMENT);
    let net = if several { [1, 1, 0, 0, low, high, 34, 0, 16, 0] } else { [1, 0, 0, 0, 0, 0, 34, 0, 16, 0] };
    (frame, net)
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64, 1500, 65_000] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| b.iter(|| Sum::of(black_box(&bytes)).checksum()));
    }
    group.finish();
}

/// All that a receiver without offloads gets is copied and summed in one pass; beside it, the copy alone.
fn segmentation(c: &mut Criterion) {
    let mut group = c.benchmark_group("segmentation");
    for len in [1514, 65_000] {
        let (frame, net) = tcp(len);
        let (mut scratch, mut to) = (BurstScratch::default(), vec![0; 2 * len]);
        let mut builder = scratch.begin(0);
        builder.push_asking(&net, &frame, Offloads::ALL).expect("a frame that fits");
        let burst = builder.burst();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| {
            b.iter(|| {
                let mut segments = Segments::of(&burst.frame(0)).expect("a frame that asks");
                let mut at = 0;
                while let Some(payload) = segments.next_payload() {
                    let headers = segments.header_len();
                    let sum = payload.copy_to(&mut to[at + headers..]).expect("enough room");
                    to[at..at + headers].copy_from_slice(segments.header(sum));
                    at += headers + payload.len();
                }
                black_box(at)
            })
        });
        group.bench_function(format!("{len}_copied"), |b| {
            b.iter(|| burst.frame(0).copy_to(black_box(&mut to)))
        });
    }
    group.finish();
}

fn header_parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("header_parse");
    for (name, len) in [("checksum", 64), ("segments", 65_000)] {
        let (frame, net) = tcp(len);
        let header = &frame[..len.min(OFFLOAD_HEADER_LEN)];
        group.bench_function(name, |b| {
            b.iter(|| Offload::parse(black_box(&net), black_box(header), len, Offloads::ALL))
        });
    }
    for len in [64, 1500] {
        let frame = Template::new(0, 1, len).expect("a frame length that fits").stamp(0).to_vec();
        let mut scratch = BurstScratch::default();
        group.throughput(Throughput::Elements(BURST_FRAMES as u64));
        group.bench_function(format!("burst_of_{len}"), |b| {
            b.iter(|| {
                let mut builder = scratch.begin(0);
                for _ in 0..BURST_FRAMES {
                    builder.push_slice(black_box(&frame)).expect("a frame that fits");
                }
                let burst = builder.burst();
                burst.frames().map(|frame| (frame.destination(), frame.vlan())).for_each(|read| {
                    black_box(read);
                });
            })
        });
    }
    group.finish();
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("look_up");
    let filter = RxFilter::new(guest_mac(1));
    group.bench_function("filter", |b| b.iter(|| filter.admits(black_box(guest_mac(1)), black_box(None))));
    group.throughput(Throughput::Elements(BURST_FRAMES as u64));
    for ports in [2, 1000] {
        let member = |index: usize| Member {
            port: PortIndex(index as u16),
            up: true,
            filter: Some(Arc::new(RxFilter::new(guest_mac(index)))),
        };
        let members: Vec<Member> = (0..ports).map(member).collect();
        let table = HubTable::new(&members);
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        // To ports all over the table.
        let frames: Vec<Vec<u8>> = (0..BURST_FRAMES)
            .map(|index| {
                let to = (1 + index * 15) % ports;
                Template::new(0, to, 64).expect("a frame length that fits").stamp(0).to_vec()
            })
            .collect();
        frames.iter().for_each(|frame| builder.push_slice(frame).expect("a frame that fits"));
        let burst = builder.burst();
        group.bench_function(format!("hub_of_{ports}"), |b| {
            b.iter(|| {
                for frame in burst.frames() {
                    table.for_each_taker(PortIndex(0), &frame, |verdict| {
                        black_box(verdict);
                    });
                }
            })
        });
    }
    group.finish();
}

/// A guest's rings, served by the thread that drives them: taking a burst out of one, and putting a burst into the other.
fn ring_ends(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(BURST_FRAMES as u64));
    for frame_len in [64, 1500] {
        let features = Features { in_order: false, event_idx: false, ..Features::SPLIT };
        let mut guest = Guest::new(&GuestConfig::default(), features).expect("memory for a guest");
        let attachment = bare::attachment(&guest).expect("rings of ours");
        let frame = Template::new(0, 1, frame_len).expect("a frame length that fits").stamp(0).to_vec();
        guest.pair().send.prepare(&frame);
        let (ingress, mut scratch) = (attachment.ingress[0].ingress.clone(), IngressScratch::default());
        group.bench_function(format!("pop_{frame_len}"), |b| {
            b.iter_custom(|rounds| {
                timed(rounds, || {
                    let sender = &mut guest.pair().send;
                    sender.reclaim().expect("a device of ours");
                    let sent = sender.send_row(BURST_FRAMES, frame_len, SEQUENCE, |_| 0);
                    assert_eq!(sent, BURST_FRAMES, "the last burst came back");
                    sender.flush();
                    let start = Instant::now();
                    let polled = ingress.poll(&mut scratch, &mut |burst| {
                        black_box(burst.len());
                        Taken::ALL
                    });
                    assert_eq!(polled, BURST_FRAMES);
                    start.elapsed()
                })
            })
        });
        let (egress, mut scratch) = (attachment.egress[0].clone(), EgressScratch::default());
        let mut lent = BurstScratch::default();
        let mut builder = lent.begin(0);
        (0..BURST_FRAMES).for_each(|_| builder.push_slice(&frame).expect("a frame that fits"));
        let burst = builder.burst();
        let picks: Vec<u8> = (0..BURST_FRAMES as u8).collect();
        group.bench_function(format!("push_{frame_len}"), |b| {
            b.iter_custom(|rounds| {
                timed(rounds, || {
                    guest.pair().receive.receive(BURST_FRAMES, |_| ()).expect("a device of ours");
                    let start = Instant::now();
                    assert_eq!(egress.send(&mut scratch, &burst, &picks), BURST_FRAMES);
                    start.elapsed()
                })
            })
        });
    }
    group.finish();
}

fn timed(rounds: u64, mut round: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| round()).sum()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = checksum, segmentation, header_parse, look_up, ring_ends
}
criterion_main!(benches);
