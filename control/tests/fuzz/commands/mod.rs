//! Commands in any order, to a switch and to a model of it.
//!
//! The bytes become [steps](step), each of which is said to a real run over its monitor and to the [`model`], which is
//! written from what the commands promise and shares no code with the switch. They must agree on every answer, word by
//! word, and after each step on all that queries show.

mod model;
mod rig;
mod step;

use model::{Refusal, Yard};
use rig::Rig;
use serde_json::{Value, json};
use step::{Bytes, STEPS_MAX, Step};

/// Runs the target.
pub fn run(input: &[u8]) {
    let mut rig = Rig::start();
    let mut yard = Yard::new(rig.directory().to_owned());
    let mut bytes = Bytes::new(input);
    for number in 0..STEPS_MAX {
        let Some(step) = Step::read(&mut bytes) else { break };
        let told = tell(&mut rig, &step);
        let expected = yard.apply(&step);
        assert_eq!(told, expected, "step {number}: {step:?}");
        compare(&mut rig, &yard, &format!("after step {number}: {step:?}"));
    }
    assert_eq!(rig.take_events("NIC_RX_FILTER_CHANGED"), yard.events());
    rig.finish();
}

/// Says a step to the switch; what it answered.
fn tell(rig: &mut Rig, step: &Step) -> Result<Value, Refusal> {
    let (command, arguments) = step.command(rig.directory());
    let Some(line) = step.human_line() else {
        return rig.execute(command, arguments);
    };
    let printed = rig.execute("human-monitor-command", json!({"command-line": line}))?;
    match printed.as_str().unwrap_or_default() {
        "" => Ok(json!({})),
        // The human monitor has no classes.
        text => Err(Refusal::human(text)),
    }
}

/// Compares all that both show, but for filters: to ask for these changes what comes next.
fn compare(rig: &mut Rig, yard: &Yard, when: &str) {
    let mut ask = |command: &str| rig.execute(command, json!({})).expect("queries succeed");
    assert_eq!(ask("query-netdev"), yard.netdevs(), "query-netdev {when}");
    assert_eq!(ask("query-chardev"), yard.chardevs(), "query-chardev {when}");
    let stats = ask("x-query-stats");
    let mut ports: Vec<Value> = stats["ports"].as_array().into_iter().flatten().map(port).collect();
    ports.sort_by_key(Value::to_string);
    assert_eq!(ports, yard.ports(), "x-query-stats {when}");
    let shown = rig.execute("human-monitor-command", json!({"command-line": "info network"}));
    let shown = shown.expect("it prints");
    let lines: Vec<String> = shown.as_str().unwrap_or_default().lines().map(structure).collect();
    assert_eq!(lines, yard.shown(), "info network {when}");
}

/// What of a port's counters stands still.
fn port(port: &Value) -> Value {
    let hub = port.get("hub").cloned().unwrap_or_default();
    json!({"name": port["name"], "type": port["type"], "link": port["link"], "hub": hub})
}

/// A line of `info network` without how a netdev stands, which may change at any time; a nic stands as it does.
fn structure(line: &str) -> String {
    let end = |rest: &str| rest.find(',').filter(|_| !rest.starts_with("nic,")).unwrap_or(rest.len());
    match line.split_once(",type=") {
        Some((before, rest)) => format!("{before},type={}", &rest[..end(rest)]),
        None => line.to_owned(),
    }
}
