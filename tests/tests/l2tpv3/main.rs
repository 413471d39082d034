//! Tunnels of type `l2tpv3`: with QEMU's, with Linux's, and with whoever means harm.

mod bench;
mod hostile;
mod kernel;
mod life;
mod qemu;
