//! What the tests have in common: a namespace with a network, a switch in it, and stations on its hubs.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringyard_tests::Result;
use ringyard_tests::error::{Doing, Error};
use ringyard_tests::flow::{FlowConfig, numbered_frame};
use ringyard_tests::netns::Netns;
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

/// How long a frame that must come may take.
pub const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a frame that must not come is waited for, after one that must has passed the same way.
pub const SILENCE: Duration = Duration::from_millis(100);

/// A namespace with the interface `v0`, which has the address 10.0.0.1 and the route to all groups.
pub fn network() -> Result<Netns> {
    let netns = Netns::new()?;
    add_interface(&netns)?;
    Ok(netns)
}

/// Makes the interface, again if need be.
pub fn add_interface(netns: &Netns) -> Result<()> {
    netns.ip("link add v0 type veth peer name v1")?;
    netns.bring_up("v1", &[])?;
    netns.bring_up("v0", &["10.0.0.1/24"])?;
    netns.ip("route add 224.0.0.0/4 dev v0").map(drop)
}

/// The test as somebody on a hub: a unix socket of its own behind a port of the switch.
pub struct Station {
    socket: UnixDatagram,
}

impl Station {
    /// Adds the netdev `name` on `hub`, over unix datagrams.
    pub fn plug(switch: &mut Switch, name: &str, hub: u32) -> Result<Station> {
        let (ours, theirs) = (switch.path(&format!("{name}.test")), switch.path(&format!("{name}.sock")));
        let socket = UnixDatagram::bind(&ours).doing("binding a station's socket")?;
        let netdev = json!({
            "type": "dgram",
            "local": {"type": "unix", "path": theirs},
            "remote": {"type": "unix", "path": ours},
        });
        plug(switch, name, hub, netdev)?;
        socket.connect(&theirs).doing("connecting to the station's port")?;
        Ok(Station { socket })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).doing(format!("sending {} bytes", frame.len())).map(drop)
    }

    /// The next frame; `None` when none comes within the time.
    pub fn receive(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(within)).doing("setting a time limit")?;
        let mut frame = vec![0; 70_000];
        match self.socket.recv(&mut frame) {
            Ok(len) => {
                frame.truncate(len);
                Ok(Some(frame))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).doing("receiving"),
        }
    }

    /// Waits for exactly this frame, and for nothing else.
    pub fn expect(&self, frame: &[u8]) -> Result<()> {
        match self.receive(ARRIVAL_TIME_MAX)? {
            Some(received) if received == frame => Ok(()),
            Some(received) => Err(Error::new(format!("another frame came, of {} bytes", received.len()))),
            None => Err(Error::new(format!("the frame of {} bytes did not come", frame.len()))),
        }
    }
}

/// Puts the netdev that `members` (without an id) describe on a hub.
pub fn plug(switch: &mut Switch, name: &str, hub: u32, members: Value) -> Result<()> {
    let mut netdev = members;
    netdev["id"] = name.into();
    switch.order("netdev_add", netdev)?;
    let port = json!({"type": "hubport", "id": format!("{name}-hubport"), "hubid": hub, "netdev": name});
    switch.order("netdev_add", port).map(drop)
}

/// A broadcast frame of `len` bytes from the station of that number.
pub fn frame(station: u8, number: u64, len: usize) -> Vec<u8> {
    let source = [0x52, 0x54, 0, 0xdd, 0, station];
    numbered_frame(FlowConfig { destination: [0xff; 6], source, length: len, rate: 1 }, number)
}

/// What `info network` says of one netdev.
pub fn info(switch: &mut Switch, name: &str) -> Result<String> {
    let text = switch.order("human-monitor-command", json!({"command-line": "info network"}))?;
    line_of(text.as_str().unwrap_or_default(), name)
}

/// The line of a netdev behind its `type=…,`.
pub fn line_of(text: &str, name: &str) -> Result<String> {
    let begin = format!("{name}: index=0,");
    let line = text.lines().find_map(|line| line.split_once(&begin));
    line.map(|(_, line)| line.to_owned()).ok_or_else(|| Error::new(format!("{name} is not in {text}")))
}

/// Two stations on a hub of their own that exchange frames while something else happens to the switch.
pub struct Innocents {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Innocents {
    /// Starts them.
    pub fn start(switch: &mut Switch) -> Result<Innocents> {
        let stations = [Station::plug(switch, "innocent0", 99)?, Station::plug(switch, "innocent1", 99)?];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Ok(Innocents { stop, thread: thread::spawn(move || exchange(&stations, &stopped)) })
    }

    /// Ends them; an error if one frame was lost, or none was exchanged.
    pub fn finish(self) -> Result<()> {
        // Relaxed: the flag carries no data with it.
        self.stop.store(true, Ordering::Relaxed);
        let exchanged = self.thread.join().map_err(|_| Error::new("the innocents panicked"))??;
        if exchanged == 0 {
            return Err(Error::new("the innocents had no time for a frame"));
        }
        Ok(())
    }
}

fn exchange(stations: &[Station; 2], stop: &AtomicBool) -> Result<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for (from, to) in [(0, 1), (1, 0)] {
            let frame = frame(90 + from as u8, number, 60 + (number % 1400) as usize);
            stations[from].send(&frame)?;
            stations[to].expect(&frame).doing("between innocents")?;
            number += 1;
        }
    }
    Ok(number)
}
