//! The fuzz targets of the control side, as plain tests. They also run under libFuzzer, from `control/fuzz` (`tests/fuzz`).

mod commands;
#[path = "../../../drivers/tests/simulation/garble.rs"]
mod garble;
#[path = "../../../dataplane/tests/fuzz/harness.rs"]
mod harness;
#[path = "../../../drivers/tests/simulation/keeping.rs"]
mod keeping;
mod protocol;
mod random;
mod restore;

use harness::fuzz;

#[test]
fn no_bytes_lead_the_protocol_astray() {
    fuzz("protocol", protocol::run, random::protocol);
}

#[test]
fn commands_in_any_order_do_what_they_promise() {
    fuzz("commands", commands::run, random::commands);
}

#[test]
fn what_a_run_left_behind_is_taken_or_it_begins_afresh() {
    fuzz("restore", restore::run, random::commands);
}
