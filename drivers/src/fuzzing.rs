//! Fuzz targets of what peers send to ports: as plain tests here, and under libFuzzer from `drivers/fuzz` (`tests/fuzz`).
//!
//! Each stands beside the code that it is about, and calls what only that knows. The session of vhost-user has a test target
//! of its own, `simulation`.

pub use crate::l2tpv3::fuzzing as l2tpv3;
pub use crate::record::fuzzing as record;
pub use crate::store::fuzzing as store;
pub use crate::stream::fuzzing as stream;
pub use crate::user::fuzzing as user;
pub use crate::vde::fuzzing as vde;

#[cfg(test)]
#[path = "../../dataplane/tests/fuzz/harness.rs"]
mod harness;

#[cfg(test)]
mod tests {
    use super::harness::{Random, fuzz};

    fn bytes(random: &mut Random, most: usize) -> Vec<u8> {
        (0..random.below(most)).map(|_| random.byte()).collect()
    }

    #[test]
    fn s01_streams_are_the_same_frames_however_they_are_cut() {
        fuzz("stream", super::stream::run, |random| bytes(random, 120));
    }

    #[test]
    fn s04_datagrams_of_strangers_are_none_of_the_session() {
        fuzz("l2tpv3", super::l2tpv3::run, |random| bytes(random, 60));
    }

    #[test]
    fn s05_no_answer_of_a_switch_leads_anywhere_but_to_a_socket() {
        fuzz("vde", super::vde::run, |random| {
            let mut input = bytes(random, 4);
            input.resize(4, 7);
            input.extend([1, 0]);
            input.extend(random.of(&["/tmp/socket\0", "/", "", "socket\0", "/a/b/c/d\0"]).bytes());
            if random.below(2) == 0 {
                input.resize(random.of(&[113, 114, 115, 300]), random.of(&[0, 0, b'a']));
            }
            input
        });
    }

    #[test]
    fn helpers_that_say_anything_are_understood_or_refused() {
        fuzz("user", super::user::run, |random| {
            let pieces = [
                "\"Done\"",
                "{\"Text\":\"",
                "\"}",
                "{\"Failed\":",
                "\n",
                "{",
                "]",
                "\"NotFound\"\n",
                "\u{e9}",
            ];
            let mut input = bytes(random, 3);
            (0..random.below(12)).for_each(|_| input.extend(random.of(&pieces).bytes()));
            input.extend(bytes(random, 8));
            input
        });
    }

    #[test]
    fn records_that_somebody_else_wrote_are_whole_or_refused() {
        fuzz("record", super::record::run, |random| bytes(random, 80));
    }

    #[test]
    fn keepers_and_switches_that_say_anything_are_understood_or_ignored() {
        fuzz("store", super::store::run, |random| bytes(random, 60));
    }
}
