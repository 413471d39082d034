#![no_main]

use ringyard_drivers::fuzzing::user;

libfuzzer_sys::fuzz_target!(|input: &[u8]| user::run(input));
