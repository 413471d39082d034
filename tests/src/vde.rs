//! VDE's handshake (vde_switch 2), from both sides: a port of a switch that is the test itself, for plugs, and a plug into
//! vde_switch. What follows is one frame a unix datagram.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{fs, thread};

use crate::deadline::wait_for;
use crate::error::{Doing, Error, Result};

/// A port of a VDE switch that waits for its plug.
pub struct Port {
    plugged: Receiver<Result<Plugged>>,
}

/// Either side's datagram socket. The port lasts as long as the stream beside it.
pub struct Plugged {
    /// Its frames.
    pub frames: UnixDatagram,
    /// The stream beside it.
    pub control: UnixStream,
}

impl Port {
    /// Makes the switch's directory and listens there for one plug.
    pub fn open(directory: PathBuf) -> Result<Port> {
        fs::create_dir(&directory).doing(format!("making {}", directory.display()))?;
        let listener = UnixListener::bind(directory.join(CONTROL)).doing("listening for a plug")?;
        let (sender, plugged) = mpsc::channel();
        // Ends with the plug's request; if none comes, with the process.
        thread::spawn(move || {
            let _ = sender.send(serve(&listener, &directory.join("frames")));
        });
        Ok(Port { plugged })
    }

    /// Waits for the plug.
    pub fn plugged(self) -> Result<Plugged> {
        self.plugged.recv_timeout(PATIENCE).doing("waiting for a plug")?
    }
}

fn serve(listener: &UnixListener, path: &Path) -> Result<Plugged> {
    let (mut control, _) = listener.accept().doing("accepting a plug")?;
    let mut request = [0; REQUEST_LEN];
    control.read_exact(&mut request).doing("reading a plug's request")?;
    if request[..4] != MAGIC.to_ne_bytes() {
        return Err(Error::new("a plug asked for something else"));
    }
    let frames = UnixDatagram::bind(path).doing("binding a port")?;
    frames.connect(unpack(&request[HEAD_LEN..])).doing("connecting to a plug")?;
    control.write_all(&pack(path)?).doing("answering a plug")?;
    Ok(Plugged { frames, control })
}

/// Plugs into the vde_switch in `directory`.
pub fn plug(directory: &Path, own: &Path) -> Result<Plugged> {
    let what = format!("a switch in {}", directory.display());
    let mut control = wait_for(&what, PATIENCE, || Ok(UnixStream::connect(directory.join(CONTROL)).ok()))?;
    let frames = UnixDatagram::bind(own).doing("binding a plug")?;
    let mut request = Vec::with_capacity(REQUEST_LEN);
    for word in [MAGIC, VERSION, NEW_PORT] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    request.extend_from_slice(&pack(own)?);
    request.extend_from_slice(b"ringyard-benches");
    control.write_all(&request).doing("asking for a port")?;
    let mut answer = [0; ADDRESS_LEN];
    control.read_exact(&mut answer).doing("waiting for a port")?;
    frames.connect(unpack(&answer)).doing("connecting to a port")?;
    Ok(Plugged { frames, control })
}

/// The path as a `struct sockaddr_un`.
pub fn pack(path: &Path) -> Result<[u8; ADDRESS_LEN]> {
    let bytes = path.as_os_str().as_bytes();
    let mut address = [0; ADDRESS_LEN];
    address[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    let room = &mut address[2..ADDRESS_LEN - 1];
    let place = room.get_mut(..bytes.len());
    place.ok_or_else(|| Error::new(format!("{} is too long", path.display())))?.copy_from_slice(bytes);
    Ok(address)
}

fn unpack(address: &[u8]) -> PathBuf {
    let path = &address[2..ADDRESS_LEN];
    let len = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
    PathBuf::from(std::ffi::OsStr::from_bytes(&path[..len]))
}

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(20);
const CONTROL: &str = "ctl";
const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
const NEW_PORT: u32 = 0;
const HEAD_LEN: usize = 12;
/// Bytes of a `struct sockaddr_un`.
pub const ADDRESS_LEN: usize = 110;
/// Without the description, which nobody has to send.
const REQUEST_LEN: usize = HEAD_LEN + ADDRESS_LEN;
