#![no_main]

#[path = "../../tests/simulation/garble.rs"]
mod garble;
#[path = "../../tests/vhost_user/guest.rs"]
#[allow(dead_code)] // the tests'
mod guest;
#[path = "../../tests/simulation/keeping.rs"]
#[allow(dead_code)] // as above
mod keeping;
#[path = "../../tests/vhost_user/raw.rs"]
#[allow(dead_code)] // as above
mod raw;
#[path = "../../tests/simulation/session/mod.rs"]
#[allow(dead_code)] // the other target's
mod session;
#[path = "../../tests/vhost_user/yard.rs"]
#[allow(dead_code)] // as above
mod yard;

libfuzzer_sys::fuzz_target!(|input: &[u8]| session::run(input));
