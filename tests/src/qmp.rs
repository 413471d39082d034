//! A monitor client: one QMP connection over a unix socket, blocking, every wait with a deadline. It reads replies and
//! events as QEMU writes them, one JSON object a line, and keeps the events that arrive while it waits for a reply. What the
//! switch says is held against its own schema: a member too many, too few or of another type fails the test.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::deadline::{Deadline, wait_for};
use crate::error::{Doing, Error, Result};
use crate::schema::Schema;

/// An error reply; or, with class [`QmpError::LOST`], a connection that gave no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QmpError {
    /// The error class, such as `GenericError`.
    pub class: String,
    /// The text for people.
    pub desc: String,
}

impl QmpError {
    /// The class of what is no reply: the connection ended, or the deadline passed.
    pub const LOST: &str = "(connection lost)";

    fn lost(why: impl Display) -> QmpError {
        QmpError { class: QmpError::LOST.into(), desc: why.to_string() }
    }
}

impl Display for QmpError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.desc)
    }
}

/// One client of a monitor.
pub struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
    greeting: Value,
    /// Of what is heard, if it is the switch that speaks.
    schema: Option<&'static Schema>,
    /// How long a command may take to be answered.
    pub patience: Duration,
}

impl Qmp {
    /// Connects, retrying until `within` has passed, and negotiates no capabilities.
    pub fn connect(path: &Path, within: Duration) -> Result<Qmp> {
        let mut qmp = Qmp::connect_raw(path, within)?;
        qmp.execute("qmp_capabilities", json!({})).doing(format!("greeting {}", path.display()))?;
        if qmp.greeting["QMP"]["version"]["package"].as_str().is_some_and(|name| name.starts_with("ringyard"))
        {
            qmp.schema = Some(qmp.schema_of_switch()?);
        }
        Ok(qmp)
    }

    /// Connects and reads the greeting, but leaves the negotiation to the caller.
    pub fn connect_raw(path: &Path, within: Duration) -> Result<Qmp> {
        let what = format!("the monitor {}", path.display());
        let stream = wait_for(&what, within, || Ok(UnixStream::connect(path).ok()))?;
        let mut qmp = Qmp {
            stream,
            received: Vec::new(),
            events: VecDeque::new(),
            greeting: Value::Null,
            schema: None,
            patience: Duration::from_secs(10),
        };
        qmp.greeting = qmp.receive(within).doing(format!("waiting for the greeting of {what}"))?;
        match qmp.greeting.get("QMP") {
            Some(_) => Ok(qmp),
            None => Err(Error::new(format!("{what} greeted with {}", qmp.greeting))),
        }
    }

    /// What the server said first.
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    /// Runs a command and waits for its reply. Events that come first are kept for [`Qmp::wait_event`].
    pub fn execute(&mut self, name: &str, arguments: Value) -> std::result::Result<Value, QmpError> {
        self.execute_with_fds(name, arguments, &[])
    }

    /// As [`Qmp::execute`], with descriptors passed along (`getfd`, `add-fd`).
    pub fn execute_with_fds(
        &mut self,
        name: &str,
        arguments: Value,
        fds: &[BorrowedFd<'_>],
    ) -> std::result::Result<Value, QmpError> {
        let command = json!({"execute": name, "arguments": arguments}).to_string();
        self.send_with_fds(command.as_bytes(), fds).map_err(QmpError::lost)?;
        let reply = self.wait_reply(self.patience).map_err(QmpError::lost)?;
        let returned = parse_reply(reply)?;
        if let Some(Err(wrong)) = self.schema.map(|schema| schema.check_return(name, &returned)) {
            panic!("the switch does not keep to its schema: {wrong}");
        }
        Ok(returned)
    }

    /// Sends bytes as they are, malformed ones too, with descriptors passed along.
    pub fn send_raw_with_fds(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with_fds(bytes, fds)
    }

    /// Sends bytes as they are, malformed ones too.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).doing("writing to the monitor")
    }

    /// Sends no more, as a client that leaves; the server hangs up then.
    pub fn hang_up(&self) -> Result<()> {
        self.stream.shutdown(Shutdown::Both).doing("leaving the monitor")
    }

    /// The next message that is no event.
    pub fn wait_reply(&mut self, within: Duration) -> Result<Value> {
        let deadline = Deadline::after(within);
        loop {
            let left = deadline.remaining().ok_or_else(|| no_reply(within))?;
            let message = self.receive(left)?;
            match message.get("event") {
                Some(_) => self.events.push_back(message),
                None => return Ok(message),
            }
        }
    }

    /// The first event of that name, kept or still to come. Other events stay kept, in their order.
    pub fn wait_event(&mut self, name: &str, within: Duration) -> Result<Value> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(at).expect("the position was found above"));
            }
            let left = deadline.remaining().ok_or_else(|| {
                Error::new(format!("no event {name} within {within:?}; kept: {:?}", self.events))
            })?;
            let message = self.receive(left).doing(format!("waiting for the event {name}"))?;
            match message.get("event") {
                Some(_) => self.events.push_back(message),
                None => return Err(Error::new(format!("a reply that nobody waits for: {message}"))),
            }
        }
    }

    /// The events kept so far, which this empties.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// The next message, whatever it is.
    pub fn receive(&mut self, within: Duration) -> Result<Value> {
        let line = self.receive_line(within)?;
        let text = String::from_utf8_lossy(&line);
        let message: Value =
            serde_json::from_slice(&line).doing(format!("parsing the monitor's line {text:?}"))?;
        if let (Some(schema), Some(_)) = (self.schema, message.get("event"))
            && let Err(wrong) = schema.check_event(&message)
        {
            panic!("the switch does not keep to its schema: {wrong}");
        }
        Ok(message)
    }

    /// The next line, its end included.
    pub fn receive_line(&mut self, within: Duration) -> Result<Vec<u8>> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                return Ok(self.received.drain(..=end).collect());
            }
            let left = deadline.remaining().ok_or_else(|| no_reply(within))?;
            self.stream.set_read_timeout(Some(left)).doing("setting the monitor's time limit")?;
            self.fill()?;
        }
    }

    /// The switch's schema, which the first client of a test process asks for.
    fn schema_of_switch(&mut self) -> Result<&'static Schema> {
        if let Some(schema) = Schema::known() {
            return Ok(schema);
        }
        let answer = self.execute("query-qmp-schema", json!({})).doing("asking for the schema")?;
        Ok(Schema::of_switch(|| answer))
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Error::new("the monitor closed the connection")),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).doing("reading from the monitor"),
        }
    }

    fn send_with_fds(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        if fds.is_empty() {
            return self.send_raw(bytes);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::new(format!("{} descriptors are more than {FDS_MAX}", fds.len())));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty())
            .doing("passing descriptors to the monitor")?;
        self.send_raw(&bytes[sent..])
    }
}

fn parse_reply(reply: Value) -> std::result::Result<Value, QmpError> {
    if let Some(value) = reply.get("return") {
        return Ok(value.clone());
    }
    match (reply["error"]["class"].as_str(), reply["error"]["desc"].as_str()) {
        (Some(class), Some(desc)) => Err(QmpError { class: class.into(), desc: desc.into() }),
        _ => Err(QmpError::lost(format!("neither a return nor an error: {reply}"))),
    }
}

fn no_reply(within: Duration) -> Error {
    Error::new(format!("the monitor said nothing for {within:?}"))
}

/// Descriptors in one message, at most.
const FDS_MAX: usize = 16;
