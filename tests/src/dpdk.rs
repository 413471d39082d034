//! DPDK's testpmd, driven over its prompt: as front end (virtio-user ports, the same side as a guest) or as back end
//! (`net_vhost` ports, the same side as the switch). It polls, so it takes a whole core for forwarding.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::error::{Doing, Error, Result};
use crate::process::{Process, command};
use crate::slot::Slot;
use crate::tools;

/// One port of testpmd.
#[derive(Clone, Debug)]
pub enum TestpmdPort {
    /// A front end.
    VirtioUser(VirtioUser),
    /// A back end.
    Vhost {
        /// The unix socket.
        socket: PathBuf,
        /// Whether testpmd connects; else it listens.
        client: bool,
        /// Queue pairs.
        queues: u32,
    },
}

/// A front end's virtio device.
#[derive(Clone, Debug)]
pub struct VirtioUser {
    /// The unix socket.
    pub socket: PathBuf,
    /// Whether testpmd listens; else it connects.
    pub server: bool,
    /// Queue pairs.
    pub queues: u32,
    /// The port's MAC address.
    pub mac: String,
    /// Mergeable receive buffers.
    pub mrg_rxbuf: bool,
    /// In-order completion.
    pub in_order: bool,
    /// Packed rings, else split ones.
    pub packed: bool,
    /// Vectorised code paths, where the other features and the machine allow them.
    pub vectorized: bool,
}

impl VirtioUser {
    /// The usual: connects, one pair of split rings, mergeable and in order, MAC ending in `number` (1 to 99).
    pub fn connect(socket: impl Into<PathBuf>, number: u8) -> VirtioUser {
        VirtioUser {
            socket: socket.into(),
            server: false,
            queues: 1,
            mac: format!("52:54:00:00:01:{number:02}"),
            mrg_rxbuf: true,
            in_order: true,
            packed: false,
            vectorized: false,
        }
    }
}

/// What a testpmd is.
#[derive(Clone, Debug)]
pub struct TestpmdConfig {
    /// Names its log and its errors.
    pub name: String,
    /// Its ports.
    pub ports: Vec<TestpmdPort>,
    /// What it does with frames: `io`, `macswap`, `txonly`, `rxonly`, `flowgen`, ….
    pub forward_mode: String,
    /// The core that forwards. The prompt runs on another one.
    pub forward_core: u32,
    /// Whether its memory is huge pages; they must have been reserved.
    pub huge_pages: bool,
    /// Further arguments of testpmd itself (after `--`), such as `--txpkts=1500`.
    pub arguments: Vec<String>,
}

impl TestpmdConfig {
    /// Forwards from port to port on core 1, in ordinary memory.
    pub fn new(name: &str, ports: Vec<TestpmdPort>) -> TestpmdConfig {
        TestpmdConfig {
            name: name.into(),
            ports,
            forward_mode: "io".into(),
            forward_core: 1,
            huge_pages: false,
            arguments: Vec::new(),
        }
    }
}

/// A port's counters, as `show port stats` prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestpmdStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that the port had no buffer for.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames not sent.
    pub tx_errors: u64,
    /// Frames received a second since the last look.
    pub rx_pps: u64,
    /// Frames sent a second since the last look.
    pub tx_pps: u64,
}

/// A running testpmd.
pub struct Testpmd {
    process: Process,
    ports: usize,
    _directory: TempDir,
}

impl Testpmd {
    /// Starts testpmd and waits for its prompt; it does not forward yet.
    pub fn launch(_slot: &Slot, config: &TestpmdConfig) -> Result<Testpmd> {
        let directory = tempfile::tempdir().doing("making a testpmd's directory")?;
        // Unbuffered: the prompt ends no line.
        let mut testpmd = command("stdbuf")?;
        testpmd.arg("-o0").arg(tools::program("dpdk-testpmd")?).args(arguments(config));
        // A runtime directory of its own keeps it apart from other testpmds, and goes when it goes.
        testpmd.env("RUNTIME_DIRECTORY", directory.path());
        let mut process = Process::start(&config.name, testpmd, directory.path())?;
        process.wait_for_log("a prompt", 0, START_TIME_MAX, |log| log.contains(PROMPT).then_some(()))?;
        Ok(Testpmd { process, ports: config.ports.len(), _directory: directory })
    }

