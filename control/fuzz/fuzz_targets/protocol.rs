#![no_main]

#[path = "../../tests/fuzz/protocol.rs"]
mod protocol;

libfuzzer_sys::fuzz_target!(|input: &[u8]| protocol::run(input));
