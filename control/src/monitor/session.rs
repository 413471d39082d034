//! One client's QMP session, from greeting to last reply, as a machine without input or output of its own.
//!
//! The event loop feeds it what it read and pulls [`Output`]s: bytes to write, or a command to execute. While a command
//! is under way nothing more comes out, and [`Session::wants_input`] tells the loop to stop reading; the answer goes
//! through [`Session::reply`]. A client that leaves takes its session with it: capabilities and half a command are gone.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::json::{Layout, Parser, to_qmp_text};
use crate::qapi::{Form, QapiError, Visitor};
use crate::version::version_info;
use crate::wire::{Command, QmpCapabilities, QmpCapability};

/// What the session asks of its event loop.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Bytes for the client, whole lines.
    Reply(Vec<u8>),
    /// A command to execute; [`Session::reply`] is owed, and there is no further command before it.
    Request(Command),
}

/// Bytes of a reply, its CR LF included, for which there is room in a line that qemu.qmp reads.
pub const REPLY_BYTES_MAX: usize = (256 << 10) - 1;
/// Commands that wait behind the one under way, with `oob` enabled; without, they stay unread.
pub const QUEUE_MAX: usize = 8;

/// The state of one client.
#[derive(Debug)]
pub struct Session {
    parser: Parser,
    layout: Layout,
    stage: Stage,
    pending: Option<Pending>,
    /// Commands that wait for it, or what was wrong with them; at most [`QUEUE_MAX`].
    queue: VecDeque<Result<Value, String>>,
}

/// The command under way.
#[derive(Debug)]
struct Pending {
    /// What it came with.
    id: Option<Value>,
    /// How to ask for less.
    advice: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Connected,
    Negotiating,
    Commands { oob: bool },
}

/// A request whose shape is right.
struct Request {
    name: String,
    is_oob: bool,
    arguments: Map<String, Value>,
}

impl Session {
    /// A session whose first output is the greeting.
    pub fn new(layout: Layout) -> Self {
        let (parser, queue) = (Parser::default(), VecDeque::new());
        Session { parser, layout, stage: Stage::Connected, pending: None, queue }
    }

