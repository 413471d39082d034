//! The vhost-user driver under real front ends, over real sockets, on a running switch.

mod commands;
mod guest;
mod hold;
mod hostile;
mod inflight;
mod keeper;
mod life;
mod log;
mod messages;
mod packed;
mod raw;
mod restart;
mod yard;
