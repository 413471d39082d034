//! The helper's root directory: an empty file system with a copy of resolv.conf, the TFTP directory, read-only, and the
//! sockets behind which programs wait. Nothing else of the host can be named from there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstatvfs, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{chroot, fchdir, pivot_root};

/// Where the resolver, and libslirp, look for name servers.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the TFTP directory appears.
pub(super) const TFTP: &str = "/tftp";
/// Where the sockets appear.
pub(super) const SOCKETS: &str = "/sockets";

/// Directories of which one is there on any host, to mount the new root on: only this process sees that.
const PLACES: [&str; 4] = ["/tmp", "/var", "/mnt", "/usr"];

/// Directories of the host, held open before their paths mean something else.
pub(super) struct Shared {
    tftp: Option<OwnedFd>,
    sockets: Option<OwnedFd>,
}

impl Shared {
    /// A TFTP directory that is not there is none, as in QEMU: requests for files are answered with an error.
    pub(super) fn open(tftp: Option<&Path>, sockets: Option<&Path>) -> io::Result<Shared> {
        let directory =
            |path: &Path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Shared {
            tftp: tftp.and_then(|path| directory(path).ok()),
            sockets: sockets.map(directory).transpose()?,
        })
    }
}

/// The copy of resolv.conf inside the new root.
pub(super) struct ResolvConf(File);

impl ResolvConf {
    /// Puts `text` in place of what was there.
    pub(super) fn replace(&mut self, text: &[u8]) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(0))?;
        self.0.set_len(0)?;
        self.0.write_all(text)
    }
}

/// Moves this process, which has mounts of its own, into the new root. After an error it is where it was.
pub(super) fn enter(shared: &Shared) -> io::Result<ResolvConf> {
    let directory = |path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (old_root, old_place) = (directory("/")?, directory(".")?);
    let resolv_conf = fs::read(RESOLV_CONF).unwrap_or_default();
    // Nothing that is mounted here shall appear elsewhere.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = PLACES.iter().find(|place| Path::new(place).is_dir());
    let place = Path::new(place.ok_or(io::ErrorKind::NotFound)?);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", place, "tmpfs", flags, Some(c"size=1m,nr_inodes=64,mode=755"))?;
    furnish(place, shared, &resolv_conf).inspect_err(|_| {
        // Each as far as there is something to undo.
        let _ = fchdir(&old_root).and_then(|()| chroot("."));
        let _ = fchdir(&old_place);
        let _ = unmount(place, UnmountFlags::DETACH);
    })
}

/// Fills the new root, which is mounted on `place`, and moves there.
fn furnish(place: &Path, shared: &Shared, resolv_conf: &[u8]) -> io::Result<ResolvConf> {
    for (directory, name) in [(&shared.tftp, TFTP), (&shared.sockets, SOCKETS)] {
        let Some(directory) = directory else { continue };
        let target = place.join(&name[1..]);
        fs::create_dir(&target)?;
        mount_bind_recursive(format!("/proc/self/fd/{}", directory.as_raw_fd()), &target)?;
        protect(&target)?;
    }
    let target = place.join(&RESOLV_CONF[1..]);
    fs::create_dir(place.join("etc"))?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&target)?;
    let mut file = ResolvConf(file);
    file.replace(resolv_conf)?;

    std::env::set_current_dir(place)?;
    // The old root ends up below the new one, at the same place, and goes.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(file)
}

/// Makes a mount read-only, and keeps the limits that it has: in a user namespace none may go.
fn protect(target: &Path) -> io::Result<()> {
    let directory = open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let has = fstatvfs(&directory)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = pairs.iter().filter(|(flag, _)| has.contains(*flag));
    let kept = kept.fold(MountFlags::empty(), |flags, (_, flag)| flags | *flag);
    let limits = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount_remount(target, MountFlags::BIND | limits | kept, "")?)
}
