#![no_main]

use ringyard_drivers::fuzzing::stream;

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream::run(input));
