//! What the system says went wrong, for people to read.

use std::io;

use crate::sandbox::{self, Client};

/// The error as `strerror` has it, without the number that Rust adds.
pub fn text(error: impl Into<io::Error>) -> String {
    let error = error.into();
    if error.raw_os_error() == Some(libc::ENOSYS) && sandbox::opener().is_some_and(Client::is_gone) {
        return "the process that opens things for the switch has ended: restart the switch".into();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The same of what was done to a file; and who we are, where that is what is wrong.
pub(crate) fn with_user(error: impl Into<io::Error>) -> String {
    let error = error.into();
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let uid = rustix::process::geteuid().as_raw();
    if denied { format!("{} (as uid {uid})", text(error)) } else { text(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(text(Errno::NOENT), "No such file or directory");
        assert_eq!(text(io::Error::other("it is (not) so")), "it is (not) so");
    }
}
