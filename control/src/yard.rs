//! A switch inside another program: a virtual machine monitor, a test, a tool.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::cli::{self, CliError, ConfigSource};
use crate::qapi::QapiError;
use crate::run::{Caller, Control, Ended, Stopper};
use crate::wire::{Command, Event};

/// A running switch in this process, with threads of its own. Dropping it stops it.
///
/// It takes the options of `ringyard run` and the commands of its monitors; the crate's documentation has examples. Of
/// the process it changes two things: the soft limit of open descriptors becomes the hard one, and SIGBUS gets a handler
/// as soon as a guest is connected, which passes on what is not of guests' memory. Signals that end a process are left to
/// the process.
pub struct Yard {
    caller: Caller,
    stopper: Stopper,
    control: Option<JoinHandle<io::Result<()>>>,
}

/// Why something could not be done with a [`Yard`].
#[derive(Debug)]
pub enum YardError {
    /// The options are wrong.
    Options(CliError),
    /// What they ask for cannot be had: a sentence that begins with the option. Nothing is left of it.
    Start(String),
    /// The command failed; the class and the text are those that a monitor's client would get.
    Command(QapiError),
    /// The switch has ended: it was told `quit`.
    Ended,
    /// Its control thread could not be started, or has failed.
    Thread(String),
}

impl Yard {
    /// Starts a switch with the options of `ringyard run`, none of which is needed: netdevs may come later. Returns when
    /// all that they ask for is there.
    ///
    /// Errors: [`YardError::Options`], [`YardError::Start`], [`YardError::Thread`].
    pub fn start<O: Into<OsString>>(options: impl IntoIterator<Item = O>) -> Result<Yard, YardError> {
        let source = cli::run_options(options.into_iter().map(Into::into)).map_err(YardError::Options)?;
        let stopper = Stopper::new();
        let stopper = stopper.map_err(|error| YardError::Thread(format!("making an eventfd: {error}")))?;
        Yard::start_from(source, stopper)
    }

    /// Starts what `source` says; `stopper` ends it.
    pub(crate) fn start_from(source: ConfigSource, stopper: Stopper) -> Result<Yard, YardError> {
        let config = source.read_any().map_err(YardError::Options)?;
        let (started, starting) = channel();
        let for_control = stopper.clone();
        // Started there, too: what starts a switch keeps off its workers' cores, and this thread is not ours.
        let run = move || match Control::start(&config, for_control) {
            Ok(control) => {
                let control = control.reloading(source);
                // Whoever waits for this cannot leave before.
                let _ = started.send(Ok(control.caller()));
                control.run()
            }
            Err(why) => {
                let _ = started.send(Err(why));
                Ok(())
            }
        };
        let spawned = thread::Builder::new().name("control".into()).spawn(run);
        let control = spawned.map_err(|error| YardError::Thread(format!("starting a thread: {error}")))?;
        match starting.recv() {
            Ok(Ok(caller)) => Ok(Yard { caller, stopper, control: Some(control) }),
            Ok(Err(why)) => Err(YardError::Start(why)),
            Err(_) => Err(YardError::Thread("the control thread panicked".into())),
        }
    }

    /// Executes a command of the monitors, such as `netdev_add`, and waits for its answer. When it comes, frames already
    /// pass as the command says. Any thread may do so; `arguments` is an object or null.
    ///
    /// Errors: [`YardError::Command`], [`YardError::Ended`].
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value, YardError> {
        let arguments = match arguments {
            Value::Object(members) => members,
            Value::Null => Default::default(),
            _ => {
                let text = "QMP input member 'arguments' must be an object";
                return Err(YardError::Command(QapiError::generic(text)));
            }
        };
        let command = Command::parse(command, arguments).map_err(YardError::Command)?;
        match self.caller.execute(command) {
            Ok(answer) => answer.map_err(YardError::Command),
            Err(Ended) => Err(YardError::Ended),
        }
    }

    /// The events from now on, of commands that follow in any case: guests that come and go, filters that change, the
    /// end. A receiver that lets [`EVENTS_MAX`](crate::run::EVENTS_MAX) of them pile up gets no more.
    ///
    /// Errors: [`YardError::Ended`].
    pub fn events(&self) -> Result<Receiver<Event>, YardError> {
        self.caller.subscribe().map_err(|Ended| YardError::Ended)
    }

    /// Stops it, and returns when all that it had is closed.
    ///
    /// Errors: [`YardError::Thread`].
    pub fn stop(self) -> Result<(), YardError> {
        self.stopper.stop();
        self.wait()
    }

    /// Waits until it has ended, by a monitor's `quit` or from another thread.
    ///
    /// Errors: [`YardError::Thread`].
    pub fn wait(mut self) -> Result<(), YardError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), YardError> {
        match self.control.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(YardError::Thread(format!("waiting for events: {error}"))),
            Some(Err(_)) => Err(YardError::Thread("the control thread panicked".into())),
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.stopper.stop();
        // Nobody is there to hear of it.
        let _ = self.join();
    }
}

impl fmt::Debug for Yard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Yard").finish_non_exhaustive()
    }
}

