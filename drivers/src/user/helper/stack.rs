//! The network stack behind a `user` port: libslirp with a safe face.
//!
//! The library calls back while it is called: for the clock, for timers, to send a frame. What these calls need is in
//! [`Host`], behind cells, and is never borrowed while the library runs.

#![allow(unsafe_code)] // a C library

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::{in_addr, in6_addr, ssize_t};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::super::options::{HostEnd, HostForward, UserOptions};
use super::device::OpenDevice;
use super::library::{
    CONFIG_VERSION, Callbacks, Config, Library, POLL_ERR, POLL_HUP, POLL_IN, POLL_OUT, POLL_PRI, Slirp,
    TimerCallback,
};

/// A frame toward a guest is at least this long: shorter ones are filled up with zeros.
const FRAME_LEN_MIN: usize = 60;
/// How long a frame waits for the switch to have room; then it is lost, and TCP sends its bytes again.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// A running stack.
pub(super) struct Stack {
    library: Library,
    slirp: *mut Slirp,
    /// Called back by the library; not moved while it lives.
    host: Box<Host>,
    /// As `host`.
    _callbacks: Box<Callbacks>,
    /// What guests write to; the library has their addresses.
    devices: Vec<Rc<OpenDevice>>,
}

/// What the library asks of us.
struct Host {
    frames: OwnedFd,
    since: Instant,
    timers: RefCell<Vec<Option<Timer>>>,
    /// The switch has no room, since a frame waited for it in vain.
    full: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Timer {
    callback: TimerCallback,
    argument: *mut c_void,
    /// On the clock that the library reads.
    due_ms: Option<i64>,
}

impl Stack {
    /// Starts a stack that sends its frames to `frames`; `tftp` is its directory as this process sees it.
    ///
    /// Errors: a sentence.
    pub(super) fn start(
        library: Library,
        options: &UserOptions,
        tftp: Option<&str>,
        frames: OwnedFd,
    ) -> Result<Stack, String> {
        let text = |text: &str| CString::new(text).map_err(|_| format!("'{text}' has a zero byte"));
        let optional = |option: Option<&str>| option.map(text).transpose();
        let hostname = optional(options.hostname.as_deref())?;
        let tftp_server_name = optional(options.tftp_server_name.as_deref())?;
        let tftp = optional(tftp)?;
        let bootfile = optional(options.bootfile.as_deref())?;
        let domain_name = optional(options.domain_name.as_deref())?;
        let search = options.dns_search.iter().map(|domain| text(domain)).collect::<Result<Vec<_>, _>>()?;
        let mut search_list: Vec<*const c_char> = search.iter().map(|domain| domain.as_ptr()).collect();
        search_list.push(ptr::null());

        let (ipv4, ipv6) = (&options.ipv4, &options.ipv6);
        let config = Config {
            version: CONFIG_VERSION,
            restricted: c_int::from(options.restrict),
            in_enabled: ipv4.enabled,
            vnetwork: address4(ipv4.network),
            vnetmask: address4(ipv4.mask),
            vhost: address4(ipv4.host),
            in6_enabled: ipv6.enabled,
            vprefix_addr6: address6(ipv6.prefix),
            vprefix_len: ipv6.prefix_len,
            vhost6: address6(ipv6.host),
            vhostname: pointer(&hostname),
            tftp_server_name: pointer(&tftp_server_name),
            tftp_path: pointer(&tftp),
            bootfile: pointer(&bootfile),
            vdhcp_start: address4(ipv4.dhcp_start),
            vnameserver: address4(ipv4.dns),
            vnameserver6: address6(ipv6.dns),
            vdnssearch: if search.is_empty() { ptr::null() } else { search_list.as_ptr() },
            vdomainname: pointer(&domain_name),
            if_mtu: 0,
            if_mru: 0,
            disable_host_loopback: false,
            enable_emu: false,
            later: [0; 8],
        };
        let host = Box::new(Host {
            frames,
            since: Instant::now(),
            timers: RefCell::default(),
            full: Cell::new(false),
        });
        let callbacks = Box::new(CALLBACKS);
        let argument = ptr::from_ref(&*host).cast_mut().cast();
        // SAFETY: the configuration and its strings live through the call, which copies them; the callbacks and their
        // argument live as long as the stack, which `Drop` ends first.
        let slirp = unsafe { (library.new)(&config, &*callbacks, argument) };
        if slirp.is_null() {
            return Err(format!("libslirp {} refuses the configuration", library.version()));
        }
        Ok(Stack { library, slirp, host, _callbacks: callbacks, devices: Vec::new() })
    }

