//! Who is compared, and what each needs on this machine.

use std::process::Command;

use ringyard_tests::error::{Error, Result};
use ringyard_tests::{ovs, tools};

use crate::options::Options;

/// A switch, or what stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The subject.
    Ringyard,
    /// DPDK's testpmd, which passes frames from port to port and looks at none.
    Testpmd,
    /// Open vSwitch on its DPDK data path.
    Ovs,
    /// A loop that copies each frame once and does nothing else.
    Floor,
    /// QEMU as a hub between two taps.
    Qemu,
    /// The kernel's bridge, with veth pairs.
    Bridge,
    /// vde_switch between two taps.
    Vde,
}

impl Contender {
    pub const ALL: [Contender; 7] = [
        Contender::Ringyard,
        Contender::Testpmd,
        Contender::Ovs,
        Contender::Floor,
        Contender::Qemu,
        Contender::Bridge,
        Contender::Vde,
    ];

    /// As the command line names it.
    pub fn flag(self) -> &'static str {
        match self {
            Contender::Ringyard => "ringyard",
            Contender::Testpmd => "testpmd",
            Contender::Ovs => "ovs",
            Contender::Floor => "floor",
            Contender::Qemu => "qemu",
            Contender::Bridge => "bridge",
            Contender::Vde => "vde",
        }
    }

    /// As the report names it.
    pub fn title(self) -> &'static str {
        match self {
            Contender::Ringyard => "ringyard",
            Contender::Testpmd => "testpmd io",
            Contender::Ovs => "OVS-DPDK",
            Contender::Floor => "one bare copy",
            Contender::Qemu => "QEMU hub",
            Contender::Bridge => "Linux bridge",
            Contender::Vde => "vde_switch",
        }
    }

    /// Programs, and the Debian packages that bring them; the first package's version is reported.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Contender::Ringyard | Contender::Floor | Contender::Bridge => &[],
            Contender::Testpmd => &[("dpdk-testpmd", "dpdk-dev")],
            Contender::Ovs => &ovs::PROGRAMS,
            Contender::Qemu => &[("qemu-system-x86_64", "qemu-system-x86")],
            Contender::Vde => &[("vde_switch", "vde2"), ("vde_plug2tap", "vde2")],
        }
    }

    /// The version of its package, if Debian's package manager knows it.
    pub fn version(self) -> Option<String> {
        let (_, package) = self.programs().first()?;
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Looks for every program that the chosen rows and contenders need. What is missing is an error: a comparison that
/// leaves somebody out must have been told to.
pub fn find_programs(options: &Options) -> Result<()> {
    let mut wanted: Vec<(&str, &str)> = BASE_PROGRAMS.into();
    let takes_part =
        |contender: &Contender| options.rows.iter().any(|row| row.contenders().contains(contender));
    for contender in options.present(&Contender::ALL).into_iter().filter(takes_part) {
        if contender == Contender::Ringyard {
            tools::switch_binary()?;
        }
        wanted.extend(contender.programs());
    }
    if options.rows.iter().any(|row| row.needs_iperf3()) {
        wanted.push(("iperf3", "iperf3"));
    }
    wanted.retain(|(program, _)| tools::program(program).is_err());
    if wanted.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> =
        wanted.iter().map(|(program, package)| format!("{program} (package {package})")).collect();
    let advice = "benches/peers installs them; --without PEER leaves a peer out";
    Err(Error::new(format!("missing here: {}. {advice}", missing.join(", "))))
}

/// What the rig itself uses.
const BASE_PROGRAMS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("setpriv", "util-linux"), ("timeout", "coreutils")];
