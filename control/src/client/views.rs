//! What can be shown: which command says it, and its table.

use std::time::Duration;

use serde_json::{Value, json};

use super::ClientError;
use super::connection::Connection;
use super::table::Table;
use super::toml;

/// A part of the running switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// Netdevs with a guest or a host behind them: links, frames, drops
    Ports,
    /// Hubs, their ports and what they learned
    Hubs,
    /// Guests' sides of netdevs: addresses and filters in short
    Nics,
    /// Whole rx-filters
    Filters,
    /// Frames lost, by port, way and reason
    Drops,
    /// Forwarding threads
    Workers,
    /// Addresses that hubs know
    Fdb,
    /// The configuration file that would make all this again
    Config,
}

impl View {
    /// Asks for it.
    pub(super) fn ask(self, connection: &mut Connection) -> Result<Value, ClientError> {
        match self {
            View::Ports | View::Drops => Ok(stats(connection)?["ports"].take()),
            View::Workers => Ok(stats(connection)?["workers"].take()),
            View::Hubs => stats(connection),
            View::Nics | View::Filters => rx_filters(connection),
            View::Fdb => Ok(connection.execute("x-query-fdb", json!({}))?["entries"].take()),
            View::Config => connection.execute("x-query-config", json!({})),
        }
    }

    /// The answer as people read it; with an earlier one, and how long ago that was, rates come in.
    pub(super) fn text(self, answer: &Value, before: Option<(Duration, &Value)>) -> String {
        let table = match self {
            View::Ports => ports(answer, before),
            View::Hubs => hubs(answer),
            View::Nics => nics(answer),
            View::Filters => filters(answer),
            View::Drops => drops(answer),
            View::Workers => workers(answer),
            View::Fdb => fdb(answer),
            View::Config => return toml::text(answer),
        };
        table.to_string()
    }
}

/// The counters of all ports, which may be more than fit into a reply.
fn stats(connection: &mut Connection) -> Result<Value, ClientError> {
    let mut all = connection.execute("x-query-stats", json!({"limit": PAGE}))?;
    let mut more = all["more"].clone();
    while more == true {
        // A port that has just been deleted is an error, and asking again a way out.
        let Some(last) = list(&all["ports"]).last().map(|port| port["name"].clone()) else { break };
        let mut page = connection.execute("x-query-stats", json!({"after": last, "limit": PAGE}))?;
        more = page["more"].take();
        if let (Value::Array(ports), Value::Array(page)) = (&mut all["ports"], page["ports"].take()) {
            ports.extend(page);
        }
    }
    Ok(all)
}

/// The filters of all nics. Where they are more than fit into a reply, they are asked for one by one, those on ports only: the
/// others have nobody's frames to filter.
fn rx_filters(connection: &mut Connection) -> Result<Value, ClientError> {
    let all = connection.execute("query-rx-filter", json!({}));
    if !all.as_ref().is_err_and(|error| error.to_string().contains(TOO_LONG)) {
        return all;
    }
    let stats = stats(connection)?;
    let mut filters = Vec::new();
    for port in list(&stats["ports"]).filter(|port| port["nic"].is_string()) {
        let Value::Array(filter) = connection.execute("query-rx-filter", json!({"name": port["nic"]}))?
        else {
            continue;
        };
        filters.extend(filter);
    }
    Ok(filters.into())
}

fn ports(ports: &Value, before: Option<(Duration, &Value)>) -> Table {
    const HEADS: [&str; 9] =
        ["name", "type", ">hub", "link", ">in", ">in drops", ">out", ">out drops", "state"];
    let mut heads = HEADS.to_vec();
    if before.is_some() {
        heads.splice(8..8, [">in/s", ">out/s"]);
    }
    let mut table = Table::new(heads);
    for port in list(ports) {
        let link = match (&port["link"], &port["carrier"]) {
            (Value::Bool(false), _) => "down (set)",
            (_, Value::Bool(false)) => "down",
            _ => "up",
        };
        let mut row = vec![text(&port["name"]), text(&port["type"]), text(&port["hub"]), link.to_owned()];
        for way in ["ingress", "egress"] {
            row.extend([text(&port[way]["frames"]), sum(&port[way]["drops"]).to_string()]);
        }
        if let Some((since, before)) = before {
            let earlier = list(before).find(|earlier| earlier["name"] == port["name"]);
            for way in ["ingress", "egress"] {
                let count = |port: &Value| port[way]["frames"].as_u64().unwrap_or(0);
                let new = count(port).saturating_sub(earlier.map_or(0, count));
                row.push(format!("{:.0}", new as f64 / since.as_secs_f64().max(0.001)));
            }
        }
        row.push(text(&port["state"]));
        table.row(row);
    }
    table
}

fn hubs(stats: &Value) -> Table {
    let mut table = Table::new([">hub", "learning", ">addresses", "ports"]);
    for hub in list(&stats["hubs"]) {
        let learning = match &hub["learning"] {
            Value::Bool(true) => format!("for {} s", text(&hub["ageing"])),
            _ => "off".into(),
        };
        let members = list(&stats["ports"]).filter(|port| port["hub"] == hub["hubid"]);
        let members: Vec<String> = members.map(|port| text(&port["name"])).collect();
        table.row([text(&hub["hubid"]), learning, text(&hub["fdb"]["entries"]), members.join(" ")]);
    }
    table
}

