//! `ringyard capture`: the frames of a netdev as they pass, in a file or to whoever reads our stdout.
//!
//! The switch writes into a pipe of ours, and what comes out of it is handed on. So a capture ends with whoever wanted it,
//! even by SIGKILL: the pipe breaks, and the switch stops recording. It works with a QEMU's monitor as well.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use ringyard_drivers::capture::Direction;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::fcntl_setpipe_size;
use serde_json::{Value, json};

use super::ClientError;
use super::connection::Connection;
use crate::qapi::Word;
use crate::run::{Hangup, Stopper};

/// What is to be captured, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureWish {
    /// Whose frames.
    pub netdev: String,
    /// Which of them.
    pub direction: Direction,
    /// The file; stdout without.
    pub file: Option<PathBuf>,
    /// Bytes of a frame that are kept.
    pub snaplen: u32,
}

/// Captures until a signal, until nobody reads any more, or until the switch ends it.
pub(super) fn capture(connection: &mut Connection, wish: &CaptureWish) -> Result<(), ClientError> {
    let to = destination(wish)?;
    let failed = |error: io::Error| ClientError(format!("making a pipe: {error}"));
    // Before the switch knows of it: a signal is to take it away again.
    let stopper = Stopper::of_signals(Hangup::Stop).map_err(ClientError)?;
    let (reader, writer) = io::pipe().map_err(failed)?;
    // Where it is not allowed the pipe is shorter, and the switch waits sooner.
    let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
    forget_dead(connection)?;
    let id = format!("{ID_PREFIX}{}", std::process::id());
    add(connection, wish, &id, writer.into())?;
    let (over, ends) = io::pipe().map_err(failed)?;
    let handing = thread::spawn(move || {
        let handed = hand_on(&File::from(OwnedFd::from(reader)), &to);
        drop(ends);
        handed
    });
    let mut fds = [PollFd::from_borrowed_fd(stopper.fd(), PollFlags::IN), PollFd::new(&over, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
    end(connection, &id, handing)
}

/// Opens the file. What is binary is no sight for a terminal.
fn destination(wish: &CaptureWish) -> Result<File, ClientError> {
    let Some(path) = &wish.file else {
        if io::stdout().is_terminal() {
            return Err(ClientError(format!(
                "a capture is no text for a terminal: give -w FILE, or pipe it, as in ringyard capture {} | tcpdump -r -",
                wish.netdev
            )));
        }
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        return Ok(stdout.map_err(|error| ClientError(format!("using stdout: {error}")))?.into());
    };
    File::create(path).map_err(|error| ClientError(format!("opening {}: {error}", path.display())))
}

/// Has the switch record into `pipe`.
fn add(connection: &mut Connection, wish: &CaptureWish, id: &str, pipe: OwnedFd) -> Result<(), ClientError> {
    let set = connection.execute_with_fd("add-fd", json!({"opaque": id}), pipe.as_fd())?["fdset-id"].take();
    drop(pipe);
    let added = connection.execute(
        "object-add",
        json!({
            "qom-type": "filter-dump",
            "id": id,
            "netdev": wish.netdev,
            "queue": Word(wish.direction).name(),
            "file": format!("/dev/fdset/{set}"),
            "maxlen": wish.snaplen,
        }),
    );
    // The object has a descriptor of its own now.
    connection.execute("remove-fd", json!({"fdset-id": set}))?;
    added.map(drop)
}

/// Takes away what earlier captures left that were killed.
fn forget_dead(connection: &mut Connection) -> Result<(), ClientError> {
    let Ok(Value::Array(objects)) = connection.execute("qom-list", json!({"path": "/objects"})) else {
        return Ok(());
    };
    let names = objects.iter().filter_map(|object| object["name"].as_str());
    for name in names.filter(|name| name.starts_with(ID_PREFIX)) {
        let path = format!("/objects/{name}");
        let status = connection.execute("qom-get", json!({"path": path, "property": "status"}));
        if status.is_ok_and(|status| status == "off") {
            // Another client may have been quicker.
            let _ = connection.execute("object-del", json!({"id": name}));
        }
    }
    Ok(())
}

fn hand_on(mut from: &File, mut to: &File) -> io::Result<u64> {
    loop {
        match io::copy(&mut from, &mut to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            handed => return handed,
        }
    }
}

/// Ends the capture: first nothing is recorded any more, then it is said how much was, then the rest is written.
fn end(
    connection: &mut Connection,
    id: &str,
    handing: JoinHandle<io::Result<u64>>,
) -> Result<(), ClientError> {
    let path = format!("/objects/{id}");
    let set = json!({"path": path, "property": "status", "value": "off"});
    let was_there = connection.execute("qom-set", set);
    let mut count = |property: &str| {
        connection.execute("qom-get", json!({"path": path, "property": property})).ok()?.as_u64()
    };
    let (frames, lost) = (count("x-frames"), count("x-lost"));
    let ended = connection.execute("object-del", json!({"id": id}));
    let handed = handing.join().map_err(|_| ClientError("handing the frames on has failed".into()))?;
    let mut said = io::stderr().lock();
    let lost =
        lost.filter(|lost| *lost > 0).map(|lost| format!(", and {lost} that were lost")).unwrap_or_default();
    if let Some(frames) = frames {
        // A stderr that cannot be written to leaves nobody to tell.
        drop(writeln!(said, "ringyard: {frames} frames{lost}"));
    }
    match handed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ClientError(format!("writing the frames: {error}")))
        }
        // Whoever reads us has seen enough.
        Err(_) => Ok(()),
        Ok(_) => {
            was_there.and(ended).map(drop).map_err(|_| ClientError("the switch has ended the capture".into()))
        }
    }
}

/// Of the pipe; a page of it is a fraction of a millisecond's frames.
const PIPE_BYTES: usize = 1 << 20;
/// What the objects of captures are called, before the number of the process.
const ID_PREFIX: &str = "capture-";
