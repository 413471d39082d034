#![no_main]

use ringyard_drivers::fuzzing::record;

libfuzzer_sys::fuzz_target!(|input: &[u8]| record::run(input));
