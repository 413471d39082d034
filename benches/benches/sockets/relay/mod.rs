//! The bare relay: what any switch between two sockets has to ask of the kernel, and nothing else. It receives at A and
//! sends at B with the fewest system calls there are for the medium, looks at no address, keeps no table and counts
//! nothing. One way only. It is this program run with `relay MEDIUM DIRECTORY [gso]`, so that it is a process like every
//! other switch here; it polls while there is work, and sleeps when nothing has come for a while.

mod datagram;
mod packet;
mod stream;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringyard_tests::error::{Doing, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::medium::{End, Medium, Side};
use crate::sockets;

/// Runs as the relay if the arguments (without the program's name) say so. It never ends then, but by a signal.
pub fn take_over(arguments: &[String]) -> Option<Result<()>> {
    let (word, rest) = arguments.split_first()?;
    if word != WORD {
        return None;
    }
    let [flag, directory, rest @ ..] = rest else {
        return Some(Err(Error::new("the relay wants a medium and a directory")));
    };
    let Some(medium) = Medium::ALL.into_iter().find(|medium| medium.flag() == flag) else {
        return Some(Err(Error::new(format!("the relay knows no {flag}"))));
    };
    Some(run(medium, &PathBuf::from(directory), rest.iter().any(|word| word == GSO)))
}

fn run(medium: Medium, directory: &Path, gso: bool) -> Result<()> {
    let socket = |side| sockets::switch_end(medium, directory, side).doing(format!("opening {side:?}"));
    let (from, to) = (socket(Side::A)?, socket(Side::B)?);
    match medium {
        Medium::StreamUnix | Medium::StreamTcp => stream::run(&from, &to),
        Medium::AfPacket => packet::run(&from, &to),
        _ => {
            let name = sockets::name(medium, directory, Side::B, End::Peer)?;
            let (to, prefix) = ((&to, name.as_slice()), datagram::Prefix::of(medium));
            if gso { datagram::run_gso(&from, to, prefix) } else { datagram::run(&from, to, prefix) }
        }
    }
}

/// Waits in vain for a while, then until something comes.
struct Idler {
    since: Option<Instant>,
}

impl Idler {
    fn new() -> Idler {
        Idler { since: None }
    }

    /// There was work.
    fn worked(&mut self) {
        self.since = None;
    }

    /// There was none; `flags` say what there might be at `socket`.
    fn idle(&mut self, socket: &OwnedFd, flags: PollFlags) -> Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() > LINGER {
            let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), flags)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => self.since = None,
                Err(error) => return Err(io::Error::from(error)).doing("waiting"),
            }
        }
        std::hint::spin_loop();
        Ok(())
    }
}

/// The arguments that make this program the relay.
pub fn arguments(medium: Medium, directory: &Path, gso: bool) -> Vec<String> {
    let mut arguments: Vec<String> =
        [WORD, medium.flag(), &directory.display().to_string()].map(str::to_owned).into();
    if gso {
        arguments.push(GSO.into());
    }
    arguments
}

const WORD: &str = "relay";
const GSO: &str = "gso";
/// As long as ringyard's workers poll an idle ring.
const LINGER: Duration = Duration::from_micros(50);
