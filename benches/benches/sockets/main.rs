//! ringyard between two sockets, beside a bare relay that does the same system calls and nothing else, QEMU's hub,
//! vde_switch and Open vSwitch's userspace data path, on this machine and in the same minutes; the comparison comes out
//! as Markdown.
//!
//! `benches/sockets` installs the peers, builds and runs this; by hand it is
//! `cargo build --release && cargo bench -p ringyard-benches --bench sockets -- [OPTIONS]`. It needs root (namespaces)
//! and two cores: switches forward on one, both peers are driven on the other by one thread. Rounds of all contenders
//! are interleaved, whoever is not under test is stopped (SIGSTOP), numbers and lengths of all frames and all bytes of a
//! sample are checked. The peers' share of waiting shows who was the bottleneck, and frames a second of the switch's own
//! time on its core hold either way. Whatever it starts is gone when it ends, however it ends.
//!
//! Run by `cargo test`, which passes no `--bench`, it measures every row for a moment, to show that it works.

mod batch;
mod contender;
mod ends;
mod flood;
mod lane;
mod medium;
mod options;
mod relay;
mod report;
mod ring;
mod sockets;

use std::fs;
use std::time::Instant;

use options::{HELP, Options, Purpose, SMOKE_NAME};
use ringyard_benches::comparison::Report;
use ringyard_benches::interrupt;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::slot::Slot;

/// Core of every switch.
const SWITCH_CORE: usize = 0;
/// Core of the peers.
const PEERS_CORE: usize = 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = relay::take_over(&arguments) {
        return ended;
    }
    let options = match Options::from_arguments(arguments)? {
        Purpose::Run(options) => options,
        Purpose::Help => {
            println!("{HELP}");
            return Ok(());
        }
        Purpose::Nothing => return Ok(()),
    };
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err(Error::new("this comparison needs two cores"));
    }
    contender::find_programs(&options)?;
    interrupt::watch()?;
    let slot = Slot::take()?;
    let report = run(&options, &slot)?;
    let text = report.markdown();
    if options.smoke {
        report::check(&report)?;
        println!("test {SMOKE_NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
        return Ok(());
    }
    println!("\n{text}");
    if let Some(file) = &options.markdown {
        fs::write(file, &text).doing(format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn run(options: &Options, _slot: &Slot) -> Result<Report> {
    let mut report = Report::new(report::opening(options)?);
    let start = Instant::now();
    for medium in &options.media {
        eprintln!("[{:>3} s] {}", start.elapsed().as_secs(), medium.flag());
        let parts = report::measure(*medium, options).doing(medium.flag())?;
        parts.iter().for_each(|part| eprint!("{}", part.lines()));
        report.add(parts);
    }
    eprintln!("[{:>3} s] done", start.elapsed().as_secs());
    Ok(report)
}
