//! Completion in a real bash, which has read the script that the binary prints.

use ringyard_tests::process::{command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Result, tools};
use serde_json::json;

/// What `line` is completed to; `cut` is the part of its last word that Readline replaces.
fn completed(line: &str, cut: &str, monitor: &str) -> Result<Vec<String>> {
    let binary = tools::switch_binary()?;
    let mut bash = command("bash")?;
    bash.args(["--norc", "-c", SCRIPT]).env("RINGYARD", &binary);
    bash.env("RINGYARD_MONITOR", monitor).env("LINE", line).env("CUT", cut);
    Ok(run(&mut bash)?.lines().map(str::to_owned).collect())
}

/// As bash does it when somebody presses the tab key.
const SCRIPT: &str = r#"
source <("$RINGYARD" completions bash)
[[ $(complete -p ringyard) == *"-F _ringyard ringyard" ]] || exit 1
COMP_LINE=$LINE COMP_POINT=${#LINE}
_ringyard "$RINGYARD" "$CUT" ""
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_commands_options_and_members() -> Result<()> {
    let completed = |line, cut| completed(line, cut, "/nowhere");
    assert_eq!(completed("ringyard sho", "sho")?, ["show"]);
    assert_eq!(completed("ringyard run -netd", "-netd")?, ["-netdev"]);
    assert_eq!(completed("ringyard show ports --wat", "--wat")?, ["--watch"]);
    assert_eq!(completed("ringyard run --mode=p", "p")?, ["poll"]);
    // Readline's part of the word begins behind the last "=".
    assert_eq!(completed("ringyard run -netdev tap,id=t0,ifn", "t0,ifn")?, ["t0,ifname="]);
    let kinds = completed("ringyard run -netdev stream,id=s,addr.type=", "")?;
    assert_eq!(kinds, ["inet", "unix", "vsock", "fd"]);
    Ok(())
}

#[test]
fn bash_knows_what_the_running_switch_has() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    switch.plug_listening("vm1", 0)?;
    switch.plug_nic("vm1", "52:54:00:00:00:01")?;
    let monitor = switch.monitor().display().to_string();
    let completed = |line, cut| completed(line, cut, &monitor);
    assert_eq!(completed("ringyard del vm", "vm")?, ["vm1", "vm1-hubport", "vm1-nic"]);
    assert_eq!(completed("ringyard link vm1-n", "vm1-n")?, ["vm1-nic"]);
    assert_eq!(completed("ringyard qemu-args ", "")?, ["vm1"]);
    assert_eq!(completed("ringyard add hubport,netdev=", "")?, ["vm1"]);
    switch.order("netdev_del", json!({"id": "vm1-nic"}))?;
    assert_eq!(completed("ringyard del vm1-n", "vm1-n")?, [""]);
    switch.finish()
}
