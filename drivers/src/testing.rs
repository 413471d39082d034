//! What tests of several drivers need.

/// Runs `body` on a thread in a network namespace of its own, so that interfaces are nobody else's.
#[allow(unsafe_code)]
pub(crate) fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: NEWNET takes nothing away that this thread or another holds by reference.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("CAP_SYS_ADMIN for a network namespace");
        body();
    };
    std::thread::spawn(run).join().unwrap();
}

/// Runs `body` on a thread with mounts of its own, so that what it mounts nobody else sees.
#[allow(unsafe_code)]
pub(crate) fn with_own_mounts(body: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: NEWNS takes nothing away that this thread or another holds by reference.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .expect("CAP_SYS_ADMIN for a mount namespace");
        let private = std::process::Command::new("mount").args(["--make-rprivate", "/"]).status();
        assert!(private.expect("util-linux").success());
        body();
    };
    std::thread::spawn(run).join().unwrap();
}

/// An eventfd that does not block.
pub(crate) fn event() -> std::sync::Arc<std::os::fd::OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    std::sync::Arc::new(rustix::event::eventfd(0, flags).unwrap())
}
