//! Processes that a test starts. Each writes its output into a file that the test can read and wait on, is killed when
//! the test drops it, and dies with the test process even if that is killed: the kernel sends it SIGKILL when the
//! thread that started it ends, so one thread that never ends starts them all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use std::{io, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::wait_for;
use crate::error::{Doing, Error, Result};
use crate::tools;

/// A running program with its log.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which [`command`] made, with both outputs going to `DIRECTORY/NAME.log`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Process> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).doing(format!("creating {}", log.display()))?;
        let errors = output.try_clone().doing(format!("duplicating the log of {name}"))?;
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let child = spawn(command).doing(format!("starting {name}"))?;
        Ok(Process { name: name.into(), child, log })
    }

    /// The process id, of the program itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The time that the program's threads have spent on a core since they began; only of those whose names begin with
    /// `prefix`. Threads that have ended count no more.
    pub fn cpu_time(&self, prefix: &str) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.id());
        let mut nanoseconds = 0;
        for task in fs::read_dir(&tasks).doing(format!("listing {tasks}"))? {
            let task = task.doing(format!("listing {tasks}"))?.path();
            // A thread may end while it is looked at.
            let (Ok(name), Ok(times)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            if name.starts_with(prefix) {
                let on_core = times.split_whitespace().next().and_then(|time| time.parse::<u64>().ok());
                nanoseconds +=
                    on_core.ok_or_else(|| Error::new(format!("{} says {times:?}", task.display())))?;
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// What the program has written so far.
    pub fn log(&self) -> String {
        match fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// Writes a line to the program's standard input, at once: to some programs a part of a line is a line.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin: &mut ChildStdin = self.child.stdin.as_mut().expect("started with a piped standard input");
        stdin.write_all(format!("{line}\n").as_bytes()).doing(format!("writing {line:?} to {}", self.name))
    }

    /// Fails with the program's log when it has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait().doing(format!("asking after {}", self.name))? {
            Some(status) => {
                Err(Error::new(format!("{} ended with {status}; its log:\n{}", self.name, self.log())))
            }
            None => Ok(()),
        }
    }

    /// Waits until `found` yields something from the log beyond its first `from` bytes. Fails when the program ends.
    pub fn wait_for_log<T>(
        &mut self,
        what: &str,
        from: usize,
        within: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{what} in the log of {}", self.name);
        let waited = wait_for(&what, within, || {
            if let Some(value) = self.log().get(from..).and_then(&found) {
                return Ok(Some(value));
            }
            self.expect_running().map(|()| None)
        });
        waited.map_err(|error| Error::new(format!("{error}\nthe log of {}:\n{}", self.name, self.log())))
    }

    /// Waits until there is something at all of `sockets`. Fails when the program ends.
    pub fn wait_for_sockets(&mut self, sockets: &[PathBuf], within: Duration) -> Result<()> {
        let waited = wait_for("sockets to connect to", within, || {
            self.expect_running()?;
            Ok(sockets.iter().all(|socket| socket.exists()).then_some(()))
        });
        waited.map_err(|error| Error::new(format!("{error}; the log of {}:\n{}", self.name, self.log())))
    }

    /// Waits until the program ends by itself.
    pub fn wait_for_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, within, || self.child.try_wait().doing(&what))
    }

    /// Asks the program to end (SIGTERM), and waits until it has.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().doing(format!("asking after {}", self.name))? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).doing(format!("ending {}", self.name))?;
        self.wait_for_exit(within)
    }

    /// Kills the program at once (SIGKILL).
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().doing(format!("killing {}", self.name))?;
        self.child.wait().doing(format!("waiting for the end of {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error}");
        }
    }
}

/// A command that runs `program`, looked up on `PATH`, and that dies with the test process. Arguments are added to it.
pub fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let program = program.as_ref();
    let path = match Path::new(program).components().count() {
        1 => tools::program(&program.to_string_lossy())?,
        _ => PathBuf::from(program),
    };
    // Whoever runs tests in the background has some signals ignored, and so would all that is started here.
    let mut command = Command::new(tools::program("env")?);
    command.arg("--default-signal=INT,QUIT,TERM,HUP").arg(tools::program("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    Ok(command)
}

/// Runs `command` to its end; its standard output if it succeeded, else an error with what it wrote to standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().doing(format!("running {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{command:?} ended with {}: {}", output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a command from the thread that never ends.
fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, Sender<io::Result<Child>>);
    static STARTER: OnceLock<Sender<Request>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (requests, incoming) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in incoming {
                // The receiver waits below; it cannot be gone.
                let _ = reply.send(command.spawn());
            }
        });
        requests
    });
    let (reply, child) = mpsc::channel();
    starter.send((command, reply)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}
