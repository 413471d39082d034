//! `ringyard reload`: has a switch read its configuration again, and says what came of it.

use std::path::Path;

use serde_json::{Value, json};

use super::connection::Connection;
use super::{ClientError, pretty, print};

/// See the module.
pub(super) fn reload(
    connection: &mut Connection,
    file: Option<&Path>,
    dry_run: bool,
    as_json: bool,
) -> Result<(), ClientError> {
    let mut arguments = json!({"dry-run": dry_run});
    if let Some(file) = file {
        // The switch may run somewhere else.
        let absolute = std::path::absolute(file)?;
        arguments["file"] = json!(absolute);
    }
    let answer = connection.execute("x-reload", arguments)?;
    print(&if as_json { pretty(&answer) } else { report_lines(&answer) })?;
    match answer["failed"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        count => Err(ClientError(format!("x-reload: {count} of the objects could not be made"))),
    }
}

/// What came of a reload, a line for each list that is not empty.
fn report_lines(report: &Value) -> String {
    let mut text = String::new();
    for (list, names) in report.as_object().into_iter().flatten() {
        let names = names.as_array().into_iter().flatten().map(|name| match name {
            Value::String(name) => name.clone(),
            failure => {
                let member = |member: &str| failure[member].as_str().unwrap_or("?").to_owned();
                format!("{} ({})", member("id"), member("desc"))
            }
        });
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            text += &format!("{list}: {}\n", names.join(", "));
        }
    }
    if text.is_empty() { String::from("nothing has changed\n") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_that_is_not_empty_has_a_line() {
        let report = json!({"added": ["netdev.a", "nic.b"], "deleted": [], "failed": [{"id": "netdev.c", "desc": "why"}]});
        assert_eq!(report_lines(&report), "added: netdev.a, nic.b\nfailed: netdev.c (why)\n");
        for nothing in [json!({}), json!({"added": []}), json!(null)] {
            assert_eq!(report_lines(&nothing), "nothing has changed\n");
        }
    }
}
