//! `ringyard demo`: a switch in this process, with two ports on a hub for the guests that the demo brings along.

use std::fs::{self, DirBuilder};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::{env, io, process, thread};

use crossbeam_channel::bounded;
use ringyard_benches::demo;
use serde_json::json;

use crate::cli::{ConfigSource, DemoConfig};
use crate::run::{Hangup, Stopper};
use crate::yard::{Yard, YardError};

/// Runs the demo, prints what it shows, and says how to plug in a real machine. SIGTERM and SIGINT end it in good order.
///
/// Errors: what kept it from running, or what the switch did wrong.
pub fn run(config: &DemoConfig) -> Result<(), String> {
    let stopper = Stopper::of_signals(Hangup::Stop)?;
    let switch = DemoSwitch::start(stopper.clone())?;
    let guests = demo::DemoConfig {
        seconds: config.seconds,
        sockets: switch.sockets().to_vec(),
        interactive: io::stdout().is_terminal(),
    };
    // A thread of their own, so that a signal need not wait for the guests: they are left behind then.
    let (end, ended) = bounded(1);
    let show = move || {
        let shown = catch_unwind(|| demo::run(&guests, &mut io::stdout()));
        // When a signal was quicker, it is what failed the guests.
        if !stopper.is_used() {
            let _ = end.send(shown.map(|shown| shown.map_err(|error| error.to_string())));
        }
        stopper.stop();
    };
    thread::Builder::new()
        .name("guests".into())
        .spawn(show)
        .map_err(|error| format!("starting the guests' thread: {error}"))?;
    let stopped = switch.join();
    match ended.try_recv() {
        Ok(Ok(shown)) => shown?.failure().map_or(Ok(()), Err)?,
        Ok(Err(_)) => return Err("the guests' thread panicked".into()),
        Err(_) => return stopped.and(Err("interrupted".into())),
    }
    stopped?;
    let written = io::stdout().lock().write_all(plug_in_a_machine().as_bytes());
    written.map_err(|error| format!("writing to stdout: {error}"))
}

/// The two commands with which a real machine takes the place of a built-in guest.
fn plug_in_a_machine() -> String {
    let socket = env::temp_dir().join("vm0.sock");
    let qemu = demo::qemu_command(&socket, MACHINE_MAC).replace('\n', "\n  ");
    format!(
        "\nTo plug in a real virtual machine, start a switch with a port for it:\n\n  \
         ringyard run -chardev socket,id=c0,path={socket},server=on,wait=off \\\n    \
         -netdev vhost-user,id=n0,chardev=c0 -netdev hubport,id=h0,hubid=0,netdev=n0\n\n\
         and then the machine, with your own disk:\n\n  {qemu}\n\n\
         More ports, taps for this host, and ready-made set-ups: ringyard run --help, configs/\n",
        socket = socket.display(),
    )
}

/// A switch that runs on threads of its own: hub 0 with the vhost-user ports `n0` and `n1`, and a nic on each.
pub struct DemoSwitch {
    sockets: [PathBuf; 2],
    yard: Yard,
    _directory: PrivateDirectory,
}

impl DemoSwitch {
    /// Starts it, with its sockets in a new private directory; `stopper` ends it.
    pub fn start(stopper: Stopper) -> Result<DemoSwitch, String> {
        let directory = PrivateDirectory::new()
            .map_err(|error| format!("making a directory in {}: {error}", env::temp_dir().display()))?;
        let sockets = [directory.0.join("guest0"), directory.0.join("guest1")];
        let plugged = Yard::start_from(ConfigSource::default(), stopper).and_then(|yard| {
            sockets.iter().enumerate().try_for_each(|(number, socket)| plug(&yard, number, socket))?;
            Ok(yard)
        });
        let yard = plugged.map_err(|error| error.to_string())?;
        Ok(DemoSwitch { sockets, yard, _directory: directory })
    }

    /// Where guests connect: we listen.
    pub fn sockets(&self) -> &[PathBuf; 2] {
        &self.sockets
    }

    /// Waits until it has ended.
    pub fn join(self) -> Result<(), String> {
        self.yard.wait().map_err(|error| error.to_string())
    }
}

/// Makes the port of guest `number`.
fn plug(yard: &Yard, number: usize, socket: &Path) -> Result<(), YardError> {
    let (chardev, port) = (format!("c{number}"), format!("n{number}"));
    let address = json!({"type": "unix", "data": {"path": socket}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": true, "wait": false}});
    yard.execute("chardev-add", json!({"id": chardev, "backend": backend}))?;
    let mac = demo::guest_mac(number).to_string();
    for netdev in [
        json!({"id": port, "type": "vhost-user", "chardev": chardev}),
        json!({"id": format!("g{number}"), "type": "nic", "netdev": port, "macaddr": mac}),
        json!({"id": format!("h{number}"), "type": "hubport", "hubid": 0, "netdev": port}),
    ] {
        yard.execute("netdev_add", netdev)?;
    }
    Ok(())
}

/// A directory that is removed, with what is in it, when this is dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> io::Result<PrivateDirectory> {
        let mut number = 0;
        loop {
            let path = env::temp_dir().join(format!("ringyard-demo-{}-{number}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(PrivateDirectory(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // What stays behind is empty and ours.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Of the machine that the reader may plug in.
const MACHINE_MAC: &str = "52:54:00:12:34:56";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_of_the_demo_listens_and_leaves_nothing_behind() {
        let stopper = Stopper::new().expect("an eventfd can be made");
        let switch = DemoSwitch::start(stopper.clone()).expect("the temporary directory is writable");
        let sockets = switch.sockets().clone();
        assert!(sockets.iter().all(|socket| socket.exists()));
        stopper.stop();
        switch.join().expect("it ends in good order");
        assert!(!sockets[0].exists() && sockets[0].parent().is_some_and(|directory| !directory.exists()));
    }
}
