//! What speaks QMP to a client, without touching a socket.

mod session;

pub use session::{Output, QUEUE_MAX, REPLY_BYTES_MAX, Session};
