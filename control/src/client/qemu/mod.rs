//! `ringyard qemu-args`: what plugs a virtual machine into ports of the running switch.
//!
//! The switch says what a port is, and the other end follows from that: who listens and where, how many queues there
//! are, which address the nic has. [`options`] writes it for QEMU, [`libvirt`] as a part of a domain.

mod libvirt;
mod options;
mod peer;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::ClientError;
use super::connection::Connection;
use super::views::list;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuWish {
    /// Ids of netdevs, at least one: all of them for one machine.
    pub ports: Vec<String>,
    /// How much memory the machine has; without it, whoever starts the machine sees to it that it is shared.
    pub memory: Option<MemorySize>,
    /// How it is written.
    pub form: MachineForm,
}

/// How a machine is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineForm {
    /// QEMU's options in one line.
    Options,
    /// The same without interrupts of its own for each queue: QEMU's emulator, at least until 7.2, crashes on those.
    EmulatorOptions,
    /// A part of libvirt's domain.
    Libvirt,
}

/// A machine's memory, in whole MiB, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    mib: u32,
}

/// A port, from the machine's side.
#[derive(Debug, PartialEq)]
struct Plug {
    /// The netdev's id, which the machine's netdev gets, too.
    id: String,
    /// The device's id: the nic's where the port has one.
    device: String,
    mac: String,
    end: End,
}

/// How the machine's netdev is made.
#[derive(Debug, PartialEq)]
enum End {
    VhostUser {
        socket: PathBuf,
        /// Whether the switch listens there, so that QEMU connects.
        switch_listens: bool,
        queues: u64,
    },
    /// By these members.
    Netdev(Map<String, Value>),
}

/// What `wish` comes to, as text with its line end, and what there is to say about it.
pub(super) fn describe(
    connection: &mut Connection,
    wish: &QemuWish,
) -> Result<(String, Option<&'static str>), ClientError> {
    let plugs = Answers::ask(connection)?.plugs(&wish.ports, connection.peer_directory().as_deref());
    let plugs = plugs.map_err(ClientError)?;
    match wish.form {
        MachineForm::Libvirt => libvirt::domain(&plugs, wish.memory).map(|text| (text, None)),
        MachineForm::Options => Ok(options::line(&plugs, wish.memory, true)),
        MachineForm::EmulatorOptions => Ok(options::line(&plugs, wish.memory, false)),
    }
    .map_err(ClientError)
}

/// What the switch says.
struct Answers {
    netdevs: Value,
    chardevs: Value,
    nics: Value,
}

impl Answers {
    fn ask(connection: &mut Connection) -> Result<Answers, ClientError> {
        let mut ask = |command| connection.execute(command, json!({}));
        Ok(Answers {
            netdevs: ask("query-netdev")?,
            chardevs: ask("query-chardev")?,
            nics: ask("query-rx-filter")?,
        })
    }

    fn plugs(&self, ids: &[String], directory: Option<&Path>) -> Result<Vec<Plug>, String> {
        let mut plugs: Vec<Plug> = Vec::new();
        for id in ids {
            if plugs.iter().any(|plug| plug.id == *id) {
                return Err(format!("{id} is named twice, and takes one machine"));
            }
            plugs.push(self.plug(id, directory).map_err(|why| format!("{id}: {why}"))?);
        }
        Ok(plugs)
    }

    fn plug(&self, id: &str, directory: Option<&Path>) -> Result<Plug, String> {
        let found = list(&self.netdevs).find(|netdev| netdev["id"] == id);
        let netdev = found.ok_or_else(|| self.no_netdev())?;
        let end = match netdev["type"].as_str().unwrap_or_default() {
            "vhost-user" => self.vhost_user(netdev, directory)?,
            _ => End::Netdev(peer::other_end(netdev, directory)?),
        };
        let nic = list(&self.nics).find(|nic| nic["name"] == netdev["peer-id"]);
        let device = nic.and_then(|nic| nic["name"].as_str()).map(str::to_owned);
        let mac = nic.and_then(|nic| nic["main-mac"].as_str()).map(str::to_owned);
        Ok(Plug {
            id: id.to_owned(),
            device: device.unwrap_or_else(|| format!("{id}-nic")),
            mac: mac.unwrap_or_else(|| own_mac(id, &end)),
            end,
        })
    }

    fn vhost_user(&self, netdev: &Value, directory: Option<&Path>) -> Result<End, String> {
        let chardev = list(&self.chardevs).find(|chardev| chardev["label"] == netdev["chardev"]);
        let filename = chardev.and_then(|chardev| chardev["filename"].as_str()).unwrap_or_default();
        let address = filename.strip_prefix("disconnected:").unwrap_or(filename);
        let path = address
            .strip_prefix("unix:")
            .ok_or_else(|| format!("its chardev {} is not on a unix socket", netdev["chardev"]))?;
        let path_of_server = path.strip_suffix(",server=on");
        Ok(End::VhostUser {
            socket: absolute(Path::new(path_of_server.unwrap_or(path)), directory)?,
            switch_listens: path_of_server.is_some(),
            queues: netdev["queues"].as_u64().unwrap_or(1),
        })
    }

    fn no_netdev(&self) -> String {
        let ids: Vec<&str> = list(&self.netdevs).filter_map(|netdev| netdev["id"].as_str()).collect();
        match ids.is_empty() {
            true => "there is no such netdev, nor any other: add one with ringyard add".into(),
            false => format!("there is no such netdev; these there are: {}", ids.join(" ")),
        }
    }
}

impl MemorySize {
    /// Reads a size as QEMU's `-m` does: in MiB, or with a suffix.
    ///
    /// Errors: what a size looks like.
    pub fn parse(text: &str) -> Result<MemorySize, String> {
        let (number, unit) = match text.char_indices().last() {
            Some((end, 'M' | 'm')) => (&text[..end], 1),
            Some((end, 'G' | 'g')) => (&text[..end], 1 << 10),
            Some((end, 'T' | 't')) => (&text[..end], 1 << 20),
            _ => (text, 1),
        };
        let mib = number.parse().ok().and_then(|number: u32| number.checked_mul(unit));
        let mib = mib.filter(|mib| *mib > 0);
        mib.map(|mib| MemorySize { mib }).ok_or_else(|| format!("'{text}' is no size such as 512M or 2G"))
    }

    /// As QEMU reads it again, wherever it wants a size.
    fn text(self) -> String {
        match self.mib % 1024 {
            0 => format!("{}G", self.mib / 1024),
            _ => format!("{}M", self.mib),
        }
    }
}

/// A path of the switch's as every process can use it.
fn absolute(path: &Path, directory: Option<&Path>) -> Result<PathBuf, String> {
    match directory {
        _ if path.is_absolute() => Ok(path.to_owned()),
        Some(directory) => Ok(directory.join(path)),
        None => Err(format!(
            "the switch has the socket {} in its working directory, and who asks cannot see where that is: \
             start the switch with an absolute path",
            path.display()
        )),
    }
}

/// An address for a machine whose port has no nic to say one. The same port has the same address every time, and no two
/// machines have QEMU's one default.
fn own_mac(id: &str, end: &End) -> String {
    let place = match end {
        End::VhostUser { socket, .. } => socket.display().to_string(),
        End::Netdev(members) => Value::from(members.clone()).to_string(),
    };
    // FNV-1a, which is the same in every version of this program.
    let hash = id.bytes().chain(place.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, _, _, _, a, b, c] = hash.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests;
