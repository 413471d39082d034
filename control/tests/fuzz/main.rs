//! The fuzz targets of the control side, as plain tests. They also run under libFuzzer, from `control/fuzz` (`tests/fuzz`).

mod commands;
#[path = "../../../dataplane/tests/fuzz/harness.rs"]
mod harness;
mod protocol;
mod random;

use harness::fuzz;

#[test]
fn no_bytes_lead_the_protocol_astray() {
    fuzz("protocol", protocol::run, random::protocol);
}

#[test]
fn commands_in_any_order_do_what_they_promise() {
    fuzz("commands", commands::run, random::commands);
}
