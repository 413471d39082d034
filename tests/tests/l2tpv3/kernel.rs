//! Linux's own tunnels (`l2tp_eth`) at the other end, in a guest: its nic is on hub 0, where a tap leads to the switch's
//! own namespace; the tunnel runs over that, and its end is on hub 1 with another tap.

use ringyard_tests::guest::{Guest, GuestConfig, NetAttach};
use ringyard_tests::netns::Netns;
use ringyard_tests::slot::Slot;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Error, Result};
use serde_json::{Value, json};

use crate::bench::{TUNNEL, plug, plug_tap};

/// A session of Linux's, and the same in our words.
struct Form {
    name: &'static str,
    /// Of `ip l2tp add tunnel`.
    tunnel: &'static str,
    /// Of `ip l2tp add session`.
    session: &'static str,
    members: Value,
}

fn forms() -> Vec<Form> {
    let udp4 = "encap udp local 10.0.0.1 remote 10.0.0.100 udp_sport 1702 udp_dport 1701";
    let udp6 = "encap udp local fd00::1 remote fd00::100 udp_sport 1702 udp_dport 1701 \
                udp6_csum_tx on udp6_csum_rx on";
    let short = json!({"txcookie": 0x0102_0304, "rxcookie": 0x8a8b_8c8du32});
    let long =
        json!({"txcookie": 0x0102_0304_0506_0708u64, "rxcookie": 0x8a8b_8c8d_8e8f_9091u64, "cookie64": true});
    let short_theirs = "cookie 8a8b8c8d peer_cookie 01020304";
    let long_theirs = "cookie 8a8b8c8d8e8f9091 peer_cookie 0102030405060708";
    let form = |name, tunnel, session, members: &[&Value]| {
        let members = members.iter().filter_map(|part| part.as_object()).flatten();
        let members = members.map(|(name, value)| (name.clone(), value.clone())).collect();
        Form { name, tunnel, session, members: Value::Object(members) }
    };
    let (none, counter) = (json!({}), json!({"counter": true}));
    let (ip4, ip6) = ("encap ip local 10.0.0.1 remote 10.0.0.100", "encap ip local fd00::1 remote fd00::100");
    let over_udp = json!({"udp": true});
    vec![
        form("bare, UDP", udp4, "l2spec_type none", &[&over_udp, &none]),
        form(
            "sublayer and its own numbers, UDP",
            udp4,
            "l2spec_type default seq send",
            &[&over_udp, &counter],
        ),
        form(
            "sublayer and pinned, UDP over IPv6",
            udp6,
            "l2spec_type default",
            &[&over_udp, &counter, &json!({"pincounter": true, "ipv6": true})],
        ),
        form("cookies, UDP", udp4, short_theirs, &[&over_udp, &counter, &short]),
        form(
            "long cookies, UDP over IPv6",
            udp6,
            long_theirs,
            &[&over_udp, &counter, &long, &json!({"ipv6": true})],
        ),
        form("bare, IP", ip4, "l2spec_type none", &[&none]),
        form("long cookies, IPv6", ip6, long_theirs, &[&counter, &long, &json!({"ipv6": true})]),
    ]
}

fn ours(form: &Form) -> Value {
    let mut end = form.members.clone();
    let (src, dst) = if end["ipv6"] == true { ("fd00::100", "fd00::1") } else { ("10.0.0.100", "10.0.0.1") };
    (end["src"], end["dst"]) = (src.into(), dst.into());
    (end["srcport"], end["dstport"]) = ("1701".into(), "1702".into());
    (end["txsession"], end["rxsession"]) = (json!(0x7000_0001), json!(0x0100_0002));
    end
}

#[test]
fn a_guests_kernel_is_at_the_other_end_and_both_ping() -> Result<()> {
    let slot = Slot::take()?;
    let netns = Netns::new()?;
    let mut switch = Switch::start_in(&netns, &[])?;
    plug_tap(&mut switch, &netns, "t0", 0)?;
    netns.bring_up("t0", &["10.0.0.100/24", "fd00::100/64"])?;
    netns.ip("link set t0 mtu 1500")?;
    plug_tap(&mut switch, &netns, "t1", 1)?;
    netns.ip("link set t1 mtu 1500")?;
    netns.bring_up("t1", &["192.168.7.1/24"])?;
    let socket = switch.plug_listening("vm", 0)?;
    let mut guest = Guest::boot(&slot, GuestConfig::new(1, NetAttach::connect(socket)))?;
    for form in forms() {
        tunnel(&mut switch, &netns, &mut guest, &form)
            .map_err(|error| Error::new(format!("{}: {error}", form.name)))?;
    }
    switch.finish()
}

/// Makes the tunnel, pings through it both ways, and takes it away.
fn tunnel(switch: &mut Switch, netns: &Netns, guest: &mut Guest, form: &Form) -> Result<()> {
    guest.expect(&format!("/bin/ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 2 {}", form.tunnel))?;
    let session = "name l2tp0 tunnel_id 1 session_id 0x70000001 peer_session_id 0x01000002";
    guest.expect(&format!("/bin/ip l2tp add session {session} {}", form.session))?;
    guest.expect("ip link set l2tp0 mtu 1500 up && ip addr add 192.168.7.2/24 dev l2tp0")?;
    plug(switch, &ours(form), 1)?;
    // Its address is another one each time.
    netns.ip("neigh flush dev t1")?;
    let no_loss = " 0% packet loss";
    // In fragments: the tunnel would rather have frames of 1,450 bytes.
    let report = netns.run("ping -c 2 -i 0.1 -W 5 -s 1472 192.168.7.2")?;
    assert!(report.contains(no_loss), "{}: {report}", form.name);
    let report = guest.expect("ping -c 1 -s 56 192.168.7.1")?;
    assert!(report.contains(no_loss), "{}: {report}", form.name);
    let stats = switch.stats()?;
    let port = stats.port(TUNNEL).expect("it was plugged in");
    // The guest may have sent before our end was on its hub.
    let refused: Vec<&String> = port.ingress.drops.keys().filter(|reason| *reason != "no_receiver").collect();
    assert!(refused.is_empty() && port.egress.drops.is_empty(), "{}: {port:?}", form.name);
    switch.unplug(TUNNEL)?;
    guest.expect(
        "/bin/ip l2tp del session tunnel_id 1 session_id 0x70000001 && /bin/ip l2tp del tunnel tunnel_id 1",
    )?;
    Ok(())
}
