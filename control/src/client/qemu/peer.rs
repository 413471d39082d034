//! The other end of a socket netdev: where one listens the other connects, and what is local here is remote there.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::absolute;

/// The members, `type` the first of them, of the netdev at the other end of `netdev`, on the same host.
///
/// Errors: why QEMU cannot be there.
pub(super) fn other_end(netdev: &Value, directory: Option<&Path>) -> Result<Map<String, Value>, String> {
    let kind = netdev["type"].as_str().unwrap_or_default();
    let members = match kind {
        "stream" => stream(netdev, directory)?,
        "dgram" => dgram(netdev, directory)?,
        "socket" => socket(netdev)?,
        _ => {
            return Err(format!(
                "no machine attaches to a {kind} port; one attaches to vhost-user, stream, dgram or socket"
            ));
        }
    };
    let mut end = Map::new();
    end.insert("type".into(), kind.into());
    end.insert("id".into(), netdev["id"].clone());
    end.extend(members);
    Ok(end)
}

type Ends = Result<Vec<(String, Value)>, String>;

fn stream(netdev: &Value, directory: Option<&Path>) -> Ends {
    let is_server = netdev["server"] == true;
    let address = reachable(&netdev["addr"], is_server, directory)?;
    Ok(vec![("server".into(), (!is_server).into()), ("addr".into(), address)])
}

fn dgram(netdev: &Value, directory: Option<&Path>) -> Ends {
    let (local, remote) = (&netdev["local"], &netdev["remote"]);
    let is_group = |host: &str| host.parse().is_ok_and(|host: Ipv4Addr| host.is_multicast());
    if remote["host"].as_str().is_some_and(is_group) {
        let local = (!local.is_null()).then(|| ("local".to_owned(), local.clone()));
        return Ok([("remote".to_owned(), remote.clone())].into_iter().chain(local).collect());
    }
    if remote.is_null() {
        return Err("its socket was passed to the switch, and so must be the machine's".into());
    }
    Ok(vec![
        ("local".into(), reachable(remote, false, directory)?),
        ("remote".into(), reachable(local, true, directory)?),
    ])
}

fn socket(netdev: &Value) -> Ends {
    let text = |member: &str| netdev[member].as_str();
    let other = |member: &str, pair: &str| Ok(vec![(member.to_owned(), Value::from(pair))]);
    if let Some(pair) = text("listen") {
        return other("connect", &host_of_here(pair));
    }
    if let Some(pair) = text("connect") {
        return other("listen", pair);
    }
    let (local, mcast, udp) = (text("localaddr"), text("mcast"), text("udp"));
    let (member, pair, local) = match (mcast, udp, local) {
        (Some(group), _, local) => ("mcast", group.to_owned(), local),
        (None, Some(remote), Some(local)) => ("udp", host_of_here(local), Some(remote)),
        _ => return Err("its socket was passed to the switch, and so must be the machine's".into()),
    };
    let local = local.map(|local| ("localaddr".to_owned(), Value::from(local)));
    Ok([(member.to_owned(), pair.into())].into_iter().chain(local).collect())
}

/// An address of the netdev as the other end writes it. One at which we listen has to be connected to.
fn reachable(address: &Value, we_listen: bool, directory: Option<&Path>) -> Result<Value, String> {
    match address["type"].as_str() {
        Some("inet") => {
            let mut host = address["host"].as_str().unwrap_or_default();
            let port = address["port"].as_str().unwrap_or_default();
            if port == "0" || !address["to"].is_null() {
                return Err("its port number was chosen when it was opened: give it a fixed one".into());
            }
            if we_listen {
                host = here(host);
            }
            Ok(json!({"type": "inet", "host": host, "port": port}))
        }
        Some("unix") if address["path"] == "" => {
            Err("its peer is whoever comes first: give it a fixed path".into())
        }
        Some("unix") if address["abstract"] == true => Ok(address.clone()),
        Some("unix") => {
            let path = absolute(Path::new(address["path"].as_str().unwrap_or_default()), directory)?;
            Ok(json!({"type": "unix", "path": path.to_string_lossy()}))
        }
        Some(kind) => Err(format!("its address is of type {kind}, which no machine can reach by name")),
        None => Err("its address is not known".into()),
    }
}

/// `HOST:PORT` with a host that can be connected to.
fn host_of_here(pair: &str) -> String {
    let (host, port) = pair.rsplit_once(':').unwrap_or(("", pair));
    format!("{}:{port}", here(host))
}

/// A host to connect to, for one to listen at.
fn here(host: &str) -> &str {
    match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    }
}
