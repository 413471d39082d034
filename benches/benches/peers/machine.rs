//! What the figures were measured on.

use std::fs;
use std::thread::available_parallelism;

use ringyard_tests::error::{Doing, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::contender::Contender;
use crate::options::Options;
use crate::rows::RING_SIZE;
use crate::{DRIVER_CORE, SWITCH_CORE};

/// Machine, set-up and contenders, as the report opens.
pub fn description(options: &Options) -> Result<String> {
    let cores = available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "{}, {cores} cores{}, Linux {}; load average {} at the start. Rounds of every row: {}, interleaved, whoever is \
         not under test stopped.\n\nGuests poll; their memory is ordinary pages, their rings are split and have {RING_SIZE} entries \
         with a buffer of 2 KiB each where the row does not say otherwise, and they take MRG_RXBUF and IN_ORDER where \
         they are offered. Switches forward on core {SWITCH_CORE}, the guests' driver runs on core {DRIVER_CORE} and \
         checks every sequence number; with taps, everybody shares all cores. Frame lengths are without FCS. Figures \
         are medians (least to most of the rounds), ratios medians of the rounds' ratios.\n\n",
        cpu_model()?,
        if is_virtual() { " of a virtual machine" } else { "" },
        read("/proc/sys/kernel/osrelease")?.trim(),
        read("/proc/loadavg")?.split(' ').next().unwrap_or("?"),
        options.rounds,
    );
    let takes_part =
        |contender: &Contender| options.rows.iter().any(|row| row.contenders().contains(contender));
    let versions: Vec<String> = options
        .present(&Contender::ALL)
        .into_iter()
        .filter(takes_part)
        .filter_map(|contender| Some(format!("{} {}", contender.title(), contender.version()?)))
        .collect();
    if !versions.is_empty() {
        text += &format!("Beside it: {}.", versions.join(", "));
    }
    if !options.without.is_empty() {
        let names: Vec<&str> = options.without.iter().map(|contender| contender.title()).collect();
        text += &format!(" **Left out: {}.**", names.join(", "));
    }
    Ok(text)
}

/// A thousand guests have six descriptors each.
pub fn raise_descriptor_limit() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < DESCRIPTORS) {
        // Only root may raise the maximum, and only root may run most rows.
        let maximum = maximum.map(|maximum| maximum.max(DESCRIPTORS));
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum })
            .doing(format!("allowing this process {DESCRIPTORS} descriptors"))?;
    }
    Ok(())
}

fn cpu_model() -> Result<String> {
    let info = read("/proc/cpuinfo")?;
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    Ok(model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned())
}

fn is_virtual() -> bool {
    read("/proc/cpuinfo").is_ok_and(|info| info.contains(" hypervisor"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).doing(format!("reading {path}"))
}

const DESCRIPTORS: u64 = 16_384;
