//! Streams that are no frames (S01) and peers that do nothing (S02), with innocents beside them.

use std::io::Write;
use std::time::{Duration, Instant};

use ringyard_tests::Result;
use ringyard_tests::error::Doing;
use ringyard_tests::stats::Stats;
use ringyard_tests::switch::Switch;
use serde_json::json;

use crate::bench::{Innocents, PATIENCE, SILENCE, Station, frame, plug, record, unix, wait_info};

/// Waits until that many frames were dropped.
fn wait_dropped(switch: &mut Switch, port: &str, reason: &str, count: u64) -> Result<()> {
    let all = |stats: &Stats| dropped(stats, port, reason) == count;
    switch.wait_stats(&format!("{count} drops for {reason}"), PATIENCE, all).map(drop)
}

fn dropped(stats: &Stats, port: &str, reason: &str) -> u64 {
    let port = stats.port(port).expect("it is plugged");
    let sides = [&port.ingress.drops, &port.egress.drops];
    sides.iter().filter_map(|drops| drops.get(reason)).sum()
}

#[test]
fn s01_runts_and_empty_records_are_no_frames_and_end_nothing() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let innocents = Innocents::start(&mut switch)?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let mut hostile = Station::plug(&mut switch, "hostile", 0)?;
    for number in 0..20 {
        for len in 0..14 {
            hostile.send(&vec![7; len])?;
        }
        hostile.send(&frame(1, number, 60))?;
        station.expect(&frame(1, number, 60))?;
    }
    wait_dropped(&mut switch, "hostile", "runt", 20 * 13)?;
    for len in [65_558, 69_632] {
        hostile.send(&vec![0xff; len])?;
        hostile.send(&frame(1, len as u64, 60))?;
        station.expect(&frame(1, len as u64, 60))?;
    }
    wait_dropped(&mut switch, "hostile", "too_long", 2)?;
    assert_eq!(station.receive(SILENCE)?, None);
    innocents.finish()?;
    switch.finish()
}

#[test]
fn s01_million_of_empty_records_starves_nobody() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let innocents = Innocents::start(&mut switch)?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let mut hostile = Station::plug(&mut switch, "hostile", 0)?;
    hostile.stream.write_all(&vec![0; 4_000_000]).doing("sending a million of empty records")?;
    hostile.send(&frame(1, 0, 60))?;
    station.expect(&frame(1, 0, 60))?;
    let stats = switch.wait_stats("the frame to be counted", PATIENCE, |stats| {
        stats.port("hostile").is_some_and(|port| port.ingress.frames == 1)
    })?;
    assert!(stats.port("hostile").is_some_and(|port| port.ingress.drops.is_empty()));
    innocents.finish()
}

#[test]
fn s01_record_that_is_too_long_ends_that_connection() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let innocents = Innocents::start(&mut switch)?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let path = switch.path("hostile.sock");
    plug(&mut switch, "hostile", 0, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
    for (number, len) in (0..).zip([69_633, 1 << 31, u32::MAX]) {
        let mut hostile = Station::connect(&path)?;
        hostile.send(&frame(1, number, 60))?;
        hostile.stream.write_all(&len.to_be_bytes()).doing("sending a length")?;
        // It may hang up before it has read all of this.
        let _ = hostile.stream.write_all(&[0; 10_000]);
        station.expect(&frame(1, number, 60))?;
        hostile.expect_end()?;
        wait_info(&mut switch, "hostile", "listening")?;
    }
    wait_dropped(&mut switch, "hostile", "too_long", 3)?;
    innocents.finish()
}

#[test]
fn s01_records_in_pieces_of_any_length_are_put_together() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut station = Station::plug(&mut switch, "station", 0)?;
    let mut slow = Station::plug(&mut switch, "slow", 0)?;
    let bytes = [record(&frame(1, 0, 100)), record(&frame(1, 1, 22))].concat();
    for cut in 0..=bytes.len() {
        let (front, rest) = bytes.split_at(cut);
        slow.stream.write_all(front).doing("sending the front")?;
        if cut >= 104 {
            station.expect(&frame(1, 0, 100))?;
        } else if cut % 16 == 1 {
            assert_eq!(station.receive(Duration::from_millis(5))?, None);
        }
        slow.stream.write_all(rest).doing("sending the rest")?;
        if cut < 104 {
            station.expect(&frame(1, 0, 100))?;
        }
        station.expect(&frame(1, 1, 22))?;
    }
    // A length in four reads, and all else byte by byte.
    for byte in &bytes {
        slow.stream.write_all(&[*byte]).doing("sending a byte")?;
    }
    station.expect(&frame(1, 0, 100))?;
    station.expect(&frame(1, 1, 22))
}

#[test]
fn s02_peer_that_stops_inside_a_record_keeps_nobody() -> Result<()> {
    for front in [1, 4, 50] {
        let mut switch = Switch::start(&[])?;
        let innocents = Innocents::start(&mut switch)?;
        let mut station = Station::plug(&mut switch, "station", 0)?;
        let mut stopped = Station::plug(&mut switch, "stopped", 0)?;
        stopped.stream.write_all(&record(&frame(1, 0, 100))[..front]).doing("sending a part")?;
        // The other way is open.
        station.send(&frame(2, 0, 1514))?;
        stopped.expect(&frame(2, 0, 1514))?;
        assert_eq!(station.receive(SILENCE)?, None);
        let began = Instant::now();
        switch.unplug("stopped")?;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        innocents.finish()?;
        switch.finish()?;
    }
    Ok(())
}

#[test]
fn s02_peer_that_never_reads_is_counted_and_keeps_nobody() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let innocents = Innocents::start(&mut switch)?;
    let mut sender = Station::plug(&mut switch, "sender", 0)?;
    let mut live = Station::plug(&mut switch, "live", 0)?;
    let mut deaf = Station::plug(&mut switch, "deaf", 0)?;
    // More than any socket keeps, to both; the live one is waited for, and gets all of it.
    let count = 2000;
    for number in 0..count {
        sender.send(&frame(1, number, 1514))?;
        live.expect(&frame(1, number, 1514)).doing(format!("number {number}"))?;
    }
    let full = |stats: &Stats| dropped(stats, "deaf", "no_room") > 0;
    let stats = switch.wait_stats("drops of the deaf one", PATIENCE, full)?;
    assert_eq!(dropped(&stats, "live", "no_room"), 0);
    let port = stats.port("deaf").expect("it is plugged");
    assert_eq!(port.egress.frames + dropped(&stats, "deaf", "no_room"), count);
    // What it was given it may still read, whole.
    for number in 0..port.egress.frames {
        deaf.expect(&frame(1, number, 1514)).doing(format!("number {number} late"))?;
    }
    sender.send(&frame(1, count, 60))?;
    deaf.expect(&frame(1, count, 60))?;
    live.expect(&frame(1, count, 60))?;
    innocents.finish()?;
    switch.finish()
}

#[test]
fn s02_port_whose_peer_never_reads_goes_at_once() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut sender = Station::plug(&mut switch, "sender", 0)?;
    let _deaf = Station::plug(&mut switch, "deaf", 0)?;
    sender.stream.set_write_timeout(Some(PATIENCE)).doing("setting a time limit")?;
    // The only taker: the sender is held back for a moment at a time, and never for good.
    for number in 0..2000 {
        sender.send(&frame(1, number, 1514))?;
    }
    let began = Instant::now();
    switch.unplug("deaf")?;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    switch.finish()
}
