//! A guest that means harm, or resets all the time, harms nobody but itself.

use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Guest, GuestConfig};
use ringyard_dataplane::ring::DriverMemory;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};

/// Innocents: two taps on hub 0 and a numbered flow from the first to the second.
fn innocents(switch: &mut Switch, hosts: &[Netns; 2]) -> Result<Flow> {
    switch.plug_tap("t0", 0, &hosts[0], &[])?;
    switch.plug_tap("t1", 0, &hosts[1], &[])?;
    let config =
        FlowConfig { destination: hosts[1].mac("t1")?, source: hosts[0].mac("t0")?, length: 200, rate: 3000 };
    Ok(Flow::start(PacketSocket::open(&hosts[0], "t0")?, PacketSocket::open(&hosts[1], "t1")?, config))
}

/// xorshift64*: the same attacks at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of `choices`, or any number at all.
    fn among(&mut self, choices: &[u64]) -> u64 {
        let pick = (self.next() >> 33) as usize;
        if pick.is_multiple_of(8) { self.next() } else { choices[pick / 8 % choices.len()] }
    }
}

/// Writes nonsense into both rings of a guest: descriptors, heads, flags, and where they are said to end.
fn scribble(guest: &Guest, random: &mut Random) {
    let memory = guest.memory();
    let pair = &guest.pairs()[0];
    for layout in [pair.send.queue().layout(), pair.receive.queue().layout()] {
        let offset = |addr: u64| (addr - DriverMemory::USER_ADDR) as usize;
        let (start, end) = (DriverMemory::GUEST_ADDR, DriverMemory::GUEST_ADDR + memory.len() as u64);
        for index in 0..usize::from(layout.size) {
            let place = offset(layout.desc) + 16 * index;
            memory.write_u64(place, random.among(&[start, start + 64, end - 70, end, 0, u64::MAX - 10]));
            let len = random.among(&[0, 1, 12, 26, 100, 1600, 70_000, u64::from(u32::MAX)]) & 0xffff_ffff;
            let flags = random.among(&[0, 1, 2, 3, 4, 5, 6, 7]) & 0xffff;
            let next =
                random.among(&[index as u64, index as u64 + 1, 0, u64::from(layout.size), 0xffff]) & 0xffff;
            memory.write_u64(place + 8, len | flags << 32 | next << 48);
            memory.write(
                offset(layout.avail) + 4 + 2 * index,
                &(random.among(&[0, index as u64]) as u16).to_le_bytes(),
            );
        }
        let ahead = random.among(&[1, 8, u64::from(layout.size), u64::from(layout.size) + 1, 40_000]) as u16;
        let mut index = [0; 2];
        memory.read(offset(layout.used) + 2, &mut index);
        let index = u16::from_le_bytes(index).wrapping_add(ahead);
        memory.write(offset(layout.avail), &(random.next() as u16).to_le_bytes());
        memory.write(offset(layout.avail) + 2, &index.to_le_bytes());
    }
    pair.send.queue().kick();
    pair.receive.queue().kick();
}

#[test]
fn guest_that_floods_malformed_rings_stops_only_itself() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = innocents(&mut switch, &hosts)?;
    let socket = switch.plug_listening("evil", 0)?;
    let mut random = Random(7);
    let until = Instant::now() + Duration::from_secs(8);
    let (mut attacks, mut broken) = (0, 0);
    while Instant::now() < until {
        let front_end =
            FrontEnd::connect(&socket, &GuestConfig::default()).doing("plugging the attacker in")?;
        for _ in 0..20 {
            scribble(&front_end.guest, &mut random);
            std::thread::yield_now();
        }
        let stats = switch.stats()?;
        let queues = &stats.port("evil").expect("it was added").queues;
        broken += usize::from(queues.iter().any(|queue| queue.ingress_ring.starts_with("broken")));
        attacks += 1;
    }
    let report = flow.finish()?;
    // The attacker's port has no nic, so it hears the flow, and nonsense in its ring may send again what it heard: frames
    // that come twice, or late, are its own.
    assert_eq!(report.lost(), 0, "{report:?}");
    assert!(attacks >= 20 && broken > attacks / 4, "{attacks} attacks, {broken} seen as broken rings");

    let mut honest =
        FrontEnd::connect(&socket, &GuestConfig::default()).doing("plugging an honest guest in")?;
    let before = switch.wait_carrier("evil", Duration::from_secs(5))?;
    assert!(honest.guest.pair().send.send(&[0xff; 60]), "a fresh ring has room");
    honest.guest.pair().send.flush();
    let frames =
        |stats: &ringyard_tests::stats::Stats| stats.port("evil").map_or(0, |port| port.ingress.forwarded);
    switch.wait_stats("the honest frame", Duration::from_secs(5), |stats| frames(stats) > frames(&before))?;
    drop(honest);
    switch.finish()
}

#[test]
fn hundred_resets_a_second_cost_others_nothing_and_control_little() -> Result<()> {
    const RESETS: u32 = 1000;
    const PERIOD: Duration = Duration::from_millis(10);
    let mut switch = Switch::start(&["--workers", "1"])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let flow = innocents(&mut switch, &hosts)?;
    let socket = switch.plug_listening("guest", 0)?;
    let mut front_end = FrontEnd::connect(&socket, &GuestConfig::default()).doing("plugging the guest in")?;
    let began = Instant::now();
    let busy_before = switch.process().cpu_time("control")?;
    for reset in 1..=RESETS {
        front_end.reset().doing("resetting the guest")?;
        std::thread::sleep((began + PERIOD * reset).saturating_duration_since(Instant::now()));
    }
    let (took, busy) = (began.elapsed(), switch.process().cpu_time("control")? - busy_before);
    let report = flow.finish()?;
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
    assert!(took < PERIOD * RESETS * 3 / 2, "1000 resets took {took:?}");
    assert!(busy * 2 < took, "control was busy for {busy:?} of {took:?}");
    drop(front_end);
    switch.finish()
}
