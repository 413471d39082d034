//! `ringyard upgrade`: has another program go on with everything, and waits until it does.

use std::path::Path;

use serde_json::{Value, json};

use super::connection::Connection;
use super::{ClientError, print};

/// See the module.
pub(super) fn upgrade(connection: &mut Connection, binary: Option<&Path>) -> Result<(), ClientError> {
    let mut arguments = json!({});
    if let Some(binary) = binary {
        // The switch may run somewhere else.
        arguments["binary"] = json!(std::path::absolute(binary)?);
    }
    match connection.execute("x-upgrade", arguments) {
        // It answers only what does not come about; else it ends.
        Err(_) if connection.is_lost() => {}
        Err(error) => return Err(error),
        Ok(_) => return Err(ClientError("x-upgrade: the switch has answered, and is the same".into())),
    }
    // Its socket listens all the time: this waits until somebody is there.
    let version = connection.again()?.execute("query-version", json!({}))?;
    print(&format!("{} goes on\n", name(&version)))
}

/// What the switch calls itself.
fn name(version: &Value) -> String {
    match version["package"].as_str().filter(|package| !package.is_empty()) {
        Some(package) => package.to_owned(),
        None => "the switch".to_owned(),
    }
}
