//! `ringyard shell`: commands one after another, typed or from a pipe.
//!
//! At a terminal a line editor completes words from the monitor's own schema and from what the switch has, and keeps a
//! history; events are printed above the line that is being typed. From anything else, lines are read and done.

mod helper;
mod line;

use std::cell::RefCell;
use std::env;
use std::fs::DirBuilder;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustyline::config::{BellStyle, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use serde_json::{Value, json};

use super::{ClientError, Connection, act, pretty, print};
use crate::complete::SchemaIndex;
use helper::ShellHelper;
use line::Line;

/// How lines are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShellOptions {
    /// The first error is the end.
    pub stops_at_error: bool,
    /// Each line is printed before it is done.
    pub echoes: bool,
}

/// Does what the lines of stdin say.
///
/// Errors: those of the connection; without a terminal also that some lines failed.
pub(super) fn run(connection: Connection, options: ShellOptions) -> Result<(), ClientError> {
    let mut shell =
        Shell { connection: Rc::new(RefCell::new(connection)), schema: Rc::default(), options, failed: 0 };
    shell.learn();
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return shell.converse().map_err(|error| ClientError(format!("reading from the terminal: {error}")));
    }
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| ClientError(format!("reading from stdin: {error}")))?;
        if !shell.does(&line)? {
            break;
        }
    }
    match shell.failed {
        0 => Ok(()),
        1 => Err(ClientError("1 line failed".into())),
        failed => Err(ClientError(format!("{failed} lines failed"))),
    }
}

struct Shell {
    connection: Rc<RefCell<Connection>>,
    schema: Rc<SchemaIndex>,
    options: ShellOptions,
    failed: usize,
}

impl Shell {
    /// Asks what can be said. A monitor that does not know can be spoken with all the same.
    fn learn(&mut self) {
        let answer = self.connection.borrow_mut().execute("query-qmp-schema", json!({}));
        self.schema = Rc::new(SchemaIndex::new(answer.unwrap_or_default()));
    }

    fn converse(&mut self) -> rustyline::Result<()> {
        let config = Config::builder().completion_type(CompletionType::List).bell_style(BellStyle::None);
        let config = config.max_history_size(HISTORY_MAX)?.history_ignore_space(true).build();
        let mut editor: Editor<ShellHelper, FileHistory> = Editor::with_config(config)?;
        let helper = ShellHelper { connection: self.connection.clone(), schema: self.schema.clone() };
        editor.set_helper(Some(helper));
        let history = history_file();
        if let Some(history) = &history {
            // The first time there is none.
            let _ = editor.load_history(history);
        }
        let mut printer = editor.create_external_printer()?;
        self.connection.borrow_mut().listen(move |event| {
            // A terminal that is gone ends the shell, which ends this.
            let _ =
                printer.print(format!("{} {}\n", event["event"].as_str().unwrap_or_default(), event["data"]));
        });
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        editor.add_history_entry(line.as_str())?;
                    }
                    match self.does(&line) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) => {
                            complain(&error.to_string());
                            break;
                        }
                    }
                }
                // As in a shell: the line is given up.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(history) = &history {
            // Without it the next shell just has none.
            let _ = editor.append_history(history);
        }
        Ok(())
    }

    /// Does what a line says. Whether there is to be a next one.
    ///
    /// Errors: the connection is lost.
    fn does(&mut self, text: &str) -> Result<bool, ClientError> {
        if self.options.echoes && !text.trim().is_empty() {
            print(&format!("{PROMPT}{text}\n"))?;
        }
        let done = match line::parse(text, &self.schema) {
            Ok(Line::Exit) => return Ok(false),
            Ok(line) => self.act(line),
            Err(why) => Err(ClientError(why)),
        };
        if let Err(error) = done {
            if self.connection.borrow().is_lost() {
                return Err(error);
            }
            self.failed += 1;
            complain(&error.to_string());
            return Ok(!self.options.stops_at_error);
        }
        Ok(true)
    }

    fn act(&mut self, line: Line) -> Result<(), ClientError> {
        let connection = &mut *self.connection.borrow_mut();
        match line {
            Line::Nothing | Line::Exit => Ok(()),
            Line::Help => print(HELP),
            Line::Verb(action) => act(connection, &action),
            Line::Qmp(command, arguments) => match connection.execute(&command, arguments)? {
                Value::Object(members) if members.is_empty() => Ok(()),
                answer => print(&pretty(&answer)),
            },
            Line::Human(text) => {
                let arguments = json!({"command-line": text});
                let answer = pretty(&connection.execute("human-monitor-command", arguments)?);
                if answer.starts_with("Error: ") {
                    return Err(ClientError(answer.trim_end().to_owned()));
                }
                if answer.starts_with("unknown command: ") {
                    return Err(ClientError(format!("{}; help says what there is", answer.trim_end())));
                }
                print(&answer)
            }
        }
    }
}

fn complain(text: &str) {
    // A stderr that cannot be written to leaves nobody to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

/// The history's file, in a directory that is made; none without a home.
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    let directory = state.or_else(home)?.join("ringyard");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
    Some(directory.join("history"))
}

const PROMPT: &str = "ringyard> ";
/// Lines that the history keeps.
const HISTORY_MAX: usize = 1000;
const HELP: &str = "\
show ports|hubs|nics|filters|drops|workers|fdb   add TYPE,id=ID,…   del ID   link NAME up|down   qemu-args PORT
                             as on the command line: show --help
COMMAND KEY=VALUE…           a QMP command: set_link name=t0 up=false; the tab key knows commands, members and names
{\"execute\": …}               the same as JSON
info network, ! COMMAND      a line of the human monitor; ! help lists them
exit                         leaves this shell, not the switch; that ends by {\"execute\": \"quit\"}
";
