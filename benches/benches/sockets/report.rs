//! A row: all contenders on one medium, measured in turns, as figures.

use std::fs;

use ringyard_benches::bench::machine::Machine;
use ringyard_benches::comparison::{Figure, Part, Report, Series};
use ringyard_benches::pin::Pinned;
use ringyard_tests::error::{Doing, Error, Result};

use crate::contender::Contender;
use crate::flood::Round;
use crate::lane::Lane;
use crate::medium::Medium;
use crate::options::Options;
use crate::{PEERS_CORE, SWITCH_CORE};

/// Rates, and rates of the switch's own time, at every frame length.
pub fn measure(medium: Medium, options: &Options) -> Result<Vec<Part>> {
    let contenders = options.contenders_on(medium);
    let start = |contender: &Contender| Lane::start(*contender, medium).doing(contender.title());
    let mut lanes = contenders.iter().map(start).collect::<Result<Vec<_>>>()?;
    let (mut rates, mut shares) = (Vec::new(), Vec::new());
    for frame_len in FRAME_LENS {
        let series = || contenders.iter().map(|contender| Series::new(contender.title())).collect();
        let (mut rate, mut share): (Vec<Series>, Vec<Series>) = (series(), series());
        for _ in 0..options.rounds {
            for (place, lane) in lanes.iter_mut().enumerate() {
                let _pinned = Pinned::to(PEERS_CORE)?;
                let round = lane.measure(frame_len, options.round_time)?;
                check_round(lane.contender, &round)?;
                rate[place].push(round.mpps(), round.faults.lost, round.waiting());
                share[place].values.extend(round.mpps_of_cpu());
            }
        }
        share.retain(|series| !series.values.is_empty());
        let figure = |series: Vec<Series>, what: &str| {
            let subject = series.iter().position(|series| series.name == Contender::Ringyard.title());
            let name = format!("{}, {frame_len} B, {what}", medium.flag());
            Part::Figure(Figure { name, digits: 3, subject, series })
        };
        rates.push(figure(rate, "Mpps"));
        shares.push(figure(share, "million frames a second of its own time"));
    }
    Ok(rates.into_iter().chain(shares).collect())
}

/// Whoever delivers something else than was sent is not compared.
fn check_round(contender: Contender, round: &Round) -> Result<()> {
    let faults = round.faults;
    if faults.corrupted + faults.reordered + faults.foreign > 0 {
        return Err(Error::new(format!("{}: {faults}", contender.title())));
    }
    Ok(())
}

/// Machine, set-up and contenders.
pub fn opening(options: &Options) -> Result<String> {
    let machine = Machine::here();
    let load = fs::read_to_string("/proc/loadavg").doing("reading the load average")?;
    let mut text = format!(
        "{}, {} cores{}, Linux {}; load average {} at the start. Rounds of every row: {} of {} ms, interleaved, whoever \
         is not under test stopped.\n\nSwitches forward on core {SWITCH_CORE}. On core {PEERS_CORE} one thread sends a \
         burst into one socket, takes what has come at the other, and so on. \"No switch\" is the sender connected to the \
         receiver: what the peers can do. Frame lengths are without FCS. Figures are medians (least to most of the \
         rounds), ratios medians of the rounds' ratios.\n\n",
        machine.cpu,
        machine.cores,
        if machine.virtualised { " of a virtual machine" } else { "" },
        machine.kernel,
        load.split(' ').next().unwrap_or("?"),
        options.rounds,
        options.round_time.as_millis(),
    );
    let contenders = options.contenders();
    let version = |contender: &Contender| Some(format!("{} {}", contender.title(), contender.version()?));
    let versions: Vec<String> = contenders.iter().filter_map(version).collect();
    if !versions.is_empty() {
        text += &format!("Beside it: {}.", versions.join(", "));
    }
    if !options.without.is_empty() {
        let names: Vec<&str> = options.without.iter().map(|contender| contender.title()).collect();
        text += &format!(" **Left out: {}.**", names.join(", "));
    }
    Ok(text)
}

/// The test: every contender moved frames at both lengths on every medium. How fast, and how many were lost on a machine
/// that does other things meanwhile, is no matter.
pub fn check(report: &Report) -> Result<()> {
    let mut figures = 0;
    for part in report.parts() {
        let Part::Figure(figure) = part else { continue };
        figures += 1;
        for series in &figure.series {
            if series.values.is_empty() || series.values.iter().any(|value| *value <= 0.0) {
                return Err(Error::new(format!("{}: {} passes nothing", figure.name, series.name)));
            }
        }
    }
    let wanted = Medium::ALL.len() * FRAME_LENS.len() * 2;
    if figures != wanted {
        return Err(Error::new(format!("{figures} figures, not {wanted}:\n{}", report.markdown())));
    }
    Ok(())
}

const FRAME_LENS: [usize; 2] = [64, 1500];
