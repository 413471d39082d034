//! What may fail at any time: system calls, and how.

use std::os::raw::c_long;

/// System calls that the switch makes and the loader, the allocator and the runtime do without.
pub const SYSTEM_CALLS: [(&str, c_long); 24] = [
    ("accept4", libc::SYS_accept4),
    ("bind", libc::SYS_bind),
    ("connect", libc::SYS_connect),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("eventfd2", libc::SYS_eventfd2),
    ("fchdir", libc::SYS_fchdir),
    ("fstatfs", libc::SYS_fstatfs),
    ("getsockopt", libc::SYS_getsockopt),
    ("ioctl", libc::SYS_ioctl),
    ("linkat", libc::SYS_linkat),
    ("listen", libc::SYS_listen),
    ("memfd_create", libc::SYS_memfd_create),
    ("mkdirat", libc::SYS_mkdirat),
    ("pipe2", libc::SYS_pipe2),
    ("recvmsg", libc::SYS_recvmsg),
    ("renameat2", libc::SYS_renameat2),
    ("sendmsg", libc::SYS_sendmsg),
    ("setsockopt", libc::SYS_setsockopt),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("unlinkat", libc::SYS_unlinkat),
    ("clone3", libc::SYS_clone3),
];

/// Errors of the whole machine, which any call may end with.
pub const ERRORS: [(&str, c_long); 4] = [
    ("EMFILE", libc::EMFILE as c_long),
    ("ENOMEM", libc::ENOMEM as c_long),
    ("ENOSPC", libc::ENOSPC as c_long),
    ("EPERM", libc::EPERM as c_long),
];
