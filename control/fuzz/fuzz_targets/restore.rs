#![no_main]

#[path = "../../../drivers/tests/simulation/garble.rs"]
mod garble;
#[path = "../../../drivers/tests/simulation/keeping.rs"]
mod keeping;
#[path = "../../tests/fuzz/restore.rs"]
mod restore;

libfuzzer_sys::fuzz_target!(|input: &[u8]| restore::run(input));
