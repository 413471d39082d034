//! What tests of several drivers need.

use ringyard_dataplane::frame::{BurstBuilder, Piece};
use ringyard_dataplane::offload::Offloads;

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

/// Adds the frame that lies in `pieces`, whose sender may ask for anything, behind the virtio-net header `net`.
#[allow(unsafe_code)]
pub(crate) fn lend_pieces<'m>(builder: &mut BurstBuilder<'_, 'm>, net: &[u8; 10], pieces: &[&'m [u8]]) {
    let pieces: Vec<Piece> =
        pieces.iter().map(|piece| Piece::at(piece.as_ptr(), piece.len() as u32)).collect();
    assert!(!builder.is_full(pieces.len()));
    // SAFETY: the pieces outlive the burst, which has room for them.
    unsafe { builder.push_lent_asking(net, &pieces, Offloads::ALL) }.unwrap();
}

/// An eventfd that does not block.
pub(crate) fn event() -> std::sync::Arc<std::os::fd::OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    std::sync::Arc::new(rustix::event::eventfd(0, flags).unwrap())
}
