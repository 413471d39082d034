//! Whether, and when, a switch that has ended is started again.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::child::PANICKED;

/// Counts the deaths in a row of switches that hardly served.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    in_a_row: u32,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ended by itself, or was told to; with this status.
    End(u8),
    /// It is to live.
    Again {
        /// After this time.
        pause: Duration,
        /// Without anything of what was kept: that may be what it dies of.
        fresh: bool,
    },
    /// It does not live.
    GiveUp,
}

impl Restarts {
    /// Judges a switch that has served for so long. `is_replaced`: another program follows, however this one ended.
    pub(super) fn judge(
        &mut self,
        status: ExitStatus,
        lived: Duration,
        is_told_to_stop: bool,
        is_replaced: bool,
    ) -> Verdict {
        let code = match (status.signal(), status.code()) {
            (Some(signal), _) => 128 + signal,
            (None, code) => code.unwrap_or_default(),
        };
        let died = status.signal().is_some() || code == PANICKED;
        if is_told_to_stop || !died && !is_replaced {
            return Verdict::End(u8::try_from(code).unwrap_or(u8::MAX));
        }
        if lived >= LIFE_MIN {
            self.in_a_row = 0;
            return Verdict::Again { pause: Duration::ZERO, fresh: false };
        }
        match self.failed() {
            Some(pause) => Verdict::Again { pause, fresh: self.in_a_row == FRESH_AT },
            None => Verdict::GiveUp,
        }
    }

    /// Counts one that has not served; how long to wait before the next, if there is to be one.
    pub(super) fn failed(&mut self) -> Option<Duration> {
        self.in_a_row += 1;
        // The first one again at once: guests wait.
        let pause = match self.in_a_row {
            1 => Duration::ZERO,
            count => PAUSE_MIN * 2u32.pow(count.min(TRIES_MAX) - 2),
        };
        (self.in_a_row < TRIES_MAX).then_some(pause)
    }
}

/// Deaths in a row before it is given up: some five seconds.
pub(super) const TRIES_MAX: u32 = 8;
/// From how many on nothing is kept.
const FRESH_AT: u32 = 5;
/// The shortest pause; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// One that has served for so long did not die at once.
const LIFE_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: i32 = 9;

    fn judge(restarts: &mut Restarts, raw: i32, lived: Duration) -> Verdict {
        restarts.judge(ExitStatus::from_raw(raw), lived, false, false)
    }

    #[test]
    fn one_that_served_comes_again_at_once_however_often_it_dies() {
        let mut restarts = Restarts::default();
        for _ in 0..1000 {
            let verdict = judge(&mut restarts, KILLED, LIFE_MIN);
            assert_eq!(verdict, Verdict::Again { pause: Duration::ZERO, fresh: false });
        }
    }

    #[test]
    fn one_that_dies_at_once_is_tried_ever_more_rarely_then_afresh_and_then_no_more() {
        let mut restarts = Restarts::default();
        let panicked = PANICKED << 8;
        let verdicts: Vec<Verdict> =
            (0..TRIES_MAX).map(|_| judge(&mut restarts, panicked, Duration::ZERO)).collect();
        let pauses = [0, 50, 100, 200, 400, 800, 1600].map(Duration::from_millis);
        let again = |(index, &pause)| Verdict::Again { pause, fresh: index == 4 };
        let expected: Vec<Verdict> = pauses.iter().enumerate().map(again).chain([Verdict::GiveUp]).collect();
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn a_life_in_between_is_forgiven() {
        let mut restarts = Restarts::default();
        for _ in 0..TRIES_MAX - 1 {
            judge(&mut restarts, KILLED, Duration::ZERO);
        }
        judge(&mut restarts, KILLED, LIFE_MIN);
        assert_eq!(
            judge(&mut restarts, KILLED, Duration::ZERO),
            Verdict::Again { pause: Duration::ZERO, fresh: false }
        );
    }

    #[test]
    fn what_ends_by_itself_or_is_told_to_stays_away() {
        let mut restarts = Restarts::default();
        let life = Duration::from_secs(1);
        for code in [0, 1, 2] {
            assert_eq!(judge(&mut restarts, code << 8, life), Verdict::End(code as u8));
        }
        let told = restarts.judge(ExitStatus::from_raw(KILLED), life, true, false);
        assert_eq!(told, Verdict::End(128 + 9));
        let replaced = restarts.judge(ExitStatus::from_raw(1 << 8), life, false, true);
        assert_eq!(replaced, Verdict::Again { pause: Duration::ZERO, fresh: false });
    }
}
