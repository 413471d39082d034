//! `ringyard shell`, from a pipe and at a terminal, with a switch and with QEMU.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use ringyard_tests::deadline::wait_for;
use ringyard_tests::process::{Process, command};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, tools};
use serde_json::json;

/// The shell with these options, given these lines by a pipe.
fn piped(monitor: &Path, options: &[&str], lines: &str) -> Result<Output> {
    let mut shell = command(tools::switch_binary()?)?;
    shell.arg("shell").args(options).arg("--monitor").arg(monitor);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().doing("starting the shell")?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // A shell that stops early closes it.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    child.wait_with_output().doing("waiting for the shell")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The shell at a terminal, once it has its prompt; its history is in `directory`.
fn at_terminal(monitor: &Path, directory: &Path) -> Result<Process> {
    let line = format!("{} shell --monitor {}", tools::switch_binary()?.display(), monitor.display());
    let mut script = command("script")?;
    script.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
    script.env("XDG_STATE_HOME", directory.join("state")).env("TERM", "xterm");
    let mut shell = Process::start("shell", script, directory)?;
    shell.wait_for_log("the prompt", 0, TIME_MAX, |log| log.contains("ringyard> ").then_some(()))?;
    Ok(shell)
}

/// Types a line, and waits until it is done: for the next prompt.
fn enter(shell: &mut Process, line: &str) -> Result<String> {
    let before = shell.log().len();
    shell.write_line(line)?;
    shell.wait_for_log("the next prompt", before, TIME_MAX, |log| {
        // The editor has let go of the terminal, and has it again.
        let (_, after) = log.split_once("\x1b[?2004l")?;
        after.contains("ringyard> ").then(|| after.to_owned())
    })
}

/// QEMU with a machine that has nothing but a monitor and a netdev.
fn qemu(directory: &Path) -> Result<Process> {
    let monitor = directory.join("qemu.sock");
    let mut qemu = command("qemu-system-x86_64")?;
    qemu.args(["-M", "none", "-nodefaults", "-display", "none", "-netdev", "hubport,id=h0,hubid=0"]);
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())]);
    let mut process = Process::start("qemu", qemu, directory)?;
    wait_for("QEMU's monitor", TIME_MAX, || {
        process.expect_running()?;
        Ok(monitor.exists().then_some(()))
    })?;
    Ok(process)
}

#[test]
fn lines_of_a_pipe_are_done_one_after_another() -> Result<()> {
    let switch = Switch::start(&[])?;
    let lines = "# a port and its hub\n\
        netdev_add id=h0 type=hubport hubid=7\n\
        add nic,id=g0,macaddr=52:54:00:00:00:07\n\
        {\"execute\": \"query-name\"}\n\
        set_link name=h0 up=off\n\
        info network\n\
        show nics\n\
        exit\n\
        del h0\n";
    let output = piped(&switch.monitor(), &[], lines)?;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.starts_with("hub 7\n \\ h0\n") && said.contains("52:54:00:00:00:07"), "{said}");
    switch.finish()
}

#[test]
fn lines_that_fail_are_said_and_counted() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let lines = "del x\nnonsense\nset_link x off\nquery-status\n";
    let output = piped(&switch.monitor(), &["-x"], lines)?;
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.starts_with("netdev_del: Device 'x' not found\nunknown command: 'nonsense'; help says"),
        "{errors}"
    );
    assert!(errors.ends_with("ringyard: 3 lines failed\n"), "{errors}");
    let said = text(&output.stdout);
    assert!(said.starts_with("ringyard> del x\n") && said.contains("\"running\""), "{said}");

    let output = piped(&switch.monitor(), &["-e"], lines)?;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    switch.order("query-status", json!({}))?;
    switch.finish()
}

#[test]
fn a_terminal_has_completion_events_and_a_history() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    switch.plug_listening("vm1", 0)?;
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut shell = at_terminal(&switch.monitor(), directory.path())?;

    assert!(enter(&mut shell, "show\tpor\t")?.contains("vhost-user"));
    enter(&mut shell, "set_link name=vm1 up=fa\t")?;
    assert!(switch.stats()?.port("vm1").is_some_and(|port| !port.link));
    // Somebody else's event, while a line is waited for.
    switch.plug_nic("vm1", "52:54:00:00:00:01")?;
    switch.order("x-set-rx-filter", json!({"name": "vm1-nic", "promiscuous": true}))?;
    shell.wait_for_log("the event", 0, TIME_MAX, |log| {
        log.contains("NIC_RX_FILTER_CHANGED {").then_some(())
    })?;
    shell.write_line("exit")?;
    assert!(shell.wait_for_exit(TIME_MAX)?.success());

    let history = directory.path().join("state/ringyard/history");
    let kept = std::fs::read_to_string(&history).doing("reading the history")?;
    assert!(kept.contains("set_link name=vm1 up=false"), "{kept}");
    let mode = rustix::fs::stat(&history).doing("looking at the history")?.st_mode & 0o777;
    assert_eq!(mode, 0o600);
    switch.finish()
}

#[test]
fn qemu_is_spoken_with_in_its_own_words() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let _qemu = qemu(directory.path())?;
    let monitor = directory.path().join("qemu.sock");
    let lines = "query-status\nset_link name=h0 up=off\ninfo network\nset_link nobody off\n";
    let output = piped(&monitor, &[], lines)?;
    let said = text(&output.stdout);
    assert!(said.contains("\"prelaunch\"") || said.contains("\"running\""), "{said}");
    assert!(said.contains("hub 0\n \\ h0\n"), "{said}");
    assert!(text(&output.stderr).contains("Device 'nobody' not found"), "{}", text(&output.stderr));

    let mut shell = at_terminal(&monitor, directory.path())?;
    assert!(enter(&mut shell, "query-vers\t")?.contains("\"qemu\""));
    enter(&mut shell, "netdev_add id=s0 ty\thub\thubi\t3")?;
    assert!(enter(&mut shell, "info network")?.contains("hub 3"));
    shell.write_line("exit")?;
    assert!(shell.wait_for_exit(TIME_MAX)?.success());
    Ok(())
}

/// Generous: the machine may be busy.
const TIME_MAX: Duration = Duration::from_secs(30);
