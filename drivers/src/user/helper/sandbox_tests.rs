//! A child process is confined as the helper is, and then tries what a guest that took it over would try.

#![allow(unsafe_code)] // fork and system calls that nobody should make

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::pipe::pipe;
use rustix::process::{WaitOptions, waitpid};

use super::*;
use crate::user::helper::namespaces::{Side, split};
use crate::user::helper::root::{self, Shared};

/// What `attempt` reports from inside a confined child, which has a root of its own if `rooted`.
fn inside(rooted: bool, tftp: Option<&Path>, connects: bool, attempt: impl FnOnce() -> String) -> String {
    inside_after(|| {}, rooted, tftp, connects, attempt)
}

/// The same in a child that `prepare` made other than this process.
fn inside_after(
    prepare: impl FnOnce(),
    rooted: bool,
    tftp: Option<&Path>,
    connects: bool,
    attempt: impl FnOnce() -> String,
) -> String {
    in_child(prepare, |namespaces| {
        let rooted = rooted && namespaces.own;
        if rooted {
            let shared = Shared::open(tftp, None).expect("it can be opened");
            root::enter(&shared).expect("it can be entered");
        }
        let tftp = tftp.map(|path| if rooted { root::TFTP.into() } else { path.to_owned() });
        match confine(&Needs { namespaces, rooted, tftp, connects }) {
            Ok(how) => format!("{how}\n{}", attempt()),
            Err(why) => format!("not confined: {why}"),
        }
    })
}

/// What `act` says in the namespaces that a child process gets which did `prepare`.
fn in_child(prepare: impl FnOnce(), act: impl FnOnce(Namespaces) -> String) -> String {
    let (reader, writer) = pipe().expect("a pipe can be made");
    // SAFETY: the child makes no use of what other threads of the tests may hold, but for memory, whose lock fork keeps.
    match unsafe { libc::fork() } {
        0 => {
            drop(reader);
            prepare();
            let said = match split() {
                Ok(Side::Child(namespaces)) => act(namespaces),
                // The child is the one that speaks, and ends with its parent.
                Ok(Side::Parent(child)) => {
                    let ended = waitpid(Some(child), WaitOptions::empty()).ok().flatten();
                    let signal = ended.and_then(|(_, status)| status.terminating_signal());
                    signal.map(|signal| format!("killed by {signal}")).unwrap_or_default()
                }
                Err(error) => format!("no child: {error}"),
            };
            let _ = File::from(writer).write_all(said.as_bytes());
            // SAFETY: ends the child without the tests' own exit handlers.
            unsafe { libc::_exit(0) };
        }
        _ => {
            drop(writer);
            let mut said = String::new();
            File::from(reader).read_to_string(&mut said).expect("children close it");
            said
        }
    }
}

/// Makes this process one that a user started who is not root.
fn become_user() {
    let user = Uid::from_raw(4321);
    set_thread_res_uid(user, user, user).expect("tests are root's");
    // As a program that this user starts.
    set_dumpable_behavior(DumpableBehavior::Dumpable).expect("it may be");
}

/// Has this process's `call`s fail that meet `condition`.
fn deny(call: libc::c_long, condition: Option<Check>) {
    let refused = Verdict::Fail(libc::EACCES);
    let rule = match condition {
        Some(check) => Rule { call, cases: vec![(vec![check], refused)], otherwise: Verdict::Allow },
        None => Rule::always(call, refused),
    };
    Program::new(&[rule], Verdict::Allow).install().expect("tests are root's");
}

/// `name` and how the system call ended.
fn call(name: &str, number: libc::c_long, arguments: [libc::c_long; 4]) -> String {
    let [a, b, c, d] = arguments;
    // SAFETY: each caller passes numbers and addresses of constants only.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    let error = std::io::Error::last_os_error();
    format!("{name}: {}", if result < 0 { error.raw_os_error().unwrap_or_default() } else { 0 })
}

