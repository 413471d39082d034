//! `vhost-vdpa`: a vDPA device of the host.

use std::sync::Arc;

use ringyard_drivers::vhost_vdpa::QUEUES_MAX;
use serde_json::{Map, Value};

use super::FdRef;
use super::netdev::{Members, NetdevKind};
use crate::ports::{VDPA_FD_ERROR, VdpaDevice, VhostVdpaSpec};
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of a `vhost-vdpa` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct VhostVdpa as "NetdevVhostVDPAOptions" {
        /// The device's path.
        pub vhostdev: Option<String>,
        /// An open descriptor of it.
        pub vhostfd: Option<String>,
        /// Queue pairs to be used, as far as the device has them.
        pub queues: Option<i64>,
        /// Shadow virtqueues, which are between a guest and a device. Here is no guest: the rings are ours.
        pub x_svq: Option<bool>,
    }
}

impl Members for VhostVdpa {
    fn type_name(&self) -> &'static str {
        "vhost-vdpa"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(self.spec()?)))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl VhostVdpa {
    fn spec(&self) -> Result<VhostVdpaSpec, QapiError> {
        let device = match (&self.vhostdev, &self.vhostfd) {
            (Some(_), Some(_)) => {
                return refused("vhost-vdpa: vhostdev= and vhostfd= are mutually exclusive");
            }
            (None, None) => {
                return refused("vhost-vdpa: neither vhostdev= nor vhostfd= was specified");
            }
            (Some(path), None) => match FdRef::of_path(path) {
                Some(set) => VdpaDevice::Fd(set),
                None => VdpaDevice::Path(path.clone()),
            },
            (None, Some(fd)) => VdpaDevice::Fd(FdRef::parse(fd).map_err(|error| {
                let desc = format!("{VDPA_FD_ERROR}{}", error.desc);
                QapiError { desc, ..error }
            })?),
        };
        // QEMU takes any number, and ignores it.
        let queues = self.queues.unwrap_or(1).clamp(1, QUEUES_MAX.into()) as u16;
        Ok(VhostVdpaSpec { device, queues })
    }
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(
        vhostdev: Option<&str>,
        vhostfd: Option<&str>,
        queues: Option<i64>,
    ) -> Result<VhostVdpaSpec, String> {
        let (vhostdev, vhostfd) = (vhostdev.map(String::from), vhostfd.map(String::from));
        let members = VhostVdpa { vhostdev, vhostfd, queues, x_svq: Some(true) };
        members.spec().map_err(|error| error.desc)
    }

    #[test]
    fn a_device_is_a_path_or_a_descriptor() {
        let refusals = [
            (None, None, "vhost-vdpa: neither vhostdev= nor vhostfd= was specified"),
            (Some("/dev/x"), Some("3"), "vhost-vdpa: vhostdev= and vhostfd= are mutually exclusive"),
            (None, Some("7x"), "vhost-vdpa: unable to parse vhostfd: Invalid file descriptor number '7x'"),
        ];
        for (path, fd, text) in refusals {
            assert_eq!(spec(path, fd, None), Err(text.into()));
        }
        let device = |path, fd| spec(path, fd, None).map(|spec| spec.device);
        assert_eq!(device(Some("/dev/vhost-vdpa-0"), None), Ok(VdpaDevice::Path("/dev/vhost-vdpa-0".into())));
        assert_eq!(device(Some("/dev/fdset/3"), None), Ok(VdpaDevice::Fd(FdRef::Set(3))));
        assert_eq!(device(None, Some("v")), Ok(VdpaDevice::Fd(FdRef::Name("v".into()))));
    }

    #[test]
    fn any_number_of_queues_is_one_that_can_be() {
        let queues = |number| spec(Some("/dev/x"), None, number).map(|spec| spec.queues);
        let wanted = [None, Some(-1), Some(0), Some(4), Some(i64::MAX)].map(queues);
        assert_eq!(wanted, [1, 1, 1, 4, 256].map(Ok));
    }
}