fn nics(filters: &Value) -> Table {
    let mut table =
        Table::new(["name", "address", "promiscuous", "unicast", "multicast", "broadcast", "vlan"]);
    for nic in list(filters) {
        let state = |kind: &str| {
            let (state, count) = (text(&nic[kind]), list(&nic[&format!("{kind}-table")]).count());
            if count > 0 { format!("{state} + {count}") } else { state }
        };
        table.row([
            text(&nic["name"]),
            text(&nic["main-mac"]),
            text(&nic["promiscuous"]),
            state("unicast"),
            state("multicast"),
            text(&nic["broadcast-allowed"]),
            text(&nic["vlan"]),
        ]);
    }
    table
}

/// A line a member.
fn filters(filters: &Value) -> Table {
    let mut table = Table::new(["name", "member", "value"]);
    for nic in list(filters) {
        for (member, value) in nic.as_object().into_iter().flatten().filter(|(member, _)| *member != "name") {
            let value = match value {
                Value::Array(items) if items.len() > ITEMS_MAX => format!("{} of them", items.len()),
                Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
                value => text(value),
            };
            table.row([text(&nic["name"]), member.clone(), value]);
        }
    }
    table
}

fn drops(ports: &Value) -> Table {
    let mut table = Table::new(["name", "way", "reason", ">frames"]);
    for port in list(ports) {
        for way in ["ingress", "egress"] {
            for (reason, count) in port[way]["drops"].as_object().into_iter().flatten() {
                table.row([text(&port["name"]), way.into(), reason.clone(), text(count)]);
            }
        }
    }
    table
}

fn workers(workers: &Value) -> Table {
    let mut table = Table::new([">worker", ">core", "asleep", ">queues", ">panics"]);
    for (number, worker) in list(workers).enumerate() {
        let cells = ["cpu", "asleep", "queues", "panics"].map(|member| text(&worker[member]));
        table.row([number.to_string()].into_iter().chain(cells));
    }
    table
}

fn fdb(entries: &Value) -> Table {
    let mut table = Table::new([">hub", "address", "netdev", ">age, s"]);
    for entry in list(entries) {
        let age = if entry["static"] == true { "static".into() } else { text(&entry["age"]) };
        table.row([text(&entry["hubid"]), text(&entry["mac"]), text(&entry["netdev"]), age]);
    }
    table
}

/// The items of an array; of anything else, none.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Ports asked for at a time; the switch may give fewer.
const PAGE: usize = 250;
/// How the switch says that a reply would be too long.
const TOO_LONG: &str = "the reply has ";

/// A longer list is only counted: `vlan-table` has up to 4096 items.
const ITEMS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn port(frames: u64) -> Value {
        json!([{
            "name": "t0", "type": "tap", "hub": 0, "link": true, "carrier": false, "state": null,
            "ingress": {"frames": frames, "drops": {"link_down": 2, "runt": 1}},
            "egress": {"frames": 0, "drops": {}},
        }])
    }

    fn rows(table: &Table) -> Vec<String> {
        let text = table.to_string();
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(squeezed).collect()
    }

    #[test]
    fn ports_have_rates_when_they_are_looked_at_again() {
        let first = rows(&ports(&port(7), None));
        assert_eq!(first, ["name type hub link in in drops out out drops state", "t0 tap 0 down 7 3 0 0 -"]);
        let before = port(7);
        let second = rows(&ports(&port(1007), Some((Duration::from_secs(2), &before))));
        assert_eq!(second[1], "t0 tap 0 down 1007 3 0 0 500 0 -");
    }

    #[test]
    fn each_drop_has_a_line() {
        let lines = rows(&drops(&port(7)));
        assert_eq!(lines[1..], ["t0 ingress link_down 2", "t0 ingress runt 1"]);
    }

    #[test]
    fn hubs_name_their_ports() {
        let hub = json!({"hubid": 0, "learning": true, "ageing": 300, "fdb": {"entries": 5}});
        let lines = rows(&hubs(&json!({"hubs": [hub], "ports": port(0)})));
        assert_eq!(lines[1..], ["0 for 300 s 5 t0"]);
    }

    #[test]
    fn long_lists_are_counted() {
        let nic =
            json!([{"name": "n", "vlan-table": (0..4096).collect::<Vec<_>>(), "unicast-table": ["a", "b"]}]);
        assert_eq!(rows(&filters(&nic))[1..], ["n vlan-table 4096 of them", "n unicast-table a b"]);
    }

    #[test]
    fn no_answer_makes_a_view_panic() {
        let odd =
            [json!(null), json!([null, 3]), json!({"ports": [{}], "hubs": [[]]}), json!([{"drops": 1}])];
        for view in <View as clap::ValueEnum>::value_variants() {
            for answer in &odd {
                drop(view.text(answer, Some((Duration::ZERO, answer))));
            }
        }
    }
}