fn forbidden() -> String {
    let parent = libc::c_long::from(std::os::unix::process::parent_id());
    let path = |text: &'static std::ffi::CStr| text.as_ptr() as libc::c_long;
    let (packet, raw) = (libc::c_long::from(libc::AF_PACKET), libc::c_long::from(libc::SOCK_RAW));
    let here = libc::c_long::from(libc::AT_FDCWD);
    let (inet, netlink) = (libc::c_long::from(libc::AF_INET), libc::c_long::from(libc::AF_NETLINK));
    let (unix, stream) = (libc::c_long::from(libc::AF_UNIX), libc::c_long::from(libc::SOCK_STREAM));
    let executable = libc::c_long::from(libc::PROT_EXEC | libc::PROT_READ);
    let clone = libc::c_long::from(libc::SIGCHLD);
    [
        call("kill", libc::SYS_kill, [parent.max(1), 0, 0, 0]),
        call("ptrace", libc::SYS_ptrace, [libc::c_long::from(libc::PTRACE_ATTACH), parent.max(1), 0, 0]),
        call("packet", libc::SYS_socket, [packet, raw, 0, 0]),
        call("raw", libc::SYS_socket, [inet, raw, 0, 0]),
        call("netlink", libc::SYS_socket, [netlink, raw, 0, 0]),
        call("unix", libc::SYS_socket, [unix, stream, 0, 0]),
        call("execve", libc::SYS_execve, [path(c"/bin/true"), 0, 0, 0]),
        call("clone", libc::SYS_clone, [clone, 0, 0, 0]),
        call(
            "write",
            libc::SYS_openat,
            [here, path(c"/tmp/x"), libc::c_long::from(libc::O_CREAT | libc::O_WRONLY), 0],
        ),
        call("mkdir", libc::SYS_mkdirat, [here, path(c"/tmp/x"), 0o700, 0]),
        call("mount", libc::SYS_mount, [path(c"none"), path(c"/"), path(c"tmpfs"), 0]),
        call("unshare", libc::SYS_unshare, [libc::c_long::from(libc::CLONE_NEWUSER), 0, 0, 0]),
        call("setuid", libc::SYS_setuid, [0, 0, 0, 0]),
        call("bpf", libc::SYS_bpf, [0, 0, 0, 0]),
        call("prctl", libc::SYS_prctl, [libc::c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0]),
        call("mprotect", libc::SYS_mprotect, [0, 4096, executable, 0]),
    ]
    .join("\n")
}

#[test]
fn forbidden_acts_are_stopped() {
    for rooted in [true, false] {
        let said = inside(rooted, None, false, forbidden);
        let mut lines = said.lines();
        let how = lines.next().unwrap_or_default();
        assert!(how.contains("namespaces") && how.contains("Landlock") && how.ends_with("seccomp"), "{how}");
        assert!(!how.starts_with("uid 0,"), "{how}");
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 16, "{said}");
        for line in lines {
            assert!(line.ends_with(&format!(": {}", libc::EPERM)), "{line} in {how}");
        }
    }
}

#[test]
fn who_is_not_root_is_confined_as_well() {
    let said = inside_after(become_user, true, None, false, forbidden);
    let (how, rest) = said.split_once('\n').unwrap_or_default();
    assert!(
        how.starts_with("uid 4321, user, mount, pid, ipc and uts namespaces, a root of its own, Landlock"),
        "{said}"
    );
    assert_eq!(
        rest.lines().filter(|line| line.ends_with(&format!(": {}", libc::EPERM))).count(),
        16,
        "{said}"
    );
}

/// As where AppArmor restricts user namespaces: they can be made, and nothing can be done in them.
#[test]
fn user_namespace_in_which_nothing_is_permitted_is_done_without() {
    let prepare = || {
        let writing = Check { argument: 2, mask: libc::O_ACCMODE as u32, value: libc::O_WRONLY as u32 };
        deny(libc::SYS_openat, Some(writing));
        become_user();
    };
    let said = inside_after(prepare, true, None, false, forbidden);
    let (how, rest) = said.split_once('\n').unwrap_or_default();
    assert!(how.starts_with("uid 4321, no namespaces, the host's root, Landlock"), "{said}");
    assert_eq!(rest.lines().count(), 16, "{said}");
}

