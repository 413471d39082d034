//! `ringyard demo`, as a newcomer runs it: without root's rights and without anything installed.

use ringyard_tests::process::{command, run};
use ringyard_tests::{Result, tools};

#[test]
fn demo_passes_without_any_capability_and_says_how_to_plug_in_a_guest() -> Result<()> {
    let mut demo = command("setpriv")?;
    demo.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
    demo.arg(tools::switch_binary()?).args(["demo", "--seconds", "2"]);
    let shown = run(&mut demo)?;
    assert!(shown.contains("passed: every byte of every frame arrived, once and in order"), "{shown}");
    let rows: Vec<&str> = shown.lines().filter(|line| line.contains("->") && line.ends_with(" 0")).collect();
    assert_eq!(rows.len(), 4, "two lengths, both ways, none lost: {shown}");
    assert!(shown.contains("p50") && shown.contains("p99"), "{shown}");
    assert!(shown.contains("-netdev vhost-user,") && shown.contains("qemu-system-x86_64"), "{shown}");
    Ok(())
}
