//! What a tunnel's end is from netdev_add to netdev_del: what it refuses, shows and carries, and what it does when there
//! is no way to its peer.

use ringyard_tests::netns::{self, Netns};
use ringyard_tests::{Doing, Result};
use serde_json::{Value, json};

use crate::bench::{Bench, SOON, TUNNEL, at_peer, frame, plug_tap};

/// Over UDP between 127.0.0.1 and 127.0.0.2.
pub fn local(members: &Value) -> Value {
    let mut end = json!({"src": "127.0.0.1", "dst": "127.0.0.2", "udp": true, "srcport": "1701",
        "dstport": "1702", "txsession": 1, "rxsession": 2});
    for (name, value) in members.as_object().into_iter().flatten() {
        end[name] = value.clone();
    }
    end
}

#[test]
fn what_cannot_be_opened_is_refused_in_qemus_words() -> Result<()> {
    let mut bench = Bench::start()?;
    for (members, text) in [
        (json!({"offset": 257}), "offset must be less than 256 bytes"),
        (json!({"rxcookie": 1}), "require both 'rxcookie' and 'txcookie' or neither"),
        (json!({"txcookie": 0.5}), "Parameter 'txcookie' expects uint64"),
        // QEMU reads it as the number with the same bits.
        (json!({"txcookie": -1}), "require both 'rxcookie' and 'txcookie' or neither"),
        (json!({"src": ""}), "could not resolve src, errno = Name or service not known"),
        (json!({"src": "::1"}), "could not resolve src, errno = Address family for hostname not supported"),
        (
            json!({"srcport": "no such"}),
            "could not resolve src, errno = Servname not supported for ai_socktype",
        ),
        (json!({"src": "10.9.9.9", "dst": ""}), "could not bind socket: Cannot assign requested address"),
        (json!({"dst": ""}), "could not resolve dst, error = Name or service not known"),
        (json!({"ipv6": true}), "could not resolve src, errno = Address family for hostname not supported"),
    ] {
        let error = bench.plug(&local(&members)).expect_err("the test's members are wrong").to_string();
        assert!(error.ends_with(&format!("GenericError: {text}")), "{members}: {error}");
    }
    let _taken = bench.peer("127.0.0.1:1701")?;
    let error = bench.plug(&local(&json!({}))).expect_err("somebody has the port").to_string();
    assert!(error.ends_with("could not bind socket: Address already in use"), "{error}");
    bench.switch.finish()
}

#[test]
fn a_tunnel_is_shown_as_it_was_given() -> Result<()> {
    let mut bench = Bench::start()?;
    let members = local(&json!({"counter": true, "offset": 4, "cookie64": false}));
    bench.plug(&members)?;
    let shown = bench.switch.order("query-netdev", json!({}))?;
    let shown = shown.as_array().into_iter().flatten().find(|netdev| netdev["id"] == TUNNEL).cloned();
    let mut expected = members;
    (expected["id"], expected["type"]) = (TUNNEL.into(), "l2tpv3".into());
    expected["peer-id"] = format!("{TUNNEL}-hubport").into();
    assert_eq!(shown, Some(expected));
    let info = bench.switch.order("human-monitor-command", json!({"command-line": "info network"}))?;
    let line = format!("{TUNNEL}: index=0,type=l2tpv3,l2tpv3: connected\r\n");
    assert!(info.as_str().is_some_and(|text| text.contains(&line)), "{info}");
    bench.switch.finish()
}

#[test]
fn frames_of_any_length_pass_whole_and_longer_ones_are_counted() -> Result<()> {
    let mut bench = Bench::start()?;
    let peer = bench.peer("127.0.0.2:1702")?;
    bench.plug(&local(&json!({"counter": true})))?;
    // 65,507 bytes of a datagram, less a header of 12.
    for (count, len) in (1..).zip([14, 1514, 9018, 65_000, 65_495]) {
        let sent = frame(len, 1);
        bench.tap.send(&sent)?;
        let (header, came, from) = at_peer(&peer, 12)?;
        assert!(came == sent, "{len} bytes to the peer");
        assert_eq!(header, [0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, count]);
        peer.send_to(&[&[0, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], &sent[..]].concat(), from).doing("sending")?;
        assert!(bench.at_tap()? == sent, "{len} bytes from the peer");
    }
    let tagged = [&frame(60, 2)[..12], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], &frame(60, 2)[12..]].concat();
    bench.tap.send(&tagged)?;
    assert_eq!(at_peer(&peer, 12)?.1, tagged);
    bench.tap.send(&frame(65_496, 3))?;
    bench.switch.wait_stats("a frame that is too long", SOON, |stats| {
        stats.port(TUNNEL).is_some_and(|port| port.egress.drops.get("too_long") == Some(&1))
    })?;
    bench.tap.send(&frame(60, 4))?;
    assert_eq!(at_peer(&peer, 12)?.1, frame(60, 4));
    bench.switch.finish()
}