    /// Takes bytes that came from the client.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.parser.feed(bytes);
    }

    /// False while fed bytes wait, for instance behind a command under way: read no more then, so that a client that
    /// floods us fills its own socket and not our memory.
    pub fn wants_input(&self) -> bool {
        let has_room = if self.allows_oob() { self.queue.len() < QUEUE_MAX } else { self.pending.is_none() };
        has_room && self.parser.is_drained()
    }

    /// Whether all that was fed is done, half a command excepted.
    pub fn is_idle(&self) -> bool {
        self.pending.is_none() && self.queue.is_empty() && self.parser.is_drained()
    }

    /// The next thing to do; `None` while a command is under way, or when more bytes are needed.
    pub fn next_output(&mut self) -> Option<Output> {
        if self.stage == Stage::Connected {
            self.stage = Stage::Negotiating;
            let greeting = json!({"QMP": {"version": version_info(), "capabilities": ["oob"]}});
            return Some(Output::Reply(to_qmp_text(&greeting, self.layout)));
        }
        if self.pending.is_some() {
            return self.next_out_of_band();
        }
        let input = self.queue.pop_front().or_else(|| self.parser.next())?;
        Some(self.dispatch(input))
    }

    /// What does not wait for the command under way; what does is queued. No command may overtake another, so that is an
    /// error at present, and never a request.
    fn next_out_of_band(&mut self) -> Option<Output> {
        while self.allows_oob() && self.queue.len() < QUEUE_MAX {
            match self.parser.next()? {
                Ok(input) if is_out_of_band(&input) => return Some(self.dispatch(Ok(input))),
                input => self.queue.push_back(input),
            }
        }
        None
    }

    /// Ends the command under way; the bytes of its reply.
    pub fn reply(&mut self, result: Result<Value, QapiError>) -> Vec<u8> {
        debug_assert!(self.pending.is_some(), "a reply answers the command under way");
        let Some(Pending { id, advice }) = self.pending.take() else { return Vec::new() };
        let text = self.reply_text(id.as_ref(), result);
        if text.len() <= REPLY_BYTES_MAX {
            return text;
        }
        let why = format!("the reply has {} bytes, and {REPLY_BYTES_MAX} are possible{advice}", text.len());
        self.reply_text(id.as_ref(), Err(QapiError::generic(why)))
    }

    /// An event's bytes; `None` as long as this client has not finished its negotiation. `timestamp` counts from the
    /// Unix epoch.
    pub fn event(&self, name: &str, data: Option<Value>, timestamp: Duration) -> Option<Vec<u8>> {
        let Stage::Commands { .. } = self.stage else { return None };
        let mut event = json!({
            "timestamp": {"seconds": timestamp.as_secs(), "microseconds": timestamp.subsec_micros()},
            "event": name,
        });
        if let Some(data) = data {
            event["data"] = data;
        }
        Some(to_qmp_text(&event, self.layout))
    }

    fn dispatch(&mut self, input: Result<Value, String>) -> Output {
        let mut input = match input {
            Ok(input) => input,
            Err(desc) => return Output::Reply(self.reply_text(None, Err(QapiError::generic(desc)))),
        };
        let id = input.as_object_mut().and_then(|members| members.shift_remove("id"));
        let request = self.request(input);
        match request.and_then(|request| self.command(request)) {
            Ok(Some(command)) => {
                self.pending = Some(Pending { id, advice: advice(&command) });
                Output::Request(command)
            }
            Ok(None) => Output::Reply(self.reply_text(id.as_ref(), Ok(json!({})))),
            Err(error) => Output::Reply(self.reply_text(id.as_ref(), Err(error))),
        }
    }

    /// Checks the shape of a request, member by member.
    fn request(&self, input: Value) -> Result<Request, QapiError> {
        let Value::Object(members) = input else {
            return Err(QapiError::generic("QMP input must be a JSON object"));
        };
        let allows_oob = self.allows_oob();
        let mut execute: Option<(String, String)> = None;
        let mut arguments = Map::new();
        for (member, value) in members {
            let problem = match (member.as_str(), value) {
                ("exec-oob", _) if !allows_oob => "is unexpected",
                ("execute" | "exec-oob", Value::String(name)) => {
                    let other = execute.replace((member, name));
                    if other.is_none() {
                        continue;
                    }
                    return Err(bad_input("execute", "clashes with 'exec-oob'"));
                }
                ("execute" | "exec-oob", _) => "must be a string",
                ("arguments", Value::Object(given)) => {
                    arguments = given;
                    continue;
                }
                ("arguments", _) => "must be an object",
                _ => "is unexpected",
            };
            return Err(bad_input(&member, problem));
        }
        let (member, name) = execute.ok_or_else(|| QapiError::generic("QMP input lacks member 'execute'"))?;
        Ok(Request { name, is_oob: member == "exec-oob", arguments })
    }

    /// The command to execute; `None` when that was done right here.
    fn command(&mut self, request: Request) -> Result<Option<Command>, QapiError> {
        let Request { name, is_oob, arguments } = request;
        if let Stage::Commands { .. } = self.stage {
            if is_oob && Command::exists(&name) {
                return Err(QapiError::generic(format!("The command {name} does not support OOB")));
            }
            return Command::parse(&name, arguments).map(Some);
        }
        if name != "qmp_capabilities" {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(QapiError::command_not_found(text));
        }
        let QmpCapabilities { enable } = Visitor::new(arguments, Form::Json).whole()?;
        self.stage = Stage::Commands { oob: enable.iter().flatten().any(|it| *it == QmpCapability::Oob) };
        Ok(None)
    }

    fn allows_oob(&self) -> bool {
        self.stage == Stage::Commands { oob: true }
    }

    fn reply_text(&self, id: Option<&Value>, result: Result<Value, QapiError>) -> Vec<u8> {
        let mut reply = match result {
            Ok(value) => json!({"return": value}),
            Err(error) => json!({"error": error.to_value()}),
        };
        if let Some(id) = id {
            reply["id"] = id.clone();
        }
        to_qmp_text(&reply, self.layout)
    }
}

impl Default for Session {
    fn default() -> Self {
        Session::new(Layout::Line)
    }
}

/// Whether a request says that it does not wait.
fn is_out_of_band(input: &Value) -> bool {
    input.get("exec-oob").is_some() && input.get("execute").is_none()
}

/// What to do when a command's reply is too long.
fn advice(command: &Command) -> &'static str {
    match command {
        Command::QueryRxFilter(_) => ": ask for one nic by 'name'",
        Command::XQueryStats(_) => ": ask for one port by 'name', or for some by 'limit' and 'after'",
        Command::XQueryFdb(_) => ": ask for fewer by 'limit'",
        _ => "",
    }
}

fn bad_input(member: &str, problem: &str) -> QapiError {
    QapiError::generic(format!("QMP input member '{member}' {problem}"))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
