//! A switch that was taken over can do nothing but a switch's work: its threads are made to try the rest.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use ringyard_benches::guest::GuestConfig;
use ringyard_tests::deadline::wait_for;
use ringyard_tests::netns::Netns;
use ringyard_tests::process::{Process, command};
use ringyard_tests::puppet::{Outcome, Puppet};
use ringyard_tests::qmp::Qmp;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Error, Result, tools};
use serde_json::json;

/// A thread that waits for work, for a process that has the process's own filter only.
const ANY: &str = "reaper";
const WORKER: &str = "worker 0";
const EPERM: Outcome = Outcome::Returned(-(libc::EPERM as i64));
const HERE: u64 = libc::AT_FDCWD as u64;

/// The lines of `/proc/PID/task/TID/status` that say what a thread may do, by its name.
fn threads(process: u32) -> Result<Vec<(String, String)>> {
    let tasks = format!("/proc/{process}/task");
    let mut threads = Vec::new();
    for task in fs::read_dir(&tasks).doing(format!("listing {tasks}"))?.flatten() {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        threads.push((name.trim().to_owned(), status));
    }
    Ok(threads)
}

fn says(status: &str, name: &str, value: &str) -> bool {
    status.lines().any(|line| line.split_once(":\t") == Some((name, value)))
}

/// The opener's process, as the log has it.
fn opener(log: &str) -> Option<u32> {
    log.split("opener ").nth(1)?.split(';').next()?.parse().ok()
}

#[test]
fn every_thread_is_locked_and_workers_are_locked_twice() -> Result<()> {
    let mut switch = Switch::start(&["--workers", "2"])?;
    let _guest = switch.plug_guest(0, &GuestConfig::default())?;
    let log = switch.process().log();
    assert!(log.contains("sandbox: seccomp, Landlock"), "{log}");
    assert!(log.contains("; 12 system calls for a worker") || log.contains("; 13 system"), "{log}");
    let threads = threads(switch.process().id())?;
    assert!(threads.len() > 6, "{threads:?}");
    // Where the limit of locked memory cannot be raised, the right to ignore it is kept, for AF_XDP.
    let locking = log.contains("no capabilities but that of locking memory");
    let rights = if locking { "0000000000004000" } else { "0000000000000000" };
    for (name, status) in threads {
        let filters = if name.starts_with("worker") { "2" } else { "1" };
        for (what, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Seccomp_filters", filters),
            ("CapEff", rights),
            ("CapPrm", rights),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
        ] {
            assert!(says(&status, what, value), "{name}: {what} is not {value}:\n{status}");
        }
    }
    switch.finish()
}

#[test]
fn p25_guest_memory_is_in_no_core() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let _guest = switch.plug_guest(0, &GuestConfig::default())?;
    let path = format!("/proc/{}/smaps", switch.process().id());
    let maps = fs::read_to_string(&path).doing(format!("reading {path}"))?;
    // Each mapping's lines begin with its own and end with its flags. Guests' memory is of memory files.
    let mut foreign = 0;
    for mapping in maps.split_inclusive("VmFlags:").collect::<Vec<_>>().windows(2) {
        let head = mapping[0].lines().rfind(|line| line.contains(" rw-s "));
        let flags = mapping[1].lines().next().unwrap_or_default();
        if head.is_some_and(|head| head.contains("/memfd:")) {
            foreign += 1;
            assert!(flags.split(' ').any(|flag| flag == "dd"), "{head:?}: {flags}");
        }
    }
    assert!(foreign > 0, "{maps}");
    switch.finish()
}

#[test]
fn without_the_sandbox_nothing_is_locked() -> Result<()> {
    let switch = Switch::start(&["--no-sandbox"])?;
    wait_for("the word of it", Duration::from_secs(5), || {
        Ok(switch.process().log().contains("sandbox: none, as --no-sandbox says").then_some(()))
    })?;
    for (name, status) in threads(switch.process().id())? {
        assert!(says(&status, "Seccomp", "0") && says(&status, "NoNewPrivs", "0"), "{name}: {status}");
    }
    switch.finish()
}

