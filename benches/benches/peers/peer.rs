//! One switch under comparison, with its two guests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::bare;
use ringyard_benches::error::{Error, Result};
use ringyard_benches::floor::Floor;
use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Features, Guest, GuestConfig};
use ringyard_benches::load::{self, Round};
use ringyard_benches::traffic::guest_mac;
use ringyard_dataplane::switch::{Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;
use rustix::process::{Pid, Signal, kill_process};

/// Entries of every ring.
pub const RING_SIZE: u16 = 1024;
const SWITCH_CORE: usize = 0;
/// From start to listening sockets; testpmd maps its memory first.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// After a process goes on, before it is measured.
const WARM_UP: Duration = Duration::from_millis(100);

/// A switch and two guests.
pub struct Peer {
    /// As the table prints it.
    pub name: &'static str,
    process: Option<Process>,
    guests: Guests,
}

enum Guests {
    Plugged([FrontEnd; 2]),
    Bare { guests: [Guest; 2], _switch: Box<Switch> },
    Floor { guests: [Guest; 2], floor: Floor },
}

impl Guests {
    fn both(&mut self) -> (&mut Guest, &mut Guest) {
        match self {
            Guests::Plugged([from, to]) => (&mut from.guest, &mut to.guest),
            Guests::Bare { guests: [from, to], .. } | Guests::Floor { guests: [from, to], .. } => (from, to),
        }
    }
}

/// The guests poll, as DPDK's do: no EVENT_IDX.
fn guest_config() -> GuestConfig {
    let features = Features { event_idx: false, indirect: false, ..Features::SPLIT };
    GuestConfig { ring_size: RING_SIZE, features, ..GuestConfig::default() }
}

impl Peer {
    /// testpmd between two `net_vhost` ports.
    pub fn testpmd(directory: &Path) -> Result<Peer> {
        let testpmd = on_path("dpdk-testpmd", "dpdk")?;
        let sockets = sockets(directory, "testpmd");
        // EAL's files go where this run's do.
        let mut command = Command::new(testpmd);
        command.env("RUNTIME_DIRECTORY", directory);
        command.args([format!("--lcores=0@1,1@{SWITCH_CORE}"), "--main-lcore=0".into()]);
        command.args(["--no-pci", "--no-telemetry", "--no-huge", "-m", "512"]);
        for (index, socket) in sockets.iter().enumerate() {
            command.arg(format!("--vdev=net_vhost{index},iface={},queues=1", socket.display()));
        }
        command.args(["--", "--total-num-mbufs=16384", "--forward-mode=io", "--disable-link-check"]);
        // It forwards until its input ends.
        Peer::start("testpmd io", command.stdin(Stdio::piped()), &sockets)
    }

    /// The `ringyard` binary, two vhost-user ports on a hub.
    pub fn ringyard(directory: &Path) -> Result<Peer> {
        let binary = match std::env::var_os("RINGYARD") {
            Some(binary) => PathBuf::from(binary),
            None => release_binary()?,
        };
        if !binary.exists() {
            let hint = "run `cargo build --release`, or name another one in RINGYARD";
            return Err(Error::new(format!("there is no {}: {hint}", binary.display())));
        }
        let sockets = sockets(directory, "ringyard");
        let mut command = Command::new(binary);
        command.args(["run", "--cores", &SWITCH_CORE.to_string(), "--mode", "poll"]);
        let monitor = directory.join("monitor.sock");
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]);
        for (index, socket) in sockets.iter().enumerate() {
            let (path, mac) = (socket.display(), guest_mac(index));
            command.args(["-chardev", &format!("socket,id=c{index},path={path},server=on,wait=off")]);
            command.args(["-netdev", &format!("vhost-user,id=n{index},chardev=c{index}")]);
            command.args(["-netdev", &format!("hubport,id=h{index},hubid=0,netdev=n{index}")]);
            command.args(["-netdev", &format!("nic,id=g{index},netdev=n{index},macaddr={mac}")]);
        }
        Peer::start("ringyard", command.stdin(Stdio::null()), &sockets)
    }

    /// The same data plane in this process, without vhost-user.
    pub fn in_process() -> Result<Peer> {
        // Adaptive: a worker that polled would take the core from the others while they are measured.
        let config = SwitchConfig { cores: vec![Some(SWITCH_CORE)], mode: Mode::Adaptive };
        let mut switch = Switch::start(&config).map_err(Error::new)?;
        let mut config = guest_config();
        config.features.in_order = false;
        let guests = [Guest::new(&config, config.features)?, Guest::new(&config, config.features)?];
        for (index, guest) in guests.iter().enumerate() {
            bare::plug(&mut switch, guest, guest_mac(index))?;
        }
        switch.publish();
        Ok(Peer {
            name: "ringyard, in process",
            process: None,
            guests: Guests::Bare { guests, _switch: Box::new(switch) },
        })
    }

    /// One copy and nothing else, in this process.
    pub fn floor() -> Result<Peer> {
        let mut config = guest_config();
        (config.features.in_order, config.features.mergeable) = (false, false);
        let guests = [Guest::new(&config, config.features)?, Guest::new(&config, config.features)?];
        let floor = Floor::start([&guests[0], &guests[1]], SWITCH_CORE)?;
        Ok(Peer { name: "floor: one bare copy", process: None, guests: Guests::Floor { guests, floor } })
    }

    fn start(name: &'static str, command: &mut Command, sockets: &[PathBuf; 2]) -> Result<Peer> {
        let log = sockets[0].with_extension("log");
        let file = std::fs::File::create(&log).map_err(Error::new)?;
        let error_file = file.try_clone().map_err(Error::new)?;
        let child = command.stdout(file).stderr(error_file).spawn().map_err(Error::new)?;
        let mut process = Process(child);
        let deadline = Instant::now() + START_TIME_MAX;
        while !sockets.iter().all(|socket| socket.exists()) {
            let ended = process.0.try_wait().map_err(Error::new)?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::new(format!("{name} did not start ({ended:?}); it wrote:\n{log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let config = guest_config();
        let guests = [FrontEnd::connect(&sockets[0], &config)?, FrontEnd::connect(&sockets[1], &config)?];
        process.pause()?;
        Ok(Peer { name, process: Some(process), guests: Guests::Plugged(guests) })
    }

    /// Waits until frames pass.
    pub fn open_way(&mut self) -> Result<()> {
        self.awake(|guests| {
            let (from, to) = guests.both();
            load::open_way(from, to)
        })
    }

    /// Measures once.
    pub fn round(&mut self, frame_len: usize, time: Duration) -> Result<Round> {
        self.awake(|guests| {
            let (from, to) = guests.both();
            load::measure(from, to, frame_len, WARM_UP)?;
            load::measure(from, to, frame_len, time)
        })
    }

    /// Unplugs the guests and ends the process.
    pub fn stop(self) -> Result<()> {
        if let Some(process) = &self.process {
            process.resume()?;
        }
        if let Guests::Plugged(front_ends) = self.guests {
            for front_end in front_ends {
                front_end.stop()?;
            }
        }
        Ok(())
    }

    fn awake<T>(&mut self, work: impl FnOnce(&mut Guests) -> Result<T>) -> Result<T> {
        if let Some(process) = &self.process {
            process.resume()?;
        }
        self.set_floor_paused(false)?;
        let result = work(&mut self.guests).map_err(|error| Error::new(format!("{}: {error}", self.name)));
        self.set_floor_paused(true)?;
        if let Some(process) = &self.process {
            process.pause()?;
        }
        result
    }

    fn set_floor_paused(&self, paused: bool) -> Result<()> {
        if let Guests::Floor { floor, .. } = &self.guests { floor.set_paused(paused) } else { Ok(()) }
    }
}

/// A process that ends when nobody has it any more.
struct Process(Child);

impl Process {
    fn pause(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::STOP).map_err(Error::new)
    }

    fn resume(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::CONT).map_err(Error::new)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sockets(directory: &Path, name: &str) -> [PathBuf; 2] {
    [0, 1].map(|index| directory.join(format!("{name}{index}.sock")))
}

fn on_path(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| Error::new(format!("{program} is missing: install the package `{package}`")))
}

/// The binary that `cargo build --release` leaves two folders above this bench.
fn release_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::new)?;
    let folder = own.ancestors().nth(2).ok_or_else(|| Error::new("this bench lies in no target folder"))?;
    Ok(folder.join("ringyard"))
}
