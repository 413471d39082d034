//! The buffer in which a front end keeps for us where rings are, so that whoever serves it after a crash can go on
//! (vhost-user, "Inflight I/O tracking").
//!
//! We make it when we are asked to, the front end gives it back before it starts its rings, and gives the same to a back
//! end that comes after us. Chains are given back in the order in which they came, so all that it has to hold is how far a
//! packed ring is ([`RingJournal`]); of a split one that is in the guest's memory. Whatever else may be in there is not
//! looked at.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringyard_dataplane::ring::{Mapping, RING_SIZE_MAX, RingJournal};
use rustix::fs::{FileType, SealFlags};
use vhost::vhost_user::message::VhostUserInflight;

use super::device::{Answer, Device, Refusal};
use super::known::{KnownInflight, Number};
use crate::vring::{Journals, Vring};

/// A buffer that a front end gave us.
pub(super) struct Inflight {
    mapping: Arc<Mapping>,
    body: VhostUserInflight,
}

impl Inflight {
    /// A new one for what `asked` says, of rings of this form, in a port of `rings` rings; it is for the front end to give
    /// back.
    pub(super) fn make(
        asked: &VhostUserInflight,
        packed: bool,
        rings: usize,
    ) -> Result<(VhostUserInflight, OwnedFd), String> {
        let stride = check(asked, rings, packed)?;
        let len = stride * usize::from(asked.num_queues);
        let (_, file) = Mapping::memfd("inflight", len)
            .map_err(|error| format!("making an inflight buffer of {len} bytes: {error}"))?;
        // A front end that made it longer would have the memory of this process's account.
        let _ = rustix::fs::fcntl_add_seals(&file, SealFlags::GROW);
        Ok((VhostUserInflight { mmap_size: len as u64, mmap_offset: 0, ..*asked }, file))
    }

    /// The one in `file`, which anybody may have made. `trouble` is signalled when it is truncated later.
    pub(super) fn take(
        file: OwnedFd,
        body: VhostUserInflight,
        rings: usize,
        trouble: &Arc<OwnedFd>,
    ) -> Result<Inflight, String> {
        // The form of the rings may still change; a region that is too short for one is not used.
        check(&body, rings, false)?;
        Inflight::map(file, body, trouble)
    }

    /// The one that a process before this one had.
    pub(super) fn restore(
        file: OwnedFd,
        known: &KnownInflight,
        trouble: &Arc<OwnedFd>,
    ) -> Result<Inflight, String> {
        let KnownInflight { len, offset, queues, size, .. } = *known;
        Inflight::map(file, VhostUserInflight::new(len, offset, queues, size), trouble)
    }

    fn map(file: OwnedFd, body: VhostUserInflight, trouble: &Arc<OwnedFd>) -> Result<Inflight, String> {
        let cannot = |error| format!("looking at an inflight buffer: {error}");
        let system = rustix::fs::fstatfs(&file).map_err(cannot)?;
        let stat = rustix::fs::fstat(&file).map_err(cannot)?;
        let is_memory = system.f_type as u64 == libc::TMPFS_MAGIC as u64
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_memory {
            return Err("an inflight buffer is no file of tmpfs".into());
        }
        let _ = rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK);
        let size = rustix::fs::fstat(&file).map_err(cannot)?.st_size as u64;
        let (len, offset) = (body.mmap_size, body.mmap_offset);
        let end = offset.checked_add(len).filter(|&end| end <= size && len > 0 && len <= LEN_MAX);
        let (Some(end), true) = (end, offset.is_multiple_of(64)) else {
            return Err(format!(
                "an inflight buffer of {len:#x} bytes at {offset:#x} of a file of {size:#x} bytes"
            ));
        };
        let mapping = Mapping::of_foreign_file(&file, end as usize, trouble.clone())
            .map_err(|error| format!("mapping an inflight buffer: {error}"))?;
        Ok(Inflight { mapping: Arc::new(mapping), body })
    }

    /// Where rings of this form are journalled.
    pub(super) fn journals(&self, packed: bool) -> Option<Journals> {
        let VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = self.body;
        let stride = RingJournal::len(queue_size, packed);
        let fits = (stride * usize::from(num_queues)) as u64 <= mmap_size;
        let (mapping, at) = (self.mapping.clone(), mmap_offset as usize);
        fits.then_some(Journals { mapping, at, stride, count: num_queues.into(), resumes: true })
    }

    /// Whether the file was truncated.
    pub(super) fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }

    pub(super) fn known(&self, file: Number) -> KnownInflight {
        let VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = self.body;
        KnownInflight { file, len: mmap_size, offset: mmap_offset, queues: num_queues, size: queue_size }
    }
}

