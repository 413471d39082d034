//! libslirp, loaded when it is needed: its functions and structures, as `libslirp.h` of release 4.7 has them.
//!
//! Version 1 of its configuration has all that we want, and every release since 4.1 takes it; the fields of later versions
//! are here so that a library that looks at them finds zeros.

#![allow(unsafe_code)] // a C library

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_void};

use libc::{in_addr, in6_addr, sockaddr, socklen_t, ssize_t};

use super::LIBRARY;

/// The library's state.
#[repr(C)]
pub(super) struct Slirp {
    _opaque: [u8; 0],
}

pub(super) type WriteCallback = unsafe extern "C" fn(*const c_void, usize, *mut c_void) -> ssize_t;
pub(super) type TimerCallback = unsafe extern "C" fn(*mut c_void);
pub(super) type AddPollCallback = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
pub(super) type EventsCallback = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;

/// `SlirpCb`: what the library asks of us.
#[repr(C)]
pub(super) struct Callbacks {
    pub(super) send_packet: WriteCallback,
    pub(super) guest_error: unsafe extern "C" fn(*const c_char, *mut c_void),
    pub(super) clock_get_ns: unsafe extern "C" fn(*mut c_void) -> i64,
    pub(super) timer_new: unsafe extern "C" fn(TimerCallback, *mut c_void, *mut c_void) -> *mut c_void,
    pub(super) timer_free: unsafe extern "C" fn(*mut c_void, *mut c_void),
    pub(super) timer_mod: unsafe extern "C" fn(*mut c_void, i64, *mut c_void),
    pub(super) register_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(super) unregister_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(super) notify: unsafe extern "C" fn(*mut c_void),
    /// `init_completed` and `timer_new_opaque` of version 4, two of version 6.
    pub(super) later: [*const c_void; 4],
}

/// `SlirpConfig`.
#[repr(C)]
pub(super) struct Config {
    pub(super) version: u32,
    pub(super) restricted: c_int,
    pub(super) in_enabled: bool,
    pub(super) vnetwork: in_addr,
    pub(super) vnetmask: in_addr,
    pub(super) vhost: in_addr,
    pub(super) in6_enabled: bool,
    pub(super) vprefix_addr6: in6_addr,
    pub(super) vprefix_len: u8,
    pub(super) vhost6: in6_addr,
    pub(super) vhostname: *const c_char,
    pub(super) tftp_server_name: *const c_char,
    pub(super) tftp_path: *const c_char,
    pub(super) bootfile: *const c_char,
    pub(super) vdhcp_start: in_addr,
    pub(super) vnameserver: in_addr,
    pub(super) vnameserver6: in6_addr,
    pub(super) vdnssearch: *const *const c_char,
    pub(super) vdomainname: *const c_char,
    pub(super) if_mtu: usize,
    pub(super) if_mru: usize,
    pub(super) disable_host_loopback: bool,
    pub(super) enable_emu: bool,
    /// Of versions 2 to 6.
    pub(super) later: [u64; 8],
}

/// [`Config::version`] of what we fill in.
pub(super) const CONFIG_VERSION: u32 = 1;
/// `SLIRP_POLL_…`, as [`AddPollCallback`] gets them and [`EventsCallback`] answers.
pub(super) const POLL_IN: c_int = 1;
pub(super) const POLL_OUT: c_int = 1 << 1;
pub(super) const POLL_PRI: c_int = 1 << 2;
pub(super) const POLL_ERR: c_int = 1 << 3;
pub(super) const POLL_HUP: c_int = 1 << 4;

type AddHostxfwd =
    unsafe extern "C" fn(*mut Slirp, *const sockaddr, socklen_t, *const sockaddr, socklen_t, c_int) -> c_int;

