//! The helper's inner process: it sets everything up, confines itself, and moves frames between the switch and libslirp.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Access, Mode, access};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::umask;

use super::super::channel::{Channel, Reply, Request, Start};
use super::super::options::{GuestTarget, HostEnd, SmbShare};
use super::ANSWER_TIME_MAX;
use super::commands::{SMB_PORTS, SMBD, smb_directory, socket_directory, socket_path};
use super::device::OpenDevice;
use super::library::{self, Library};
use super::namespaces::Namespaces;
use super::root::{self, ResolvConf, Shared};
use super::sandbox::{self, Needs};
use super::stack::{Stack, readable, wait};
use super::warden::NOTICE_LEN_MAX;

/// Frames that one turn takes from the switch.
const FRAMES_MAX: usize = 64;
/// Bytes of a frame, and more.
const FRAME_LEN_MAX: usize = 68 << 10;
/// Bytes that one turn takes from a device.
const DEVICE_CHUNK: usize = 16 << 10;

/// See the module.
pub(super) struct Server {
    stack: Stack,
    devices: Vec<Bound>,
    notices: OwnedFd,
    /// There if the root directory is our own.
    resolv_conf: Option<ResolvConf>,
}

/// A device with the address at which guests find it.
struct Bound {
    device: Rc<OpenDevice>,
    server: Ipv4Addr,
    port: u16,
    /// It will say nothing more.
    ended: bool,
}

impl Server {
    /// Sets up what `start` says, and confines this process; how it is confined.
    ///
    /// Errors: what `netdev_add` is to answer.
    pub(super) fn start(
        start: &Start,
        namespaces: Namespaces,
        frames: OwnedFd,
        notices: OwnedFd,
    ) -> Result<(Server, String), String> {
        let tftp = start.options.tftp.as_deref().map(absolute);
        let mut rooted = namespaces.own;
        let (mut stack, mut devices) = set_up(start, rooted, tftp.as_deref(), &frames)?;
        let mut resolv_conf = None;
        if rooted {
            let sockets = start.directory.as_deref().map(socket_directory);
            let shared = Shared::open(tftp.as_deref(), sockets.as_deref());
            match shared.and_then(|shared| root::enter(&shared)) {
                Ok(file) => resolv_conf = Some(file),
                Err(_) => {
                    // The host forbids it: the paths are the host's then.
                    rooted = false;
                    drop((stack, devices));
                    (stack, devices) = set_up(start, rooted, tftp.as_deref(), &frames)?;
                }
            }
        }
        drop(frames);
        let tftp = if rooted { tftp.map(|_| PathBuf::from(root::TFTP)) } else { tftp };
        let needs = Needs { namespaces, rooted, tftp, connects: start.directory.is_some() };
        let confined = sandbox::confine(&needs)?;
        let confined = format!("libslirp {}, {confined}", stack.version());
        Ok((Server { stack, devices, notices, resolv_conf }, confined))
    }