#[test]
fn nobody_at_the_other_end_is_no_fault() -> Result<()> {
    let mut bench = Bench::start()?;
    bench.plug(&local(&json!({})))?;
    // Each of them comes back as an ICMP message.
    for number in 0..50 {
        bench.tap.send(&frame(60, number))?;
    }
    let peer = bench.peer("127.0.0.2:1702")?;
    bench.tap.send(&frame(60, 77))?;
    while at_peer(&peer, 8)?.1 != frame(60, 77) {}
    let stats = bench.switch.wait_carrier(TUNNEL, SOON)?;
    let drops = stats.port(TUNNEL).map(|port| port.egress.drops.clone());
    assert!(drops.as_ref().is_some_and(|drops| drops.is_empty()), "{drops:?}");
    bench.switch.finish()
}

#[test]
fn the_carrier_follows_the_way_to_the_peer_and_touches_nobody_else() -> Result<()> {
    let mut bench = Bench::start()?;
    let far = Netns::new()?;
    plug_tap(&mut bench.switch, &bench.netns, "i0", 1)?;
    plug_tap(&mut bench.switch, &bench.netns, "i1", 1)?;
    let innocents = crate::hostile::innocents(&bench, "i0", "i1")?;
    let join = |bench: &Bench| {
        netns::join((&bench.netns, "w0"), (&far, "w0"))?;
        bench.netns.bring_up("w0", &["10.0.0.1/24"])?;
        far.bring_up("w0", &["10.0.0.2/24"])
    };
    join(&bench)?;
    let end = local(&json!({"src": "10.0.0.1", "dst": "10.0.0.2"}));
    bench.plug(&end)?;
    bench.switch.wait_carrier(TUNNEL, SOON)?;
    type Change<'a> = &'a dyn Fn(&Bench) -> Result<()>;
    let changes: [(Change<'_>, Change<'_>); 3] = [
        (&|bench| bench.netns.ip("link del w0").map(drop), &join),
        (&|bench| bench.netns.ip("link set w0 down").map(drop), &|bench| {
            bench.netns.ip("link set w0 up").map(drop)
        }),
        (&|bench| bench.netns.ip("addr del 10.0.0.1/24 dev w0").map(drop), &|bench| {
            bench.netns.ip("addr add 10.0.0.1/24 dev w0").map(drop)
        }),
    ];
    for (take, give) in changes {
        take(&bench)?;
        bench.switch.wait_stats("the carrier to be gone", SOON, |stats| {
            stats.port(TUNNEL).is_some_and(|port| !port.carrier)
        })?;
        let info = bench.switch.order("human-monitor-command", json!({"command-line": "info network"}))?;
        let text = format!("{TUNNEL}: index=0,type=l2tpv3,error: no way to 10.0.0.2: ");
        assert!(info.as_str().is_some_and(|info| info.contains(&text)), "{info}");
        give(&bench)?;
        bench.switch.wait_carrier(TUNNEL, SOON)?;
        let peer = far.enter(|| std::net::UdpSocket::bind("10.0.0.2:1702").doing("binding"))?;
        peer.set_read_timeout(Some(SOON)).doing("setting a time limit")?;
        bench.tap.send(&frame(60, 1))?;
        assert_eq!(at_peer(&peer, 8)?.1, frame(60, 1));
    }
    crate::hostile::expect_whole(&mut bench, innocents)?;
    bench.switch.finish()
}

#[test]
fn datagrams_longer_than_the_way_are_sent_in_fragments() -> Result<()> {
    let mut bench = Bench::start()?;
    let far = Netns::new()?;
    netns::join((&bench.netns, "w0"), (&far, "w0"))?;
    bench.netns.bring_up("w0", &["10.0.0.1/24"])?;
    far.bring_up("w0", &["10.0.0.2/24"])?;
    bench.plug(&local(&json!({"src": "10.0.0.1", "dst": "10.0.0.2"})))?;
    let peer = far.enter(|| std::net::UdpSocket::bind("10.0.0.2:1702").doing("binding"))?;
    peer.set_read_timeout(Some(SOON)).doing("setting a time limit")?;
    for mtu in [1500, 1300, 700] {
        bench.netns.ip(&format!("link set w0 mtu {mtu}"))?;
        for len in [60, 1514, 9018] {
            // Several of a length at once may be left to the kernel to cut; it must not.
            let burst: Vec<Vec<u8>> = (0..4).map(|number| frame(len, number)).collect();
            for frame in &burst {
                bench.tap.send(frame)?;
            }
            for frame in &burst {
                assert!(at_peer(&peer, 8)?.1 == *frame, "{len} bytes over an MTU of {mtu}");
            }
        }
    }
    bench.switch.finish()
}