impl Device<'_> {
    pub(super) fn make_inflight(&self, asked: VhostUserInflight) -> Result<Answer, Refusal> {
        let (body, file) = Inflight::make(&asked, self.packed(), self.vrings.len())?;
        Ok(Answer::Inflight(body, file))
    }

    /// Rings that are started stay where they are.
    pub(super) fn set_inflight(&mut self, body: VhostUserInflight, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let [file] =
            <[OwnedFd; 1]>::try_from(fds).map_err(|_| "an inflight buffer is one file".to_string())?;
        if self.vrings.iter().any(Vring::is_started) {
            return Err(Refusal::Bad("an inflight buffer under started rings".into()));
        }
        self.inflight = Some(Inflight::take(file, body, self.vrings.len(), &self.port.trouble)?);
        Ok(())
    }
}

/// Bytes of each region, if there can be such a buffer.
fn check(body: &VhostUserInflight, rings: usize, packed: bool) -> Result<usize, String> {
    let VhostUserInflight { num_queues, queue_size, .. } = *body;
    let stride = RingJournal::len(queue_size, packed);
    let len = stride * usize::from(num_queues);
    let is_known = (1..=rings).contains(&num_queues.into()) && (1..=RING_SIZE_MAX).contains(&queue_size);
    if !is_known || len as u64 > LEN_MAX {
        return Err(format!("an inflight buffer for {num_queues} queues of {queue_size} entries"));
    }
    Ok(stride)
}

/// Bytes of a buffer, at most: all rings of 64 queue pairs, 1,024 entries each, have 5 MiB.
const LEN_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn asked(num_queues: u16, queue_size: u16) -> VhostUserInflight {
        VhostUserInflight { num_queues, queue_size, ..VhostUserInflight::default() }
    }

    fn take(file: &OwnedFd, body: VhostUserInflight) -> Result<Inflight, String> {
        let trouble = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        Inflight::take(file.try_clone().unwrap(), body, 3, &trouble)
    }

    #[test]
    fn buffer_that_was_made_is_taken_back() {
        for packed in [false, true] {
            let (body, file) = Inflight::make(&asked(2, 256), packed, 3).unwrap();
            assert_eq!(body.mmap_size as usize, 2 * RingJournal::len(256, packed));
            let journals = take(&file, body).unwrap().journals(packed).unwrap();
            assert_eq!((journals.at, journals.stride), (0, RingJournal::len(256, packed)));
            if !packed {
                assert!(take(&file, body).unwrap().journals(true).is_none(), "too short for packed rings");
            }
        }
    }

    #[test]
    fn p20_numbers_that_no_port_has_are_refused() {
        for (queues, size) in [(0, 0), (0, 256), (2, 0), (4, 256), (65_535, 65_535), (2, 32_769), (3, 65_535)]
        {
            assert!(Inflight::make(&asked(queues, size), true, 3).is_err(), "{queues} {size}");
        }
        assert!(Inflight::make(&asked(257, 32_768), true, 257).is_err(), "more memory than anybody needs");
    }

    #[test]
    fn p20_buffer_whose_size_lies_is_refused() {
        let (body, file) = Inflight::make(&asked(2, 256), true, 3).unwrap();
        let whole = body.mmap_size;
        for (len, offset) in
            [(0, 0), (whole + 1, 0), (whole, 64), (u64::MAX, 0), (whole, u64::MAX), (1 << 40, 0), (64, 8)]
        {
            let body = VhostUserInflight { mmap_size: len, mmap_offset: offset, ..body };
            assert!(take(&file, body).is_err(), "{len:#x} {offset:#x}");
        }
        let short = VhostUserInflight { mmap_size: 64, ..body };
        assert!(take(&file, short).unwrap().journals(true).is_none(), "regions that are not all in there");
        for queues in [0, 4, u16::MAX] {
            assert!(take(&file, VhostUserInflight { num_queues: queues, ..body }).is_err(), "{queues}");
        }
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(take(&reader, body).is_err(), "a pipe");
    }
}
