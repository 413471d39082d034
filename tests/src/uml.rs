//! A real guest that hands its control queue on: Linux as a process (User Mode Linux), whose virtio devices are
//! vhost-user front ends by themselves. It obeys the same `/init` as the guests under QEMU, on its console, which is the
//! process's standard input and output.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::error::{Doing, Error, Result};
use crate::guest::{BOOT_TIME_MAX, COMMAND_TIME_MAX, CommandOutput, take_answer};
use crate::process::{Process, command};
use crate::slot::Slot;
use crate::tools;

/// A running guest. Dropping it pulls the plug.
pub struct UmlGuest {
    process: Process,
    commands: u32,
    /// Bytes of the console that were read.
    read: usize,
    _directory: TempDir,
}

impl UmlGuest {
    /// Starts guest `number` (1 to 99), whose NIC is plugged into a vhost-user back end that listens at `socket`, and waits
    /// until it obeys: 10.0.0.NUMBER/24, fd00::NUMBER/64, and the address that the back end gives it.
    pub fn boot(_slot: &Slot, number: u8, socket: &Path) -> Result<UmlGuest> {
        let directory = tempfile::tempdir().doing("making a guest's directory")?;
        let linux = linux_command(number, socket, directory.path())?;
        let process = Process::start(&format!("uml{number}"), linux, directory.path())?;
        let mut guest = UmlGuest { process, commands: 0, read: 0, _directory: directory };
        guest.answer("boot", BOOT_TIME_MAX)?;
        Ok(guest)
    }

    /// Runs a shell command of one line, for at most [`COMMAND_TIME_MAX`].
    pub fn run(&mut self, shell_command: &str) -> Result<CommandOutput> {
        self.commands += 1;
        let id = self.commands.to_string();
        self.process.write_line(&format!("run {id} {} {shell_command}", COMMAND_TIME_MAX.as_secs()))?;
        self.answer(&id, COMMAND_TIME_MAX + ANSWER_TIME_MAX)
    }

    /// As [`UmlGuest::run`], but a status other than 0 is an error that shows what the command wrote.
    pub fn expect(&mut self, shell_command: &str) -> Result<String> {
        let CommandOutput { status, stdout } = self.run(shell_command)?;
        if status == 0 {
            return Ok(stdout);
        }
        Err(Error::new(format!("`{shell_command}` ended with {status}:\n{stdout}")))
    }

    /// One of the kernel's counters of an interface, such as `rx_packets`.
    pub fn counter(&mut self, interface: &str, counter: &str) -> Result<u64> {
        let text = self.expect(&format!("cat /sys/class/net/{interface}/statistics/{counter}"))?;
        text.trim().parse().doing(format!("reading {counter} of {interface}: {text:?}"))
    }

    /// Waits for the line that ends the answer to `id`.
    fn answer(&mut self, id: &str, within: Duration) -> Result<CommandOutput> {
        let find = |console: &str| {
            let output = take_answer(&mut console.as_bytes().to_vec(), id)?;
            Some((output, console.len()))
        };
        let what = format!("the answer to {id}");
        let (output, read) = self.process.wait_for_log(&what, self.read, within, find)?;
        self.read += read;
        Ok(output)
    }
}

/// Linux and its helpers are all processes of one namespace, so that they end together.
fn linux_command(number: u8, socket: &Path, directory: &Path) -> Result<Command> {
    let file = |name: &str| tools::guest_file(&Path::new("uml").join(name));
    let mut linux = command("unshare")?;
    linux.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(file("vmlinuz")?);
    linux.arg(format!("initrd={}", file("initramfs")?.display()));
    linux.arg(format!("uml_dir={}", directory.display()));
    linux.arg(format!("virtio_uml.device={}:{NETWORK}", socket.display()));
    linux.args(["mem=128M", "con=null", "con0=fd:0,fd:1", "quiet", "ry.agent=tty0"]);
    linux.args([format!("ry.ip4=10.0.0.{number}/24"), format!("ry.ip6=fd00::{number}/64")]);
    linux.env("LD_PRELOAD", file("xstate.so")?);
    // The guest's memory is a file there, which a back end takes only from a file system in memory.
    linux.env("TMPDIR", "/dev/shm");
    Ok(linux)
}

/// The virtio device that is a network card.
const NETWORK: u8 = 1;
/// What the agent may need beside the command itself.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
