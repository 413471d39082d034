//! The other end of a monitor: what `ringyard show`, `add`, `del`, `link`, `qmp` and `qemu-args` ask a running
//! switch.

mod address;
mod capture;
mod connection;
mod qemu;
mod reload;
mod shell;
mod table;
mod toml;
mod upgrade;
mod views;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use address::MonitorAddress;
pub use capture::CaptureWish;
pub(crate) use connection::Connection;
pub use qemu::{MachineForm, MemorySize, QemuWish};
pub use shell::ShellOptions;
pub use views::View;

/// Whom to ask, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientInvocation {
    /// The monitor's address.
    pub monitor: MonitorAddress,
    /// What.
    pub action: Action,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To see something.
    Show {
        /// What.
        view: View,
        /// As JSON, not as a table.
        json: bool,
        /// Again and again.
        watch: bool,
    },
    /// To have the configuration read again, and to see what came of it.
    Reload {
        /// Another file than that in use.
        file: Option<PathBuf>,
        /// Only to see what would come of it.
        dry_run: bool,
        /// As JSON, not as text.
        json: bool,
    },
    /// To have another program go on with everything.
    Upgrade {
        /// Which; without, what is there now under the running one's name.
        binary: Option<PathBuf>,
    },
    /// To have a command executed, and to see what it returns.
    Execute {
        /// Its name.
        command: String,
        /// Its arguments.
        arguments: Value,
        /// Whether to print what it returns.
        prints: bool,
    },
    /// To see the frames of a netdev as they pass.
    Capture(CaptureWish),
    /// To learn how a virtual machine is plugged into ports.
    Qemu(QemuWish),
    /// To say one thing after another.
    Shell(ShellOptions),
}

/// Why it could not be done, and what to do next.
#[derive(Debug)]
pub struct ClientError(String);

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError(format!("writing to stdout: {error}"))
    }
}

/// Does it, on stdout.
pub fn run(invocation: &ClientInvocation) -> Result<(), ClientError> {
    let mut connection = Connection::open(&invocation.monitor)?;
    match invocation.action {
        Action::Shell(options) => shell::run(connection, options),
        _ => act(&mut connection, &invocation.action),
    }
}

fn act(connection: &mut Connection, action: &Action) -> Result<(), ClientError> {
    match action {
        Action::Show { view, json, watch } => show(connection, *view, *json, *watch),
        Action::Reload { file, dry_run, json } => {
            reload::reload(connection, file.as_deref(), *dry_run, *json)
        }
        Action::Upgrade { binary } => upgrade::upgrade(connection, binary.as_deref()),
        Action::Execute { command, arguments, prints } => {
            let answer = connection.execute(command, arguments.clone())?;
            if *prints { print(&pretty(&answer)) } else { Ok(()) }
        }
        Action::Shell(_) => Err(ClientError("this is a shell already".into())),
        Action::Capture(wish) => capture::capture(connection, wish),
        Action::Qemu(wish) => {
            let (text, note) = qemu::describe(connection, wish)?;
            if let Some(note) = note {
                // A stderr that cannot be written to leaves nobody to tell.
                drop(writeln!(io::stderr(), "ringyard: {note}"));
            }
            print(&text)
        }
    }
}

fn show(connection: &mut Connection, view: View, as_json: bool, watch: bool) -> Result<(), ClientError> {
    let clears = io::stdout().is_terminal() && !as_json;
    let mut before: Option<(Instant, Value)> = None;
    loop {
        let (now, answer) = (Instant::now(), view.ask(connection)?);
        let text = if as_json {
            let line = if watch { answer.to_string() } else { pretty(&answer) };
            format!("{}\n", line.trim_end())
        } else {
            let since = before.as_ref().map(|(time, answer)| (now - *time, answer));
            view.text(&answer, since)
        };
        let head = if watch && clears { CLEAR } else { "" };
        let printed = print(&format!("{head}{text}"));
        if !watch {
            return printed;
        }
        match printed {
            // Whoever reads us has seen enough.
            Err(_) => return Ok(()),
            Ok(()) => before = Some((now, answer)),
        }
        thread::sleep(WATCH_PAUSE);
    }
}

fn print(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn pretty(value: &Value) -> String {
    match value {
        // What the human monitor prints.
        Value::String(text) => text.replace("\r\n", "\n"),
        _ => format!("{value:#}\n"),
    }
}

impl Action {
    /// `del ID`: deletes a netdev.
    pub fn del(id: &str) -> Action {
        Action::Execute { command: "netdev_del".into(), arguments: json!({"id": id}), prints: false }
    }

    /// `link NAME up|down`: changes an administrative link.
    pub fn link(name: &str, up: bool) -> Action {
        Action::Execute {
            command: "set_link".into(),
            arguments: json!({"name": name, "up": up}),
            prints: false,
        }
    }
}

/// Moves a terminal's cursor to the top of an empty screen.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// From one look to the next.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
