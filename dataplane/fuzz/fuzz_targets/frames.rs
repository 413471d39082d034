#![no_main]

#[path = "../../tests/fuzz/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| headers::plain(input));