impl fmt::Display for YardError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            YardError::Options(error) => error.fmt(out),
            YardError::Command(error) => error.fmt(out),
            YardError::Start(why) | YardError::Thread(why) => out.write_str(why),
            YardError::Ended => out.write_str("the switch has ended"),
        }
    }
}

impl std::error::Error for YardError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::ErrorClass;
    use serde_json::json;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    fn yard() -> Yard {
        Yard::start::<&str>([]).expect("an empty switch can be started")
    }

    /// A port on hub 0, and its other end.
    fn port(yard: &Yard, id: &str) -> UnixDatagram {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets can be made");
        ours.set_read_timeout(Some(Duration::from_secs(10))).expect("10 s is a valid limit");
        let local = json!({"type": "fd", "str": theirs.as_raw_fd().to_string()});
        yard.execute("netdev_add", json!({"id": id, "type": "dgram", "local": local})).expect("it is a port");
        let hubport = json!({"id": format!("{id}-hub"), "type": "hubport", "hubid": 0, "netdev": id});
        yard.execute("netdev_add", hubport).expect("the port is on no hub yet");
        ours
    }

    #[test]
    fn frames_pass_as_soon_as_the_commands_are_answered() {
        let yard = yard();
        let (first, second) = (port(&yard, "a"), port(&yard, "b"));
        let mut frame = [0xFF; 60];
        frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
        first.send(&frame).expect("the switch is there");
        let mut received = [0; 100];
        assert_eq!(second.recv(&mut received).expect("a broadcast reaches all"), frame.len());
        yard.execute("netdev_del", json!({"id": "a"})).expect("it is there");
        yard.stop().expect("it ends in good order");
    }

    #[test]
    fn a_command_that_fails_says_what_a_client_would_be_told() {
        let yard = yard();
        let failed = yard.execute("netdev_del", json!({"id": "x"})).expect_err("there is none");
        let expected =
            QapiError { class: ErrorClass::DeviceNotFound, ..QapiError::generic("Device 'x' not found") };
        assert!(matches!(&failed, YardError::Command(error) if *error == expected), "{failed:?}");
        assert!(yard.execute("no-command", Value::Null).is_err());
        assert!(yard.execute("query-status", json!([1])).is_err());
        let named =
            yard.execute("getfd", json!({"fdname": "f"})).expect_err("there is no message that brings one");
        assert!(named.to_string().contains("SCM_RIGHTS"));
        assert_eq!(yard.execute("query-name", Value::Null).ok(), Some(json!({})));
    }

    #[test]
    fn what_cannot_be_started_is_an_error_and_leaves_nothing() {
        let wrong = Yard::start(["-netdev", "tap,id=t,bogus=1"]);
        assert!(matches!(wrong, Err(YardError::Options(_))), "{wrong:?}");
        let help = Yard::start(["--help"]);
        assert!(matches!(help, Err(YardError::Options(_))), "{help:?}");
        let absent = Yard::start(["-chardev", "socket,id=c,path=/no/such/directory/s,server=on"]);
        assert!(
            matches!(&absent, Err(YardError::Start(why)) if why.starts_with("-chardev c:")),
            "{absent:?}"
        );
    }

    #[test]
    fn events_come_until_the_end() {
        let yard = yard();
        let events = yard.events().expect("it runs");
        assert_eq!(yard.execute("quit", Value::Null).ok(), Some(json!({})));
        assert_eq!(events.recv().map(|event| event.name), Ok("SHUTDOWN"));
        assert!(events.recv().is_err());
        // It may take a moment to take all down.
        while !matches!(yard.execute("query-status", Value::Null), Err(YardError::Ended)) {}
        assert!(matches!(yard.events(), Err(YardError::Ended)));
        yard.wait().expect("it ended in good order");
    }

    #[test]
    fn several_threads_give_commands() {
        let yard = yard();
        thread::scope(|scope| {
            for number in 0..4 {
                let yard = &yard;
                scope.spawn(move || {
                    let nic = json!({"id": format!("g{number}"), "type": "nic"});
                    yard.execute("netdev_add", nic).expect("the id is free");
                });
            }
        });
        let nics = yard.execute("query-rx-filter", Value::Null).expect("there are nics");
        assert_eq!(nics.as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn a_configuration_is_followed_as_by_a_run() {
        let file = std::env::temp_dir().join(format!("ringyard-{}-yard.toml", std::process::id()));
        std::fs::write(&file, "[[netdev]]\ntype='hubport'\nid='h'\nhubid=0\n").expect("it is writable");
        let yard = yard();
        let reload = |arguments| yard.execute("x-reload", arguments);
        let report = reload(json!({"file": file})).expect("nothing is wrong with it");
        assert_eq!(report["added"], json!(["netdev.h"]));
        std::fs::write(&file, "x=1").expect("it is writable");
        let error = reload(json!({})).expect_err("nobody knows x").to_string();
        std::fs::remove_file(&file).expect("it was just written");
        assert!(error.ends_with("yard.toml:1:1: Parameter 'x' is unexpected"), "{error}");
        yard.stop().expect("it ends in good order");
    }
}
