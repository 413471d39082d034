//! `ringyard bench` against its own switch, DPDK's testpmd and taps, with trials so short that figures mean little:
//! what is checked is that every method runs, that nothing arrives wrong, and that the report is whole.

use std::process::Stdio;

use ringyard_benches::bench::report::{Figure, Report, SizeReport};
use ringyard_tests::dpdk::{Testpmd, TestpmdConfig, TestpmdPort};
use ringyard_tests::netns::{self, Netns};
use ringyard_tests::process::{command, run};
use ringyard_tests::slot::Slot;
use ringyard_tests::{Error, Result, tools};

/// Long enough for a frame or two when others use the machine.
const TRIAL_MS: &str = "40";

/// Runs the bench with those arguments; its report.
fn bench(arguments: &[&str]) -> Result<Report> {
    let mut bench = command(tools::switch_binary()?)?;
    bench.args(["bench", "--quick", "--trial-ms", TRIAL_MS, "--json", "-"]).args(arguments);
    Report::from_json(&run(&mut bench)?).map_err(Error::new)
}

/// Whether frames of that size passed, and as they were sent.
fn expect_frames(report: &Report, size: &str) {
    let found = report.sizes.iter().find(|one| one.size == size);
    let SizeReport { mrr, checks, .. } = found.unwrap_or_else(|| panic!("no size {size}: {report:#?}"));
    assert!(mrr.median > 0.0 && checks.frames > 0 && checks.compared > 0, "{size}: {report:#?}");
    assert!(checks.wrongs.is_none(), "{size}: {report:#?}");
}

#[test]
fn own_switch_is_measured_by_every_method() -> Result<()> {
    let _slot = Slot::take()?;
    let report = bench(&["--sizes", "64,9000,imix", "--bidirectional"])?;
    for size in ["64", "9000", "imix"] {
        expect_frames(&report, size);
    }
    assert!(report.target == "ringyard" && report.quick && report.setup.bidirectional);
    assert!(report.setup.gaps.len() == 2 && !report.setup.features.is_empty(), "{report:#?}");
    let self_test = report.self_test.value().expect("the generator can be tested");
    assert!(self_test.ceiling >= self_test.rate && self_test.rate > 0.0);
    let broadcast = report.broadcast.value().expect("a switch of our own has three ports");
    assert!(broadcast.receivers == 2 && broadcast.receive_rate > 0.0, "{broadcast:?}");
    let learning = report.learning.value().expect("a switch of our own floods what it does not know");
    assert!(learning.learns && learning.capacity.is_some_and(|addresses| addresses > 0), "{learning:?}");
    // Without a PDR, which a busy machine may deny, neither has a load to run beside.
    if report.sizes[0].pdr.value().is_some() {
        let rows = report.latency.value().expect("there is a PDR");
        assert_eq!(rows.iter().map(|row| row.percent).collect::<Vec<_>>(), [0, 10, 50, 90]);
        assert!(rows[0].samples > 0 && rows[0].percentiles[0].ns > 0, "{rows:#?}");
        let verbs = report.blocked.value().expect("there is a PDR");
        assert!(!report.notes.iter().any(|note| note.contains("not known here")), "{:#?}", report.notes);
        for verb in ["netdev_add hubport", "netdev_del hubport", "set_link", "x-query-stats"] {
            assert!(verbs.iter().any(|row| row.verb == verb), "{verb}: {verbs:#?}");
        }
    }
    Ok(())
}

#[test]
fn queue_pairs_and_features_are_what_was_asked_for() -> Result<()> {
    let _slot = Slot::take()?;
    let report =
        bench(&["--sizes", "128", "--queues", "2", "--ring-size", "256", "--features", "mergeable"])?;
    expect_frames(&report, "128");
    let setup = &report.setup;
    assert_eq!((setup.pairs, setup.ring_size, &setup.features[..]), (2, 256, &["mergeable".to_owned()][..]));
    Ok(())
}

#[test]
fn back_end_of_dpdk_is_measured_through_its_sockets() -> Result<()> {
    let slot = Slot::take()?;
    let directory = tempfile::tempdir().map_err(Error::new)?;
    let sockets = ["a", "b"].map(|name| directory.path().join(name));
    // testpmd listens at one socket and connects to the other.
    let port = |index: usize, client| {
        let socket = sockets[index].clone();
        TestpmdPort::Vhost { socket, client, queues: 1 }
    };
    let config = TestpmdConfig {
        forward_core: 0,
        arguments: vec!["--disable-link-check".into()],
        ..TestpmdConfig::new("back", vec![port(0, false), port(1, true)])
    };
    let mut testpmd = Testpmd::launch(&slot, &config)?;
    testpmd.start()?;
    let [listening, connecting] = sockets.map(|socket| socket.display().to_string());
    let server = format!("{connecting},server");
    let report =
        bench(&["--name", "testpmd", "--sizes", "64,1518", "--port", &listening, "--port", &server])?;
    expect_frames(&report, "64");
    expect_frames(&report, "1518");
    assert_eq!(report.target, "testpmd");
    assert!(report.blocked.why().is_some_and(|why| why.contains("monitor")), "{:?}", report.blocked);
    assert!(report.broadcast.why().is_some_and(|why| why.contains("three")), "{:?}", report.broadcast);
    testpmd.stop()?;
    testpmd.quit()
}

#[test]
fn interfaces_in_namespaces_are_measured_by_packet_sockets() -> Result<()> {
    let _slot = Slot::take()?;
    let (left, right) = (Netns::new()?, Netns::new()?);
    netns::join((&left, "v0"), (&right, "v1"))?;
    for (netns, interface) in [(&left, "v0"), (&right, "v1")] {
        netns.bring_up(interface, &[])?;
    }
    let taps = [format!("{}/v0", left.name()), format!("{}/v1", right.name())];
    let report = bench(&["--sizes", "64", "--tap", &taps[0], "--tap", &taps[1]])?;
    expect_frames(&report, "64");
    assert_eq!((report.setup.ports.as_str(), report.target.as_str()), ("packet socket", "v0 + v1"));
    assert!(matches!(report.self_test, Figure::Absent(_)));
    Ok(())
}

#[test]
fn reports_of_several_runs_become_one_page() -> Result<()> {
    let _slot = Slot::take()?;
    let directory = tempfile::tempdir().map_err(Error::new)?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (json, html, ladder) = (path("a.json"), path("a.html"), path("ladder.html"));
    let mut first = command(tools::switch_binary()?)?;
    first.args([
        "bench",
        "--quick",
        "--trial-ms",
        TRIAL_MS,
        "--sizes",
        "64",
        "--json",
        &json,
        "--html",
        &html,
    ]);
    let table = run(&mut first)?;
    assert!(table.contains("MRR Mpps") && table.contains("MLRsearch"), "{table}");
    let mut second = command(tools::switch_binary()?)?;
    run(second.args(["bench", "report", &json, &json, "--html", &ladder]))?;
    for (page, part) in [(&html, "Rate against frame size"), (&ladder, "Ladder")] {
        let text = std::fs::read_to_string(page).map_err(Error::new)?;
        assert!(text.contains(part) && text.contains("<svg"), "{page}");
    }
    Ok(())
}

#[test]
fn back_end_that_never_comes_is_an_error_and_no_hang() -> Result<()> {
    let mut bench = command(tools::switch_binary()?)?;
    bench.args(["bench", "--quick", "--trial-ms", TRIAL_MS, "--port", "/nowhere/a", "--port", "/nowhere/b"]);
    let output = bench.stdin(Stdio::null()).output().map_err(Error::new)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("connecting to /nowhere/a"), "{said}");
    Ok(())
}
