//! Calls that have to do with names in the file system.
//!
//! What a path leads to is held by a descriptor first (`O_PATH`), judged by what the kernel says that this is, and then
//! opened, or changed, as that: whoever puts another file in its place meanwhile has gained nothing.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::caller::{Base, Caller, c_path};
use super::listener::{Answer, Call};
use super::policy::{Policy, is_library};
use crate::sys::file;

/// What the handlers work with.
pub(super) struct Desk<'a> {
    pub caller: &'a Caller,
    pub policy: &'a Policy,
    pub call: &'a Call,
    /// It was we who refused, not the kernel.
    pub refused: Cell<bool>,
}

/// A name, held by the directory that it is in.
struct Place {
    directory: OwnedFd,
    name: PathBuf,
    /// Where that is.
    path: PathBuf,
}

impl Desk<'_> {
    /// The error of what the policy does not permit.
    pub(super) fn refuse(&self) -> Errno {
        self.refused.set(true);
        Errno::PERM
    }

    pub(super) fn argument(&self, number: usize) -> u64 {
        self.call.arguments[number]
    }

    fn path(&self, number: usize) -> Result<PathBuf, Errno> {
        self.caller.path(self.argument(number), self.call.thread)
    }

    fn base(&self, number: usize) -> Result<Base, Errno> {
        self.caller.base(self.argument(number))
    }

    /// `openat(base, path, flags, mode)`.
    pub(super) fn open(&self) -> Result<Answer, Errno> {
        let (base, path) = (self.base(0)?, self.path(1)?);
        let flags = OFlags::from_bits_retain(self.argument(2) as u32) | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.argument(3) as u32);
        if let Some(own) = self.caller.named_descriptor(&path) {
            return self.reopen_own(own?, flags);
        }
        // Made by somebody else between our two looks: looked at once more.
        for _ in 0..2 {
            let follow = flags & (OFlags::NOFOLLOW | OFlags::DIRECTORY);
            match openat(&base, &path, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty()) {
                Ok(found) => {
                    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
                        return Err(Errno::EXIST);
                    }
                    return self.open_found(found, flags);
                }
                Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {}
                Err(error) => return Err(error),
            }
            let place = Place::of(&base, &path)?;
            if !self.policy.may_create(&place.path) {
                return Err(self.refuse());
            }
            let flags = flags | OFlags::EXCL | OFlags::NOFOLLOW;
            match openat(&place.directory, &place.name, flags, mode) {
                Err(Errno::EXIST) => {}
                made => return Ok(Answer::Descriptor(made?)),
            }
        }
        Err(Errno::EXIST)
    }

    fn open_found(&self, found: OwnedFd, flags: OFlags) -> Result<Answer, Errno> {
        let (path, stat) = (path_of(&found)?, fstat(&found)?);
        // What the kernel refuses is not ours to refuse: its words are known.
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::CREATE);
        if writes && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        if !self.policy.may_open(&path, &stat, flags) {
            // Libc looks for modules of its own, and does without.
            return Err(if is_library(&path) { Errno::NOENT } else { self.refuse() });
        }
        let flags = flags - (OFlags::NOFOLLOW | OFlags::CREATE);
        Ok(Answer::Descriptor(rustix::fs::open(own_name(&found), flags, Mode::empty())?))
    }

    /// Opens what the switch has open once more, with no more rights.
    fn reopen_own(&self, own: OwnedFd, flags: OFlags) -> Result<Answer, Errno> {
        let has = rustix::fs::fcntl_getfl(&own)?;
        let is_enough =
            has & OFlags::RWMODE == OFlags::RDWR || has & OFlags::RWMODE == flags & OFlags::RWMODE;
        if !is_enough || has.contains(OFlags::PATH) {
            return Err(self.refuse());
        }
        let flags = flags - (OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
        Ok(Answer::Descriptor(openat(CWD, own_name(&own), flags, Mode::empty())?))
    }

    /// `newfstatat(base, path, buffer, flags)`.
    pub(super) fn stat(&self) -> Result<Answer, Errno> {
        let (base, path) = (self.base(0)?, c_path(&self.path(1)?)?);
        let stat = file::stat(&base, &path, self.argument(3) as i32)?;
        self.caller.write(self.argument(2), &stat)?;
        Ok(Answer::Value(0))
    }

    /// `statx(base, path, flags, mask, buffer)`.
    pub(super) fn statx(&self) -> Result<Answer, Errno> {
        let (base, path) = (self.base(0)?, c_path(&self.path(1)?)?);
        let (flags, mask) = (self.argument(2) as i32, self.argument(3) as u32);
        let stat = file::statx(&base, &path, flags, mask)?;
        self.caller.write(self.argument(4), &stat)?;
        Ok(Answer::Value(0))
    }

    /// `readlinkat(base, path, buffer, len)`.
    pub(super) fn read_link(&self) -> Result<Answer, Errno> {
        let target = rustix::fs::readlinkat(self.base(0)?, &self.path(1)?, Vec::new())?.into_bytes();
        let len = target.len().min(self.argument(3) as usize);
        self.caller.write(self.argument(2), &target[..len])?;
        Ok(Answer::Value(len as i64))
    }

    /// `faccessat(base, path, mode)`, without flags.
    pub(super) fn access(&self) -> Result<Answer, Errno> {
        let mode = rustix::fs::Access::from_bits_retain(self.argument(2) as u32);
        rustix::fs::accessat(self.base(0)?, &self.path(1)?, mode, AtFlags::empty())?;
        Ok(Answer::Value(0))
    }

    /// `mkdirat(base, path, mode)`.
    pub(super) fn make_directory(&self) -> Result<Answer, Errno> {
        let place = Place::of(&self.base(0)?, &self.path(1)?)?;
        let mode = Mode::from_raw_mode(self.argument(2) as u32);
        if !self.policy.may_make_directory(&place.path, mode) {
            return Err(self.refuse());
        }
        rustix::fs::mkdirat(&place.directory, &place.name, mode)?;
        Ok(Answer::Value(0))
    }

    /// `unlinkat(base, path, flags)`.
    pub(super) fn remove(&self) -> Result<Answer, Errno> {
        let place = Place::of(&self.base(0)?, &self.path(1)?)?;
        let found = place.look()?;
        let flags = AtFlags::from_bits_retain(self.argument(2) as u32);
        // As above.
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_directory && !flags.contains(AtFlags::REMOVEDIR) {
            return Err(Errno::ISDIR);
        }
        if !self.policy.may_remove(&place.path, &found) {
            return Err(self.refuse());
        }
        rustix::fs::unlinkat(&place.directory, &place.name, flags)?;
        Ok(Answer::Value(0))
    }

    /// `renameat2(base, path, base, path, flags)`: of what may be removed, to where nothing else stands.
    pub(super) fn rename(&self) -> Result<Answer, Errno> {
        let from = Place::of(&self.base(0)?, &self.path(1)?)?;
        let to = Place::of(&self.base(2)?, &self.path(3)?)?;
        let flags = RenameFlags::from_bits_retain(self.argument(4) as u32);
        let goes = self.policy.may_remove(&from.path, &from.look()?);
        let comes = match to.look() {
            Ok(found) => self.policy.may_change(&found),
            Err(Errno::NOENT) => true,
            Err(error) => return Err(error),
        };
        if !goes || !comes || flags.contains(RenameFlags::EXCHANGE) {
            return Err(self.refuse());
        }
        rustix::fs::renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags)?;
        Ok(Answer::Value(0))
    }

    /// `fchmodat(base, path, mode)`.
    pub(super) fn change_mode(&self) -> Result<Answer, Errno> {
        let found = self.find(0, 1)?;
        // Bits beyond those of reading, writing and entering give others' rights away.
        if !self.policy.may_change(&fstat(&found)?) || self.argument(2) & !0o777 != 0 {
            return Err(self.refuse());
        }
        rustix::fs::chmod(own_name(&found), Mode::from_raw_mode(self.argument(2) as u32))?;
        Ok(Answer::Value(0))
    }

    /// `fchownat(base, path, user, group, flags)`: of the group alone.
    pub(super) fn change_group(&self) -> Result<Answer, Errno> {
        let found = self.find(0, 1)?;
        let group = self.argument(3) as u32;
        let of_group = self.argument(2) as u32 == u32::MAX && group != u32::MAX;
        if !of_group || !self.policy.may_change(&fstat(&found)?) {
            return Err(self.refuse());
        }
        rustix::fs::chownat(&found, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
        Ok(Answer::Value(0))
    }

    /// What a path names, be it by a descriptor of the switch.
    fn find(&self, base: usize, path: usize) -> Result<OwnedFd, Errno> {
        let (base, path) = (self.base(base)?, self.path(path)?);
        if let Some(own) = self.caller.named_descriptor(&path) {
            return own;
        }
        match base {
            Base::Directory(fd) if path.as_os_str().is_empty() => Ok(fd),
            base => openat(base, &path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()),
        }
    }
}

impl Place {
    /// Of a path whose last part may not be there.
    fn of(base: &Base, path: &Path) -> Result<Place, Errno> {
        let nameless = if path.as_os_str().is_empty() { Errno::NOENT } else { Errno::ISDIR };
        let name = path.file_name().ok_or(nameless)?.into();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(base, parent, flags, Mode::empty())?;
        let path = path_of(&directory)?.join(&name);
        Ok(Place { directory, name, path })
    }

    /// What is there, be it a link.
    fn look(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The socket at `path`, below `base` or the working directory, not opened.
pub(super) fn find_socket(base: Option<&OwnedFd>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(base.map_or(CWD, AsFd::as_fd), path, flags, Mode::empty())?;
    let is_socket = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Socket;
    if is_socket { Ok(found) } else { Err(Errno::ACCESS) }
}

/// Where something is that we have open.
pub(super) fn path_of(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    use std::os::unix::ffi::OsStringExt;
    let path = rustix::fs::readlink(own_name(fd), Vec::new())?;
    Ok(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

fn own_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
