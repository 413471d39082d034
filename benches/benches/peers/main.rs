//! ringyard beside DPDK's testpmd on this machine, in the same minutes: 64 B and 1500 B frames from one guest to
//! another, the switch polling on core 0, the guests' driver polling on core 1.
//!
//! `cargo build --release && cargo bench -p ringyard-benches --bench peers [-- ROUNDS]`. Rounds are interleaved, and who
//! is not under test is stopped (SIGSTOP). `RINGYARD` names another binary; `WITHOUT=ringyard` or `WITHOUT=testpmd`
//! leaves one out, and the table says so. A peer that is missing is an error.

mod peer;

use std::io::Write;
use std::time::Duration;

use peer::Peer;
use ringyard_benches::error::{Error, Result};
use ringyard_benches::load::{Round, median};

const ROUND_TIME: Duration = Duration::from_millis(500);
const ROUNDS: usize = 9;
const FRAME_LENS: [usize; 2] = [64, 1500];
const DRIVER_CORE: usize = 1;
/// Whom the others are compared with.
const REFERENCE: &str = "testpmd io";

fn main() -> Result<()> {
    // cargo passes `--bench`.
    let rounds = std::env::args().skip(1).find(|argument| argument != "--bench");
    let rounds: usize = rounds.map_or(Ok(ROUNDS), |text| text.parse()).map_err(Error::new)?;
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err(Error::new("this comparison needs two cores"));
    }
    let directory = tempfile::tempdir().map_err(Error::new)?;
    let without = std::env::var("WITHOUT").unwrap_or_default();
    let mut peers = Vec::new();
    if without != "testpmd" {
        peers.push(Peer::testpmd(directory.path())?);
    }
    if without != "ringyard" {
        peers.push(Peer::ringyard(directory.path())?);
    }
    peers.push(Peer::in_process()?);
    peers.push(Peer::floor()?);
    if !core_affinity::set_for_current(core_affinity::CoreId { id: DRIVER_CORE }) {
        return Err(Error::new(format!("cannot run the driver on core {DRIVER_CORE}")));
    }
    for peer in &mut peers {
        peer.open_way()?;
    }
    let mut out = std::io::stdout();
    for frame_len in FRAME_LENS {
        let mut rows: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (peer, row) in peers.iter_mut().zip(&mut rows) {
                row.push(peer.round(frame_len, ROUND_TIME)?);
            }
        }
        print(&mut out, frame_len, &peers, &rows).map_err(Error::new)?;
    }
    peers.into_iter().try_for_each(Peer::stop)
}

fn print(out: &mut dyn Write, frame_len: usize, peers: &[Peer], rows: &[Vec<Round>]) -> std::io::Result<()> {
    writeln!(
        out,
        "\n{frame_len} B frames, guest to guest, {} rounds of {} ms, 1 core for the switch, rings of {} entries",
        rows[0].len(),
        ROUND_TIME.as_millis(),
        peer::RING_SIZE,
    )?;
    writeln!(
        out,
        "  {:<22} {:>12} {:>8} {:>8} {:>8} {:>8}   ratio to {REFERENCE} (min to max)",
        "switch", "median Mpps", "Gbit/s", "lost", "waited", "a turn"
    )?;
    let reference = peers.iter().position(|peer| peer.name == REFERENCE);
    for (peer, row) in peers.iter().zip(rows) {
        let rates: Vec<f64> = row.iter().map(Round::mpps).collect();
        let rate = median(&rates);
        let lost: u64 = row.iter().map(|round| round.faults.lost).sum();
        let gbits = rate * frame_len as f64 * 8.0 / 1e3;
        let waiting = 100.0 * median(&row.iter().map(Round::waiting).collect::<Vec<_>>());
        let turn = median(
            &row.iter().map(|round| round.frames as f64 / round.busy_turns as f64).collect::<Vec<_>>(),
        );
        write!(out, "  {:<22} {rate:>12.2} {gbits:>8.1} {lost:>8} {waiting:>7.0}% {turn:>8.1}", peer.name)?;
        match reference {
            Some(reference) => {
                let ratios: Vec<f64> =
                    rates.iter().zip(&rows[reference]).map(|(rate, other)| rate / other.mpps()).collect();
                let (min, max) = ratios.iter().fold((f64::MAX, 0.0f64), |(a, b), r| (a.min(*r), b.max(*r)));
                writeln!(out, "   {:.2} ({min:.2} to {max:.2})", median(&ratios))?;
            }
            None => writeln!(out, "   {REFERENCE} was left out")?,
        }
    }
    Ok(())
}
