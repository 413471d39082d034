//! Run in a guest by the tests: sends numbered frames to a neighbour and counts the neighbour's, until a file appears, then
//! says what became of them. `numbered INTERFACE OWN-MAC NEIGHBOUR-MAC LENGTH RATE FILE`; one line of JSON.

use std::path::Path;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig};
use ringyard_tests::netns::parse_mac;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::{Doing, Error, Result};
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, own, neighbour, length, rate, file] = &arguments[..] else {
        return Err(Error::new("INTERFACE OWN-MAC NEIGHBOUR-MAC LENGTH RATE FILE"));
    };
    let mac = |text: &str| parse_mac(text).ok_or_else(|| Error::new(format!("{text} is no MAC address")));
    let (source, destination) = (mac(own)?, mac(neighbour)?);
    let length = length.parse().doing("reading the length")?;
    let rate = rate.parse().doing("reading the rate")?;
    let config = FlowConfig { destination, source, length, rate };
    let socket = || PacketSocket::open_here(interface);
    let flow = Flow::exchange(socket()?, socket()?, config, destination);
    let file = Path::new(file);
    wait_for("the end", TIME_MAX, || Ok(file.exists().then_some(())))?;
    let (report, gaps) = flow.finish_with_gaps()?;
    let numbers = [report.sent, report.received, report.doubled, report.overtaken];
    println!("{}", json!({"numbers": numbers, "gaps": gaps}));
    Ok(())
}

/// Longer than any test.
const TIME_MAX: Duration = Duration::from_secs(600);
