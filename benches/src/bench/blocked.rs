//! Effective blocked time (CSIT): what a command costs the traffic beside it. The load runs at half of the PDR, a verb is
//! executed again and again, and the frames that were lost, divided by the rate and the number of commands, are the
//! time for which each seemed to block. The generator asks and listens between its turns, so that no further thread needs a core.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::frame::Size;
use super::pacer::Load;
use super::qmp::Qmp;
use super::report::{Blocked, Figure};
use super::rig::Rig;
use super::trial::TrialPlan;
use crate::error::{Error, Result};

/// Of the PDR: the load.
const LOAD: f64 = 0.5;
/// How long the last answer may take after the trial.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Verbs that are no question to the switch, or end it, or want a descriptor or a file.
const NOT_MEASURED: [&str; 9] = [
    "qmp_capabilities",
    "quit",
    "human-monitor-command",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
    "x-reload",
    "x-upgrade",
];
/// Captures at a time: each has some MiB.
const DUMPS: usize = 16;

/// Measures every verb that the switch says it has. Only a ringyard of our own has a monitor that we know.
pub fn measure(rig: &mut Rig<'_>, size: Size, pdr: Option<f64>) -> Result<Figure<Vec<Blocked>>> {
    let Some(own) = &rig.own else {
        return Ok(Figure::Absent("only a ringyard that the bench starts has a monitor to ask".into()));
    };
    let Some(pdr) = pdr else {
        return Ok(Figure::Absent("no PDR was found to take half of".into()));
    };
    let (monitor, sockets) = (own.monitor(), own.path("blocked"));
    let mut qmp = Qmp::connect(&monitor)?;
    rig.plug(2, size)?;
    let names = names(&qmp.execute(&json!({"execute": "query-commands"}))?);
    for verb in not_measured(&names) {
        rig.notes.push(format!("blocked time: how to ask {verb} is not known here"));
    }
    let commands = rig.config.effort.commands;
    let mut plan = plan(&names, &sockets.display().to_string(), commands);
    plan.insert(0, Verb { name: "(no command)".into(), commands: Vec::new() });
    let mut rows = Vec::new();
    for verb in plan {
        rig.say(&format!("blocked time: {}", verb.name));
        rows.push(beside(rig, &mut qmp, size, verb, pdr * LOAD)?);
    }
    Ok(Figure::Value(rows))
}

struct Verb {
    name: String,
    commands: Vec<Value>,
}

fn names(commands: &Value) -> Vec<String> {
    let list = commands.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|command| Some(command["name"].as_str()?.to_owned())).collect()
}

/// All that is executed, in an order in which each finds what it needs and leaves nothing behind.
fn plan(names: &[String], sockets: &str, count: usize) -> Vec<Verb> {
    let verb = |label: &str, name: &str, arguments: &dyn Fn(usize) -> Value| {
        let command = |number| json!({"execute": name, "arguments": arguments(number)});
        Verb { name: label.into(), commands: (0..count).map(command).collect() }
    };
    // Captures go into nothing.
    let on_dumps = |name: &str, arguments: &dyn Fn(usize) -> Value| {
        let Verb { name, mut commands } = verb(name, name, arguments);
        commands.truncate(DUMPS);
        Verb { name, commands }
    };
    let is_odd = |number: usize| number % 2 == 1;
    let id = |kind: &str, number: usize| format!("blocked-{kind}{number}");
    let mut all = vec![
        verb("chardev-add", "chardev-add", &|number| {
            let addr = json!({"type": "unix", "data": {"path": format!("{sockets}{number}")}});
            let data = json!({"addr": addr, "server": true, "wait": false});
            json!({"id": id("c", number), "backend": {"type": "socket", "data": data}})
        }),
        verb(
            "netdev_add vhost-user",
            "netdev_add",
            &|number| json!({"type": "vhost-user", "id": id("n", number), "chardev": id("c", number)}),
        ),
        verb(
            "netdev_add hubport",
            "netdev_add",
            &|number| json!({"type": "hubport", "id": id("h", number), "hubid": 0, "netdev": id("n", number)}),
        ),
        verb("set_link", "set_link", &|number| json!({"name": "n2", "up": is_odd(number)})),
        verb(
            "x-set-rx-filter",
            "x-set-rx-filter",
            &|number| json!({"name": "g2", "promiscuous": !is_odd(number)}),
        ),
        verb("x-set-hub", "x-set-hub", &|_| json!({"hubid": 0, "ageing": 300})),
        verb("x-set-worker", "x-set-worker", &|_| json!({"netdev": "n0", "worker": 0})),
        verb("x-fdb-add", "x-fdb-add", &|number| json!({"hubid": 0, "mac": station(number), "netdev": "n2"})),
        verb("x-fdb-del", "x-fdb-del", &|number| json!({"hubid": 0, "mac": station(number)})),
        verb("x-fdb-flush", "x-fdb-flush", &|_| json!({"hubid": 0, "netdev": "n2"})),
        verb(
            "announce-self",
            "announce-self",
            &|_| json!({"initial": 50, "max": 50, "rounds": 1, "step": 0}),
        ),
        on_dumps(
            "object-add",
            &|number| json!({"qom-type": "filter-dump", "id": id("f", number), "netdev": "n2", "file": "/dev/null"}),
        ),
        on_dumps(
            "qom-set",
            &|number| json!({"path": format!("/objects/{}", id("f", number)), "property": "status", "value": "off"}),
        ),
        on_dumps(
            "qom-get",
            &|number| json!({"path": format!("/objects/{}", id("f", number)), "property": "status"}),
        ),
        verb("qom-list", "qom-list", &|_| json!({"path": "/objects"})),
    ];
    let last = [
        on_dumps("object-del", &|number| json!({"id": id("f", number)})),
        verb("netdev_del hubport", "netdev_del", &|number| json!({"id": id("h", number)})),
        verb("netdev_del vhost-user", "netdev_del", &|number| json!({"id": id("n", number)})),
        verb("chardev-remove", "chardev-remove", &|number| json!({"id": id("c", number)})),
    ];
    // Questions need no arguments.
    let asks = |name: &&String| {
        name.starts_with("query-")
            || name.starts_with("x-query-")
            || ["stop", "cont"].contains(&name.as_str())
    };
    for name in names.iter().filter(asks) {
        all.push(verb(name, name, &|_| json!({})));
    }
    all.extend(last);
    all.retain(|verb| {
        let name = verb.commands.first().and_then(|command| command["execute"].as_str());
        name.is_some_and(|name| names.iter().any(|known| known == name))
    });
    all
}

