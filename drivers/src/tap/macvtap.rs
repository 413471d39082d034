//! Interfaces that are taps of their own kind (macvtap, ipvtap): each has a device file, `/dev/tap` and its number.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::makedev;

use super::OpenError;

/// The device file of the interface `name`; `None` when it is no such interface, or none at all.
///
/// Errors: it is, but the file is missing or is another one's: that happens in a namespace or a container, where device
/// files are somebody else's.
pub(super) fn device_of(name: &str) -> Result<Option<String>, OpenError> {
    let directory = format!("/sys/class/net/{name}");
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(None) };
    let taps = entries.flatten().filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.strip_prefix("tap")?.parse().ok()?;
        let device = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = device.trim().split_once(':')?;
        Some((number, major.parse().ok()?, minor.parse().ok()?))
    });
    let Some((number, major, minor)) = taps.into_iter().next() else { return Ok(None) };
    let path = format!("/dev/tap{number}");
    let remedy = format!("{name} is the device {major}:{minor}; mknod {path} c {major} {minor}");
    match fs::metadata(&path) {
        Ok(file) if file.rdev() == makedev(major, minor) => Ok(Some(path)),
        Ok(_) => Err(OpenError(format!("could not open {path}: it is of another interface ({remedy})"))),
        Err(error) => Err(OpenError::new(format!("could not open {path} ({remedy})"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_interfaces_have_no_device_file() {
        assert_eq!(device_of("lo"), Ok(None));
        assert_eq!(device_of("no-such-one"), Ok(None));
    }
}
