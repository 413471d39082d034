//! Datagram netdevs in a running switch: `dgram`, and the datagram forms of `socket`, with QEMU's own at the other end.

mod bench;
mod group;
mod hostile;
mod life;
mod qemu;