#[test]
fn what_the_switch_has_no_business_with_is_refused_and_logged() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    switch.expect_refusals();
    let own = switch.path("file");
    fs::write(&own, "somebody's").doing("making a file")?;
    let own = own.display().to_string();
    let parent = u64::from(std::process::id());
    {
        let mut puppet = Puppet::stop(switch.process().id(), ANY)?;
        let open = |puppet: &mut Puppet, path: &str, flags: i32| {
            let path = puppet.put_text(path)?;
            puppet.call(libc::SYS_openat, &[HERE, path, flags as u64, 0o600])
        };
        for path in ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/dev/mem", "/dev/kmsg", "/root", &own]
        {
            let outcome = open(&mut puppet, path, libc::O_RDONLY)?;
            let missing = outcome == Outcome::Returned(-(libc::ENOENT as i64)) && !Path::new(path).exists();
            assert!(outcome == EPERM || missing, "{path}: {outcome:?}");
        }
        let memory = format!("/proc/{parent}/mem");
        assert_eq!(open(&mut puppet, &memory, libc::O_RDWR)?, EPERM);
        assert_eq!(open(&mut puppet, "/proc/self/mem", libc::O_RDWR)?, EPERM);
        let making = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        for path in ["/etc/cron.d/ringyard", "/root/.ssh/authorized_keys2", "/etc/passwd", "/usr/bin/true"] {
            let outcome = open(&mut puppet, path, making)?;
            let missing = outcome == Outcome::Returned(-(libc::ENOENT as i64));
            assert!(outcome == EPERM || missing, "{path}: {outcome:?}");
            assert!(!path.contains("ringyard") || !Path::new(path).exists());
        }
        let (text, directory) = (puppet.put_text(&own)?, puppet.put_text("/tmp/x-ringyard")?);
        let link = puppet.put_text(&switch.path("link").display().to_string())?;
        for (what, number, arguments) in [
            ("removing a file", libc::SYS_unlinkat, [HERE, text, 0, 0, 0]),
            ("renaming a file", libc::SYS_renameat2, [HERE, text, HERE, link, 0]),
            ("changing its mode", libc::SYS_fchmodat, [HERE, text, 0o777, 0, 0]),
            ("changing its owner", libc::SYS_fchownat, [HERE, text, 1, 1, 0]),
            ("making a directory", libc::SYS_mkdirat, [HERE, directory, 0o700, 0, 0]),
            ("making a link", libc::SYS_symlinkat, [text, HERE, link, 0, 0]),
            ("making a device", libc::SYS_mknodat, [HERE, link, 0o20600, 0x0101, 0]),
            ("raw IP", libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_RAW as u64, 1, 0, 0]),
            ("a key socket", libc::SYS_socket, [libc::AF_KEY as u64, libc::SOCK_RAW as u64, 2, 0, 0]),
            ("a process", libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0]),
            ("a signal", libc::SYS_kill, [parent, 0, 0, 0, 0]),
            ("a signal to a thread", libc::SYS_tgkill, [parent, parent, 0, 0, 0]),
            ("another's handle", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0]),
            ("another's limits", libc::SYS_prlimit64, [parent, 7, 0, 0, 0]),
            ("another user", libc::SYS_setuid, [1, 0, 0, 0, 0]),
            ("rights", libc::SYS_capset, [0, 0, 0, 0, 0]),
            ("dumps", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0]),
            ("a terminal's input", libc::SYS_ioctl, [0, libc::TIOCSTI, text, 0, 0]),
            ("another directory", libc::SYS_chdir, [directory, 0, 0, 0, 0]),
            ("a name for the host", libc::SYS_sethostname, [text, 1, 0, 0, 0]),
        ] {
            assert_eq!(puppet.call(number, &arguments)?, EPERM, "{what}");
        }
    }
    assert_eq!(fs::read_to_string(&own).doing("reading the file")?, "somebody's");
    let log = switch.process().log();
    assert!(log.contains("the sandbox does not permit opening of /etc/shadow"), "{log}");
    switch.finish()
}

