//! What these tests stand on: a switch in a namespace, with a tunnel's end on hub 0 and a tap beside it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ringyard_tests::deadline::Deadline;
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::PacketSocket;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result};
use serde_json::{Value, json};

/// The EtherType of the frames of these tests; the namespace's kernel sends none of that.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// More than a frame needs on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// The end of a tunnel.
pub const TUNNEL: &str = "tunnel";

/// A switch in a namespace, whose hub 0 has a tap with a socket of the test on it.
pub struct Bench {
    pub tap: PacketSocket,
    pub switch: Switch,
    pub netns: Netns,
}

impl Bench {
    /// With the tap alone.
    pub fn start() -> Result<Bench> {
        let netns = Netns::new()?;
        // Nothing but the test's frames.
        netns.run("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        for address in ["fd00::1/128", "fd00::2/128"] {
            netns.ip(&format!("addr add {address} dev lo nodad"))?;
        }
        let mut switch = Switch::start_in(&netns, &[])?;
        plug_tap(&mut switch, &netns, "t0", 0)?;
        let tap = PacketSocket::open(&netns, "t0")?;
        Ok(Bench { tap, switch, netns })
    }

    /// Puts the tunnel's end that `members` describe on hub 0.
    pub fn plug(&mut self, members: &Value) -> Result<()> {
        plug(&mut self.switch, members, 0)
    }

    /// A socket of the peer's.
    pub fn peer(&self, address: &str) -> Result<UdpSocket> {
        let socket = self.netns.enter(|| UdpSocket::bind(address).doing(format!("binding {address}")))?;
        socket.set_read_timeout(Some(SOON)).doing("setting a time limit")?;
        Ok(socket)
    }

    /// The next frame of the test's that came to the tap.
    pub fn at_tap(&self) -> Result<Vec<u8>> {
        self.at_tap_within(SOON)?.ok_or_else(|| Error::new("no frame came to the tap"))
    }

    /// As [`Self::at_tap`]; `None` when there is none in time.
    pub fn at_tap_within(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Deadline::after(within);
        while let Some(left) = deadline.remaining() {
            if let Some(frame) = self.tap.receive(left)?.filter(|frame| is_ours(frame)) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Waits until the tunnel's end has given up so many frames that came in, for this reason.
    pub fn wait_refused(&mut self, reason: &str, count: u64) -> Result<()> {
        let stats = self.switch.wait_stats(&format!("{count} drops as {reason}"), SOON, |stats| {
            stats.port(TUNNEL).is_some_and(|port| port.ingress.drops.get(reason) >= Some(&count))
        })?;
        let drops = stats.port(TUNNEL).map(|port| port.ingress.drops.clone()).unwrap_or_default();
        if drops.get(reason) != Some(&count) {
            return Err(Error::new(format!("more than {count} drops as {reason}: {drops:?}")));
        }
        Ok(())
    }
}

/// Adds a tunnel's end on `hub`.
pub fn plug(switch: &mut Switch, members: &Value, hub: u32) -> Result<()> {
    let mut netdev = members.clone();
    (netdev["type"], netdev["id"]) = ("l2tpv3".into(), TUNNEL.into());
    switch.order("netdev_add", netdev)?;
    let port = json!({"type": "hubport", "id": format!("{TUNNEL}-hubport"), "hubid": hub, "netdev": TUNNEL});
    switch.order("netdev_add", port).map(drop)
}

/// Adds a tap on `hub` that stays in the switch's namespace, and brings it up.
pub fn plug_tap(switch: &mut Switch, netns: &Netns, name: &str, hub: u32) -> Result<()> {
    let tap = json!({"type": "tap", "id": name, "ifname": name, "script": "no", "downscript": "no"});
    switch.order("netdev_add", tap)?;
    let port = json!({"type": "hubport", "id": format!("{name}-hubport"), "hubid": hub, "netdev": name});
    switch.order("netdev_add", port)?;
    // The longest that a tap can carry.
    netns.ip(&format!("link set {name} mtu 65521"))?;
    netns.bring_up(name, &[])
}

/// A frame of `len` bytes, told apart by `number`.
pub fn frame(len: usize, number: u8) -> Vec<u8> {
    let mut frame = [&[0x02, 0, 0, 0, 0, number][..], &[0x02, 0, 0, 0, 1, number], &ETHERTYPE].concat();
    frame.extend((frame.len()..len).map(|at| (at * 7 + usize::from(number)) as u8));
    frame
}

/// Whether a frame is of these tests.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE)
}

/// What the peer's socket gets next, without the first `header` bytes, which are returned apart.
pub fn at_peer(peer: &UdpSocket, header: usize) -> Result<(Vec<u8>, Vec<u8>, SocketAddr)> {
    let mut datagram = vec![0; 70_000];
    let (len, from) = peer.recv_from(&mut datagram).doing("receiving at the peer")?;
    let frame = datagram[..len].get(header..).ok_or_else(|| Error::new(format!("only {len} bytes came")))?;
    Ok((datagram[..header].to_vec(), frame.to_vec(), from))
}