    /// The library's release.
    pub(super) fn version(&self) -> String {
        self.library.version()
    }

    /// Has the host listen for a guest. False: it can't.
    pub(super) fn add_host_forward(&mut self, forward: &HostForward) -> bool {
        let guest = address4(forward.guest);
        let guest_port = c_int::from(forward.guest_port);
        let (is_udp, address, port) = match &forward.from {
            HostEnd::Tcp(address, port) => (0, *address, *port),
            HostEnd::Udp(address, port) => (1, *address, *port),
            HostEnd::Unix(path) => return self.add_unix_forward(path, guest, forward.guest_port),
        };
        // SAFETY: numbers.
        let result = unsafe {
            (self.library.add_hostfwd)(
                self.slirp,
                is_udp,
                address4(address),
                c_int::from(port),
                guest,
                guest_port,
            )
        };
        result >= 0
    }

    fn add_unix_forward(&mut self, path: &str, guest: in_addr, guest_port: u16) -> bool {
        let Some(add) = self.library.add_hostxfwd else { return false };
        // SAFETY: numbers and an array of characters, for which zeros are values.
        let mut from: libc::sockaddr_un = unsafe { mem::zeroed() };
        from.sun_family = libc::AF_UNIX as libc::sa_family_t;
        // The last byte ends the path.
        if path.len() >= from.sun_path.len() {
            return false;
        }
        for (to, byte) in from.sun_path.iter_mut().zip(path.bytes()) {
            *to = byte as c_char;
        }
        // SAFETY: numbers, for which zeros are values.
        let mut to: libc::sockaddr_in = unsafe { mem::zeroed() };
        to.sin_family = libc::AF_INET as libc::sa_family_t;
        to.sin_addr = guest;
        to.sin_port = guest_port.to_be();
        // SAFETY: both addresses live through the call, with their lengths.
        let result = unsafe {
            add(
                self.slirp,
                ptr::from_ref(&from).cast(),
                mem::size_of_val(&from) as libc::socklen_t,
                ptr::from_ref(&to).cast(),
                mem::size_of_val(&to) as libc::socklen_t,
                0,
            )
        };
        result >= 0
    }

    /// Has the host listen no more. False: it did not.
    pub(super) fn remove_host_forward(&mut self, end: &HostEnd) -> bool {
        let (is_udp, address, port) = match end {
            HostEnd::Tcp(address, port) => (0, *address, *port),
            HostEnd::Udp(address, port) => (1, *address, *port),
            // The library has no way to find it.
            HostEnd::Unix(_) => return false,
        };
        // SAFETY: numbers.
        let result = unsafe {
            (self.library.remove_hostfwd)(self.slirp, is_udp, address4(address), c_int::from(port))
        };
        result >= 0
    }

    /// Connects each connection of guests to `server` with the unix socket `path`. False: the address is taken, or none of
    /// the network.
    pub(super) fn add_socket(&mut self, path: &CStr, server: Ipv4Addr, port: u16) -> bool {
        let mut server = address4(server);
        // SAFETY: the path is copied; the address is written to during the call only.
        let result =
            unsafe { (self.library.add_unix)(self.slirp, path.as_ptr(), &mut server, c_int::from(port)) };
        result >= 0
    }

    /// Has `device` take what guests send to `server`; the address if it was 0.0.0.0. `None`: as for [`Self::add_socket`].
    pub(super) fn add_device(
        &mut self,
        device: &Rc<OpenDevice>,
        server: Ipv4Addr,
        port: u16,
    ) -> Option<Ipv4Addr> {
        self.devices.push(device.clone());
        let argument = Rc::as_ptr(device).cast_mut().cast();
        let mut server = address4(server);
        // SAFETY: the device lives as long as the stack; the address is written to during the call only.
        let result = unsafe {
            (self.library.add_guestfwd)(self.slirp, write_device, argument, &mut server, c_int::from(port))
        };
        (result >= 0).then(|| Ipv4Addr::from(u32::from_be(server.s_addr)))
    }

    /// Bytes that the guest's connection with `server` has room for.
    pub(super) fn room(&self, server: Ipv4Addr, port: u16) -> usize {
        // SAFETY: numbers.
        unsafe { (self.library.socket_can_recv)(self.slirp, address4(server), c_int::from(port)) }
    }

