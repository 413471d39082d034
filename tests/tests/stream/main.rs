//! Stream netdevs in a running switch: `stream`, and the stream forms of `socket`, with QEMU's own, passt and hostile
//! peers at the other end.

mod bench;
mod guests;
mod hostile;
mod life;
mod passt;
mod qemu;