/// As where the root directory is that of an initramfs, or no mount.
#[test]
fn root_that_cannot_be_entered_leaves_everything_where_it_was() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().display();
    let said = in_child(
        || {
            std::env::set_current_dir(directory.path()).expect("it is ours");
            deny(libc::SYS_pivot_root, None);
        },
        |_| {
            let mounts = || fs::read_to_string("/proc/self/mountinfo").map(|text| text.lines().count()).ok();
            let before = mounts();
            let shared = Shared::open(Some(directory.path()), None).expect("it can be opened");
            let entered = root::enter(&shared).is_ok();
            let here = std::env::current_dir().unwrap_or_default();
            let there = fs::exists(directory.path()).unwrap_or_default();
            format!("{entered} {} {there} {}", here.display(), mounts() == before)
        },
    );
    assert_eq!(said, format!("false {path} true true"));
}

#[test]
fn a_fault_ends_it() {
    let said = inside(true, None, false, || {
        // SAFETY: none: this is the fault that the test is about.
        unsafe { std::ptr::null_mut::<u32>().write_volatile(7) };
        "it went on".into()
    });
    assert_eq!(said, format!("killed by {}", libc::SIGSEGV));
    let said = inside(true, None, false, || std::process::abort());
    assert!(said.starts_with("killed by "), "{said}");
}

#[test]
fn no_file_but_its_own_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), mode).expect("it is ours");
    fs::write(directory.path().join("kernel"), "boot me").expect("it is ours");
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).expect("it is ours");
    let tried = |path: &str| match fs::read(path) {
        Ok(bytes) => format!("{path}: {}", bytes.len()),
        Err(error) => format!("{path}: {:?}", error.kind()),
    };
    let said = inside(true, Some(directory.path()), false, || {
        ["/tftp/kernel", "/tftp/link", "/etc/passwd", "/proc/self/maps", "/etc/hostname"]
            .map(tried)
            .join("\n")
    });
    assert!(said.contains("/tftp/kernel: 7"), "{said}");
    for gone in ["/tftp/link", "/etc/passwd", "/proc/self/maps", "/etc/hostname"] {
        assert!(said.contains(&format!("{gone}: NotFound")), "{said}");
    }
    let at = |name: &str| format!("{}/{name}", directory.path().display());
    let (kernel, link) = (at("kernel"), at("link"));
    let said = inside(false, Some(directory.path()), false, || {
        [&kernel, &link, "/etc/passwd", "/proc/self/maps", root::RESOLV_CONF].map(tried).join("\n")
    });
    assert!(said.contains(&format!("{kernel}: 7")), "{said}");
    for gone in [&link, "/etc/passwd", "/proc/self/maps"] {
        assert!(said.contains(&format!("{gone}: PermissionDenied")), "{said}");
    }
    if let Ok(bytes) = fs::read(root::RESOLV_CONF) {
        assert!(said.contains(&format!("{}: {}", root::RESOLV_CONF, bytes.len())), "{said}");
    }
}

#[test]
fn what_libslirp_does_is_permitted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback interface");
    let address = listener.local_addr().expect("it is bound");
    let said = inside(true, None, false, || {
        let connected = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            stream.write_all(b"hello")
        });
        let bound = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", address));
        let heard = TcpListener::bind("127.0.0.1:0").map(drop);
        format!("{:?} {:?} {:?}", connected.is_ok(), bound.is_ok(), heard.is_ok())
    });
    assert!(said.ends_with("\ntrue true true"), "{said}");
}

#[test]
fn unix_sockets_are_reached_only_where_programs_wait_behind_them() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(directory.path(), mode).expect("it is ours");
    let path = directory.path().join("socket");
    let _listener = UnixListener::bind(&path).expect("a socket can be made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(&path, mode).expect("it is ours");
    for (connects, expected) in [(true, "true"), (false, "false")] {
        let said = inside(false, None, connects, || UnixStream::connect(&path).is_ok().to_string());
        assert!(said.ends_with(expected), "{said}");
    }
}