    /// Types a line at the prompt; what testpmd writes until it prompts again.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let from = self.process.log().len();
        self.process.write_line(line)?;
        self.process.wait_for_log(&format!("the end of `{line}`"), from, COMMAND_TIME_MAX, |log| {
            // The echo of the line comes first, then the output, then the next prompt.
            let (output, _) = log.split_once(PROMPT)?;
            Some(output.strip_prefix(line).unwrap_or(output).to_owned())
        })
    }

    /// Starts forwarding.
    pub fn start(&mut self) -> Result<()> {
        self.command("start").map(drop)
    }

    /// Sends `bursts` bursts of 32 frames from every port, then forwards: with `io`, they go round for ever.
    pub fn start_tx_first(&mut self, bursts: u32) -> Result<()> {
        self.command(&format!("start tx_first {bursts}")).map(drop)
    }

    /// Stops forwarding; what testpmd prints about it.
    pub fn stop(&mut self) -> Result<String> {
        self.command("stop")
    }

    /// The counters of all ports, in their order.
    pub fn stats(&mut self) -> Result<Vec<TestpmdStats>> {
        let text = self.command("show port stats all")?;
        let stats: Vec<TestpmdStats> =
            text.split("NIC statistics for port").skip(1).map(parse_stats).collect();
        if stats.len() != self.ports {
            return Err(Error::new(format!("testpmd has {} ports, but answered {text}", self.ports)));
        }
        Ok(stats)
    }

    /// What testpmd has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends testpmd in order, and fails if it does not end well.
    pub fn quit(mut self) -> Result<()> {
        self.process.write_line("quit")?;
        let status = self.process.wait_for_exit(COMMAND_TIME_MAX)?;
        if !status.success() {
            return Err(Error::new(format!("testpmd ended with {status}:\n{}", self.log())));
        }
        Ok(())
    }
}

fn arguments(config: &TestpmdConfig) -> Vec<String> {
    let prompt_core = if config.forward_core == 0 { 1 } else { 0 };
    let cores =
        [format!("--lcores={prompt_core},{}", config.forward_core), format!("--main-lcore={prompt_core}")];
    let mut arguments: Vec<String> = cores.into();
    arguments.extend(["--no-pci", "--no-telemetry", "-m"].map(String::from));
    arguments.push(MEMORY_MIB.to_string());
    // A front end offers at most eight regions of memory: one file for all of it. In-memory leaves no file behind, but
    // does not go with --no-huge.
    let memory: &[&str] =
        if config.huge_pages { &["--in-memory", "--single-file-segments"] } else { &["--no-huge"] };
    arguments.extend(memory.iter().copied().map(String::from));
    // Says which code path each port took.
    arguments.push("--log-level=pmd.net.virtio.init:info".into());
    if config.ports.iter().any(is_vectorized) && tools::processor_has("avx512bw") {
        arguments.push("--force-max-simd-bitwidth=512".into());
    }
    for (index, port) in config.ports.iter().enumerate() {
        arguments.push(format!("--vdev={}", vdev(index, port)));
    }
    let queues = config.ports.iter().map(queues).max().unwrap_or(1);
    let buffers = (BUFFERS_A_QUEUE * config.ports.len() as u32 * queues).max(BUFFERS_MIN);
    arguments.extend(["--".into(), "-i".into(), format!("--total-num-mbufs={buffers}")]);
    arguments.push(format!("--forward-mode={}", config.forward_mode));
    arguments.extend([format!("--rxq={queues}"), format!("--txq={queues}")]);
    arguments.extend(config.arguments.iter().cloned());
    arguments
}

fn vdev(index: usize, port: &TestpmdPort) -> String {
    match port {
        TestpmdPort::VirtioUser(device) => {
            let VirtioUser { socket, server, queues, mac, mrg_rxbuf, in_order, packed, vectorized } = device;
            format!(
                "net_virtio_user{index},path={},server={},queues={queues},mac={mac},mrg_rxbuf={},in_order={},\
                 packed_vq={},vectorized={}",
                socket.display(),
                u8::from(*server),
                u8::from(*mrg_rxbuf),
                u8::from(*in_order),
                u8::from(*packed),
                u8::from(*vectorized),
            )
        }
        TestpmdPort::Vhost { socket, client, queues } => format!(
            "net_vhost{index},iface={},client={},queues={queues}",
            socket.display(),
            u8::from(*client),
        ),
    }
}

fn is_vectorized(port: &TestpmdPort) -> bool {
    matches!(port, TestpmdPort::VirtioUser(VirtioUser { vectorized: true, .. }))
}

fn queues(port: &TestpmdPort) -> u32 {
    match port {
        TestpmdPort::VirtioUser(device) => device.queues,
        TestpmdPort::Vhost { queues, .. } => *queues,
    }
}

/// Reads `NAME: VALUE` pairs; a name that is missing counts 0.
fn parse_stats(text: &str) -> TestpmdStats {
    let words: Vec<&str> = text.split_whitespace().collect();
    let value = |name: &str| {
        let pair = words.windows(2).find(|pair| pair[0].strip_suffix(':') == Some(name));
        pair.and_then(|pair| pair[1].parse().ok()).unwrap_or(0)
    };
    TestpmdStats {
        rx_packets: value("RX-packets"),
        rx_bytes: value("RX-bytes"),
        rx_missed: value("RX-missed"),
        rx_errors: value("RX-errors"),
        tx_packets: value("TX-packets"),
        tx_bytes: value("TX-bytes"),
        tx_errors: value("TX-errors"),
        rx_pps: value("Rx-pps"),
        tx_pps: value("Tx-pps"),
    }
}

const PROMPT: &str = "testpmd> ";
/// From start to the prompt; mapping its memory takes most of it.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);
const MEMORY_MIB: u32 = 256;
const BUFFERS_MIN: u32 = 16_384;
/// Enough for two full rings of 256 entries and what is on its way.
const BUFFERS_A_QUEUE: u32 = 1024;
