//! The clients that people drive monitors with, each as itself: Python's `qemu.qmp`, its `qmp-shell`, and `socat`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::{Process, command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, tools};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a session of `session.py`.
fn session(what: &str, place: &str) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qmp_clients/session.py");
    run(command(tools::python_program("python3")?)?.arg(script).args([what, place]))
}

/// A switch with a monitor on TCP beside the rig's own, and where that is.
fn on_tcp() -> Result<(Switch, String)> {
    let switch = Switch::start(&["-qmp", "tcp:127.0.0.1:0,server=on,wait=off"])?;
    let place = wait_for("the monitor's address", PATIENCE, || {
        let log = switch.process().log();
        Ok(log.split_whitespace().find_map(|word| word.strip_prefix("tcp:")).map(str::to_owned))
    })?;
    Ok((switch, place))
}

/// What a program makes of the lines that it is given.
fn piped(command: &mut Command, lines: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn qemu_qmp_negotiates_asks_and_hears_of_errors() -> Result<()> {
    let (switch, tcp) = on_tcp()?;
    session("commands", &switch.monitor().display().to_string())?;
    session("commands", &tcp)?;
    session("descriptors", &switch.monitor().display().to_string())?;
    switch.finish()
}

#[test]
fn qemu_qmp_reads_the_longest_replies() -> Result<()> {
    let (switch, tcp) = on_tcp()?;
    session("big_replies", &tcp)?;
    switch.finish()
}

#[test]
fn qemu_qmp_awaits_events_and_comes_again() -> Result<()> {
    let switch = Switch::start(&[])?;
    session("events", &switch.monitor().display().to_string())?;
    switch.finish()
}

#[test]
fn qemu_qmp_can_be_the_one_that_listens() -> Result<()> {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let path = directory.path().join("manager").display().to_string();
    let switch = Switch::start(&["-qmp", &format!("unix:{path},reconnect-ms=50")])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qmp_clients/session.py");
    run(command(tools::python_program("python3")?)?.arg(script).args(["served", &path, "3"]))?;
    switch.finish()
}

#[test]
fn qemu_qmp_sees_the_switch_quit() -> Result<()> {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let path = directory.path().join("monitor");
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["run", "-qmp", &format!("unix:{},server=on,wait=off", path.display())]);
    let mut process = Process::start("ringyard", ringyard, directory.path())?;
    process.wait_for_sockets(std::slice::from_ref(&path), PATIENCE)?;
    session("goodbye", &path.display().to_string())?;
    assert!(process.wait_for_exit(PATIENCE)?.success());
    Ok(())
}

fn qmp_shell(arguments: &[&str]) -> Result<Command> {
    let mut shell = command(tools::python_program("qmp-shell")?)?;
    // It keeps its history at home.
    shell.args(arguments).env("HOME", "/nonexistent");
    Ok(shell)
}

#[test]
fn qmp_shell_executes_what_it_is_given() -> Result<()> {
    let (switch, tcp) = on_tcp()?;
    let lines = "query-status\nnetdev_add type=hubport id=h0 hubid=3\nnetdev_del id=nobody\nnope\n";
    for place in [switch.monitor().display().to_string(), tcp] {
        let text = said(&piped(&mut qmp_shell(&[&place])?, lines));
        let expected = [
            "Connected to QEMU 0.",
            "\"running\": true",
            "{\"return\": {}}",
            "\"DeviceNotFound\"",
            "\"CommandNotFound\"",
        ];
        for part in expected {
            assert!(text.contains(part), "no {part} in {text}");
        }
        said(&piped(&mut qmp_shell(&["-v", "-p", &place])?, "netdev_del id=h0\n"));
    }
    switch.finish()
}

#[test]
fn qmp_shell_speaks_with_the_human_monitor() -> Result<()> {
    let (switch, tcp) = on_tcp()?;
    let lines = "netdev_add hubport,id=h0,hubid=3\ninfo network\nhelp\nset_link h0 sideways\n";
    for place in [&tcp, &switch.monitor().display().to_string()] {
        let text = said(&piped(&mut qmp_shell(&["-H", place])?, lines));
        assert!(text.contains("hub 3\r\n \\ h0"), "{text}");
        assert!(text.contains("announce_self") && text.contains("Expected 'on' or 'off'"), "{text}");
        said(&piped(&mut qmp_shell(&["-H", place])?, "netdev_del h0\n"));
    }
    switch.finish()
}

/// The messages in a text of lines.
fn messages(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is one")).collect()
}

#[test]
fn socat_carries_what_is_typed() -> Result<()> {
    let (switch, tcp) = on_tcp()?;
    let typed = "{'execute': 'qmp_capabilities'}\n{'execute': 'query-status'}\n{'execute': 'bogus'\n}";
    for place in [format!("UNIX-CONNECT:{}", switch.monitor().display()), format!("TCP:{tcp}")] {
        let heard = messages(&said(&piped(command("socat")?.args(["-t", "10", "-", &place]), typed)));
        assert_eq!(heard.len(), 4, "{heard:?}");
        assert_eq!(heard[2]["return"]["running"], true);
        assert_eq!(heard[3]["error"]["class"], "CommandNotFound");
    }
    switch.finish()
}

#[test]
fn socat_can_be_called_by_the_switch() -> Result<()> {
    // The port that the system gives is free again when socat wants it.
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback is there");
    let switch = Switch::start(&["-qmp", &format!("tcp:{free},reconnect-ms=20")])?;
    let listen = format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr", free.port());
    let typed = "{'execute': 'qmp_capabilities'}{'execute': 'query-name'}";
    for _ in 0..2 {
        let heard = messages(&said(&piped(command("socat")?.args(["-t", "10", "-", &listen]), typed)));
        assert_eq!(heard.len(), 3, "{heard:?}");
    }
    switch.finish()
}
