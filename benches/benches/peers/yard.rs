//! ringyard as a process, with guests plugged in.

use std::path::PathBuf;

use ringyard_benches::traffic::guest_mac;
use ringyard_tests::error::Result;
use ringyard_tests::switch::Switch;

use crate::SWITCH_CORE;

/// A switch that polls on its core, and the sockets of `guests` NICs on one hub.
pub fn polling(guests: usize) -> Result<(Switch, Vec<PathBuf>)> {
    start(&["--mode", "poll"], guests)
}

/// A switch that sleeps when there is nothing to do, on its core.
pub fn adaptive(guests: usize) -> Result<(Switch, Vec<PathBuf>)> {
    start(&["--mode", "adaptive"], guests)
}

fn start(mode: &[&str], guests: usize) -> Result<(Switch, Vec<PathBuf>)> {
    let core = SWITCH_CORE.to_string();
    let mut switch = Switch::start(&[&["--cores", &core, "--log-level", "warn"], mode].concat())?;
    let sockets = (0..guests).map(|index| plug(&mut switch, index)).collect::<Result<_>>()?;
    Ok((switch, sockets))
}

/// Adds the port of guest `index`.
fn plug(switch: &mut Switch, index: usize) -> Result<PathBuf> {
    let name = format!("vm{index}");
    let socket = switch.plug_listening(&name, 0)?;
    switch.plug_nic(&name, &guest_mac(index).to_string())?;
    Ok(socket)
}
