#![no_main]

#[path = "../../tests/fuzz/commands/mod.rs"]
mod commands;

libfuzzer_sys::fuzz_target!(|input: &[u8]| commands::run(input));
