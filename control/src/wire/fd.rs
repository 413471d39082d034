//! How options name file descriptors: a number of our own process, or a name given with `getfd`.

use crate::qapi::QapiError;

/// A file descriptor that an option names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FdRef {
    /// A descriptor that we inherited.
    Number(i32),
    /// A name from `getfd` on the same monitor; using it consumes it.
    Name(String),
    /// A set of `add-fd`: one of it that can be both read and written.
    Set(i64),
    /// A set of `add-fd`: one of it that can be written.
    WritableSet(i64),
}

impl FdRef {
    /// A number when it starts with a digit, else a name.
    pub fn parse(text: &str) -> Result<Self, QapiError> {
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(FdRef::Name(text.to_owned()));
        }
        let invalid = |_| QapiError::generic(format!("Invalid file descriptor number '{text}'"));
        text.parse().map(FdRef::Number).map_err(invalid)
    }

    /// The set that a path stands for, if it is `/dev/fdset/ID`.
    pub fn of_path(path: &str) -> Option<Self> {
        path.strip_prefix("/dev/fdset/")?.parse().ok().map(FdRef::Set)
    }
}

/// What `getfd` demands of a name, once a descriptor came with it.
pub fn check_fd_name(name: &str) -> Result<(), QapiError> {
    match FdRef::parse(name) {
        Ok(FdRef::Name(_)) => Ok(()),
        _ => Err(QapiError::generic("Parameter 'fdname' expects a name not starting with a digit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_makes_it_a_number() {
        assert_eq!(FdRef::parse("7"), Ok(FdRef::Number(7)));
        assert_eq!(FdRef::parse("tap0"), Ok(FdRef::Name("tap0".into())));
        for bad in ["7x", "99999999999"] {
            let error = FdRef::parse(bad).expect_err(bad);
            assert_eq!(error.desc, format!("Invalid file descriptor number '{bad}'"));
        }
        assert_eq!(FdRef::of_path("/dev/fdset/12"), Some(FdRef::Set(12)));
        assert_eq!([FdRef::of_path("/dev/fdset/"), FdRef::of_path("/dev/vhost-vdpa-0")], [None, None]);
        assert!(check_fd_name("7x").is_err() && check_fd_name("x7").is_ok());
    }
}
