#![no_main]

use ringyard_drivers::fuzzing::store;

libfuzzer_sys::fuzz_target!(|input: &[u8]| store::run(input));
