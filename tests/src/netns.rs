//! Network namespaces: third parties on taps, and the only place where test traffic meets a kernel. Their names carry
//! the test process's id, so that runs beside each other do not meet and `tests/run` can tell which ones were left
//! behind.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Doing, Error, Result};
use crate::process::{command, run};

/// A network namespace, removed at drop together with the taps and veths in it.
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new namespace with nothing but `lo`, which is up.
    pub fn new() -> Result<Netns> {
        // Relaxed: only the number's uniqueness counts.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ry-{}-{number}", process::id());
        run(command("ip")?.args(["netns", "add", &name]))?;
        let netns = Netns { name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGUMENTS` inside.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(command("ip")?.args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A command that runs `program` inside; for [`Process::start`](crate::process::Process::start) and
    /// [`run`](crate::process::run).
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = command("ip")?;
        command.args(["netns", "exec", &self.name, program]);
        Ok(command)
    }

    /// Runs a shell command inside to its end, for at most [`COMMAND_SECONDS_MAX`]; its standard output.
    pub fn run(&self, shell_command: &str) -> Result<String> {
        let seconds = COMMAND_SECONDS_MAX.to_string();
        run(self.command("timeout")?.args(["-s", "KILL", &seconds, "sh", "-c", shell_command]))
    }

    /// Takes an interface of the host's namespace, such as a tap that the switch has made.
    pub fn adopt(&self, interface: &str) -> Result<()> {
        run(command("ip")?.args(["link", "set", interface, "netns", &self.name])).map(drop)
    }

    /// Gives an interface its addresses (`10.0.0.3/24`, `fd00::3/64`) and brings it up.
    pub fn bring_up(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            // No duplicate address detection: an IPv6 address is usable at once.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {interface} {nodad}"))?;
        }
        self.ip(&format!("link set {interface} up")).map(drop)
    }

    /// The MAC address of an interface inside.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let text = self.run(&format!("cat /sys/class/net/{interface}/address"))?;
        parse_mac(text.trim()).ok_or_else(|| Error::new(format!("{interface} has the address {text:?}")))
    }

    /// Runs `inside` on a thread of its own that has moved into the namespace.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let file = File::open(&path).doing(format!("opening {}", path.display()))?;
        let entered = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .doing(format!("entering {}", self.name))?;
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|_| Err(Error::new(format!("the thread in {} panicked", self.name))))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let removed = command("ip").and_then(|mut ip| run(ip.args(["netns", "del", &self.name])));
        if let Err(error) = removed {
            eprintln!("{error}");
        }
    }
}

/// Joins two namespaces by a veth pair; each end is named as given with its namespace, and is still down.
pub fn join((left, left_name): (&Netns, &str), (right, right_name): (&Netns, &str)) -> Result<()> {
    let right_end = ["peer", "name", right_name, "netns", right.name()];
    let mut ip = command("ip")?;
    ip.args(["link", "add", left_name, "netns", left.name(), "type", "veth"]).args(right_end);
    run(&mut ip).map(drop)
}

/// Reads `52:54:00:00:00:01`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// How long [`Netns::run`] lets a command run, in seconds.
pub const COMMAND_SECONDS_MAX: u32 = 60;

static COUNT: AtomicU32 = AtomicU32::new(0);