#[test]
fn a_worker_opens_and_makes_nothing_at_all() -> Result<()> {
    let switch = Switch::start(&[])?;
    let null = switch.path("x").display().to_string();
    {
        let mut worker = Puppet::stop(switch.process().id(), WORKER)?;
        let path = worker.put_text(&null)?;
        let stream = libc::SOCK_STREAM as u64;
        for (what, number, arguments) in [
            ("opening", libc::SYS_openat, [HERE, path, libc::O_RDONLY as u64]),
            ("a place", libc::SYS_openat, [HERE, path, libc::O_PATH as u64]),
            ("a socket", libc::SYS_socket, [libc::AF_INET as u64, stream, 0]),
            ("a unix socket", libc::SYS_socket, [libc::AF_UNIX as u64, stream, 0]),
            ("a connection", libc::SYS_connect, [0, path, 16]),
            ("a message with descriptors", libc::SYS_sendmsg, [0, path, 0]),
            ("writing", libc::SYS_write, [2, path, 1]),
            ("a copy", libc::SYS_fcntl, [0, libc::F_DUPFD as u64, 0]),
            ("an ioctl", libc::SYS_ioctl, [0, libc::FIONREAD, path]),
            ("a memory file", libc::SYS_memfd_create, [path, 0, 0]),
            ("a thread", libc::SYS_clone, [libc::CLONE_THREAD as u64, 0, 0]),
            ("a signal", libc::SYS_tgkill, [u64::from(switch.process().id()), 0, 0]),
            ("a filter", libc::SYS_seccomp, [0, 0, 0]),
            ("memory's rights", libc::SYS_mprotect, [0, 0, 3]),
        ] {
            assert_eq!(worker.call(number, &arguments)?, EPERM, "{what}");
        }
    }
    switch.finish()
}

#[test]
fn programs_that_the_start_has_not_named_are_not_started() -> Result<()> {
    let directory = tempfile::tempdir().doing("making a directory")?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    for name in ["named", "permitted", "other"] {
        fs::write(path(name), "#!/bin/sh\necho \"$1\" >\"$0.ran\"\n").doing("writing a script")?;
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).doing("making it executable")?;
    }
    let netns = Netns::new()?;
    let named = format!("tap,id=t0,ifname=t0,script={},downscript=no", path("named"));
    let mut switch = Switch::start_in(&netns, &["-netdev", &named, "--may-run", &path("permitted")])?;
    assert_eq!(fs::read_to_string(path("named.ran")).doing("asking the script")?, "t0\n");
    let tap = |id: &str, script: &str| json!({"type": "tap", "id": id, "ifname": id, "script": script, "downscript": "no"});
    switch.order("netdev_add", tap("t1", &path("permitted")))?;
    assert_eq!(fs::read_to_string(path("permitted.ran")).doing("asking the script")?, "t1\n");
    let user = |rule: &str| json!({"type": "user", "id": "u0", "guestfwd": [{"str": rule}]});
    for (netdev, program) in [
        (tap("t2", &path("other")), path("other")),
        (json!({"type": "tap", "id": "t2", "helper": path("other")}), path("other")),
        (json!({"type": "tap", "id": "t2", "helper": "/bin/echo hello ;"}), "/bin/echo hello ;".into()),
        (user("tcp:10.0.2.100:80-cmd:/bin/sh -c reboot"), "/bin/sh".into()),
        (json!({"type": "user", "id": "u0", "smb": path("")}), "/usr/sbin/smbd".into()),
    ] {
        let refused = switch.qmp().execute("netdev_add", netdev.clone()).expect_err("nobody named it");
        assert!(refused.desc.contains("the sandbox starts no program"), "{netdev}: {}", refused.desc);
        assert!(refused.desc.contains(&format!("--may-run {program}")), "{netdev}: {}", refused.desc);
    }
    let door = user("tcp:10.0.2.100:80-unix:/run/docker.sock");
    assert!(switch.qmp().execute("netdev_add", door).is_err());
    assert!(!Path::new(&path("other.ran")).exists());
    switch.finish()
}

/// A switch without a rig: it is not going to end well.
fn victim(directory: &Path) -> Result<Process> {
    let socket = directory.join("monitor");
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["run", "-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
    let mut process = Process::start("ringyard", ringyard, directory)?;
    wait_for("the monitor", Duration::from_secs(20), || {
        process.expect_running()?;
        Ok(socket.exists().then_some(()))
    })?;
    Ok(process)
}

#[test]
fn what_only_an_intruder_does_ends_the_process() -> Result<()> {
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    for (what, number, arguments) in [
        ("a program", libc::SYS_execve, [0; 4]),
        ("another process", libc::SYS_ptrace, [libc::PTRACE_ATTACH as u64, 1, 0, 0]),
        ("another process's memory", libc::SYS_process_vm_readv, [1, 0, 0, 0]),
        ("a mount", libc::SYS_mount, [0; 4]),
        ("bpf", libc::SYS_bpf, [0; 4]),
        ("io_uring", libc::SYS_io_uring_setup, [0; 4]),
        ("a namespace", libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0]),
        ("code", libc::SYS_mmap, [0, 4096, executable, anonymous]),
    ] {
        for thread in [ANY, WORKER] {
            let directory = tempfile::tempdir().doing("making a directory")?;
            let mut process = victim(directory.path())?;
            let mut puppet = Puppet::stop(process.id(), thread)?;
            let outcome = puppet.call(number, &arguments)?;
            assert_eq!(outcome, Outcome::Killed(libc::SIGSYS), "{what}, by {thread}");
            process.wait_for_exit(Duration::from_secs(5))?;
        }
    }
    Ok(())
}

