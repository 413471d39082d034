//! What the tests have in common: stations, which are streams of the test's own into a hub of the switch.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringyard_tests::Result;
use ringyard_tests::deadline::{Deadline, wait_for};
use ringyard_tests::error::{Doing, Error};
use ringyard_tests::flow::{FlowConfig, numbered_frame};
use ringyard_tests::switch::Switch;
use serde_json::{Value, json};

/// How long what must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a frame that must not come is waited for, after one that must has passed the same way.
pub const SILENCE: Duration = Duration::from_millis(100);

/// One end of a stream of frames.
pub struct Station<S> {
    pub stream: S,
    received: Vec<u8>,
}

impl Station<UnixStream> {
    /// Adds the netdev `name` on `hub`, which listens, and connects to it.
    pub fn plug(switch: &mut Switch, name: &str, hub: u32) -> Result<Station<UnixStream>> {
        let path = switch.path(&format!("{name}.sock"));
        plug(switch, name, hub, json!({"type": "stream", "server": true, "addr": unix(&path)}))?;
        let station = Station::connect(&path)?;
        switch.wait_carrier(name, PATIENCE)?;
        Ok(station)
    }

    /// Connects to a socket that may not be there yet.
    pub fn connect(path: &Path) -> Result<Station<UnixStream>> {
        let what = format!("somebody to listen at {}", path.display());
        wait_for(&what, PATIENCE, || Ok(UnixStream::connect(path).ok())).map(Station::new)
    }
}

impl<S: Read + Write + Timed> Station<S> {
    pub fn new(stream: S) -> Station<S> {
        Station { stream, received: Vec::new() }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(&record(frame)).doing(format!("sending {} bytes", frame.len()))
    }

    /// The next frame; `None` when none comes within the time.
    pub fn receive(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Deadline::after(within);
        loop {
            if let Some((word, rest)) = self.received.split_first_chunk::<4>()
                && let Some(frame) = rest.get(..u32::from_be_bytes(*word) as usize)
            {
                let frame = frame.to_vec();
                self.received.drain(..4 + frame.len());
                return Ok(Some(frame));
            }
            let Some(left) = deadline.remaining() else { return Ok(None) };
            self.stream.limit(left)?;
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::new("the stream has ended")),
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).doing("receiving"),
            }
        }
    }

    /// Waits for exactly this frame, and for nothing else.
    pub fn expect(&mut self, frame: &[u8]) -> Result<()> {
        match self.receive(PATIENCE)? {
            Some(received) if received == frame => Ok(()),
            Some(received) => Err(Error::new(format!("another frame came, of {} bytes", received.len()))),
            None => Err(Error::new(format!("the frame of {} bytes did not come", frame.len()))),
        }
    }

    /// Waits for the other side to hang up.
    pub fn expect_end(&mut self) -> Result<()> {
        self.stream.limit(PATIENCE)?;
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).doing("waiting for the stream's end"),
            }
        }
    }
}

/// What has a time limit for reads.
pub trait Timed {
    fn limit(&self, within: Duration) -> Result<()>;
}

impl Timed for UnixStream {
    fn limit(&self, within: Duration) -> Result<()> {
        self.set_read_timeout(Some(within)).doing("setting a time limit")
    }
}

impl Timed for std::net::TcpStream {
    fn limit(&self, within: Duration) -> Result<()> {
        self.set_read_timeout(Some(within)).doing("setting a time limit")
    }
}

/// A frame behind its length.
pub fn record(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

pub fn unix(path: &Path) -> Value {
    json!({"type": "unix", "path": path})
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
    let mut frame =
        numbered_frame(FlowConfig { destination: [0xff; 6], source, length: len, rate: 1 }, number);
    frame.iter_mut().enumerate().skip(22).for_each(|(at, byte)| *byte = (at * 7 + (at >> 8)) as u8);
    frame
}

/// What `info network` says of one netdev, behind its type.
pub fn info(switch: &mut Switch, name: &str) -> Result<String> {
    let text = switch.order("human-monitor-command", json!({"command-line": "info network"}))?;
    state(text.as_str().unwrap_or_default(), name)
}

/// Waits until it says that.
pub fn wait_info(switch: &mut Switch, name: &str, expected: &str) -> Result<()> {
    let mut last = String::new();
    let waited = wait_for(&format!("{name} to be {expected:?}"), PATIENCE, || {
        last = info(switch, name)?;
        Ok((last == expected).then_some(()))
    });
    waited.map_err(|error| Error::new(format!("{error}; it is {last:?}")))
}

/// What stands behind the type in a netdev's line.
pub fn state(text: &str, name: &str) -> Result<String> {
    let begin = format!("{name}: index=0,type=");
    let line = text.lines().find_map(|line| line.split_once(&begin));
    let state = line.and_then(|(_, line)| line.split_once(','));
    state.map(|(_, state)| state.to_owned()).ok_or_else(|| Error::new(format!("{name} is not in {text}")))
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
        Ok(Innocents { stop, thread: thread::spawn(move || exchange(stations, &stopped)) })
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

fn exchange(mut stations: [Station<UnixStream>; 2], stop: &AtomicBool) -> Result<u64> {
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
