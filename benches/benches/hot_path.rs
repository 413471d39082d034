//! What a frame costs in the data plane: from ring to ring alone, through the whole forwarding step, and the hub's
//! look-up. The drivers' work is not in the times. Run: `cargo bench -p ringyard-benches --bench hot_path`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringyard_benches::bare;
use ringyard_benches::guest::{Features, Guest, GuestConfig};
use ringyard_benches::traffic::{SEQUENCE, Template, guest_mac};
use ringyard_dataplane::counters::Journal;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::forward::Forwarder;
use ringyard_dataplane::frame::{BURST_FRAMES, BurstScratch, Taken};
use ringyard_dataplane::hold::Holding;
use ringyard_dataplane::hub::{HubTable, Member};
use ringyard_dataplane::port::{EgressScratch, IngressScratch};
use ringyard_dataplane::snapshot::PortIndex;

/// Two guests whose rings are served by the thread that drives them.
struct Pair {
    from: Guest,
    to: Guest,
    sequence: u64,
}

impl Pair {
    fn new(frame_len: usize) -> Pair {
        let features = Features { in_order: false, event_idx: false, ..Features::SPLIT };
        let guest = || Guest::new(&GuestConfig::default(), features).expect("memory for a guest");
        let mut pair = Pair { from: guest(), to: guest(), sequence: 0 };
        let mut template = Template::new(0, 1, frame_len).expect("a frame length that fits");
        pair.from.pair().send.prepare(template.stamp(0));
        pair
    }

    /// Takes back what the last burst left and offers the next.
    fn refill(&mut self, frame_len: usize) {
        self.to.pair().receive.receive(BURST_FRAMES, |_| ()).expect("a device of ours");
        let sender = &mut self.from.pair().send;
        sender.reclaim().expect("a device of ours");
        let first = self.sequence;
        let sent = sender.send_row(BURST_FRAMES, frame_len, SEQUENCE, |place| first + place as u64);
        assert_eq!(sent, BURST_FRAMES, "the last burst came back");
        self.sequence += sent as u64;
        sender.flush();
    }

    /// The time that `step` takes for `rounds` bursts.
    fn time(&mut self, frame_len: usize, rounds: u64, mut step: impl FnMut() -> usize) -> Duration {
        let mut time = Duration::ZERO;
        for _ in 0..rounds {
            self.refill(frame_len);
            let start = Instant::now();
            assert_eq!(step(), BURST_FRAMES);
            time += start.elapsed();
        }
        time
    }
}

fn ring_to_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring_to_ring");
    group.throughput(Throughput::Elements(BURST_FRAMES as u64));
    for frame_len in [64, 1500] {
        let mut pair = Pair::new(frame_len);
        let from = bare::attachment(&pair.from).expect("rings of ours");
        let to = bare::attachment(&pair.to).expect("rings of ours");
        let (ingress, egress) = (from.ingress[0].ingress.clone(), to.egress[0].clone());
        let picks: Vec<u8> = (0..BURST_FRAMES as u8).collect();
        let (mut in_scratch, mut out_scratch) = (IngressScratch::default(), EgressScratch::default());
        group.bench_function(format!("{frame_len}"), |b| {
            b.iter_custom(|rounds| {
                pair.time(frame_len, rounds, || {
                    ingress.poll(&mut in_scratch, &mut |burst| {
                        egress.send(&mut out_scratch, burst, &picks[..burst.len()]);
                        Taken::ALL
                    })
                })
            })
        });
    }
    group.finish();
}

fn forwarding_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("forwarding_step");
    group.throughput(Throughput::Elements(BURST_FRAMES as u64));
    for frame_len in [64, 1500] {
        let mut pair = Pair::new(frame_len);
        let macs = [guest_mac(0), guest_mac(1)];
        let snapshot = bare::snapshot(&[&pair.from, &pair.to], &macs).expect("rings of ours");
        let journal = Journal::new(1).expect("memory for the books");
        let mut forwarder = Forwarder::new(&journal, 0);
        forwarder.adopt(&snapshot);
        let (duty, mut holding) = (snapshot.duties[0][0].clone(), Holding::default());
        group.bench_function(format!("{frame_len}"), |b| {
            b.iter_custom(|rounds| {
                pair.time(frame_len, rounds, || forwarder.serve(&snapshot, &duty, &mut holding))
            })
        });
    }
    group.finish();
}

fn hub_look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub_look_up");
    group.throughput(Throughput::Elements(BURST_FRAMES as u64));
    for ports in [2, 1000] {
        let member = |index: usize| Member {
            port: PortIndex(index as u16),
            up: true,
            filter: Some(Arc::new(RxFilter::new(guest_mac(index)))),
        };
        let members: Vec<Member> = (0..ports).map(member).collect();
        let table = HubTable::new(&members);
        // To every port in turn, so that 1,000 ports touch 1,000 entries.
        let frames: Vec<Vec<u8>> = (0..ports)
            .map(|to| Template::new(0, to, 64).expect("a frame length that fits").stamp(0).to_vec())
            .collect();
        let (mut scratch, mut next) = (BurstScratch::default(), 0);
        group.bench_function(format!("{ports}_ports"), |b| {
            b.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    let mut builder = scratch.begin(0);
                    for _ in 0..BURST_FRAMES {
                        next = (next + 1) % ports;
                        builder.push_slice(&frames[next]).expect("a frame that fits");
                    }
                    let (burst, start) = (builder.burst(), Instant::now());
                    for frame in burst.frames() {
                        table.for_each_taker(PortIndex(0), &frame, |verdict| {
                            black_box(verdict);
                        });
                    }
                    time += start.elapsed();
                }
                time
            })
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).without_plots();
    targets = ring_to_ring, forwarding_step, hub_look_up
}
criterion_main!(benches);
