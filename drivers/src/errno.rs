//! What the system says went wrong, for people to read.

use std::io;

/// The error as `strerror` has it, without the number that Rust adds.
pub(crate) fn text(error: impl Into<io::Error>) -> String {
    let text = error.into().to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
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
