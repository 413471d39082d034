//! Command lines and files as people write them, right and wrong.

use super::*;
use crate::wire::{NetdevKind, XSetHub};
use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::worker::Mode;
use ringyard_drivers::chardev::SocketRole;

fn parsed(line: &str) -> Result<Invocation, CliError> {
    parse(line.split_whitespace().map(OsString::from))
}

fn run(line: &str) -> RunConfig {
    match parsed(&format!("ringyard run {line}")) {
        Ok(Invocation::Run { config, .. }) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    let error = parsed(&format!("ringyard run {line}")).expect_err(line);
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

fn ids(config: &RunConfig) -> Vec<&str> {
    config.netdevs.iter().map(|netdev| netdev.id.as_str()).collect()
}

/// A file that is gone when the test is over.
pub(super) struct TemporaryFile(pub(super) std::path::PathBuf);

impl TemporaryFile {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringyard-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        TemporaryFile(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[test]
fn a_monitor_is_enough_to_start() {
    let config = run("-qmp unix:/q,server=on,wait=off --qmp unix:/r,server,nowait");
    let monitors: Vec<String> = config.monitors.iter().map(MonitorConfig::to_string).collect();
    assert_eq!(monitors, ["unix:/q,server=on,wait=off", "unix:/r,server=on,wait=off"]);
    assert_eq!(config.placement, Placement::Workers(1));
    assert_eq!(config.full_receiver, FullReceiver::Hold);
    assert_eq!(config.sockets, SocketAccess { group: None, mode: 0o600 });
    assert!(refused("").contains("nothing to switch"));
}

#[test]
fn every_option_may_have_one_dash_or_two() {
    let config = run("-qmp unix:/q,server=on -cores 0 -mode poll -socket-mode=0660 -log-level debug");
    assert_eq!(config.placement, Placement::Cores(vec![0]));
    assert_eq!((config.mode, config.sockets.mode), (Mode::Poll, 0o660));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert!(matches!(parsed("ringyard demo -seconds 7"), Ok(Invocation::Demo(DemoConfig { seconds: 7 }))));
    assert_eq!(parsed("ringyard -version").expect_err("it is a wish").exit_code(), 0);
}

#[test]
fn whoever_forgets_the_command_is_shown_it() {
    let error = parsed("ringyard -qmp unix:/q,server=on").expect_err("there is no command");
    assert!(error.to_string().contains("ringyard run [OPTIONS]"), "{error}");
}

#[test]
fn objects_come_out_in_an_order_that_satisfies_references() {
    let config =
        run("-netdev hubport,id=h0,hubid=0,netdev=n0 -net nic,id=g0,netdev=n0 -netdev=tap,id=t0,script=no \
        -netdev vhost-user,id=n0,chardev=c0 -chardev socket,id=c0,path=/c,server=on,wait=off");
    assert_eq!(ids(&config), ["t0", "n0", "g0", "h0"]);
    assert_eq!(config.chardevs[0].role, SocketRole::Server);
}

#[test]
fn a_value_may_be_json() {
    let config = run(r#"-netdev {"type":"hubport","id":"h0","hubid":-7}"#);
    assert!(matches!(&config.netdevs[0].kind, NetdevKind::Hubport(hubport) if hubport.hubid == -7));
    assert!(refused("-netdev {").contains("JSON parse error"));
}

#[test]
fn nic_makes_a_netdev_and_a_nic_on_it() {
    let chardev = "-chardev socket,id=c,path=/c,server";
    let nics = "-nic tap,ifname=x,mac=52:54:00:00:00:07,model=virtio -nic vhost-user,id=n,chardev=c";
    let config = run(&format!("{chardev} {nics}"));
    assert_eq!(ids(&config), ["net0", "n", "net0-nic", "n-nic"]);
    let NetdevKind::Nic(nic) = &config.netdevs[2].kind else { panic!("it is a nic") };
    assert_eq!(nic.netdev.as_deref(), Some("net0"));
    assert_eq!(nic.mac.map(|mac| mac.to_string()).as_deref(), Some("52:54:00:00:00:07"));
    assert!(ids(&run("-qmp unix:/q,server -nic none")).is_empty());
    assert!(
        refused("-nic tap,mac=1:2")
            .ends_with("invalid syntax for ethernet address\nFor examples: ringyard run --help")
    );
}

#[test]
fn hubs_are_told_how_to_learn() {
    let config = run("-qmp unix:/q,server -hub 0,learning=off --hub -5,ageing=60 -hub id=7");
    let hub = |hubid, learning, ageing| XSetHub { hubid, learning, ageing };
    let expected = [hub(0, Some(false), None), hub(-5, None, Some(60)), hub(7, None, None)];
    assert_eq!(config.hubs, expected);
    let file =
        TemporaryFile::new("hub", "qmp = ['unix:/q,server']\n[[hub]]\nid=0\nlearning=false\nageing_s=60");
    let config = run(&format!("-c {} -hub 0,learning=on", file.0.display()));
    assert_eq!(config.hubs, [hub(0, Some(false), Some(60)), hub(0, Some(true), None)]);
}

#[test]
fn an_error_names_the_option_and_what_is_wrong() {
    for (line, expected) in [
        ("-hub learning=off", "-hub learning=off: Parameter 'id' is missing"),
        ("-hub 0,ageing=0", "-hub 0,ageing=0: Parameter 'ageing' expects a number from 1 to 1000000"),
        ("-hub 0,learning=maybe", "Parameter 'learning' expects 'on' or 'off'"),
        ("-netdev tap", "-netdev tap: Parameter 'id' is missing"),
        ("-netdev none,id=u", "-netdev none,id=u: network backend 'none' is not compiled into this binary"),
        (
            "-netdev vhost-user,id=n,chardev=c9",
            "-netdev vhost-user,id=n,chardev=c9: chardev \"c9\" not found",
        ),
        (
            "-netdev hubport,id=h,hubid=0,netdev=n9",
            "-netdev hubport,id=h,hubid=0,netdev=n9: netdev 'n9' not found",
        ),
        ("-object filter-dump,id=f", "-object filter-dump,id=f: Parameter 'netdev' is missing"),
        (
            "-object filter-dump,id=f,netdev=n9,file=x",
            "-object filter-dump,id=f,netdev=n9,file=x: Parameter 'netdev' expects a network backend id",
        ),
        (
            "-netdev tap,id=t -object filter-dump,id=f,netdev=t,file=x,position=zz",
            "Parameter 'position' expects 'head', 'tail' or 'id=<id>'",
        ),
        ("-netdev tap,id=t -netdev tap,id=t", "-netdev tap,id=t: Duplicate ID 't'"),
        (
            "-netdev tap,id=t -net nic,id=g,netdev=t -net nic,id=f,netdev=t",
            "-net nic,id=f,netdev=t: netdev 't'",
        ),
        ("-netdev tap,id=t,vnet_hdr=maybe", "Parameter 'vnet_hdr' expects 'on' or 'off'"),
        ("-chardev socket,id=c,path=p,x=1", "Parameter 'x' is unexpected"),
        ("-chardev socket,id=c,path=p -chardev socket,id=c,path=q", "Chardev with id 'c' already exists"),
        ("-net user", "-net makes nics only"),
        ("-nic hubport,hubid=0", "-nic needs a type that has a guest or a host behind it"),
        ("-qmp tcp:1,server", "-qmp tcp:1,server: '1' is not HOST:PORT"),
        ("-qmp stdio --qmp-pretty stdio", "-qmp-pretty stdio: there is a monitor already"),
        ("-c /no/such/file", "/no/such/file: No such file or directory"),
        ("--workers 0", "the number of workers must be in range [1, 64]"),
        ("--workers 1 --cores 1", "cannot be used with"),
        ("--cores 3-1", "is no list of cores"),
        ("--cores 1,0-2", "core 1 is listed twice"),
        ("--socket-mode 0999", "no permission bits"),
        ("--full-receiver wait", "[possible values: hold, drop]"),
        ("--frobnicate", "unexpected argument"),
    ] {
        let text = refused(line);
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_file_holds_the_same_objects_and_options_override_it() {
    let file = TemporaryFile::new(
        "whole",
        r#"
        qmp = ["unix:/q,server=on,wait=off"]
        [[chardev]]
        type = "socket"
        id = "c0"
        path = "/c"
        server = true
        [[netdev]]
        type = "hubport"
        id = "h0"
        hubid = 0
        netdev = "n0"
        [[netdev]]
        type = "vhost-user"
        id = "n0"
        chardev = "c0"
        [[nic]]
        netdev = "n0"
        [switch]
        cores = "0,2-3"
        mode = "poll"
        full-receiver = "drop"
        [sockets]
        group = "kvm"
        mode = "0660"
        [log]
        level = "debug"
        "#,
    );
    let config = run(&format!("-c {} --mode adaptive -netdev tap,id=t0", file.0.display()));
    assert_eq!(ids(&config), ["n0", "t0", "nic0", "h0"]);
    assert_eq!(config.placement, Placement::Cores(vec![0, 2, 3]));
    assert_eq!(config.mode, ringyard_dataplane::worker::Mode::Adaptive);
    assert_eq!(config.full_receiver, FullReceiver::Drop);
    let config = run(&format!("-c {} -full-receiver hold", file.0.display()));
    assert_eq!(config.full_receiver, FullReceiver::Hold);
    assert_eq!(config.sockets, SocketAccess { group: Some("kvm".into()), mode: 0o660 });
    assert_eq!(config.log_level, LogLevel::Debug);
}

#[test]
fn a_file_is_checked_without_being_run() {
    let file = TemporaryFile::new("checked", "qmp = ['unix:/q,server']\n[switch]\nname = 'yard'");
    let Ok(Invocation::Checked(config)) = parsed(&format!("ringyard check {}", file.0.display())) else {
        panic!("it is valid")
    };
    assert_eq!(config.name.as_deref(), Some("yard"));
    assert_eq!(config.summary(), "nothing wrong: 0 netdevs, 0 chardevs, 1 monitor");
    let file = TemporaryFile::new("lost", "[[nic]]\nid = 'g'\nnetdev = 'n'");
    let error = parsed(&format!("ringyard check {}", file.0.display())).expect_err("it names nobody");
    assert!(error.to_string().contains("netdev 'n' not found"), "{error}");
}

#[test]
fn help_and_version_are_no_mistakes() {
    for line in ["ringyard --version", "ringyard --help", "ringyard run --help", "ringyard help demo"] {
        assert_eq!(parsed(line).expect_err(line).exit_code(), 0, "{line}");
    }
    let help = parsed("ringyard run --help").expect_err("it is help").to_string();
    assert!(help.contains("Examples:") && help.contains("-netdev hubport,id=h0,hubid=0,netdev=n0"));
}

#[test]
fn the_demo_takes_a_duration() {
    let seconds = |line| match parsed(line) {
        Ok(Invocation::Demo(demo)) => demo.seconds,
        other => panic!("{other:?}"),
    };
    assert_eq!(seconds("ringyard demo"), 5);
    assert_eq!(seconds("ringyard demo --seconds 2"), 2);
    assert_eq!(parsed("ringyard demo --seconds 0").expect_err("too short").exit_code(), 2);
}

#[test]
fn the_ready_made_configurations_are_valid() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let objects = |name: &str| {
        let config = run(&format!("-c {directory}/{name}.toml"));
        assert_eq!(config.monitors.len(), 1, "{name}");
        (config.chardevs.len(), ids(&config).join(" "))
    };
    assert_eq!(objects("two-guests"), (2, "n0 n1 g0 g1 h0 h1".into()));
    assert_eq!(objects("guest-and-tap"), (1, "n0 t0 g0 h0 h1".into()));
    assert_eq!(objects("containers"), (0, "red blue port-red port-blue".into()));
    assert_eq!(objects("user-mode"), (1, "n0 u0 h0 h1".into()));
    assert_eq!(objects("sockets"), (0, "s0 d0 h0 h1".into()));
    let files = std::fs::read_dir(directory).expect("it is part of the source").flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "toml"));
    assert_eq!(files.count(), 5, "each is tested here");
}