    /// Sends `bytes`, for which there is [room](Self::room), to the guest.
    pub(super) fn answer(&mut self, server: Ipv4Addr, port: u16, bytes: &[u8]) {
        let (server, port) = (address4(server), c_int::from(port));
        // SAFETY: the bytes are read during the call.
        unsafe { (self.library.socket_recv)(self.slirp, server, port, bytes.as_ptr(), bytes.len() as c_int) };
    }

    /// The connections, as text.
    pub(super) fn connections(&mut self) -> String {
        // SAFETY: the state is valid.
        let info = unsafe { (self.library.connection_info)(self.slirp) };
        if info.is_null() {
            return String::new();
        }
        // SAFETY: it gives a C string of its own.
        let text = unsafe { CStr::from_ptr(info) }.to_string_lossy().into_owned();
        // SAFETY: the string is ours, from g_malloc, which is malloc.
        unsafe { libc::free(info.cast()) };
        text
    }

    /// A frame of a guest.
    pub(super) fn input(&mut self, frame: &[u8]) {
        // SAFETY: the frame is read during the call.
        unsafe { (self.library.input)(self.slirp, frame.as_ptr(), frame.len() as c_int) };
    }

    /// Adds what it waits for to `fds`; how long it can be left alone.
    pub(super) fn wishes(&mut self, fds: &mut Vec<libc::pollfd>) -> Duration {
        let mut timeout_ms = u32::MAX;
        let argument = ptr::from_mut(fds).cast();
        // SAFETY: the callback is called during the call only, with the vector that is ours for as long.
        unsafe { (self.library.pollfds_fill)(self.slirp, &mut timeout_ms, add_poll, argument) };
        let wait = Duration::from_millis(timeout_ms.into());
        let now_ms = self.host.now_ms();
        let timers = self.host.timers.borrow();
        let due = timers.iter().flatten().filter_map(|timer| timer.due_ms).min();
        due.map_or(wait, |due| wait.min(Duration::from_millis((due - now_ms).max(0) as u64)))
    }

    /// Goes on with what `fds`, to which [`Self::wishes`] added, are ready for, and with the timers that are due.
    pub(super) fn work(&mut self, fds: &mut Vec<libc::pollfd>, failed: bool) {
        self.host.full.set(false);
        let argument = ptr::from_mut(fds).cast();
        // SAFETY: as in `wishes`.
        unsafe { (self.library.pollfds_poll)(self.slirp, c_int::from(failed), events, argument) };
        let now_ms = self.host.now_ms();
        let is_due = |timer: &Timer| timer.due_ms.is_some_and(|due| due <= now_ms);
        let take_due = || {
            let mut timers = self.host.timers.borrow_mut();
            let timer = timers.iter_mut().flatten().find(|timer| is_due(timer))?;
            timer.due_ms = None;
            Some(*timer)
        };
        while let Some(timer) = take_due() {
            // SAFETY: the library gave both, and has not freed the timer.
            unsafe { (timer.callback)(timer.argument) };
        }
    }

    /// Where frames come from and go to.
    pub(super) fn frames(&self) -> BorrowedFd<'_> {
        self.host.frames.as_fd()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it is valid and used no more; what it calls back lives longer.
        unsafe { (self.library.cleanup)(self.slirp) };
    }
}

impl Host {
    fn now_ns(&self) -> i64 {
        // A clock that begins at 0 looks to the library like none in its first second.
        let elapsed = self.since.elapsed() + CLOCK_START;
        i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
    }

    fn now_ms(&self) -> i64 {
        self.now_ns() / 1_000_000
    }