#[test]
fn when_the_opener_ends_ports_go_on_and_what_opens_says_so() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let sender = switch.plug_guest(0, &GuestConfig::default())?;
    let receiver = switch.plug_guest(1, &GuestConfig::default())?;
    let id = opener(&switch.process().log()).ok_or_else(|| Error::new("no opener in the log"))?;
    let id = rustix::process::Pid::from_raw(id as i32).ok_or_else(|| Error::new("no process"))?;
    rustix::process::kill_process(id, rustix::process::Signal::KILL).doing("killing the opener")?;
    wait_for("the news", Duration::from_secs(10), || {
        Ok(switch.process().log().contains("nothing can be opened").then_some(()))
    })?;
    let path = switch.path("late.sock").display().to_string();
    let chardev = json!({"id": "late", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": path}}, "server": true, "wait": false}}});
    let refused = switch.qmp().execute("chardev-add", chardev);
    let why = refused.expect_err("nobody is there to make a socket").to_string();
    assert!(why.contains("has ended: restart the switch"), "{why}");
    let mut guests = [sender, receiver];
    assert!(guests[0].guest.pair().send.send(&[0xff; 60]), "a fresh ring has room");
    guests[0].guest.pair().send.flush();
    switch.wait_stats("a frame", Duration::from_secs(10), |stats| {
        stats.port("g1").is_some_and(|port| port.egress.frames > 0)
    })?;
    drop(guests);
    switch.process().log();
    Ok(())
}

#[test]
fn an_ordinary_user_has_all_ports_that_take_no_privilege() -> Result<()> {
    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().doing("making a directory")?;
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).doing("giving the directory away")?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).doing("setting its mode")?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    // Where a user may execute it, wherever it was built.
    let program = path("ringyard");
    fs::copy(tools::switch_binary()?, &program).doing("copying the switch")?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).doing("setting its mode")?;
    let mut setpriv = command("setpriv")?;
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", &program, "run"]);
    setpriv.current_dir(directory.path());
    let monitor = path("monitor");
    for argument in [
        "-qmp",
        &format!("unix:{monitor},server=on,wait=off"),
        "-chardev",
        &format!("socket,id=c,path={},server=on,wait=off", path("vm")),
        "-netdev",
        "vhost-user,id=v,chardev=c",
        "-netdev",
        &format!("stream,id=s,server=on,addr.type=unix,addr.path={}", path("stream")),
        "-netdev",
        "stream,id=t,server=on,addr.type=inet,addr.host=localhost,addr.port=0",
        "-netdev",
        &format!(
            "dgram,id=d,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path("a"),
            path("b")
        ),
        "-netdev",
        "l2tpv3,id=l,src=127.0.0.1,dst=127.0.0.2,udp=on,srcport=0,dstport=1701,txsession=1,rxsession=1",
        "-netdev",
        "user,id=u",
        "-object",
        &format!("filter-dump,id=f,netdev=d,file={}", path("capture")),
    ] {
        setpriv.arg(argument);
    }
    let mut process = Process::start("ringyard", setpriv, directory.path())?;
    let ready = |log: &str| log.contains("ready: ").then_some(());
    process.wait_for_log("readiness", 0, Duration::from_secs(30), ready)?;
    let log = process.log();
    assert!(
        log.contains("sandbox: seccomp, Landlock, no capabilities") && !log.contains("not permit"),
        "{log}"
    );
    let mut qmp = Qmp::connect(Path::new(&monitor), Duration::from_secs(10))?;
    let stats = qmp.execute("x-query-stats", json!({})).doing("asking for the counters")?;
    assert_eq!(stats["ports"].as_array().map(Vec::len), Some(6), "{stats}");
    drop(qmp);
    let status = process.terminate(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    assert!(!Path::new(&path("vm")).exists(), "sockets are removed");
    Ok(())
}
