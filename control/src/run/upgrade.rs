//! `x-upgrade`: another program goes on with everything, while guests notice nothing.
//!
//! The keeper loads it and says when it is ready. Then the workers end, each at the end of a burst, so that no frame is sent
//! twice or lost; what there is, is written down, and this process ends without taking anything down.

use std::path::PathBuf;

use ringyard_drivers::store::Heard;
use rustix::event::epoll;

use super::Control;
use super::command::Asker;
use crate::keeper::{HAND_OVER, HANDED, REFUSED, UPGRADE};
use crate::qapi::QapiError;
use crate::wire::XUpgrade;

impl Control {
    /// `x-upgrade`: the answer comes only if nothing comes of it; else the connection ends, as with the process it does.
    pub(super) fn begin_upgrade(&mut self, asker: Asker, request: XUpgrade) -> Result<(), QapiError> {
        if self.succession.store.keeper().is_none() {
            let text = "nobody keeps this switch: start it with run --keep, or restart its service";
            return Err(QapiError::generic(text));
        }
        if self.succession.is_alone {
            return Err(QapiError::generic("no upgrade: the keeper is gone"));
        }
        if self.succession.upgrade_asker.is_some() {
            return Err(QapiError::generic("an upgrade is under way"));
        }
        let program = request.binary.map(std::path::absolute).transpose();
        let program: Option<PathBuf> =
            program.map_err(|error| QapiError::generic(format!("reading the path: {error}")))?;
        let binary = program.map(|program| format!("\nBINARY={}", program.display())).unwrap_or_default();
        if binary.lines().count() > 2 {
            return Err(QapiError::generic("a path with a line break is none for a program"));
        }
        self.succession.store.tell(&format!("{UPGRADE}{binary}"));
        self.succession.upgrade_asker = Some(asker);
        Ok(())
    }

    /// Does what our keeper says.
    pub(super) fn hear_keeper(&mut self) {
        loop {
            match self.succession.store.hear() {
                Heard::Said(text) if text == HAND_OVER => self.hand_over(),
                Heard::Said(text) => {
                    if let Some(why) = text.strip_prefix(REFUSED) {
                        self.refuse_upgrade(why);
                    }
                }
                Heard::Nothing => return,
                // It hangs up on who has handed over.
                Heard::Gone if self.succession.is_handed => return,
                Heard::Gone => {
                    self.succession.is_alone = true;
                    tracing::warn!("the keeper is gone: when this process ends, everything ends");
                    if let Some(fd) = self.succession.store.keeper() {
                        let _ = epoll::delete(&self.epoll, fd);
                    }
                    return self.refuse_upgrade("the keeper is gone");
                }
            }
        }
    }

    fn refuse_upgrade(&mut self, why: &str) {
        if let Some(asker) = self.succession.upgrade_asker.take() {
            self.answer(
                asker.client,
                asker.form.render(Err(QapiError::generic(format!("no upgrade: {why}")))),
            );
        }
    }

    /// Lets go of everything. What guests and clients send from now on is for the next process.
    fn hand_over(&mut self) {
        self.publish();
        self.model.halt();
        self.succession.is_changed = true;
        self.write_down();
        self.succession.store.tell(HANDED);
        self.succession.is_handed = true;
    }
}
