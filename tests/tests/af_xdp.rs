//! `af-xdp` between namespaces: a veth pair whose one end the switch has, natively or behind the driver, and a tap on the
//! same hub.

use std::fs;
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig, collect, numbered_frame};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::plug::unique_interface;
use ringyard_tests::process::{command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};
use serde_json::{Value, json};

/// A veth pair: its end in the host's namespace, and `inner` in a namespace of its own, which finishes what it sends.
struct Cable {
    outer: String,
    host: Netns,
}

const INNER: &str = "inner";
const MTU: u32 = 3000;

impl Cable {
    fn new(address: &str, queues: u32) -> Result<Cable> {
        let cable = Cable { outer: unique_interface(), host: Netns::new()? };
        cable.lay(address, queues)?;
        Ok(cable)
    }

    /// Makes the pair, which must not be there.
    fn lay(&self, address: &str, queues: u32) -> Result<()> {
        let shape = format!("numrxqueues {queues} numtxqueues {queues}");
        let (outer, netns) = (&self.outer, self.host.name());
        ip(&format!("link add {outer} {shape} type veth peer name {INNER} {shape} netns {netns}"))?;
        ip(&format!("link set {outer} mtu {MTU} up"))?;
        self.host.ip(&format!("link set {INNER} mtu {MTU}"))?;
        self.host.run(&format!("ethtool -K {INNER} tx off txvlan off"))?;
        self.host.bring_up(INNER, &[address])
    }

    fn cut(&self) -> Result<()> {
        ip(&format!("link del {}", self.outer))
    }
}

fn ip(arguments: &str) -> Result<()> {
    run(command("ip")?.args(arguments.split_whitespace())).map(drop)
}

/// Adds the netdev `x` for the host's end on hub 0.
fn plug_xdp(switch: &mut Switch, cable: &Cable, members: &Value) -> Result<()> {
    let mut netdev = json!({"type": "af-xdp", "id": "x", "ifname": cable.outer});
    for (member, value) in members.as_object().into_iter().flatten() {
        netdev[member] = value.clone();
    }
    switch.order("netdev_add", netdev)?;
    let port = json!({"type": "hubport", "id": "x-hubport", "hubid": 0, "netdev": "x"});
    switch.order("netdev_add", port).map(drop)
}

fn info_network(switch: &mut Switch) -> Result<String> {
    let arguments = json!({"command-line": "info network"});
    let text = switch.order("human-monitor-command", arguments)?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

#[test]
fn ping_and_tcp_pass_in_every_mode_with_packets_of_up_to_3000_bytes() -> Result<()> {
    for members in [json!({}), json!({"mode": "native", "force-copy": true}), json!({"mode": "skb"})] {
        let mut switch = Switch::start(&[])?;
        let (cable, tapped) = (Cable::new("10.0.0.1/24", 1)?, Netns::new()?);
        plug_xdp(&mut switch, &cable, &members)?;
        switch.plug_tap("t0", 0, &tapped, &["10.0.0.2/24"])?;
        tapped.ip(&format!("link set t0 mtu {MTU}"))?;
        for size in [0, 1472, MTU - 28] {
            cable.host.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {size} 10.0.0.2"))?;
            tapped.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {size} 10.0.0.1"))?;
        }
        cable.host.run("iperf3 -s -1 -D")?;
        tapped.run("iperf3 -c 10.0.0.1 -n 20M")?;
        tapped.run("iperf3 -s -1 -D")?;
        cable.host.run("iperf3 -c 10.0.0.2 -n 20M")?;
        switch.finish()?;
    }
    Ok(())
}
