//! Helpers that mean harm or die: shell scripts in place of the real one. What the real one does is tested with guests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::port::IngressScratch;
use tempfile::TempDir;

use super::*;
use crate::line::{News, PortKey, Switchboard};

fn options() -> UserOptions {
    let address = |text: &str| text.parse().expect("an address");
    UserOptions {
        restrict: false,
        ipv4: Ipv4Side {
            enabled: true,
            network: address("10.0.2.0"),
            mask: address("255.255.255.0"),
            host: address("10.0.2.2"),
            dhcp_start: address("10.0.2.15"),
            dns: address("10.0.2.3"),
        },
        ipv6: Ipv6Side {
            enabled: false,
            prefix: "fec0::".parse().expect("an address"),
            prefix_len: 64,
            host: "fec0::2".parse().expect("an address"),
            dns: "fec0::3".parse().expect("an address"),
        },
        hostname: None,
        tftp: None,
        tftp_server_name: None,
        bootfile: None,
        dns_search: Vec::new(),
        domain_name: None,
        smb: None,
        host_forwards: Vec::new(),
        guest_forwards: Vec::new(),
    }
}

/// A program in place of the helper. Its standard input and output are sockets: it answers on the first.
struct Fake(TempDir);

impl Fake {
    fn new(script: &str) -> Fake {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("helper");
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("it is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Fake(directory)
    }

    fn open(&self) -> Result<UserPort, String> {
        let program = self.0.path().join("helper");
        let launch = Launch { program, ..Launch::new(0o600, None) };
        UserPort::open("u0", options(), launch)
    }
}

const READY: &str = r#"read -r start; echo '{"Ready":"a fake"}' >&0"#;

/// Polls until `enough`; the lengths of the frames, and the drops.
fn poll(attachment: &Attachment, enough: impl Fn(usize, u64) -> bool) -> (Vec<usize>, IngressScratch) {
    let mut scratch = IngressScratch::default();
    let mut lens = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !enough(lens.len(), scratch.tally.dropped()) {
        assert!(Instant::now() < deadline, "{lens:?}, {:?}", scratch.tally);
        for end in &attachment.ingress {
            end.doorbell.disarm();
            end.ingress.poll(&mut scratch, &mut |burst: &Burst<'_>| {
                lens.extend(burst.frames().map(|frame| frame.len()));
                Taken::ALL
            });
        }
        thread::yield_now();
    }
    (lens, scratch)
}

#[test]
fn helper_that_does_not_get_ready_is_an_error_with_what_it_said() {
    for (script, expected) in [
        ("exit 1", "does not get ready"),
        ("echo why not >&2; exit 1", "why not"),
        (r"read -r start; echo 'nonsense' >&0; sleep 100", "does not get ready"),
        (r#"read -r start; echo '"Done"' >&0; sleep 100"#, "answers something else"),
        (r#"read -r start; echo '{"Failed":"no such thing"}' >&0"#, "no such thing"),
        ("kill -SEGV $$", "does not get ready"),
    ] {
        let began = Instant::now();
        let why = Fake::new(script).open().err().unwrap_or_else(|| panic!("{script}"));
        assert!(why.contains(expected), "{script}: {why}");
        assert!(began.elapsed() < Duration::from_secs(5), "{script} took {:?}", began.elapsed());
    }
    let launch = Launch { program: "/no/such/program".into(), ..Launch::new(0o600, None) };
    let why = UserPort::open("u0", options(), launch).err().expect("it is not there");
    assert!(why.starts_with("starting the helper process: "), "{why}");
}

#[test]
fn s03_messages_that_are_no_frames_are_dropped_and_counted_and_frames_pass() {
    // A message a write: none, 1 byte, 13, a frame, one that is longer than any frame, a frame.
    let script = r#"
        exec 3>&1 >/dev/null
        perl -e 'for (0, 1, 13, 60, 70000, 1514) { syswrite(STDERR, "x" x $_) // die }' 2>&3
        read -r end"#;
    let fake = Fake::new(&format!("{READY}\n{script}"));
    let port = fake.open().expect("it gets ready");
    let (lens, scratch) = poll(&port.attachment(), |frames, drops| frames >= 2 && drops >= 3);
    assert_eq!(lens, [60, 1514]);
    let drops = |reason| scratch.tally.drops[reason as usize];
    assert!(drops(DropReason::Runt) >= 2, "{:?}", scratch.tally);
    assert_eq!(drops(DropReason::TooLong), 1);
    port.close().expect("it ends with its channel");
}

#[test]
fn helper_that_dies_costs_the_carrier_and_comes_back_with_growing_pauses() {
    let count = tempfile::NamedTempFile::new().expect("a file can be made");
    // The first four die one way or another; the fifth serves.
    let script = format!(
        r#"
        echo >>{0}
        case $(wc -l <{0}) in
        1) kill -KILL $$ ;;
        2) kill -SEGV $$ ;;
        3) exec 1>&- ; sleep 100 ;;
        4) echo '{{' >&0; exit 3 ;;
        esac
        read -r end"#,
        count.path().display()
    );
    let fake = Fake::new(&format!("{READY}\n{script}"));
    let port = fake.open().expect("it gets ready");
    let board = Switchboard::new().expect("an eventfd can be made");
    let began = Instant::now();
    port.start(board.line(PortKey(7))).expect("there is a thread");
    let (mut carriers, mut shown) = (Vec::new(), Vec::new());
    let mut attached = port.attachment();
    let deadline = Instant::now() + Duration::from_secs(20);
    while carriers.len() < 8 || shown.len() < 8 {
        assert!(Instant::now() < deadline, "{carriers:?} {shown:?}");
        for report in board.drain() {
            match report.news {
                News::Attached { attachment, done } => {
                    carriers.push(attachment.carrier);
                    attached = attachment;
                    done.send(()).expect("it waits");
                }
                News::State { text } => shown.push(text),
                _ => panic!("a user port has nothing else to tell"),
            }
        }
        // As a worker does: it is the one to find that a socket was closed.
        for end in &attached.ingress {
            end.doorbell.disarm();
            end.ingress.poll(&mut IngressScratch::default(), &mut |_| Taken::ALL);
        }
        thread::yield_now();
    }
    assert_eq!(carriers, [false, true].repeat(4));
    let errors = [
        "error: the helper was killed by signal 9",
        "error: the helper was killed by signal 11",
        "error: the helper is of no use any more",
        "error: the helper ended with status 3",
    ];
    let info = "net=10.0.2.0,restrict=off";
    let expected: Vec<&str> = errors.iter().flat_map(|error| [error, info]).collect();
    assert_eq!(shown, expected);
    assert!(began.elapsed() > PAUSE_MIN * 15, "four pauses, each twice the one before");
    port.close().expect("the last one ends with its channel");
}

