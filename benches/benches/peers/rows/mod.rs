//! The rows of the comparison: what each measures, of whom, and how it is called.

mod changes;
mod idle;
mod latency;
mod multicast;
mod ports;
mod rate;
mod taps;

pub use rate::RING_SIZE;
use ringyard_tests::error::Result;

use crate::contender::Contender;
use crate::options::Options;
use ringyard_benches::comparison::Part;

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Row {
    OneWay,
    Pools,
    BothWays,
    Latency,
    Ports,
    Multicast,
    Idle,
    Tcp,
    Udp,
    Changes,
}

impl Row {
    pub const ALL: [Row; 10] = [
        Row::OneWay,
        Row::Pools,
        Row::BothWays,
        Row::Latency,
        Row::Ports,
        Row::Multicast,
        Row::Idle,
        Row::Tcp,
        Row::Udp,
        Row::Changes,
    ];

    /// As the command line names it.
    pub fn flag(self) -> &'static str {
        match self {
            Row::OneWay => "one-way",
            Row::Pools => "pools",
            Row::BothWays => "both-ways",
            Row::Latency => "latency",
            Row::Ports => "ports",
            Row::Multicast => "multicast",
            Row::Idle => "idle",
            Row::Tcp => "tcp",
            Row::Udp => "udp",
            Row::Changes => "changes",
        }
    }

    /// As progress is told.
    pub fn title(self) -> &'static str {
        match self {
            Row::OneWay => "guest to guest, one way",
            Row::Pools => "guest to guest, one way, other pools of buffers",
            Row::BothWays => "guest to guest, both ways at once",
            Row::Latency => "guest to guest, one frame at a time",
            Row::Ports => "guest to guest, with 1,000 ports on the hub",
            Row::Multicast => "multicast to 8 guests",
            Row::Idle => "8 idle guests, and the first frame after idling",
            Row::Tcp => "TCP between two namespaces",
            Row::Udp => "UDP between two namespaces",
            Row::Changes => "netdev_add and netdev_del under load",
        }
    }

    /// Who is compared in it.
    pub fn contenders(self) -> &'static [Contender] {
        match self {
            Row::OneWay | Row::Pools | Row::BothWays | Row::Latency => &WITH_GUESTS,
            Row::Tcp | Row::Udp => &WITH_TAPS,
            Row::Ports | Row::Multicast | Row::Idle | Row::Changes => &[Contender::Ringyard],
        }
    }

    pub fn needs_iperf3(self) -> bool {
        self == Row::Tcp
    }

    /// Measures it. With nobody left to measure, there is nothing to report.
    pub fn run(self, options: &Options) -> Result<Vec<Part>> {
        let contenders = options.present(self.contenders());
        if contenders.is_empty() {
            return Ok(Vec::new());
        }
        let rounds = options.rounds;
        match self {
            Row::OneWay => rate::one_way(&contenders, rounds),
            Row::Pools => rate::pools(&contenders, rounds),
            Row::BothWays => rate::both_ways(&contenders, rounds),
            Row::Latency => latency::run(&contenders, rounds),
            Row::Ports => ports::run(rounds),
            Row::Multicast => multicast::run(rounds),
            Row::Idle => idle::run(rounds),
            Row::Tcp => taps::tcp(&contenders, rounds),
            Row::Udp => taps::udp(&contenders, rounds),
            Row::Changes => changes::run(rounds),
        }
    }
}

/// The place of ringyard among `contenders`.
fn subject(contenders: &[Contender]) -> Option<usize> {
    contenders.iter().position(|contender| *contender == Contender::Ringyard)
}

const WITH_GUESTS: [Contender; 4] =
    [Contender::Ringyard, Contender::Testpmd, Contender::Ovs, Contender::Floor];
const WITH_TAPS: [Contender; 4] = [Contender::Ringyard, Contender::Qemu, Contender::Bridge, Contender::Vde];
