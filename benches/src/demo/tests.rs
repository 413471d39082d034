//! The demo against a switch of this process, whole and with faults put in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringyard_dataplane::frame::{Burst, BurstScratch};
use ringyard_dataplane::port::{Egress, EgressScratch};
use ringyard_dataplane::switch::{Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;

use super::*;
use crate::bare;
use crate::guest::Features;

/// What is done to frames on their way to guest B, every hundredth time.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Lose,
    Corrupt,
    Swap,
    Hold,
}

/// Stands between the switch and a guest's receive ring.
struct Faulty {
    inner: Arc<dyn Egress>,
    fault: Fault,
    count: AtomicU64,
}

impl Egress for Faulty {
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let now = self.count.fetch_add(1, Ordering::Relaxed) % 100 == 99;
        let mut picks = picks.to_vec();
        match self.fault {
            Fault::None => (),
            // The ways must open first.
            Fault::Hold if self.count.load(Ordering::Relaxed) > 100 => return picks.len(),
            Fault::Lose if now => {
                picks.pop();
                let settled = self.inner.send(scratch, burst, &picks);
                // The lost one is settled too, or it would be held.
                return settled + usize::from(settled == picks.len());
            }
            Fault::Swap if now => picks.reverse(),
            Fault::Corrupt if now => return self.send_corrupted(scratch, burst, &picks),
            _ => (),
        }
        self.inner.send(scratch, burst, &picks)
    }
}

impl Faulty {
    /// Small frames, which their header copies hold whole.
    fn send_corrupted(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let mut copies: Vec<Vec<u8>> = burst.frames().map(|frame| frame.header().to_vec()).collect();
        copies[usize::from(picks[0])][60] ^= 0x10;
        let mut own = BurstScratch::default();
        let mut builder = own.begin(burst.queue());
        copies.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        self.inner.send(scratch, &builder.burst(), picks)
    }
}

fn demo_with(fault: Fault, lens: &[usize]) -> DemoOutcome {
    let config = SwitchConfig { cores: vec![None], mode: Mode::Adaptive };
    let mut switch = Switch::start(&config).unwrap();
    let features = Features { in_order: false, ..Features::ALL };
    let mut guests: Vec<Guest> =
        (0..2).map(|_| Guest::new(&GuestConfig::default(), features).unwrap()).collect();
    for (index, guest) in guests.iter().enumerate() {
        let fault = if index == 1 { fault } else { Fault::None };
        let wrap = |inner| Arc::new(Faulty { inner, fault, count: AtomicU64::new(0) }) as Arc<dyn Egress>;
        bare::plug_behind(&mut switch, guest, guest_mac(index), wrap).unwrap();
    }
    switch.publish();
    let mut guests: Vec<&mut Guest> = guests.iter_mut().collect();
    open_ways(&mut guests).unwrap();
    let mut outcome = DemoOutcome::default();
    let mut sink = std::io::sink();
    let mut screen = Screen::new(&mut sink, true);
    for &len in lens {
        let time = Duration::from_millis(300);
        let exchanged = exchange_frames(&mut guests, len, time, &mut screen, &mut outcome).unwrap();
        outcome.add_flows(len, &exchanged);
    }
    if outcome.stalled.is_none() {
        ping::run(&mut guests, SMALL, Duration::from_millis(50), &mut outcome).unwrap();
    }
    outcome
}

#[test]
fn whole_switch_passes() {
    let outcome = demo_with(Fault::None, &[SMALL, LARGE]);
    assert_eq!(outcome.failure(), None);
    assert_eq!(outcome.flows.len(), 4);
    assert!(outcome.to_string().contains("passed"), "{outcome}");
}

#[test]
fn lost_frame_fails_the_demo() {
    let outcome = demo_with(Fault::Lose, &[SMALL]);
    assert!(outcome.faults().lost > 0);
    assert!(outcome.failure().unwrap().contains("lost"), "{outcome}");
}

#[test]
fn corrupted_frame_fails_the_demo() {
    let outcome = demo_with(Fault::Corrupt, &[SMALL]);
    assert!(outcome.faults().corrupted > 0);
    assert!(outcome.failure().unwrap().contains("corrupted"), "{outcome}");
}

#[test]
fn reordered_frames_fail_the_demo() {
    let outcome = demo_with(Fault::Swap, &[SMALL]);
    assert!(outcome.faults().reordered > 0);
    assert!(outcome.failure().unwrap().contains("reordered"), "{outcome}");
}

#[test]
fn switch_that_stands_still_fails_the_demo() {
    let outcome = demo_with(Fault::Hold, &[SMALL]);
    assert!(!outcome.passed(), "{outcome}");
    assert!(outcome.to_string().contains("FAILED"), "{outcome}");
}

#[test]
fn demo_of_one_guest_is_refused() {
    let mut guest = Guest::new(&GuestConfig::default(), Features::ALL).unwrap();
    let error = run_with(&mut [&mut guest], &DemoConfig::default(), &mut std::io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "the demo needs two guests or more");
}

#[test]
fn lines_are_drawn_over_on_a_terminal_only() {
    for interactive in [true, false] {
        let config = SwitchConfig { cores: vec![None], mode: Mode::Adaptive };
        let mut switch = Switch::start(&config).unwrap();
        let features = Features { in_order: false, ..Features::ALL };
        let mut a = Guest::new(&GuestConfig::default(), features).unwrap();
        let mut b = Guest::new(&GuestConfig::default(), features).unwrap();
        bare::plug(&mut switch, &a, guest_mac(0)).unwrap();
        bare::plug(&mut switch, &b, guest_mac(1)).unwrap();
        switch.publish();
        let mut text = Vec::new();
        let config = DemoConfig { seconds: 3, interactive, ..DemoConfig::default() };
        assert!(run_with(&mut [&mut a, &mut b], &config, &mut text).unwrap().passed());
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.contains('\x1b'), interactive);
        assert!(text.contains("A -> B") && text.contains("Gbit/s") && text.contains("p99"), "{text}");
    }
}

#[test]
fn qemu_command_plugs_in_a_guest_with_shared_memory() {
    let command = qemu_command(Path::new("/tmp/x.sock"), "52:54:00:00:00:09");
    for part in ["share=on", "path=/tmp/x.sock", "mac=52:54:00:00:00:09", "vhost-user", "memory-backend=mem"]
    {
        assert!(command.contains(part), "{part}");
    }
}