#[test]
fn helper_that_does_not_answer_is_replaced() {
    let fake = Fake::new(&format!("{READY}\nread -r request; trap '' TERM; exec 0<&-; sleep 100"));
    let port = fake.open().expect("it gets ready");
    let board = Switchboard::new().expect("an eventfd can be made");
    port.start(board.line(PortKey(7))).expect("there is a thread");
    let control = port.control();
    let began = Instant::now();
    let error = control.connections().expect_err("it does not answer");
    assert!(matches!(&error, RequestError::Failed(why) if why.contains("does not answer")), "{error:?}");
    assert!(began.elapsed() < ANSWER_TIME_MAX * 2);
    let error = control.connections().expect_err("its channel is gone");
    assert_eq!(error, RequestError::Failed("the helper is not running".into()));
    let mut carriers = Vec::new();
    while carriers.len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "{carriers:?}");
        for report in board.drain() {
            if let News::Attached { attachment, done } = report.news {
                carriers.push(attachment.carrier);
                done.send(()).expect("it waits");
            }
        }
        thread::yield_now();
    }
    assert_eq!(carriers, [false, true]);
    port.close().expect("it ends with its channel");
}

#[test]
fn what_a_helper_started_ends_with_it() {
    let started = tempfile::NamedTempFile::new().expect("a file can be made");
    let fake =
        Fake::new(&format!("sleep 1000 & echo $! >{}\n{READY}\nread -r end", started.path().display()));
    let port = fake.open().expect("it gets ready");
    let process = fs::read_to_string(started.path()).expect("it is ours");
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
        // One that ended may wait for somebody to ask how.
        !stat.is_empty() && !stat.contains(") Z")
    };
    assert!(is_alive(), "{process}");
    port.close().expect("it ends with its channel");
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive() {
        assert!(Instant::now() < deadline, "{process}");
        thread::yield_now();
    }
}

#[test]
fn unix_sockets_go_with_the_port_unless_they_are_somebody_elses() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let forward = |name: &str| {
        let from = HostEnd::Unix(directory.path().join(name).display().to_string());
        HostForward { rule: name.into(), from, guest: [0; 4].into(), guest_port: 22 }
    };
    let bind = |name: &str| UnixListener::bind(directory.path().join(name)).expect("it is free");
    fs::write(directory.path().join("file"), "").expect("it is ours");
    let fake = Fake::new(&format!(
        "{READY}\nread -r one; echo '\"Done\"' >&0; read -r two; echo '\"Done\"' >&0; read -r end"
    ));
    let port = fake.open().expect("it gets ready");
    let control = port.control();
    let refused = "Invalid host forwarding rule 'file' (file exists and it's not unix socket)";
    assert_eq!(control.add_host_forward(forward("file")), Err(RequestError::Failed(refused.into())));
    let _listeners = ["ours", "theirs"].map(|name| {
        let listener = bind(name);
        assert_eq!(control.add_host_forward(forward(name)), Ok(()));
        listener
    });
    fs::rename(directory.path().join("theirs"), directory.path().join("moved")).expect("it is ours");
    let _theirs = bind("theirs");
    port.close().expect("it ends with its channel");
    let there = |name: &str| fs::exists(directory.path().join(name)).expect("it can be looked at");
    assert_eq!(["ours", "theirs", "file"].map(there), [false, true, true]);
}

#[test]
fn rules_that_were_added_and_removed_are_those_of_the_next_helper() {
    let answer = r#"
        read -r add; echo '"Done"' >&0
        read -r remove; echo '"NotFound"' >&0
        read -r remove; echo '"Done"' >&0
        read -r end"#;
    let fake = Fake::new(&format!("{READY}\n{answer}"));
    let port = fake.open().expect("it gets ready");
    let control = port.control();
    let from = HostEnd::Tcp([127, 0, 0, 1].into(), 2222);
    let forward = HostForward { rule: "r".into(), from: from.clone(), guest: [0; 4].into(), guest_port: 22 };
    assert_eq!(control.add_host_forward(forward.clone()), Ok(()));
    assert_eq!(port.options().host_forwards, std::slice::from_ref(&forward));
    assert_eq!(control.remove_host_forward(&from), Err(RequestError::NotFound));
    assert_eq!(port.options().host_forwards, [forward]);
    assert_eq!(control.remove_host_forward(&from), Ok(()));
    assert!(port.options().host_forwards.is_empty());
}
