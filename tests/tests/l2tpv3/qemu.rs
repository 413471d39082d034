//! QEMU's own `l2tpv3` at the other end.

use ringyard_tests::probe::Probe;
use ringyard_tests::{Error, Result};
use serde_json::{Value, json};

use crate::bench::{Bench, SOON, frame, is_ours};

/// The two ends of a tunnel: what the one sends, the other one expects.
fn ends(udp: bool, ipv6: bool, form: &Value) -> [Value; 2] {
    const SESSIONS: [u32; 2] = [0x0102_0304, u32::MAX];
    const PORTS: [&str; 2] = ["1701", "1702"];
    let hosts = if ipv6 { ["fd00::1", "fd00::2"] } else { ["127.0.0.1", "127.0.0.2"] };
    [(0, 1), (1, 0)].map(|(here, there)| {
        let mut end = json!({"type": "l2tpv3", "src": hosts[here], "dst": hosts[there], "ipv6": ipv6,
            "txsession": SESSIONS[here], "rxsession": SESSIONS[there]});
        if udp {
            (end["udp"], end["srcport"], end["dstport"]) =
                (true.into(), PORTS[here].into(), PORTS[there].into());
        }
        for (name, value) in form.as_object().into_iter().flatten() {
            let name = match name.as_str() {
                "txcookie" if here == 1 => "rxcookie",
                "rxcookie" if here == 1 => "txcookie",
                name => name,
            };
            end[name] = value.clone();
        }
        end
    })
}

/// Everything but what carries it. A cookie64 that is false means true to QEMU.
fn forms() -> Vec<Value> {
    let mut forms = Vec::new();
    for cookies in [
        json!({}),
        json!({"txcookie": 0xf203_0405u64, "rxcookie": 0x8070_6050u64}),
        json!({"txcookie": u64::MAX, "rxcookie": 0x0102_0304_0506_0708u64, "cookie64": true}),
    ] {
        for (counter, pinned) in [(false, false), (true, false), (true, true), (false, true)] {
            for offset in [0, 3, 256] {
                let mut form = cookies.clone();
                (form["counter"], form["pincounter"], form["offset"]) =
                    (counter.into(), pinned.into(), offset.into());
                forms.push(form);
            }
        }
    }
    forms
}

#[test]
fn frames_pass_both_ways_with_every_set_of_options() -> Result<()> {
    let mut bench = Bench::start()?;
    let mut probe = Probe::start(&bench.netns)?;
    for (udp, ipv6) in [(true, false), (true, true), (false, false), (false, true)] {
        for form in forms() {
            let [ours, theirs] = ends(udp, ipv6, &form);
            let context = |error| Error::new(format!("udp {udp}, ipv6 {ipv6}, {form}: {error}"));
            probe.plug(&theirs)?;
            bench.plug(&ours).map_err(context)?;
            exchange(&bench, &probe).map_err(context)?;
            bench.switch.unplug(crate::bench::TUNNEL)?;
            probe.unplug()?;
        }
    }
    bench.switch.finish()
}

/// Frames of several lengths, all at once, one way and then the other.
fn exchange(bench: &Bench, probe: &Probe) -> Result<()> {
    let frames: Vec<Vec<u8>> =
        (0..).zip([14, 60, 61, 1514, 1700]).map(|(number, len)| frame(len, number)).collect();
    for frame in &frames {
        bench.tap.send(frame)?;
    }
    for sent in &frames {
        let came = loop {
            let came = probe.receive(SOON)?.ok_or_else(|| Error::new("no frame came to QEMU"))?;
            if is_ours(&came) {
                break came;
            }
        };
        same(&came, sent, "to QEMU")?;
    }
    for frame in &frames {
        probe.send(frame)?;
    }
    for sent in &frames {
        same(&bench.at_tap()?, sent, "from QEMU")?;
    }
    Ok(())
}

fn same(came: &[u8], sent: &[u8], way: &str) -> Result<()> {
    if came == sent {
        return Ok(());
    }
    let (came_len, sent_len) = (came.len(), sent.len());
    Err(Error::new(format!(
        "{way}: another frame, or not all of it: {came_len} bytes for {sent_len}: {came:x?}"
    )))
}

/// QEMU takes 2,048 bytes and cuts the rest off, but it sends what it gets.
#[test]
fn long_frames_from_qemu_come_whole() -> Result<()> {
    let mut bench = Bench::start()?;
    let mut probe = Probe::start(&bench.netns)?;
    for (udp, ipv6, longest) in
        [(true, false, 65_499), (true, true, 65_519), (false, false, 65_511), (false, true, 65_531)]
    {
        let [ours, theirs] = ends(udp, ipv6, &json!({}));
        probe.plug(&theirs)?;
        bench.plug(&ours)?;
        for len in [2048, 9014, 65_000, longest] {
            let frame = frame(len, 9);
            probe.send(&frame)?;
            same(&bench.at_tap()?, &frame, &format!("udp {udp}, ipv6 {ipv6}, {len} bytes from QEMU"))?;
        }
        bench.switch.unplug(crate::bench::TUNNEL)?;
        probe.unplug()?;
    }
    bench.switch.finish()
}
