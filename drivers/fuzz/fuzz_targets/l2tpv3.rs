#![no_main]

use ringyard_drivers::fuzzing::l2tpv3;

libfuzzer_sys::fuzz_target!(|input: &[u8]| l2tpv3::run(input));
