//! A monitor's connection, from the client's side: one command at a time. Events are passed over, unless somebody listens.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::ClientError;
use super::address::{MonitorAddress, Stream};

/// See the module.
pub(crate) struct Connection {
    stream: Stream,
    incoming: Incoming,
    monitor: MonitorAddress,
    is_lost: bool,
}

/// Where messages come from.
enum Incoming {
    Stream(BufReader<Stream>),
    /// From the thread that takes the events out.
    Thread(Receiver<io::Result<Value>>),
}

impl Connection {
    /// Connects and negotiates.
    pub(super) fn open(monitor: &MonitorAddress) -> Result<Connection, ClientError> {
        let connection = Connection::greet(monitor, GREETING_TIME_MAX)?;
        // From now on a command takes the time that it takes, such as a script's.
        match connection.stream.set_read_timeout(None) {
            Ok(()) => Ok(connection),
            Err(error) => Err(lost(monitor, &error)),
        }
    }

    /// Another one to the same monitor.
    pub(super) fn again(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.monitor)
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
        let setup = || {
            // A monitor that is stuck is as bad as none.
            stream.set_read_timeout(Some(limit))?;
            Ok(Incoming::Stream(BufReader::new(stream.try_clone()?)))
        };
        let incoming = setup().map_err(|error| lost(monitor, &error))?;
        let mut connection = Connection { stream, incoming, monitor: monitor.clone(), is_lost: false };
        let greeting = connection.read().map_err(|error| connection.lost(&error))?;
        if greeting.get("QMP").is_none() {
            return Err(ClientError(format!("{monitor} is no QMP monitor: it says {greeting}")));
        }
        connection.execute("qmp_capabilities", json!({}))?;
        Ok(connection)
    }

    /// What a command returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, ClientError> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        let sent = self.stream.write_all(line.as_bytes());
        sent.map_err(|error| self.lost(&error))?;
        self.answer(command)
    }

    /// The same, with a descriptor that goes along.
    pub(super) fn execute_with_fd(
        &mut self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, ClientError> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        let sent = self.stream.write_all_with_fd(line.as_bytes(), fd);
        sent.map_err(|error| self.lost(&error))?;
        self.answer(command)
    }

    fn answer(&mut self, command: &str) -> Result<Value, ClientError> {
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
        self.stream.peer_directory()
    }

    /// From now on `on_event` is given every event, by a thread that has nothing else to do.
    pub(super) fn listen(&mut self, mut on_event: impl FnMut(&Value) + Send + 'static) {
        let (messages, received) = channel();
        let Incoming::Stream(mut stream) = std::mem::replace(&mut self.incoming, Incoming::Thread(received))
        else {
            return;
        };
        thread::spawn(move || {
            loop {
                let message = read(&mut stream);
                match &message {
                    Ok(event) if event.get("event").is_some() => on_event(event),
                    _ => {
                        let is_over = message.is_err();
                        if messages.send(message).is_err() || is_over {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Whether there is no use in asking anything more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    fn read(&mut self) -> io::Result<Value> {
        match &mut self.incoming {
            Incoming::Stream(stream) => read(stream),
            Incoming::Thread(messages) => messages
                .recv()
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has hung up"))),
        }
    }

    fn lost(&mut self, error: &io::Error) -> ClientError {
        self.is_lost = true;
        lost(&self.monitor, error)
    }
}

fn read(stream: &mut impl BufRead) -> io::Result<Value> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has hung up"));
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}

fn lost(monitor: &MonitorAddress, error: &io::Error) -> ClientError {
    ClientError(format!("talking to the monitor {monitor}: {error}"))
}

/// From the connection to the greeting and the negotiation.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);
/// For each answer to somebody who presses a key.
const COMPLETION_TIME_MAX: Duration = Duration::from_millis(500);