    /// Serves until the switch closes the channel. Of the frames' socket the other end may go before.
    pub(super) fn run(mut self, mut channel: Channel) -> io::Result<()> {
        let mut fds = Vec::new();
        let mut buffer = vec![0; FRAME_LEN_MAX];
        let mut frames_end = false;
        loop {
            fds.clear();
            fds.extend([channel.fd(), self.stack.frames(), self.notices.as_fd()].map(readable));
            if frames_end {
                // As poll has it: look at none.
                fds[1].fd = -1;
            }
            self.devices.iter().for_each(|bound| fds.extend(bound.wish(&self.stack)));
            let limit = self.stack.wishes(&mut fds);
            let failed = !wait(&mut fds, limit);
            let ready = |at: usize| !failed && fds[at].revents != 0;
            let (asked, frames, noticed) = (ready(0), ready(1), ready(2));
            self.stack.work(&mut fds, failed);
            self.serve_devices(&mut buffer);
            if frames {
                frames_end = !self.take_frames(&mut buffer);
            }
            if noticed {
                self.take_notice();
            }
            if asked {
                match channel.receive_ready() {
                    Ok(Some(request)) => channel.send(&self.answer(request), ANSWER_TIME_MAX)?,
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// False: there will be no more.
    fn take_frames(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..FRAMES_MAX {
            match recv(self.stack.frames(), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((count, _)) => self.stack.input(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => return false,
            }
        }
        true
    }

    fn take_notice(&mut self) {
        let mut text = vec![0; NOTICE_LEN_MAX];
        let Ok((count, _)) = recv(&self.notices, &mut text[..], RecvFlags::DONTWAIT) else { return };
        if let Some(file) = &mut self.resolv_conf {
            // No room for it: guests' requests for names fail until it changes again.
            let _ = file.replace(&text[..count]);
        }
    }

    fn serve_devices(&mut self, buffer: &mut [u8]) {
        for bound in &mut self.devices {
            if bound.device.is_full() && !bound.device.flush() {
                bound.ended = true;
            }
            let room = self.stack.room(bound.server, bound.port).min(DEVICE_CHUNK);
            if bound.ended || room == 0 {
                continue;
            }
            match bound.device.read(&mut buffer[..room]) {
                Some(0) => bound.ended = true,
                Some(count) => self.stack.answer(bound.server, bound.port, &buffer[..count]),
                None => {}
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Start(_) => Reply::Failed("it was started already".into()),
            Request::AddHostForward(forward) => {
                if self.stack.add_host_forward(&forward) {
                    Reply::Done
                } else {
                    Reply::Failed(no_host_forward(&forward.rule))
                }
            }
            Request::RemoveHostForward(end) => {
                if self.stack.remove_host_forward(&end) {
                    Reply::Done
                } else {
                    Reply::NotFound
                }
            }
            Request::Connections => Reply::Text(self.stack.connections()),
        }
    }
}

impl Bound {
    fn wish(&self, stack: &Stack) -> Option<libc::pollfd> {
        let mut wish = readable(self.device.fd().filter(|_| !self.ended)?);
        wish.events = if stack.room(self.server, self.port) > 0 { libc::POLLIN } else { 0 };
        wish.events |= if self.device.is_full() { libc::POLLOUT } else { 0 };
        (wish.events != 0).then_some(wish)
    }
}

/// The stack with all of its rules; what can fail because of the host fails here.
fn set_up(
    start: &Start,
    rooted: bool,
    tftp: Option<&Path>,
    frames: &OwnedFd,
) -> Result<(Stack, Vec<Bound>), String> {
    let library = Library::load(library::permitted(&start.library, library::is_trusted_with_more()))?;
    let options = &start.options;
    let tftp = tftp.map(|path| if rooted { root::TFTP.to_owned() } else { path.display().to_string() });
    let frames = frames.try_clone().map_err(|error| format!("duplicating a descriptor: {error}"))?;
    let mut stack = Stack::start(library, options, tftp.as_deref(), frames)?;
    let directory = start.directory.as_deref().filter(|_| !rooted);
    let mut devices = Vec::new();
    for (index, forward) in options.guest_forwards.iter().enumerate() {
        let (server, port) = (forward.server, forward.port);
        let added = match &forward.target {
            GuestTarget::Command(_) => stack.add_socket(&socket_path(directory, index), server, port),
            GuestTarget::Device(device) => {
                let no_device = |_| format!("Could not open guest forwarding device 'guestfwd.tcp.{port}'");
                let device = Rc::new(OpenDevice::open(device).map_err(no_device)?);
                let server = stack.add_device(&device, server, port);
                devices.extend(server.map(|server| Bound { device, server, port, ended: false }));
                server.is_some()
            }
        };
        if !added {
            let rule = &forward.rule;
            return Err(format!("Conflicting/invalid host:port in guest forwarding rule '{rule}'"));
        }
    }
    add_host_forwards(&mut stack, start)?;
    if let Some(share) = &options.smb {
        let socket = socket_path(directory, options.guest_forwards.len());
        add_share(&mut stack, share, &socket, start.directory.as_deref())?;
    }
    Ok((stack, devices))
}

fn add_host_forwards(stack: &mut Stack, start: &Start) -> Result<(), String> {
    // For the unix sockets among them.
    let before = umask(Mode::from_raw_mode(!start.socket_mode & 0o777));
    let mut added = Ok(());
    for forward in &start.options.host_forwards {
        added = forward.check();
        if added.is_err() {
            break;
        }
        if let HostEnd::Unix(path) = &forward.from {
            // One that was left behind: of an earlier helper, say. Another owner's shows when it is bound.
            let _ = fs::remove_file(path);
        }
        if !stack.add_host_forward(forward) {
            added = Err(no_host_forward(&forward.rule));
            break;
        }
        if let (HostEnd::Unix(path), Some(group)) = (&forward.from, start.socket_group) {
            added = chown(path, None, Some(group))
                .map_err(|error| format!("giving {path} to its group: {error}"));
        }
    }
    umask(before);
    added
}

fn no_host_forward(rule: &str) -> String {
    format!("Could not set up host forwarding rule '{rule}'")
}

/// Writes Samba's configuration, and has guests' connections answered by it.
fn add_share(
    stack: &mut Stack,
    share: &SmbShare,
    socket: &CString,
    directory: Option<&Path>,
) -> Result<(), String> {
    if !Path::new(SMBD).exists() {
        return Err(format!("Could not find '{SMBD}', please install it"));
    }
    access(&share.directory, Access::READ_OK | Access::EXEC_OK).map_err(|error| {
        let text = io::Error::from(error).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        format!("Error accessing shared directory '{}': {text}", share.directory)
    })?;
    let own = smb_directory(directory.ok_or("Could not create samba server dir")?);
    let _ = fs::remove_dir_all(&own);
    fs::create_dir(&own).map_err(|_| "Could not create samba server dir")?;
    let file = own.join("smb.conf");
    fs::write(&file, smb_conf(&own, &absolute(&share.directory), &user_name()?)).map_err(|error| {
        format!("Could not create samba server configuration file '{}': {error}", file.display())
    })?;
    if !SMB_PORTS.iter().all(|&port| stack.add_socket(socket, share.server, port)) {
        return Err("Conflicting/invalid smbserver address".into());
    }
    Ok(())
}

/// A server that keeps everything in `own` and shares one directory as `qemu`, with whoever comes, as `user`.
fn smb_conf(own: &Path, shared: &Path, user: &str) -> String {
    let mut text = String::from("[global]\n");
    for kind in ["private", "pid", "lock", "state", "cache"] {
        text += &format!("{kind} directory = {}\n", own.display());
    }
    for (option, file) in
        [("ncalrpc dir", "ncalrpc"), ("log file", "log.smbd"), ("smb passwd file", "smbpasswd")]
    {
        text += &format!("{option} = {}/{file}\n", own.display());
    }
    text += "interfaces = 127.0.0.1\nbind interfaces only = yes\nsecurity = user\nmap to guest = Bad User\n";
    text += "load printers = no\nprinting = bsd\ndisable spoolss = yes\nusershare max shares = 0\n";
    text += &format!(
        "[qemu]\npath = {}\nread only = no\nguest ok = yes\nforce user = {user}\n",
        shared.display()
    );
    text
}

/// The name of whoever runs this.
fn user_name() -> Result<String, String> {
    let number = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&number)).then(|| name.to_owned())
    });
    found.ok_or_else(|| "Failed to retrieve user name".to_owned())
}

fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_owned())
}
