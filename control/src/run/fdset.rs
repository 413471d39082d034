//! Sets of descriptors that clients passed with `add-fd`: they belong to the run, not to a monitor, and go when they are
//! removed or when no client is left.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use ringyard_drivers::errno;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::fcntl_dupfd_cloexec;

use crate::qapi::QapiError;
use crate::wire::{AddfdInfo, FdsetFdInfo, FdsetInfo};

/// Descriptors of all sets together.
const FDS_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct FdSets(BTreeMap<i64, Vec<Entry>>);

struct Entry {
    fd: OwnedFd,
    opaque: Option<String>,
}

impl FdSets {
    /// `add-fd`: without an id to a new set, which has the lowest free one.
    pub(super) fn add(
        &mut self,
        id: Option<i64>,
        opaque: Option<String>,
        passed: Option<OwnedFd>,
    ) -> Result<AddfdInfo, QapiError> {
        let none = || QapiError::generic("No file descriptor supplied via SCM_RIGHTS");
        let fd = passed.ok_or_else(none)?;
        if id.is_some_and(|id| id < 0) {
            return Err(QapiError::generic("Parameter 'fdset-id' expects a non-negative value"));
        }
        if self.0.values().map(Vec::len).sum::<usize>() >= FDS_MAX {
            let text = format!("too many file descriptors: the sets hold at most {FDS_MAX}");
            return Err(QapiError::generic(text));
        }
        let id = id.or_else(|| (0..).find(|id| !self.0.contains_key(id))).unwrap_or_default();
        let number = i64::from(fd.as_raw_fd());
        self.0.entry(id).or_default().push(Entry { fd, opaque });
        Ok(AddfdInfo { fd: number, fdset_id: id })
    }

    /// `remove-fd`: one descriptor of a set, or all.
    pub(super) fn remove(&mut self, id: i64, number: Option<i64>) -> Result<(), QapiError> {
        let name = match number {
            Some(number) => format!("fdset-id:{id}, fd:{number}"),
            None => format!("fdset-id:{id}"),
        };
        let not_found = || QapiError::generic(format!("File descriptor named '{name}' not found"));
        let set = self.0.get_mut(&id).ok_or_else(not_found)?;
        match number {
            None => set.clear(),
            Some(number) => {
                let is_it = |entry: &Entry| i64::from(entry.fd.as_raw_fd()) == number;
                let index = set.iter().position(is_it).ok_or_else(not_found)?;
                set.remove(index);
            }
        }
        self.0.retain(|_, set| !set.is_empty());
        Ok(())
    }

    /// `query-fdsets`, in QEMU's order: the set with the highest id first.
    pub(super) fn query(&self) -> Vec<FdsetInfo> {
        let fd_info =
            |entry: &Entry| FdsetFdInfo { fd: entry.fd.as_raw_fd().into(), opaque: entry.opaque.clone() };
        let set_info = |(&id, set): (&i64, &Vec<Entry>)| FdsetInfo {
            fdset_id: id,
            fds: set.iter().map(fd_info).collect(),
        };
        self.0.iter().rev().map(set_info).collect()
    }

    /// A duplicate of the first descriptor of a set that can be both read and written: what `/dev/fdset/ID` stands for.
    pub(super) fn open(&self, id: i64) -> Result<OwnedFd, QapiError> {
        let failed = |why: &str| QapiError::generic(format!("Could not open '/dev/fdset/{id}': {why}"));
        let set = self.0.get(&id).ok_or_else(|| failed("No such file or directory"))?;
        let both_ways =
            |entry: &&Entry| fcntl_getfl(&entry.fd).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
        let entry = set.iter().find(both_ways).ok_or_else(|| failed("Permission denied"))?;
        fcntl_dupfd_cloexec(&entry.fd, 0).map_err(|error| failed(&error.to_string()))
    }

    /// A duplicate of the first descriptor of a set that can be written.
    ///
    /// Errors: the bare reason.
    pub(super) fn open_to_write(&self, id: i64) -> Result<OwnedFd, QapiError> {
        let set = self.0.get(&id).ok_or_else(|| QapiError::generic("No such file or directory"))?;
        let writable = |entry: &&Entry| {
            fcntl_getfl(&entry.fd).is_ok_and(|flags| flags & OFlags::RWMODE != OFlags::RDONLY)
        };
        let entry = set.iter().find(writable).ok_or_else(|| QapiError::generic("Permission denied"))?;
        fcntl_dupfd_cloexec(&entry.fd, 0).map_err(|error| QapiError::generic(errno::text(error)))
    }

    /// Forgets all of them: no client is left who knows of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn null(write: bool) -> Option<OwnedFd> {
        let file = File::options().read(true).write(write).open("/dev/null");
        Some(file.expect("every machine has it").into())
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, QapiError>) -> String {
        result.expect_err("the test asks for what is refused").desc
    }

    #[test]
    fn a_set_without_an_id_gets_the_lowest_free_one() {
        let mut sets = FdSets::default();
        let mut added = |id| sets.add(id, None, null(true)).expect("there is room").fdset_id;
        assert_eq!([added(None), added(Some(7)), added(None), added(Some(0))], [0, 7, 1, 0]);
        let ids: Vec<i64> = sets.query().iter().map(|set| set.fdset_id).collect();
        assert_eq!(ids, [7, 1, 0]);
    }

    #[test]
    fn what_is_not_there_cannot_be_removed() {
        let mut sets = FdSets::default();
        let number = sets.add(Some(3), Some("x".into()), null(true)).expect("there is room").fd;
        assert_eq!(refused(sets.remove(9, None)), "File descriptor named 'fdset-id:9' not found");
        assert_eq!(refused(sets.remove(3, Some(-1))), "File descriptor named 'fdset-id:3, fd:-1' not found");
        let fds = vec![FdsetFdInfo { fd: number, opaque: Some("x".into()) }];
        assert_eq!(sets.query(), [FdsetInfo { fds, fdset_id: 3 }]);
        assert_eq!(sets.remove(3, Some(number)), Ok(()));
        assert_eq!(sets.query(), []);
    }

    #[test]
    fn add_fd_checks_what_it_is_given() {
        let mut sets = FdSets::default();
        assert_eq!(refused(sets.add(None, None, None)), "No file descriptor supplied via SCM_RIGHTS");
        let negative = "Parameter 'fdset-id' expects a non-negative value";
        assert_eq!(refused(sets.add(Some(-1), None, null(true))), negative);
        for _ in 0..FDS_MAX {
            sets.add(Some(1), None, null(false)).expect("there is room");
        }
        assert!(refused(sets.add(None, None, null(true))).starts_with("too many file descriptors"));
    }

    #[test]
    fn a_set_is_opened_by_what_can_be_read_and_written() {
        let mut sets = FdSets::default();
        assert_eq!(refused(sets.open(0)), "Could not open '/dev/fdset/0': No such file or directory");
        sets.add(Some(0), None, null(false)).expect("there is room");
        assert_eq!(refused(sets.open(0)), "Could not open '/dev/fdset/0': Permission denied");
        sets.add(Some(0), None, null(true)).expect("there is room");
        assert!(sets.open(0).is_ok());
        assert_eq!(refused(sets.open_to_write(1)), "No such file or directory");
        sets.add(Some(1), None, null(false)).expect("there is room");
        assert_eq!(refused(sets.open_to_write(1)), "Permission denied");
        assert!(sets.open_to_write(0).is_ok());
    }
}