/// The functions that we call.
pub(super) struct Library {
    pub(super) new: unsafe extern "C" fn(*const Config, *const Callbacks, *mut c_void) -> *mut Slirp,
    pub(super) cleanup: unsafe extern "C" fn(*mut Slirp),
    pub(super) pollfds_fill: unsafe extern "C" fn(*mut Slirp, *mut u32, AddPollCallback, *mut c_void),
    pub(super) pollfds_poll: unsafe extern "C" fn(*mut Slirp, c_int, EventsCallback, *mut c_void),
    pub(super) input: unsafe extern "C" fn(*mut Slirp, *const u8, c_int),
    pub(super) add_hostfwd: unsafe extern "C" fn(*mut Slirp, c_int, in_addr, c_int, in_addr, c_int) -> c_int,
    pub(super) remove_hostfwd: unsafe extern "C" fn(*mut Slirp, c_int, in_addr, c_int) -> c_int,
    /// Since 4.5; with unix sockets since 4.7.
    pub(super) add_hostxfwd: Option<AddHostxfwd>,
    pub(super) add_unix: unsafe extern "C" fn(*mut Slirp, *const c_char, *mut in_addr, c_int) -> c_int,
    pub(super) add_guestfwd:
        unsafe extern "C" fn(*mut Slirp, WriteCallback, *mut c_void, *mut in_addr, c_int) -> c_int,
    pub(super) socket_can_recv: unsafe extern "C" fn(*mut Slirp, in_addr, c_int) -> usize,
    pub(super) socket_recv: unsafe extern "C" fn(*mut Slirp, in_addr, c_int, *const u8, c_int),
    pub(super) connection_info: unsafe extern "C" fn(*mut Slirp) -> *mut c_char,
    version_string: unsafe extern "C" fn() -> *const c_char,
    /// The functions are its.
    _library: libloading::Library,
}

impl Library {
    /// Loads `name`, a file's name as the dynamic linker takes it.
    ///
    /// Errors: a sentence that says what to install.
    pub(super) fn load(name: &str) -> Result<Library, String> {
        Library::try_load(name).map_err(|error| {
            let why = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
            format!(
                "type 'user' needs libslirp, release 4.2 or later, which cannot be loaded ({why}): install the package \
                 libslirp0 (Debian, Ubuntu) or libslirp (others)"
            )
        })
    }

    fn try_load(name: &str) -> Result<Library, libloading::Error> {
        // SAFETY: loading it runs its initializers and those of glib, which ask nothing of their caller.
        let library = unsafe { libloading::Library::new(name) }?;
        /// A function of the type that the field has.
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: `libslirp.h` declares it so.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        // SAFETY: as above.
        let add_hostxfwd = unsafe { library.get::<AddHostxfwd>(b"slirp_add_hostxfwd\0") };
        Ok(Library {
            new: function!("slirp_new"),
            cleanup: function!("slirp_cleanup"),
            pollfds_fill: function!("slirp_pollfds_fill"),
            pollfds_poll: function!("slirp_pollfds_poll"),
            input: function!("slirp_input"),
            add_hostfwd: function!("slirp_add_hostfwd"),
            remove_hostfwd: function!("slirp_remove_hostfwd"),
            add_hostxfwd: add_hostxfwd.ok().map(|function| *function),
            add_unix: function!("slirp_add_unix"),
            add_guestfwd: function!("slirp_add_guestfwd"),
            socket_can_recv: function!("slirp_socket_can_recv"),
            socket_recv: function!("slirp_socket_recv"),
            connection_info: function!("slirp_connection_info"),
            version_string: function!("slirp_version_string"),
            _library: library,
        })
    }

    /// Its release.
    pub(super) fn version(&self) -> String {
        // SAFETY: it takes nothing and gives a constant.
        let text = unsafe { (self.version_string)() };
        // SAFETY: a C string that lives as long as the library.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Whether this program has privileges that its caller lacks: file capabilities, say.
pub(super) fn is_trusted_with_more() -> bool {
    // SAFETY: a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The library to load when `asked` for one: a caller with fewer privileges has no choice, for a library runs with ours.
pub(super) fn permitted(asked: &str, trusted_with_more: bool) -> &str {
    if trusted_with_more { LIBRARY } else { asked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_fewer_privileges_cannot_choose_the_library() {
        assert_eq!(permitted("/tmp/evil.so", true), LIBRARY);
        assert_eq!(permitted("/opt/libslirp.so.0", false), "/opt/libslirp.so.0");
        assert!(!is_trusted_with_more(), "tests have the privileges of who runs them");
    }

    #[test]
    fn a_library_that_is_not_there_is_named_with_its_package() {
        let error = Library::load("libslirp-of-nowhere.so.0").err().expect("there is none of that name");
        assert!(error.contains("libslirp-of-nowhere.so.0") && error.contains("libslirp0 (Debian"), "{error}");
        let error = Library::load("libc.so.6").err().expect("it is another library");
        assert!(error.contains("slirp_new") && error.contains("libslirp0 (Debian"), "{error}");
    }

    #[test]
    fn the_library_of_this_host_has_all_that_is_needed() {
        let library = Library::load("libslirp.so.0").unwrap_or_else(|error| panic!("{error}"));
        assert!(library.version().starts_with("4."), "{}", library.version());
        assert!(library.add_hostxfwd.is_some());
    }
}
