//! Another program in place of the running one, with somebody at work at any time: the new one is loaded while the old one
//! works; then the old one stops between two bursts and says so, and the new one begins, while the old one ends.
//!
//! Whatever goes wrong before that, the old one has lost nothing and goes on. Afterwards, what was kept is whole as it is
//! after a death: until the new one serves, the old program is what is started if it dies.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::child::{Child, last_words};
use super::{END_TIME_MAX, Keeper, say};

/// How far it is.
pub(super) enum Upgrade {
    /// None is under way.
    None,
    /// The spare is being loaded, or is loaded and waits for the old one to hand over.
    Loading {
        spare: Child,
        program: PathBuf,
        /// The old one was asked to hand over.
        is_asked: bool,
        deadline: Instant,
    },
    /// The new one has begun, and does not serve yet.
    Beginning {
        /// What it was before.
        old_program: PathBuf,
        deadline: Instant,
    },
}

impl Upgrade {
    /// The one that is being loaded.
    pub(super) fn spare(&self) -> Option<&Child> {
        match self {
            Upgrade::Loading { spare, .. } => Some(spare),
            _ => None,
        }
    }

    /// When [`Keeper::tend_upgrade`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Upgrade::None => None,
            Upgrade::Loading { deadline, .. } | Upgrade::Beginning { deadline, .. } => Some(*deadline),
        }
    }

    /// The new one serves.
    pub(super) fn forget_old_program(&mut self) {
        if matches!(self, Upgrade::Beginning { .. }) {
            *self = Upgrade::None;
        }
    }

    /// The new one has died before it served: what it was before.
    pub(super) fn take_old_program(&mut self) -> Option<PathBuf> {
        match std::mem::replace(self, Upgrade::None) {
            Upgrade::Beginning { old_program, .. } => Some(old_program),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The spare, if it is loaded, and its program; it begins now, in place of `old_program`.
    pub(super) fn take_loaded(&mut self, old_program: &Path) -> Option<(Child, PathBuf)> {
        match std::mem::replace(self, Upgrade::None) {
            Upgrade::Loading { spare, program, .. } if spare.hello.is_some() => {
                let deadline = Instant::now() + BEGIN_TIME_MAX;
                *self = Upgrade::Beginning { old_program: old_program.to_owned(), deadline };
                Some((spare, program))
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Keeper {
    /// Whether one can be begun.
    pub(super) fn can_upgrade(&self) -> bool {
        self.switch.is_some() && matches!(self.upgrade, Upgrade::None)
    }

    /// Loads a spare: of `program`, or of what is there now under the running one's name.
    pub(super) fn begin_upgrade(&mut self, program: Option<PathBuf>) {
        if !self.can_upgrade() {
            return self.refuse_upgrade("another one, or a restart, is under way");
        }
        let program = program.unwrap_or_else(|| self.program.clone());
        match Child::start(&program, &self.arguments) {
            Ok(spare) => {
                let deadline = Instant::now() + LOAD_TIME_MAX;
                self.upgrade = Upgrade::Loading { spare, program, is_asked: false, deadline };
            }
            Err(error) => self.refuse_upgrade(&format!("starting {}: {error}", program.display())),
        }
    }

    /// Goes on as far as it can be.
    pub(super) fn tend_upgrade(&mut self) {
        let Upgrade::Loading { spare, program, is_asked, deadline } = &mut self.upgrade else {
            return self.tend_beginning();
        };
        // It has nothing to be kept yet.
        let _ = spare.hear(&mut self.shelf);
        let is_late = *deadline <= Instant::now();
        if let Some(status) = spare.end() {
            let why = format!("{} {}", program.display(), last_words(status));
            return self.abandon_upgrade(&why);
        }
        match (*is_asked, &spare.hello, &self.switch) {
            // It hangs on its way out; what it had is kept.
            (true, _, Some(switch)) if is_late => switch.kill(),
            (true, ..) => {}
            (false, Some(hello), Some(switch)) if switch.hello.as_ref() == Some(hello) => {
                (*is_asked, *deadline) = (true, Instant::now() + HAND_TIME_MAX);
                switch.say(HAND_OVER);
            }
            (false, Some(_), Some(_)) => {
                let why = format!("{} cannot read what this version keeps", program.display());
                self.abandon_upgrade(&why);
            }
            (false, None, _) if is_late => {
                let why = format!("{} does not get ready", program.display());
                self.abandon_upgrade(&why);
            }
            _ => {}
        }
    }

    /// The old one has let go: it is the new one's turn, while the old one ends, which takes as long as it had memory.
    pub(super) fn hand_over(&mut self) {
        let Some((spare, program)) = self.upgrade.take_loaded(&self.program) else { return };
        self.switch.take().into_iter().for_each(|old| self.dismiss(old));
        self.program = program;
        self.take_on(spare);
    }

    /// Waits for the end of one that has nothing more to say.
    fn dismiss(&mut self, mut child: Child) {
        child.hang_up();
        self.leaving.push((child, Instant::now() + END_TIME_MAX));
    }

    fn tend_beginning(&mut self) {
        if let (Upgrade::Beginning { deadline, .. }, Some(switch)) = (&mut self.upgrade, &self.switch)
            && *deadline <= Instant::now()
        {
            // Once: its end is what is seen next.
            *deadline += END_TIME_MAX;
            switch.kill();
        }
    }

    fn abandon_upgrade(&mut self, why: &str) {
        if let Upgrade::Loading { spare, .. } = std::mem::replace(&mut self.upgrade, Upgrade::None) {
            spare.kill();
            self.dismiss(spare);
        }
        self.refuse_upgrade(why);
    }

    fn refuse_upgrade(&self, why: &str) {
        say(&format!("no upgrade: {why}"));
        if let Some(switch) = &self.switch {
            switch.say(&format!("{REFUSED}{why}"));
        }
    }
}

/// What a switch says that wants another program to go on; `BINARY=` may follow.
pub(crate) const UPGRADE: &str = "UPGRADE=1";
/// What it says when all that there is, is kept, and it ends.
pub(crate) const HANDED: &str = "HANDED=1";
/// What the old switch is told.
pub(crate) const HAND_OVER: &str = "HANDOVER=1";
/// What it is told when it is not to hand over after all, with the reason behind.
pub(crate) const REFUSED: &str = "REFUSED=";
/// From the start of a program to its word that it is loaded.
const LOAD_TIME_MAX: Duration = Duration::from_secs(10);
/// From then to the old one's word that it has let go.
const HAND_TIME_MAX: Duration = Duration::from_secs(2);
/// From the new one's turn to its word that it serves.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(10);
