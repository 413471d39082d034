//! A switch that is killed again and again under traffic, and its keeper: guests lose nothing, see one burst twice at most a
//! kill, and wait a moment.

use std::thread;
use std::time::Duration;

use ringyard_benches::guest::{Features, GuestConfig};
use ringyard_tests::exchange::{BURST, Exchange, Flow, ping_on};
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Error, Result};
use serde_json::json;

const KILLS: usize = 100;
/// Kills whose pauses are one measurement, and how long these may be in the median.
const ROUND: usize = 20;
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A switch that lives no longer is one that cannot live, for its keeper.
const LIFE: Duration = Duration::from_millis(120);

/// Kills the switch again and again between two built-in guests with these features.
fn kill_between_built_in_guests(features: Features) -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    let config = GuestConfig { features, ..GuestConfig::default() };
    let guests = [switch.plug_guest(0, &config)?, switch.plug_guest(1, &config)?];
    let exchange = Exchange::start(guests);
    let mut pauses = Vec::new();
    for kill in 0..KILLS {
        exchange.wait(&format!("before kill {kill}"), false)?;
        // At another instant each time, and late enough not to be taken for a switch that cannot live.
        thread::sleep(LIFE + Duration::from_micros((kill as u64 * 7919) % 5000));
        exchange.forget_pauses();
        switch.kill_under_keeper()?;
        exchange.wait(&format!("after kill {kill}"), true)?;
        pauses.push(exchange.longest_pause());
    }
    let (flows, _guests) = exchange.finish()?;
    println!("{KILLS} kills: frames paused for {pauses:?}");
    let medians: Vec<Duration> = pauses.chunks_mut(ROUND).map(median).collect();
    println!("medians of {ROUND} kills: {medians:?}");
    switch.reconnect()?;
    let stats = switch.stats()?;
    for (name, flow) in ["g0", "g1"].into_iter().zip(&flows) {
        let Flow { sent, next, again, returns, fault, .. } = flow;
        println!("{name}: {sent} frames, {again} of them again, {returns} times");
        assert_eq!(fault.as_deref(), None, "{name}");
        assert_eq!(next, sent, "{name} loses nothing");
        assert!(*returns <= KILLS as u64, "{name}: one burst a kill");
        let port = stats.port(name).ok_or_else(|| Error::new("the port is back"))?;
        println!("{name}: {} counted, {} uncertain", port.ingress.frames, port.uncertain);
        assert!(port.uncertain <= KILLS as u64 * BURST, "one burst a kill");
        assert!(
            port.ingress.frames.abs_diff(*sent) <= port.uncertain,
            "the books, as far as they are certain"
        );
    }
    // Each round is a measurement; others may have taken the machine for some of them.
    assert!(medians.iter().any(|&median| median <= PAUSE_MAX), "{medians:?}");
    switch.finish()
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn switch_killed_a_hundred_times_loses_no_frame_of_split_rings() -> Result<()> {
    let _slot = Slot::take()?;
    kill_between_built_in_guests(Features::SPLIT)
}

#[test]
fn switch_killed_a_hundred_times_loses_no_frame_of_packed_rings() -> Result<()> {
    let _slot = Slot::take()?;
    kill_between_built_in_guests(Features { in_order: false, ..Features::ALL })
}

#[test]
fn real_guests_ping_on_while_their_switch_is_killed_and_their_links_stay_up() -> Result<()> {
    let mut switch = Switch::start(&["--keep"])?;
    // 15 s of it.
    ping_on(&mut switch, 300, |switch| {
        for _ in 0..40 {
            thread::sleep(Duration::from_millis(300));
            switch.kill_under_keeper()?;
        }
        Ok(())
    })?;
    switch.reconnect()?;
    let netdevs = switch.qmp().execute("x-query-stats", json!({}));
    assert!(netdevs.is_ok(), "{netdevs:?}");
    switch.finish()
}
