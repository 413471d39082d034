//! The configuration file: the command line's objects and settings as TOML tables.
//!
//! Arrays of tables `[[chardev]]`, `[[netdev]]` and `[[nic]]` hold the objects with their members; `qmp` lists monitors;
//! `[switch]`, `[sockets]` and `[log]` hold what is set once. A key that nobody knows is an error.

use std::path::Path;

use serde_json::{Map, Value};

use super::config::{cores, socket_mode, workers};
use super::draft::Draft;
use crate::qapi::{Form, QapiError, Visitor};

/// Reads the file into the draft; an error says where in the file.
pub(super) fn read(draft: &mut Draft, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let Ok(Value::Object(members)) = serde_json::to_value(table) else {
        return Err(String::from("the file does not hold a table"));
    };
    let mut visitor = Visitor::new(members, Form::Json);
    add_monitors(draft, &mut visitor)?;
    add_objects(draft, &mut visitor, "chardev", Draft::add_chardev)?;
    add_objects(draft, &mut visitor, "netdev", Draft::add_netdev)?;
    add_objects(draft, &mut visitor, "nic", Draft::add_nic)?;
    add_objects(draft, &mut visitor, "hub", Draft::add_hub)?;
    read_settings(draft, &mut visitor)?;
    visitor.finish().map_err(text_of)
}

fn add_monitors(draft: &mut Draft, visitor: &mut Visitor) -> Result<(), String> {
    let monitors: Option<Vec<String>> = visitor.optional("qmp").map_err(text_of)?;
    for monitor in monitors.unwrap_or_default() {
        draft.add_qmp(&monitor).map_err(|error| format!("qmp '{monitor}': {error}"))?;
    }
    Ok(())
}

type Add = fn(&mut Draft, Map<String, Value>, Form) -> Result<(), QapiError>;

fn add_objects(draft: &mut Draft, visitor: &mut Visitor, name: &str, add: Add) -> Result<(), String> {
    let objects: Option<Vec<Visitor>> = visitor.optional(name).map_err(text_of)?;
    for (index, mut object) in objects.unwrap_or_default().into_iter().enumerate() {
        let members = object.rest();
        let id = members.get("id").and_then(Value::as_str).map(|id| format!(" ('{id}')"));
        let place = format!("[[{name}]] number {}{}", index + 1, id.unwrap_or_default());
        add(draft, members, Form::Json).map_err(|error| format!("{place}: {error}"))?;
    }
    Ok(())
}

fn read_settings(draft: &mut Draft, visitor: &mut Visitor) -> Result<(), String> {
    if let Some(mut switch) = visitor.optional::<Visitor>("switch").map_err(text_of)? {
        let count: Option<u64> = switch.optional("workers").map_err(text_of)?;
        let list: Option<String> = switch.optional("cores").map_err(text_of)?;
        draft.placement = match (count, list) {
            (Some(_), Some(_)) => {
                return Err(String::from("switch.workers and switch.cores exclude each other"));
            }
            (Some(count), None) => Some(workers(count).map_err(|why| format!("switch.workers: {why}"))?),
            (None, Some(list)) => Some(cores(&list).map_err(|why| format!("switch.cores: {why}"))?),
            (None, None) => None,
        };
        draft.name = switch.optional("name").map_err(text_of)?;
        draft.mode = switch.optional("mode").map_err(text_of)?;
        draft.full_receiver = switch.optional("full-receiver").map_err(text_of)?;
        switch.finish().map_err(text_of)?;
    }
    if let Some(mut sockets) = visitor.optional::<Visitor>("sockets").map_err(text_of)? {
        draft.socket_group = sockets.optional("group").map_err(text_of)?;
        let mode: Option<String> = sockets.optional("mode").map_err(text_of)?;
        let mode = mode.map(|mode| socket_mode(&mode)).transpose();
        draft.socket_mode = mode.map_err(|why| format!("sockets.mode: {why}"))?;
        sockets.finish().map_err(text_of)?;
    }
    if let Some(mut log) = visitor.optional::<Visitor>("log").map_err(text_of)? {
        draft.log_level = log.optional("level").map_err(text_of)?;
        log.finish().map_err(text_of)?;
    }
    Ok(())
}

fn text_of(error: QapiError) -> String {
    error.desc
}
