//! A run of the switch in this process, and a client of its monitor.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringyard_control::Yard;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::model::Refusal;

/// A run that ends when it is dropped.
pub struct Rig {
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
    yard: Yard,
    directory: TempDir,
}

impl Rig {
    /// An empty switch, and a client that has negotiated.
    pub fn start() -> Rig {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let monitor = directory.path().join("qmp");
        let option = format!("unix:{},server=on,wait=off", monitor.display());
        let yard = Yard::start(["--workers", "1", "-qmp", &option]).expect("an empty switch can be started");
        let stream = UnixStream::connect(monitor).expect("the monitor listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the limit is no zero");
        let lines = BufReader::new(stream);
        let mut rig = Rig { lines, events: Vec::new(), yard, directory };
        assert!(rig.receive().get("QMP").is_some());
        assert_eq!(rig.execute("qmp_capabilities", json!({})), Ok(json!({})));
        rig
    }

    /// Where sockets may be.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a command to its end. Events that come first are kept.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Refusal> {
        let request = json!({"execute": command, "arguments": arguments, "id": command});
        self.lines.get_mut().write_all(request.to_string().as_bytes()).expect("the monitor reads");
        loop {
            let mut message = self.receive();
            if message.get("event").is_some() {
                self.events.push(message);
                continue;
            }
            assert_eq!(message["id"], command, "{message}");
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            let text = |member: &str| message["error"][member].as_str().unwrap_or_default().to_owned();
            return Err(Refusal::new(&text("class"), text("desc")));
        }
    }

    /// The data of the events of that name so far.
    pub fn take_events(&mut self, name: &str) -> Vec<Value> {
        let events = std::mem::take(&mut self.events);
        events
            .into_iter()
            .filter(|event| event["event"] == name)
            .map(|mut event| event["data"].take())
            .collect()
    }

    /// Ends the run, which takes down all that is left of it.
    pub fn finish(self) {
        let Rig { yard, directory, .. } = self;
        yard.stop().expect("control does not panic");
        assert!(!directory.path().join("qmp").exists(), "the monitor's socket is removed");
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the monitor answers in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);
