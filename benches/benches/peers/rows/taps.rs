//! Traffic of the kernel's own between two namespaces: TCP by iperf3, and UDP datagrams whose frames have 64 bytes. The
//! switch and both ends share all cores, as the scheduler sees fit.

use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::netns::Netns;
use ringyard_tests::process::Process;
use serde_json::Value;

use super::subject;
use crate::contender::Contender;
use crate::udp;
use crate::wire::{RIGHT, Wire};
use ringyard_benches::comparison::{Figure, Part, Series};

/// One stream of iperf3 from left to right, what arrived.
pub fn tcp(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    let directory = tempfile::tempdir().doing("making a directory for iperf3's logs")?;
    let mut wires = start(contenders)?;
    let mut servers = Vec::new();
    for (number, wire) in wires.iter().enumerate() {
        let mut iperf3 = wire.right.command("iperf3")?;
        iperf3.arg("-s");
        servers.push(Process::start(&format!("iperf3-{number}"), iperf3, directory.path())?);
        wait_for("iperf3 to listen", START_TIME_MAX, || {
            Ok(wire.right.run("ss -Hltn sport = :5201")?.contains(":5201").then_some(()))
        })?;
    }
    let series = series(&mut wires, rounds, |left, _, series| {
        let seconds = TCP_SECONDS.to_string();
        let answer = left.run(&format!("iperf3 -J -c {RIGHT} -t {seconds}"))?;
        let answer: Value = serde_json::from_str(&answer).doing("reading iperf3's answer")?;
        let rate = answer["end"]["sum_received"]["bits_per_second"].as_f64();
        series.values.push(rate.ok_or_else(|| Error::new(format!("iperf3 says {answer}")))? / 1e9);
        Ok(())
    })?;
    drop(servers);
    Ok(vec![figure("TCP by iperf3, Gbit/s", 2, contenders, series)])
}

/// As many datagrams as the sender can send, what was received.
pub fn udp(contenders: &[Contender], rounds: usize) -> Result<Vec<Part>> {
    let mut wires = start(contenders)?;
    let series = series(&mut wires, rounds, |left, right, series| {
        let flood = udp::flood(left, right, RIGHT, UDP_TIME)?;
        series.values.push(flood.received as f64 / flood.elapsed.as_secs_f64() / 1e6);
        *series.lost.get_or_insert(0) += flood.sent.saturating_sub(flood.received);
        Ok(())
    })?;
    Ok(vec![figure("UDP as fast as it can be sent, 64 B frames received, Mpps", 3, contenders, series)])
}

fn start(contenders: &[Contender]) -> Result<Vec<Wire>> {
    contenders.iter().map(|contender| Wire::start(*contender)).collect()
}

fn series(
    wires: &mut [Wire],
    rounds: usize,
    method: impl Fn(&Netns, &Netns, &mut Series) -> Result<()>,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = wires.iter().map(|wire| Series::new(wire.name)).collect();
    for _ in 0..rounds {
        for (wire, series) in wires.iter_mut().zip(&mut all) {
            wire.awake(|left, right| method(left, right, series))?;
        }
    }
    Ok(all)
}

fn figure(name: &str, digits: usize, contenders: &[Contender], series: Vec<Series>) -> Part {
    Part::Figure(Figure { name: name.into(), digits, subject: subject(contenders), series })
}

/// iperf3 measures whole seconds.
const TCP_SECONDS: u32 = 1;
const UDP_TIME: Duration = Duration::from_millis(500);
const START_TIME_MAX: Duration = Duration::from_secs(10);
