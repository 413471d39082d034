//! The switch as a service of systemd, whom this test stands for: the unit file of `configs/`, signs of life, and descriptors
//! kept from one process to the next by its protocol.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ringyard_drivers::store::{Notice, Shelf, notify_socket};
use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::{Process, command};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::{Doing, Result, tools};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

const TIME_MAX: Duration = Duration::from_secs(30);

/// What the unit file says behind a key.
fn unit(key: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/ringyard.service");
    let text = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    Ok(line.unwrap_or_else(|| panic!("the unit has no {key}")).to_owned())
}

struct Manager {
    directory: tempfile::TempDir,
    desk: Arc<Mutex<Desk>>,
}

/// What a thread of its own takes in, for whoever sends must not be kept waiting.
struct Desk {
    shelf: Shelf,
    words: Vec<String>,
}

impl Manager {
    fn new() -> Result<Manager> {
        let directory = tempfile::tempdir().doing("making a directory")?;
        let socket = notify_socket(&directory.path().join("notify")).doing("making the socket")?;
        let limit = unit("FileDescriptorStoreMax")?.parse().doing("reading the limit")?;
        let desk = Arc::new(Mutex::new(Desk { shelf: Shelf::new(limit), words: Vec::new() }));
        let weak = Arc::downgrade(&desk);
        thread::spawn(move || {
            while let Some(desk) = weak.upgrade() {
                let mut desk = desk.lock().expect("nobody panics with it");
                for notice in desk.shelf.serve(&socket, |_| true) {
                    if let Notice::Said(_, text) = notice {
                        desk.words.extend(text.lines().map(str::to_owned));
                    }
                }
                drop(desk);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Manager { directory, desk })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("nobody panics with it")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts what the unit says, with what is kept as descriptors from 3 on, and waits until it is ready.
    fn start(&self) -> Result<Process> {
        let mut desk = self.desk();
        desk.words.clear();
        let (mut names, mut moves, mut copies) = (Vec::new(), String::new(), Vec::new());
        for ((name, fd), to) in desk.shelf.kept().iter().zip(3..) {
            // Numbers above those that they move to.
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, 500).doing("duplicating a descriptor")?;
            fcntl_setfd(&copy, FdFlags::empty()).doing("having it inherited")?;
            moves += &format!(" {to}<&{0} {0}<&-", copy.as_raw_fd());
            names.push(name.clone());
            copies.push(copy);
        }
        drop(desk);
        let program = unit("ExecStart")?
            .replace("/usr/bin/ringyard", &tools::switch_binary()?.display().to_string())
            .replace("/etc/ringyard/ringyard.toml", &self.path("ringyard.toml").display().to_string());
        let script = format!("LISTEN_PID=$$ WATCHDOG_PID=$$ exec {program}{moves}");
        let mut bash = command("bash")?;
        bash.current_dir(self.directory.path()).args(["-c", &script]);
        bash.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", "200000");
        bash.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let process = Process::start("ringyard", bash, self.directory.path())?;
        drop(copies);
        self.await_word(&process, "READY=1")?;
        Ok(process)
    }

    /// Waits until the switch says so.
    fn await_word(&self, process: &Process, word: &str) -> Result<()> {
        let said = || Ok(self.desk().words.iter().any(|said| said == word).then_some(()));
        wait_for(word, TIME_MAX, said)
            .map_err(|error| ringyard_tests::Error::new(format!("{error}; its log:\n{}", process.log())))
    }
}

fn config_of(monitor: &Path) -> Result<Value> {
    let mut client = Qmp::connect(monitor, TIME_MAX)?;
    client.execute("x-query-config", json!({})).doing("asking for the configuration")
}

#[test]
fn a_service_that_is_killed_is_as_it_was_and_one_that_is_restarted_begins_afresh() -> Result<()> {
    let manager = Manager::new()?;
    let monitor = manager.path("q");
    let file = format!("qmp = ['unix:{},server=on,wait=off']\n", monitor.display());
    fs::write(manager.path("ringyard.toml"), file).doing("writing the configuration")?;
    let mut process = manager.start()?;
    let guest = manager.path("guest");
    let mut client = Qmp::connect(&monitor, TIME_MAX)?;
    let address = json!({"type": "unix", "data": {"path": guest}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": true, "wait": false}});
    client.execute("chardev-add", json!({"id": "c", "backend": backend})).doing("adding a chardev")?;
    for (command, arguments) in [
        ("netdev_add", json!({"type": "vhost-user", "id": "n", "chardev": "c"})),
        ("netdev_add", json!({"type": "hubport", "id": "p", "hubid": 0, "netdev": "n"})),
    ] {
        client.execute(command, arguments).doing(command)?;
    }
    let before = config_of(&monitor)?;
    for _ in 0..3 {
        let inode = fs::metadata(&guest).doing("looking for the guest's socket")?;
        process.kill()?;
        // Whoever calls in between is answered by the next one.
        let waiting = UnixStream::connect(&guest).doing("connecting to a socket that is kept")?;
        process = manager.start()?;
        assert_eq!(config_of(&monitor)?, before);
        assert_eq!(fs::metadata(&guest).doing("looking for it again")?.ino(), inode.ino());
        drop(waiting);
    }
    manager.await_word(&process, "WATCHDOG=1")?;
    let status = process.terminate(TIME_MAX)?;
    assert!(status.success(), "{status}: {}", process.log());
    wait_for("nothing to be kept", TIME_MAX, || Ok(manager.desk().shelf.kept().is_empty().then_some(())))?;
    assert!(!guest.exists() && !monitor.exists());
    let mut process = manager.start()?;
    assert_eq!(config_of(&monitor)?["chardev"], json!([]));
    assert!(process.terminate(TIME_MAX)?.success());
    Ok(())
}
