//! The dirty log of a guest that is being migrated: where it lies, and what goes into it.
//!
//! A front end hands over a memory file (SET_LOG_BASE), then has us log what we write into buffers (VHOST_F_LOG_ALL) and
//! into each ring (the flag of SET_VRING_ADDR), and takes both back when it has migrated its guest, or has not. Whoever
//! hands a log over is answered when no worker writes to the one before.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::ring::{DirtyLog, RingLogging};
use vhost::vhost_user::message::{VhostUserLog, VhostUserVringAddr, VhostUserVringAddrFlags};

use super::device::{Answer, Device, Refusal};
use super::known::{KnownLog, Number};
use super::memory::File;
use crate::vring::{Surroundings, event};

/// VHOST_F_LOG_ALL: what is written into buffers is logged.
pub(super) const LOG_ALL: u64 = 1 << 26;

/// What a front end said of its log.
#[derive(Clone, Default)]
pub(super) struct Log {
    /// `None`: there is none, so nothing is logged, whatever else was said.
    log: Option<Arc<DirtyLog>>,
    /// What was said of it: its bytes, and where they begin.
    base: (u64, u64),
    /// Who wants to hear that something was logged.
    bell: Option<Arc<OwnedFd>>,
}

impl Log {
    /// Whether the front end truncated its file.
    pub(super) fn is_lost(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_lost())
    }

    /// What the journal says of it, whose files have these numbers.
    pub(super) fn known(
        &self,
        file: Option<Number>,
        bell: Option<Number>,
    ) -> (Option<KnownLog>, Option<Number>) {
        let (len, offset) = self.base;
        let file = file.filter(|_| self.log.is_some());
        (file.map(|file| KnownLog { file, len, offset }), bell.filter(|_| self.bell.is_some()))
    }

    /// The reverse of [`Self::known`], with the files.
    pub(super) fn restore(
        log: Option<(OwnedFd, KnownLog)>,
        bell: Option<OwnedFd>,
        trouble: &Arc<OwnedFd>,
    ) -> Result<Log, String> {
        let base = log.as_ref().map_or((0, 0), |(_, known)| (known.len, known.offset));
        let map = |(fd, KnownLog { len, offset, .. })| map(fd, &VhostUserLog::new(len, offset), trouble);
        Ok(Log { log: log.map(map).transpose()?, base, bell: bell.map(event).transpose()? })
    }

    /// What is logged with these features; of each ring also what it says itself.
    pub(super) fn logging(&self, features: u64) -> Option<RingLogging> {
        let (log, bell, buffers) = (self.log.clone()?, self.bell.clone(), features & LOG_ALL != 0);
        Some(RingLogging { log, buffers, used: None, bell })
    }
}

/// Under which address a ring's used part is logged, if it is.
pub(super) fn used_address(addr: &VhostUserVringAddr) -> Option<u64> {
    let is_logged = addr.flags & VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits() != 0;
    is_logged.then_some(addr.log)
}

impl Device<'_> {
    /// The answer says what came: front ends of QEMU and of rust-vmm wait for one, and only the latter look into it.
    pub(super) fn set_log_base(&mut self, base: VhostUserLog, fds: Vec<OwnedFd>) -> Result<Answer, Refusal> {
        let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| "a log is one file".to_string())?;
        let (log, base_of_it) = (map(fd, &base, &self.port.trouble)?, (base.mmap_size, base.mmap_offset));
        self.set_log(Log { log: Some(log), base: base_of_it, ..self.log.clone() })?;
        tracing::info!(socket = self.port.name, bytes = base.mmap_size, "vhost-user: dirty log");
        Ok(Answer::Log(base))
    }

    /// The body means nothing.
    pub(super) fn set_log_bell(&mut self, mut fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let bell = fds.pop().map(event).transpose()?;
        if !fds.is_empty() {
            return Err(Refusal::Bad("several descriptors to hear of the dirty log".into()));
        }
        self.set_log(Log { bell, ..self.log.clone() })
    }

    fn set_log(&mut self, log: Log) -> Result<(), Refusal> {
        let around = Surroundings { logging: log.logging(self.features), ..self.surroundings() };
        self.replace(self.vrings.clone(), &around)?;
        self.log = log;
        Ok(())
    }
}

fn map(fd: OwnedFd, base: &VhostUserLog, trouble: &Arc<OwnedFd>) -> Result<Arc<DirtyLog>, String> {
    let file = File::check(fd, "the dirty log", base.mmap_offset, base.mmap_size)?;
    if file.len() > LOG_MAX {
        return Err(format!("a dirty log that ends at {:#x}", file.len()));
    }
    let log = DirtyLog::new(file.map(trouble)?, base.mmap_offset, base.mmap_size);
    log.map(Arc::new).ok_or_else(|| "the dirty log is longer than its mapping".to_string())
}

/// Bytes of a log's file, at most: enough for 2^49 bytes of guest addresses.
const LOG_MAX: u64 = 1 << 34;
