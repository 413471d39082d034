//! What the opener does for the switch, and what it refuses: to be read from top to bottom.
//!
//! Whoever takes the switch over can ask for all of this. It is what any command of a monitor may need, and nothing that
//! makes another of the host's programs, or its administrator, do what they would not.
//!
//! Paths are those of what was found, without links. What is opened is the very object that was judged.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};

/// Character devices of netdevs, read and written.
const DEVICES: &[&str] = &["/dev/net/tun", "/dev/netmap", "/dev/vduse/control", "/dev/tty"];
/// The same, with a name or a number behind this.
const DEVICE_PREFIXES: &[&str] = &["/dev/tap", "/dev/vhost-vdpa-", "/dev/vduse/"];
/// Where anything is read.
const READABLE: &[&str] = &["/sys/class/net/", "/sys/devices/", "/run/systemd/resolve/"];
/// What names of hosts, services and groups are looked up in.
const READABLE_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/group",
    "/etc/localtime",
];
/// What the process reads about itself, in `/proc/PID/` and `/proc/PID/task/TID/`.
const OWN_FILES: &[&str] = &["status", "stat", "maps", "limits", "cgroup", "comm"];
/// How a configuration is named.
const CONFIGURATION: &str = "toml";

/// Where captures are written, besides the working directory and what the configuration names at the start.
const WRITABLE: &[&str] = &[
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/run/",
    "/var/log/",
    "/var/lib/ringyard/",
    "/dev/null",
    "/dev/full",
];

/// Where programs find what they load. Here nothing is loaded: what is in memory must not become code.
const LIBRARIES: &[&str] = &["/etc/ld.so.", "/lib", "/usr/lib", "/usr/local/lib"];

/// Of these directories we make some, for a socket that is being made ready and for a helper, and remove them with what is
/// in them.
const PRIVATE: &[&str] = &[".ringyard-", "ringyard-user-"];

/// Sockets by which one becomes root, or runs programs: those of service managers, containers and virtual machines. The
/// switch itself has to do with none of them.
const DOORS: &[&str] = &[
    "/run/dbus",
    "/run/systemd/private",
    "/run/systemd/io.systemd",
    "/run/docker",
    "/run/containerd",
    "/run/crio",
    "/run/podman",
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/virt",
    "/run/snapd",
    "/run/user",
    "/run/udev",
    "/run/lvm",
    "/run/acpid",
];

/// See the module.
pub(super) struct Policy {
    /// The switch.
    process: i32,
    /// Where it may write, besides: absolute.
    writable: Vec<PathBuf>,
}

impl Policy {
    /// `writable` are directories; the root of all is none of them.
    pub(super) fn new(process: i32, writable: Vec<PathBuf>) -> Policy {
        let writable = writable.into_iter().filter(|path| path.parent().is_some()).collect();
        Policy { process, writable }
    }

    /// Whether `path`, which is there, may be opened like that.
    pub(super) fn may_open(&self, path: &Path, found: &Stat, flags: OFlags) -> bool {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::CREATE);
        // A namespace, by which its interfaces are found.
        if path.as_os_str().as_bytes().starts_with(b"net:[") {
            return !writes;
        }
        match FileType::from_raw_mode(found.st_mode) {
            FileType::CharacterDevice => is_device(path) || (writes && self.is_writable(path)),
            FileType::RegularFile | FileType::Fifo if writes => self.is_writable(path),
            FileType::Directory => !writes && (is_private(path) || is_within(path, READABLE)),
            FileType::RegularFile => self.is_readable(path),
            _ => false,
        }
    }

    /// Whether a file may be made there.
    pub(super) fn may_create(&self, path: &Path) -> bool {
        self.is_writable(path)
    }

    /// Whether a directory may be made there.
    pub(super) fn may_make_directory(&self, path: &Path, mode: Mode) -> bool {
        is_private_name(path) && mode == Mode::RWXU
    }

    /// Whether what was found at `path` may be removed, or another name be given to it.
    pub(super) fn may_remove(&self, path: &Path, found: &Stat) -> bool {
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Socket => true,
            FileType::Directory => is_private(path),
            _ => path.parent().is_some_and(is_private),
        }
    }

    /// Whether this may get other rights or another group.
    pub(super) fn may_change(&self, found: &Stat) -> bool {
        FileType::from_raw_mode(found.st_mode) == FileType::Socket
    }

    /// Whether the socket at `path` may be connected to.
    pub(super) fn may_connect(&self, path: &Path) -> bool {
        !is_door(path)
    }

    fn is_readable(&self, path: &Path) -> bool {
        let own = Path::new("/proc").join(self.process.to_string());
        let own_file = path.strip_prefix(own).is_ok_and(|rest| {
            let name = rest.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let place = rest.parent().unwrap_or(Path::new(""));
            OWN_FILES.contains(&name) && (place == Path::new("") || place.starts_with("task"))
        });
        own_file
            || is_within(path, READABLE)
            || READABLE_FILES.iter().any(|file| path == Path::new(file))
            || path.extension().is_some_and(|extension| extension == CONFIGURATION)
            || path.starts_with("/usr/share/zoneinfo")
    }

    fn is_writable(&self, path: &Path) -> bool {
        is_within(path, WRITABLE) || self.writable.iter().any(|directory| path.starts_with(directory))
    }
}

/// Whether one becomes root at this socket.
pub(in crate::sandbox) fn is_door(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    DOORS.iter().any(|door| path.starts_with(door.as_bytes()))
}

/// Whether it is where libraries are.
pub(super) fn is_library(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    LIBRARIES.iter().any(|place| path.starts_with(place.as_bytes()))
}

