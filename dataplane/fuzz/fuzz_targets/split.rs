#![no_main]

#[path = "../../tests/fuzz/rings.rs"]
mod rings;

libfuzzer_sys::fuzz_target!(|input: &[u8]| rings::split(input));
