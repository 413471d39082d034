//! What a run left behind, as somebody has changed it.
//!
//! The record of a run with one of each kind of object is there to begin with; the bytes say which of its members are other
//! ones. A run that begins with it either takes it or begins afresh, as a monitor of its own sees if it is still told to have
//! one; and it ends in good order.

use std::cell::OnceCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ringyard_control::cli::{self, Invocation, RunConfig};
use ringyard_control::run::{Control, GRACE, Legacy, Stopper};
use ringyard_drivers::record::Record;
use ringyard_drivers::store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::garble::change;
use crate::keeping::{Keeper, assert_no_panic, watch_for_panics};

/// Changes of one input, at most.
const CHANGES_MAX: usize = 8;
/// Bytes of a record here, at most.
const LEN_MAX: usize = 1 << 20;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run left behind.
struct Left {
    directory: TempDir,
    keeper: Keeper,
    /// What its record is, and the record.
    kind: u64,
    record: Value,
}

/// Runs the target.
pub fn run(input: &[u8]) {
    thread_local! {
        static LEFT: OnceCell<Left> = const { OnceCell::new() };
    }
    watch_for_panics();
    LEFT.with(|left| left.get_or_init(Left::new).go_on(input));
    assert_no_panic();
}

impl Left {
    fn new() -> Left {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        // A path that was changed is one of no directory.
        std::env::set_current_dir(&directory).expect("it was just made");
        let keeper = Keeper::start();
        let (kind, record) = {
            let running = Running::start(&config(directory.path()), keeper.store());
            let mut monitor = Monitor::connect(directory.path()).expect("the monitor listens");
            for (command, arguments) in commands() {
                let answer = monitor.execute(command, arguments);
                assert!(answer.get("return").is_some(), "{command}: {answer}");
            }
            // Nothing is told to be there before it is written down.
            let file = keeper.successor().take("model").expect("the model is kept");
            drop(running);
            let mut head = [0; 8];
            rustix::io::pread(&file, &mut head, 0).expect("it can be read");
            let kind = u64::from_ne_bytes(head);
            let (_, bytes) = Record::adopt(&file, kind, 0).expect("it is whole");
            (kind, serde_json::from_slice(&bytes).expect("it is JSON"))
        };
        keeper.clear();
        Left { directory, keeper, kind, record }
    }

    fn go_on(&self, input: &[u8]) {
        let mut bytes = input.iter();
        let mut below = |end: usize| usize::from(bytes.next().copied().unwrap_or(0)) % end;
        let mut record = self.record.clone();
        for _ in 0..below(CHANGES_MAX + 1) {
            change(&mut record, &mut below);
        }
        let mut text = serde_json::to_vec(&record).expect("it is JSON");
        if below(8) == 1 {
            let at = (below(256) << 8 | below(256)) % text.len();
            text[at] ^= 1 << below(8);
        }
        let (mut journal, file) = Record::new("changed", self.kind, LEN_MAX, 0).expect("memory");
        journal.write(&text).expect("there is room");
        let store = self.keeper.store();
        store.keep("model", file).expect("the keeper is there");
        store.barrier().expect("the keeper is there");
        let mut running = Running::start(&config(self.directory.path()), self.keeper.successor());
        if let Some(mut monitor) = Monitor::connect(self.directory.path()) {
            for command in ["query-netdev", "query-chardev", "query-rx-filter", "x-query-stats"] {
                let answer = monitor.execute(command, json!({}));
                assert!(answer.get("return").is_some(), "{command}: {answer}");
            }
            if input.is_empty() {
                let names = monitor.execute("query-netdev", json!({}))["return"].as_array().map(Vec::len);
                assert_eq!(names, Some(NETDEVS), "what nobody changed is there again");
            }
        }
        running.end();
        self.keeper.clear();
    }
}

/// What a run begins with that finds nothing: a monitor.
fn config(directory: &Path) -> RunConfig {
    let path = |name: &str| directory.join(name).display().to_string();
    let words = [
        "ringyard".to_owned(),
        "run".to_owned(),
        "--workers=1".to_owned(),
        "-qmp".to_owned(),
        format!("unix:{},server=on,wait=off", path("qmp")),
        "-chardev".to_owned(),
        format!("socket,id=c,path={},server=on,wait=off", path("c")),
        "-netdev".to_owned(),
        format!("stream,id=s,server=on,addr.type=unix,addr.path={}", path("s")),
        "-netdev".to_owned(),
        format!(
            "dgram,id=d,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path("d"),
            path("e")
        ),
    ];
    match cli::parse(words.into_iter().map(Into::into)) {
        Ok(Invocation::Run { config, .. }) => *config,
        other => panic!("{other:?}"),
    }
}

/// Netdevs that are there after these and those of [`config`].
const NETDEVS: usize = 5;

/// What else there is to be.
fn commands() -> [(&'static str, Value); 9] {
    [
        ("netdev_add", json!({"id": "v", "type": "vhost-user", "chardev": "c"})),
        ("netdev_add", json!({"id": "h1", "type": "hubport", "hubid": 1, "netdev": "v"})),
        ("netdev_add", json!({"id": "h2", "type": "hubport", "hubid": 1, "netdev": "d"})),
        ("netdev_add", json!({"id": "g", "type": "nic", "netdev": "v", "macaddr": "52:54:00:00:00:07"})),
        ("x-set-hub", json!({"hubid": 1, "learning": true, "ageing": 77})),
        ("x-set-rx-filter", json!({"name": "g", "promiscuous": false})),
        ("x-fdb-add", json!({"hubid": 1, "mac": "52:54:00:00:00:08", "netdev": "d"})),
        ("set_link", json!({"name": "d", "up": false})),
        ("query-netdev", json!({})),
    ]
}

/// A run in a thread of its own.
struct Running {
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Returns when it runs, or cannot.
    fn start(config: &RunConfig, store: Store) -> Running {
        let stopper = Stopper::new().expect("there are descriptors");
        let legacy = Legacy { store, grace: GRACE, watchdog: None };
        let control = Control::start_with(config, stopper.clone(), legacy);
        let run = |control: Control| thread::spawn(move || control.run().expect("it waits for events"));
        Running { stopper, thread: control.ok().map(run) }
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("control does not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A client that has negotiated.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// `None`: there is no monitor.
    fn connect(directory: &Path) -> Option<Monitor> {
        let stream = UnixStream::connect(directory.join("qmp")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("the limit is no zero");
        let mut monitor = Monitor(BufReader::new(stream));
        assert!(monitor.receive().get("QMP").is_some());
        monitor.execute("qmp_capabilities", json!({}));
        Some(monitor)
    }

    /// The answer; events that come first are none.
    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments, "id": command});
        self.0.get_mut().write_all(request.to_string().as_bytes()).expect("the monitor reads");
        loop {
            let message = self.receive();
            if message.get("event").is_none() {
                return message;
            }
        }
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the monitor answers in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}
