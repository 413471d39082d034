//! A monitor's client that never waits longer than it is told, so that the generator can ask between two turns.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Doing, Error, Result};

/// See the module.
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Qmp {
    /// Connects to the monitor at `path`, which is expected within [`REPLY_TIME_MAX`], and greets it.
    pub fn connect(path: &Path) -> Result<Qmp> {
        let deadline = Instant::now() + REPLY_TIME_MAX;
        let stream = loop {
            match UnixStream::connect(path) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                result => break result.doing(format!("connecting to the monitor {}", path.display()))?,
            }
        };
        stream.set_nonblocking(true).doing("setting up the monitor's connection")?;
        let mut qmp = Qmp { stream, received: Vec::new() };
        qmp.wait(|message| message.get("QMP").is_some())?;
        qmp.execute(&json!({"execute": "qmp_capabilities"}))?;
        Ok(qmp)
    }

    /// Runs a command and waits for its answer. An error answer is an error.
    pub fn execute(&mut self, command: &Value) -> Result<Value> {
        self.send(command)?;
        let reply = self.wait(is_reply)?;
        result_of(&reply).doing(format!("the command {command}"))
    }

    /// Sends a command and does not wait.
    pub fn send(&mut self, command: &Value) -> Result<()> {
        // One write: the monitor's socket has room for a command, as no more than one is under way.
        self.stream.write_all(format!("{command}\n").as_bytes()).doing("writing to the monitor")
    }

    /// The answer to what was sent, if it is there. An error answer is an error.
    pub fn answer(&mut self) -> Result<Option<Value>> {
        match self.next_message()? {
            Some(message) if is_reply(&message) => result_of(&message).map(Some),
            _ => Ok(None),
        }
    }

    fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + REPLY_TIME_MAX;
        while Instant::now() < deadline {
            match self.next_message()? {
                Some(message) if wanted(&message) => return Ok(message),
                Some(_) => {}
                None => std::thread::sleep(PAUSE),
            }
        }
        Err(Error::new(format!("the monitor said nothing for {} s", REPLY_TIME_MAX.as_secs())))
    }

    fn next_message(&mut self) -> Result<Option<Value>> {
        if !self.received.contains(&b'\n') {
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::new("the monitor closed the connection")),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).doing("reading from the monitor"),
            }
        }
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).doing("reading the monitor's answer")
    }
}

fn is_reply(message: &Value) -> bool {
    message.get("return").is_some() || message.get("error").is_some()
}

fn result_of(reply: &Value) -> Result<Value> {
    match (&reply["error"]["desc"], reply.get("return")) {
        (Value::String(why), _) => Err(Error::new(why)),
        (_, Some(value)) => Ok(value.clone()),
        _ => Err(Error::new(format!("neither a return nor an error: {reply}"))),
    }
}

/// How long the monitor may take for an answer.
const REPLY_TIME_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);
