//! A monitor's connection, from the client's side: one command at a time, events passed over.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::ClientError;
use super::address::{MonitorAddress, Stream};

/// See the module.
pub(crate) struct Connection {
    stream: BufReader<Stream>,
    monitor: MonitorAddress,
}

impl Connection {
    /// Connects and negotiates.
    pub(super) fn open(monitor: &MonitorAddress) -> Result<Connection, ClientError> {
        let connection = Connection::greet(monitor, GREETING_TIME_MAX)?;
        // From now on a command takes the time that it takes, such as a script's.
        let unlimited = connection.stream.get_ref().set_read_timeout(None);
        unlimited.map_err(|error| connection.lost(&error))?;
        Ok(connection)
    }

    /// The same for somebody who waits for a key to have its effect: no answer takes long.
    pub(crate) fn open_for_completion(monitor: &MonitorAddress) -> Result<Connection, ClientError> {
        Connection::greet(monitor, COMPLETION_TIME_MAX)
    }

    fn greet(monitor: &MonitorAddress, limit: Duration) -> Result<Connection, ClientError> {
        let stream = Stream::connect(monitor).map_err(|error| {
            ClientError(format!(
                "connecting to the monitor {monitor}: {error}; name the socket of a running switch's -qmp by \
                 --monitor PATH or RINGYARD_MONITOR"
            ))
        })?;
        let mut connection = Connection { stream: BufReader::new(stream), monitor: monitor.clone() };
        // A monitor that is stuck is as bad as none.
        let greeting = connection
            .stream
            .get_ref()
            .set_read_timeout(Some(limit))
            .and_then(|()| connection.read())
            .map_err(|error| connection.lost(&error))?;
        if greeting.get("QMP").is_none() {
            return Err(ClientError(format!("{monitor} is no QMP monitor: it says {greeting}")));
        }
        connection.execute("qmp_capabilities", json!({}))?;
        Ok(connection)
    }

    /// What a command returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.map_err(|error| self.lost(&error))?;
        loop {
            let mut message = self.read().map_err(|error| self.lost(&error))?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(why) = message["error"]["desc"].as_str() {
                return Err(ClientError(format!("{command}: {why}")));
            }
        }
    }

    /// The working directory of the switch, if it can be known.
    pub(super) fn peer_directory(&self) -> Option<PathBuf> {
        self.stream.get_ref().peer_directory()
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    fn lost(&self, error: &io::Error) -> ClientError {
        ClientError(format!("talking to the monitor {}: {error}", self.monitor))
    }
}

/// From the connection to the greeting and the negotiation.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);
/// For each answer to somebody who presses a key.
const COMPLETION_TIME_MAX: Duration = Duration::from_millis(500);
