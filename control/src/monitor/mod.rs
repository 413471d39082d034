//! What speaks QMP to a client, without touching a socket.

mod session;

pub use session::{Output, Session};
