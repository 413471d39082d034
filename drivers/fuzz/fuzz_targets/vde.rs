#![no_main]

use ringyard_drivers::fuzzing::vde;

libfuzzer_sys::fuzz_target!(|input: &[u8]| vde::run(input));
