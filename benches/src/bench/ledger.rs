//! What one receiver saw of one flow: every number once and in order, or what else.
//!
//! The numbers that a frame jumped over stay known as gaps, a limited count of them, so that a frame that comes late is
//! told from one that comes twice.

use std::collections::VecDeque;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Gaps that are remembered; of the oldest, late frames count as doubled.
const GAPS_MAX: usize = 1024;

/// What did not arrive as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrongs {
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames that arrived after a later one.
    pub reordered: u64,
    /// Frames with a wrong byte or a wrong length.
    pub corrupted: u64,
}

impl Wrongs {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Wrongs::default()
    }

    /// Adds others.
    pub fn add(&mut self, other: Wrongs) {
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    next: u64,
    received: u64,
    gaps: VecDeque<Range<u64>>,
    wrongs: Wrongs,
}

impl Ledger {
    /// A good frame of that number arrived.
    #[inline]
    pub fn count(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
            self.received += 1;
        } else {
            self.count_out_of_turn(sequence);
        }
    }

    /// A bad frame arrived. It does not count as received.
    #[cold]
    pub fn count_corrupted(&mut self) {
        self.wrongs.corrupted += 1;
    }

    /// Frames that arrived, each counted once.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What was wrong.
    pub fn wrongs(&self) -> Wrongs {
        self.wrongs
    }

    #[inline(never)]
    fn count_out_of_turn(&mut self, sequence: u64) {
        if sequence > self.next {
            if self.gaps.len() == GAPS_MAX {
                self.gaps.pop_front();
            }
            self.gaps.push_back(self.next..sequence);
            self.next = sequence + 1;
            self.received += 1;
            return;
        }
        // The latest gaps are the likeliest.
        let Some(place) = self.gaps.iter().rposition(|gap| gap.contains(&sequence)) else {
            self.wrongs.duplicated += 1;
            return;
        };
        self.received += 1;
        self.wrongs.reordered += 1;
        let gap = self.gaps[place].clone();
        let (before, after) = (gap.start..sequence, sequence + 1..gap.end);
        self.gaps[place] = before;
        if !after.is_empty() && self.gaps.len() < GAPS_MAX {
            self.gaps.insert(place + 1, after);
        }
        if self.gaps[place].is_empty() {
            self.gaps.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[u64]) -> (u64, Wrongs) {
        let mut ledger = Ledger::default();
        numbers.iter().for_each(|number| ledger.count(*number));
        (ledger.received(), ledger.wrongs())
    }

    #[test]
    fn numbers_in_order_are_all_there_is() {
        assert_eq!(seen(&[0, 1, 2, 3]), (4, Wrongs::default()));
    }

    #[test]
    fn lost_numbers_are_not_received_and_nothing_else() {
        assert_eq!(seen(&[0, 2, 5]), (3, Wrongs::default()));
    }

    #[test]
    fn late_numbers_are_reordered_and_received() {
        assert_eq!(seen(&[0, 2, 1, 3]), (4, Wrongs { reordered: 1, ..Wrongs::default() }));
        assert_eq!(seen(&[4, 1, 3, 0, 2]), (5, Wrongs { reordered: 4, ..Wrongs::default() }));
    }

    #[test]
    fn second_ones_are_duplicated_and_not_received_again() {
        let duplicated = Wrongs { duplicated: 1, ..Wrongs::default() };
        assert_eq!(seen(&[0, 1, 1, 2]), (3, duplicated));
        assert_eq!(seen(&[0, 1, 2, 0]), (3, duplicated));
        assert_eq!(seen(&[0, 3, 1, 1]), (3, Wrongs { reordered: 1, ..duplicated }));
    }

    #[test]
    fn more_gaps_than_are_remembered_forget_the_oldest() {
        let mut ledger = Ledger::default();
        (0..=2 * GAPS_MAX as u64 + 2).step_by(2).for_each(|number| ledger.count(number));
        assert_eq!(ledger.gaps.len(), GAPS_MAX);
        ledger.count(1);
        assert_eq!(ledger.wrongs().duplicated, 1, "forgotten");
        ledger.count(2 * GAPS_MAX as u64 + 1);
        assert_eq!(ledger.wrongs().reordered, 1, "remembered");
    }
}