    fn send(&self, frame: &[u8]) {
        let mut padded = [0; FRAME_LEN_MIN];
        let frame = if frame.len() < FRAME_LEN_MIN {
            padded[..frame.len()].copy_from_slice(frame);
            &padded
        } else {
            frame
        };
        let try_send = || send(&self.frames, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if try_send() != Err(Errno::AGAIN) || self.full.get() {
            return;
        }
        let wait = Timespec { tv_sec: 0, tv_nsec: ROOM_WAIT.subsec_nanos().into() };
        let mut room = [PollFd::from_borrowed_fd(self.frames.as_fd(), PollFlags::OUT)];
        // Once a turn: a switch that takes nothing must not keep the stack from its other work.
        self.full.set(poll(&mut room, Some(&wait)) != Ok(1) || try_send() == Err(Errno::AGAIN));
    }
}

/// What the clock shows at first.
const CLOCK_START: Duration = Duration::from_secs(10);

const CALLBACKS: Callbacks = Callbacks {
    send_packet,
    guest_error,
    clock_get_ns,
    timer_new,
    timer_free,
    timer_mod,
    register_poll_fd: ignore_fd,
    unregister_poll_fd: ignore_fd,
    notify: ignore,
    later: [ptr::null(); 4],
};

fn host<'a>(argument: *mut c_void) -> &'a Host {
    // SAFETY: `Stack::start` gave the address of its host, which lives as long as the library calls.
    unsafe { &*argument.cast::<Host>() }
}

unsafe extern "C" fn send_packet(bytes: *const c_void, len: usize, argument: *mut c_void) -> ssize_t {
    // SAFETY: the library lends that many bytes for the call.
    let frame = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    host(argument).send(frame);
    len as ssize_t
}

/// What a guest did wrong is told to nobody: it could be said a million times a second.
unsafe extern "C" fn guest_error(_message: *const c_char, _argument: *mut c_void) {}

unsafe extern "C" fn clock_get_ns(argument: *mut c_void) -> i64 {
    host(argument).now_ns()
}

unsafe extern "C" fn timer_new(
    callback: TimerCallback,
    argument: *mut c_void,
    ours: *mut c_void,
) -> *mut c_void {
    let mut timers = host(ours).timers.borrow_mut();
    timers.push(Some(Timer { callback, argument, due_ms: None }));
    // Its number from 1, as the library wants something that is not null.
    ptr::without_provenance_mut(timers.len())
}

unsafe extern "C" fn timer_free(timer: *mut c_void, ours: *mut c_void) {
    if let Some(slot) = host(ours).timers.borrow_mut().get_mut(timer.addr().wrapping_sub(1)) {
        *slot = None;
    }
}

unsafe extern "C" fn timer_mod(timer: *mut c_void, due_ms: i64, ours: *mut c_void) {
    if let Some(Some(timer)) = host(ours).timers.borrow_mut().get_mut(timer.addr().wrapping_sub(1)) {
        timer.due_ms = Some(due_ms);
    }
}

unsafe extern "C" fn ignore_fd(_fd: c_int, _argument: *mut c_void) {}

unsafe extern "C" fn ignore(_argument: *mut c_void) {}

unsafe extern "C" fn write_device(bytes: *const c_void, len: usize, argument: *mut c_void) -> ssize_t {
    // SAFETY: `Stack::add_device` gave the address of a device that it keeps.
    let device = unsafe { &*argument.cast::<OpenDevice>() };
    // SAFETY: the library lends that many bytes for the call.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    if device.write(bytes) { len as ssize_t } else { -1 }
}

unsafe extern "C" fn add_poll(fd: c_int, wanted: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: `Stack::wishes` lends its vector for the call.
    let fds = unsafe { &mut *argument.cast::<Vec<libc::pollfd>>() };
    let pairs = FLAGS.iter().filter(|(ours, _)| wanted & ours != 0);
    let events = pairs.fold(0, |events, (_, flag)| events | flag);
    fds.push(libc::pollfd { fd, events, revents: 0 });
    (fds.len() - 1) as c_int
}

unsafe extern "C" fn events(index: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: `Stack::work` lends its vector for the call.
    let fds = unsafe { &*argument.cast::<Vec<libc::pollfd>>() };
    let found = usize::try_from(index).ok().and_then(|index| fds.get(index)).map_or(0, |fd| fd.revents);
    FLAGS.iter().filter(|(_, flag)| found & flag != 0).fold(0, |events, (theirs, _)| events | theirs)
}

/// The library's names for what `poll` says.
const FLAGS: [(c_int, i16); 5] = [
    (POLL_IN, libc::POLLIN),
    (POLL_OUT, libc::POLLOUT),
    (POLL_PRI, libc::POLLPRI),
    (POLL_ERR, libc::POLLERR),
    (POLL_HUP, libc::POLLHUP),
];

/// Waits for what `fds` want. False: it failed, or was interrupted.
pub(super) fn wait(fds: &mut [libc::pollfd], limit: Duration) -> bool {
    // Rounded up, so that a timer is due when this returns.
    let limit_ms = c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
    // SAFETY: the array is ours, with its length.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, limit_ms) >= 0 }
}

/// An entry for [`wait`].
pub(super) fn readable(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

fn address4(address: Ipv4Addr) -> in_addr {
    in_addr { s_addr: u32::from(address).to_be() }
}

fn address6(address: Ipv6Addr) -> in6_addr {
    in6_addr { s6_addr: address.octets() }
}