/// The address of a station that nobody has.
fn station(number: usize) -> String {
    let [high, low] = (number as u16).to_be_bytes();
    format!("02:59:ff:00:{high:02x}:{low:02x}")
}

/// The verbs of `names` that no plan holds.
fn not_measured(names: &[String]) -> Vec<String> {
    let plan = plan(names, "", 1);
    let measured = |name: &str| plan.iter().any(|verb| verb.commands[0]["execute"] == *name);
    names.iter().filter(|name| !NOT_MEASURED.contains(&name.as_str()) && !measured(name)).cloned().collect()
}

fn beside(rig: &mut Rig<'_>, qmp: &mut Qmp, size: Size, verb: Verb, load: f64) -> Result<Blocked> {
    let time = rig.config.effort.blocked_time;
    let mut asking = Asking::new(&verb.commands, time);
    let mut streams = rig.streams(size)?;
    let plan = TrialPlan { load: Load::Rate(load), time, probe_every: None };
    let trial = rig.trial_with(&mut streams, plan, |now| asking.turn(qmp, now))?;
    let commands = asking.finish(qmp)?;
    let each = commands.max(1) as f64;
    Ok(Blocked {
        blocked_us: trial.lost() as f64 / load / each * 1e6,
        answer_us: asking.waited.as_secs_f64() / each * 1e6,
        verb: verb.name,
        commands,
        load,
        lost: trial.lost(),
    })
}

/// Commands on their way, one at a time, spread over the trial.
struct Asking<'c> {
    commands: &'c [Value],
    every: Duration,
    next_at: Option<Instant>,
    asked: usize,
    answered: usize,
    asked_at: Option<Instant>,
    waited: Duration,
}

impl<'c> Asking<'c> {
    fn new(commands: &'c [Value], time: Duration) -> Asking<'c> {
        Asking {
            commands,
            every: time / (commands.len() as u32 + 1),
            next_at: None,
            asked: 0,
            answered: 0,
            asked_at: None,
            waited: Duration::ZERO,
        }
    }

    fn turn(&mut self, qmp: &mut Qmp, now: Instant) -> Result<()> {
        let next_at = *self.next_at.get_or_insert(now + self.every);
        if let Some(asked_at) = self.asked_at {
            if qmp.answer()?.is_some() {
                self.answered += 1;
                self.waited += asked_at.elapsed();
                self.asked_at = None;
            }
        } else if now >= next_at && self.asked < self.commands.len() {
            qmp.send(&self.commands[self.asked])?;
            self.asked += 1;
            self.asked_at = Some(now);
            self.next_at = Some(next_at + self.every);
        }
        Ok(())
    }

    /// Waits for the last answer, then executes what had no time: later verbs rely on it. How many were measured.
    fn finish(&mut self, qmp: &mut Qmp) -> Result<usize> {
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        while self.asked_at.is_some() {
            self.turn(qmp, Instant::now())?;
            if Instant::now() > deadline {
                return Err(Error::new("the monitor did not answer"));
            }
        }
        let measured = self.answered;
        while self.asked < self.commands.len() {
            qmp.execute(&self.commands[self.asked])?;
            self.asked += 1;
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn verbs_that_the_switch_lacks_are_not_asked() {
        let names = names_of(&["set_link", "query-netdev", "quit", "x-odd"]);
        let verbs: Vec<String> = plan(&names, "/s", 3).into_iter().map(|verb| verb.name).collect();
        assert_eq!(verbs, ["set_link", "query-netdev"]);
        assert_eq!(not_measured(&names), ["x-odd"]);
    }

    #[test]
    fn what_is_added_is_deleted_again_in_order() {
        let names = names_of(&["chardev-add", "chardev-remove", "netdev_add", "netdev_del"]);
        let verbs: Vec<String> = plan(&names, "/s", 2).into_iter().map(|verb| verb.name).collect();
        let order = [
            "chardev-add",
            "netdev_add vhost-user",
            "netdev_add hubport",
            "netdev_del hubport",
            "netdev_del vhost-user",
            "chardev-remove",
        ];
        assert_eq!(verbs, order);
    }
}