fn is_device(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    DEVICES.iter().any(|device| path == Path::new(device))
        || DEVICE_PREFIXES.iter().any(|prefix| {
            bytes
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| !rest.is_empty() && !rest.contains(&b'/'))
        })
}

fn is_within(path: &Path, places: &[&str]) -> bool {
    let bytes = path.as_os_str().as_bytes();
    places.iter().any(|place| bytes.starts_with(place.as_bytes()) || path == Path::new(place))
}

/// Whether it is a directory of ours, or lies in one.
fn is_private(path: &Path) -> bool {
    path.components().any(|component| match component {
        Component::Normal(name) => starts_private(name.as_bytes()),
        _ => false,
    })
}

fn is_private_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| starts_private(name.as_bytes()))
}

fn starts_private(name: &[u8]) -> bool {
    PRIVATE.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: FileType) -> Stat {
        let mut stat = rustix::fs::stat("/").expect("there is a root");
        stat.st_mode = kind.as_raw_mode() | 0o700;
        stat
    }

    fn opens(path: &str, kind: FileType, flags: OFlags) -> bool {
        let policy = Policy::new(42, vec!["/srv/captures".into(), "/".into()]);
        policy.may_open(Path::new(path), &found(kind), flags)
    }

    #[test]
    fn files_are_read_that_a_switch_needs_and_no_others() {
        let reads = |path| opens(path, FileType::RegularFile, OFlags::RDONLY);
        for path in [
            "/etc/resolv.conf",
            "/home/me/yard.toml",
            "/proc/42/status",
            "/proc/42/task/43/stat",
            "/sys/devices/virtual/net/tap0/ifindex",
            "/run/systemd/resolve/stub-resolv.conf",
        ] {
            assert!(reads(path), "{path}");
        }
        for path in [
            "/etc/shadow",
            "/etc/resolv.conf.old",
            "/proc/42/mem",
            "/proc/42/environ",
            "/proc/42/root/etc/status",
            "/proc/1/status",
            "/proc/421/status",
            "/root/yard.toml.key",
            "/sys/class/network",
        ] {
            assert!(!reads(path), "{path}");
        }
    }

    #[test]
    fn captures_are_written_where_captures_are_and_nowhere_else() {
        let policy = Policy::new(42, vec!["/srv/captures".into(), "/".into()]);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        for (path, may) in [
            ("/tmp/a.pcap", true),
            ("/srv/captures/a.pcap", true),
            ("/srv/captures.old/a.pcap", false),
            ("/etc/a.pcap", false),
            ("/home/me/.ssh/authorized_keys", false),
            ("/usr/bin/true", false),
        ] {
            assert_eq!(policy.may_create(Path::new(path)), may, "{path}");
            assert_eq!(opens(path, FileType::RegularFile, flags), may, "{path}");
            assert!(!opens(path, FileType::RegularFile, OFlags::RDONLY), "captures are not read: {path}");
        }
        assert!(!opens("/home/me/yard.toml", FileType::RegularFile, OFlags::RDWR));
        assert!(!opens("/etc/resolv.conf", FileType::RegularFile, OFlags::RDONLY | OFlags::TRUNC));
    }

    #[test]
    fn devices_are_those_of_netdevs() {
        let uses = |path| opens(path, FileType::CharacterDevice, OFlags::RDWR);
        for path in ["/dev/net/tun", "/dev/tap7", "/dev/vhost-vdpa-0", "/dev/vduse/yard", "/dev/netmap"] {
            assert!(uses(path), "{path}");
        }
        for path in ["/dev/mem", "/dev/tap", "/dev/vduse/a/b", "/dev/kvm", "/dev/vhost-net", "/dev/uinput"] {
            assert!(!uses(path), "{path}");
        }
        assert!(!opens("/dev/net/tun", FileType::BlockDevice, OFlags::RDWR));
        assert!(opens("net:[4026531840]", FileType::RegularFile, OFlags::RDONLY), "a namespace");
    }

    #[test]
    fn what_is_removed_or_changed_is_a_socket_or_lies_in_a_directory_of_ours() {
        let policy = Policy::new(42, Vec::new());
        let (socket, file) = (found(FileType::Socket), found(FileType::RegularFile));
        assert!(policy.may_remove(Path::new("/run/vm.sock"), &socket) && policy.may_change(&socket));
        assert!(!policy.may_remove(Path::new("/run/vm.pid"), &file) && !policy.may_change(&file));
        assert!(policy.may_remove(Path::new("/tmp/ringyard-user-1-2/smb.conf"), &file));
        let directory = found(FileType::Directory);
        assert!(policy.may_remove(Path::new("/run/.ringyard-7-0"), &directory));
        assert!(!policy.may_remove(Path::new("/run/lock"), &directory));
        assert!(policy.may_make_directory(Path::new("/run/.ringyard-7-0"), Mode::RWXU));
        assert!(!policy.may_make_directory(Path::new("/run/.ringyard-7-0"), Mode::from_raw_mode(0o777)));
        assert!(!policy.may_make_directory(Path::new("/run/other"), Mode::RWXU));
    }

    #[test]
    fn nobody_is_asked_to_do_as_an_administrator_does() {
        let policy = Policy::new(42, Vec::new());
        for path in
            ["/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/user/0/bus"]
        {
            assert!(!policy.may_connect(Path::new(path)), "{path}");
        }
        for path in ["/run/vm.sock", "/run/systemd/notify", "/run/libvirt/qemu/vm.sock", "/run/vde.ctl/ctl"] {
            assert!(policy.may_connect(Path::new(path)), "{path}");
        }
    }
}
