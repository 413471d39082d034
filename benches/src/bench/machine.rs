//! The machine that the figures come from, and how long it leaves a core alone.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What must accompany every number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel names it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether cores share execution units; `None` when the kernel does not say.
    pub smt: Option<bool>,
    /// The frequency governor of the first core, if there is one.
    pub governor: Option<String>,
    /// Cores that the kernel was told to leave alone, if any.
    pub isolated: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Whether it is a virtual machine itself.
    pub virtualised: bool,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        Machine {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            smt: read("/sys/devices/system/cpu/smt/active").map(|active| active == "1"),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            isolated: read("/sys/devices/system/cpu/isolated"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            virtualised: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}

/// The longest that a core was taken from a thread that wanted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The core.
    pub core: usize,
    /// The longest time between two looks at the clock, in microseconds.
    pub longest_us: f64,
    /// The part of the time that gaps of more than [`GAP_MIN`] took.
    pub stolen: f64,
}

/// What counts as a gap: more than any interrupt takes.
pub const GAP_MIN: Duration = Duration::from_micros(20);

/// Looks at the clock for `time` on each of `cores` at once, and at nothing else.
pub fn gaps(cores: &[usize], time: Duration) -> Result<Vec<Gap>> {
    let go = AtomicBool::new(false);
    thread::scope(|scope| {
        let spinner = |core: usize| {
            let go = &go;
            scope.spawn(move || {
                pin(core)?;
                while !go.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                Ok(watch(core, time))
            })
        };
        let spinners: Vec<_> = cores.iter().map(|core| spinner(*core)).collect();
        // Relaxed: the flag is all there is to see.
        go.store(true, Ordering::Relaxed);
        let panicked = |_| Err(Error::new("a thread that watched the clock panicked"));
        spinners.into_iter().map(|spinner| spinner.join().unwrap_or_else(panicked)).collect()
    })
}

fn watch(core: usize, time: Duration) -> Gap {
    let start = Instant::now();
    let (mut last, mut longest, mut stolen) = (start, Duration::ZERO, Duration::ZERO);
    while last - start < time {
        let now = Instant::now();
        let gap = now - last;
        last = now;
        longest = longest.max(gap);
        if gap > GAP_MIN {
            stolen += gap;
        }
    }
    let share = stolen.as_secs_f64() / (last - start).as_secs_f64();
    Gap { core, longest_us: longest.as_secs_f64() * 1e6, stolen: share }
}

/// Cores that a set of the kernel's usual size has (`CPU_SETSIZE`).
const CORES_MAX: usize = libc::CPU_SETSIZE as usize;

/// Keeps the calling thread on `core`.
pub fn pin(core: usize) -> Result<()> {
    // Asked for a core that no set has room for, core_affinity aborts.
    if core < CORES_MAX && core_affinity::set_for_current(CoreId { id: core }) {
        return Ok(());
    }
    Err(Error::new(format!("this process may not run on core {core}")))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_a_kernel() {
        let machine = Machine::here();
        assert!(!machine.cpu.is_empty() && !machine.kernel.is_empty() && machine.cores > 0);
    }

    #[test]
    fn gaps_are_seen_on_each_core() {
        let gaps = gaps(&[0], Duration::from_millis(20)).unwrap();
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].longest_us > 0.0 && gaps[0].stolen <= 1.0);
    }

    #[test]
    fn core_that_is_not_there_is_an_error() {
        assert!(gaps(&[100_000], Duration::from_millis(1)).is_err());
    }
}
