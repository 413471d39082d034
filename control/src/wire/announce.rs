//! `announce-self`: who is to be announced, how often, and at what pace.

use std::time::Duration;

use crate::qapi::arguments;

arguments! {
    /// The arguments of `announce-self`. Times are in milliseconds.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AnnounceSelf as "q_obj_announce-self-arg" {
        /// From the first announcement, which is immediate, to the second.
        pub initial: i64,
        /// Between any two of them, at most.
        pub max: i64,
        /// How many; 0 ends an announcement under way.
        pub rounds: i64,
        /// What each pause is longer than the one before.
        pub step: i64,
        /// The nics; all without it.
        pub interfaces: Option<Vec<String>>,
        /// What is under way by the same name is replaced; the empty name without it.
        pub id: Option<String>,
    }
}

impl AnnounceSelf {
    /// With the pace of QEMU's `announce_self` and of a guest that has moved.
    pub fn at_the_usual_pace(interfaces: Option<Vec<String>>, id: String) -> AnnounceSelf {
        AnnounceSelf { initial: 50, max: 550, rounds: 5, step: 100, interfaces, id: Some(id) }
    }

    /// The pause behind announcement number `sent`, counted from 1.
    pub fn pause(&self, sent: i64) -> Duration {
        let pause = (sent.saturating_sub(1)).saturating_mul(self.step).saturating_add(self.initial);
        let pause = if (0..=self.max).contains(&pause) { pause } else { self.max };
        Duration::from_millis(u64::try_from(pause).unwrap_or_default())
    }

    /// Whether `name` is one of those that are to be announced.
    pub fn names(&self, name: &str) -> bool {
        self.interfaces.as_ref().is_none_or(|interfaces| interfaces.iter().any(|other| other == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let announce =
            AnnounceSelf { max: 130, step: 60, ..AnnounceSelf::at_the_usual_pace(None, String::new()) };
        let pauses: Vec<u128> = (1..=4).map(|sent| announce.pause(sent).as_millis()).collect();
        assert_eq!(pauses, [50, 110, 130, 130]);
    }

    #[test]
    fn a_pause_below_nothing_is_the_longest() {
        let usual = AnnounceSelf::at_the_usual_pace(None, String::new());
        let falling = AnnounceSelf { step: -40, ..usual.clone() };
        let pauses: Vec<u128> = (1..=3).map(|sent| falling.pause(sent).as_millis()).collect();
        assert_eq!(pauses, [50, 10, 550]);
        let extreme = AnnounceSelf { initial: i64::MAX, max: i64::MIN, ..usual };
        assert_eq!(extreme.pause(i64::MAX), Duration::ZERO);
    }
}
