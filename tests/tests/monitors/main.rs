//! Monitors: where they can be, and how clients of every kind fare, those that mean no good included.

mod clients;
mod forms;
mod length;

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::command;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, tools};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// One side of a conversation, over whatever carries it.
struct Client<R, W> {
    lines: BufReader<R>,
    writer: W,
}

type TcpClient = Client<TcpStream, TcpStream>;
type UnixClient = Client<UnixStream, UnixStream>;

fn over_tcp(stream: TcpStream) -> TcpClient {
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a valid limit");
    let writer = stream.try_clone().expect("there are descriptors");
    Client { lines: BufReader::new(stream), writer }.greeted()
}

fn over_unix(stream: UnixStream) -> UnixClient {
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a valid limit");
    let writer = stream.try_clone().expect("there are descriptors");
    Client { lines: BufReader::new(stream), writer }.greeted()
}

impl<R: Read, W: Write> Client<R, W> {
    fn greeted(mut self) -> Self {
        assert_eq!(self.next()["QMP"]["capabilities"], json!(["oob"]));
        self
    }

    fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).expect("the monitor reads");
        self.writer.flush().expect("nothing is held back");
    }

    /// The next message; null at the end.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the monitor answers in time");
        if line.is_empty() { Value::Null } else { serde_json::from_str(&line).expect("it is JSON") }
    }

    fn ask(&mut self, name: &str, arguments: Value) -> Value {
        self.send(&json!({"execute": name, "arguments": arguments}).to_string());
        self.next()
    }

    fn negotiate(&mut self) {
        assert_eq!(self.ask("qmp_capabilities", json!({})), json!({"return": {}}));
    }

    /// What is known of every switch.
    fn is_served(&mut self) {
        self.negotiate();
        assert_eq!(self.ask("query-status", json!({}))["return"]["running"], true);
    }
}

/// Where the switch says that it listens, the `number`th time.
fn tcp_place(switch: &Switch, number: usize) -> Result<String> {
    wait_for("the monitor's address", PATIENCE, || {
        let log = switch.process().log();
        let places = log.split(&[' ', ',', '\n'][..]).filter_map(|word| word.strip_prefix("tcp:"));
        Ok(places.map(|place| place.trim_end_matches(':').to_owned()).nth(number))
    })
}

fn ringyard(arguments: &[&str]) -> Result<Command> {
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.arg("run").args(arguments);
    Ok(ringyard)
}

fn refused(arguments: &[&str]) -> Result<String> {
    let output = ringyard(arguments)?.stdin(Stdio::null()).output().expect("it can be started");
    assert!(!output.status.success(), "{arguments:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A switch that a test starts by hand; killed if the test fails before its end.
struct Killed(Child);

impl Killed {
    fn end(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it is ours").success());
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn good<T, E: Debug>(result: std::result::Result<T, E>) -> T {
    result.expect("the machine lets us")
}

/// A nic, `g`, that nobody speaks to.
fn make_nic(switch: &mut Switch) {
    let path = switch.path("stream");
    let stream = json!({"type": "stream", "id": "s", "server": true, "addr": {"type": "unix", "path": path}});
    good(switch.qmp().execute("netdev_add", stream));
    good(switch.qmp().execute("netdev_add", json!({"type": "nic", "id": "g", "netdev": "s"})));
}
