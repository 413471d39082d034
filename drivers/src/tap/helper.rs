//! The bridge helper: a program, often one with more rights than ours, that makes a tap on a bridge and hands it over.
//!
//! It gets a socket as an inherited descriptor, sends one byte with the tap's descriptor over it (SCM_RIGHTS) and ends
//! with status 0. All of that within [`HELPER_TIME_MAX`]: else it is killed.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use super::OpenError;
use crate::program::{Program, Running, is_refusal};
use crate::sandbox::Errand;

/// From its start to its end.
const HELPER_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended, after it closed its socket.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Has `helper`, the path of a program or a shell command, make a tap on `bridge`.
pub(super) fn tap(helper: &str, bridge: &str) -> Result<OwnedFd, OpenError> {
    tap_within(helper, bridge, HELPER_TIME_MAX)
}

fn tap_within(helper: &str, bridge: &str, limit: Duration) -> Result<OwnedFd, OpenError> {
    let deadline = Instant::now() + limit;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|error| OpenError::new("bridge helper failed", error.into()))?;
    let mut child = start(helper, bridge, theirs)
        .map_err(|error| if is_refusal(&error) { OpenError(error.to_string()) } else { failed() })?;
    let received = receive(&ours, deadline);
    drop(ours);
    let ended = end(&mut child, if received.is_err() { Instant::now() } else { deadline });
    match received {
        Err(Errno::TIME) => Err(too_slow(helper, limit)),
        Err(error) => Err(OpenError::new("failed to recv file descriptor", error.into())),
        Ok(_) if ended.is_none() => Err(too_slow(helper, limit)),
        Ok(Some(fd)) if ended == Some(true) => Ok(fd),
        Ok(_) => Err(failed()),
    }
}

fn failed() -> OpenError {
    OpenError("bridge helper failed".into())
}

fn too_slow(helper: &str, limit: Duration) -> OpenError {
    OpenError(format!("bridge helper failed: {helper} was not done within {} s", limit.as_secs_f32()))
}

fn start(helper: &str, bridge: &str, socket: OwnedFd) -> io::Result<Running> {
    let errand = Errand::BridgeHelper { helper: helper.to_owned(), bridge: bridge.to_owned() };
    // Our copy of the socket is dropped with the program.
    Program::new(errand).passing(socket).leading().start()
}

/// The descriptor that comes with the first byte; `None` when the other end is closed or sends something else.
fn receive(socket: &OwnedFd, deadline: Instant) -> Result<Option<OwnedFd>, Errno> {
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit))? == 0 {
        return Err(Errno::TIME);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut [0])], &mut ancillary, flags)?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.next().and_then(|mut fds| fds.next()))
}

/// Waits for the end of the child, and kills it after the deadline. Whether it ended well; `None`: not by itself.
fn end(child: &mut Running, deadline: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_PAUSE),
            _ => break,
        }
    }
    // With all that a shell may have started.
    child.kill();
    let _ = child.wait();
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn error(helper: &str) -> String {
        tap_within(helper, "br0", Duration::from_millis(500)).expect_err(helper).to_string()
    }

    #[test]
    fn helper_that_is_missing_fails_or_sends_nothing_is_an_error() {
        for helper in ["/no/such/helper", "/bin/false", "/bin/true", "exit 3 ;", "true ; exit 0 ;"] {
            assert_eq!(error(helper), "bridge helper failed", "{helper}");
        }
    }

    #[test]
    fn helper_that_hangs_is_killed_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let witness = directory.path().join("pid");
        let began = Instant::now();
        let helper = format!("sleep 1000 & echo $! > {} ; wait ;", witness.display());
        assert!(error(&helper).ends_with("was not done within 0.5 s"), "{}", error(&helper));
        assert!(began.elapsed() < Duration::from_secs(30));
        let pid = fs::read_to_string(&witness).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let deadline = Instant::now() + Duration::from_secs(10);
        // Killed, and then a zombie until its new parent asks after it.
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "it is still there");
        }
    }

    #[test]
    fn byte_without_a_descriptor_is_an_error() {
        assert_eq!(error("send() { fd=${2#--fd=}; printf x >&$fd; } ; send"), "bridge helper failed");
    }

    #[test]
    fn helper_is_told_descriptor_and_bridge_once() {
        let directory = tempfile::tempdir().unwrap();
        let (script, witness) = (directory.path().join("helper"), directory.path().join("arguments"));
        let text = format!("#!/bin/sh\necho \"$@\" > {}\n", witness.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let script = script.display().to_string();
        let told = |helper: &str| {
            // Another test's thread may be starting a child while the script is still open for writing there.
            loop {
                let _ = fs::remove_file(&witness);
                assert_eq!(error(helper), "bridge helper failed");
                if let Ok(text) = fs::read_to_string(&witness) {
                    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                    return words;
                }
            }
        };
        let words = told(&script);
        assert!(words[0] == "--use-vnet" && words[1].starts_with("--fd=") && words[2] == "--br=br0");
        assert_eq!(words.len(), 3);
        let words = told(&format!("{script} --verbose"));
        assert_eq!((&words[0][..], &words[3][..], words.len()), ("--verbose", "--br=br0", 4));
        let words = told(&format!("{script}\t--br=other"));
        assert_eq!((&words[0][..], words.len()), ("--br=other", 3));
    }
}
