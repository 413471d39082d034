//! ringyard beside DPDK's testpmd, OVS-DPDK, QEMU's hub, the kernel's bridge and vde_switch, on this machine and in the
//! same minutes; the comparison comes out as Markdown.
//!
//! `benches/peers` installs the peers, builds and runs this; by hand it is
//! `cargo build --release && cargo bench -p ringyard-benches --bench peers -- [OPTIONS]`. It needs root (taps and
//! namespaces) and two cores: switches forward on one, guests are driven on the other. What it says is honest by
//! construction: rounds of all contenders are interleaved, whoever is not under test is stopped (SIGSTOP), every
//! sequence number is checked, and the driver's share of waiting shows who was the bottleneck. Whatever it starts is
//! gone when it ends, however it ends.
//!
//! Run by `cargo test`, which passes no `--bench`, it measures one row with ringyard alone, to show that it works.

mod contender;
mod machine;
mod options;
mod ovs;
mod pair;
mod rows;
mod testpmd;
mod udp;
mod wire;
mod yard;

use std::fs;
use std::time::Instant;

use options::{HELP, Options, Purpose, SMOKE_NAME};
use ringyard_benches::comparison::{Part, Report};
use ringyard_benches::interrupt;
use ringyard_tests::error::{Doing, Error, Result};
use ringyard_tests::slot::Slot;

/// Core of every switch whose core can be chosen.
const SWITCH_CORE: usize = 0;
/// Core of the guests' driver.
const DRIVER_CORE: usize = 1;

fn main() -> Result<()> {
    let options = match Options::from_arguments(std::env::args().skip(1))? {
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
    machine::raise_descriptor_limit()?;
    interrupt::watch()?;
    let slot = Slot::take()?;
    let report = run(&options, &slot)?;
    if options.smoke {
        return check(&report);
    }
    let text = report.markdown();
    println!("\n{text}");
    if let Some(file) = &options.markdown {
        fs::write(file, &text).doing(format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn run(options: &Options, _slot: &Slot) -> Result<Report> {
    let mut report = Report::new(machine::description(options)?);
    let start = Instant::now();
    for row in &options.rows {
        eprintln!("[{:>3} s] {}", start.elapsed().as_secs(), row.title());
        let parts = row.run(options).doing(row.flag())?;
        parts.iter().for_each(|part| eprint!("{}", part.lines()));
        report.add(parts);
    }
    eprintln!("[{:>3} s] done", start.elapsed().as_secs());
    Ok(report)
}

/// The test: frames were moved and none was lost, and a table came out. How fast is no matter.
fn check(report: &Report) -> Result<()> {
    let series = report.parts().iter().flat_map(|part| match part {
        Part::Figure(figure) => figure.series.as_slice(),
        Part::Facts(_) => &[],
    });
    let mut count = 0;
    for series in series {
        count += 1;
        if series.lost != Some(0) || series.values.iter().any(|value| *value <= 0.0) {
            return Err(Error::new(format!(
                "{} lost {:?} at {:?} Mpps",
                series.name, series.lost, series.values
            )));
        }
    }
    let text = report.markdown();
    if count != 2 || !text.contains("| 64 B, Mpps |") || !text.contains("**Left out: testpmd io, ") {
        return Err(Error::new(format!("one contender at two frame lengths gives another report:\n{text}")));
    }
    println!("test {SMOKE_NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
    Ok(())
}
