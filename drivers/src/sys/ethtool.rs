//! The features of an interface (`linux/ethtool.h`).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::{checked, tap};

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const NAME_LEN: usize = 32;
/// More than any kernel has.
const FEATURES_MAX: usize = 256;
/// Words of each answer before its list.
const HEAD: usize = 3;

/// The features of one interface.
pub(crate) struct Features {
    /// Of [`NAME_LEN`] bytes each, one behind the other.
    names: Vec<u8>,
    /// Of each 32 features the available, requested, active, and fixed ones.
    words: Vec<u32>,
}

impl Features {
    /// Those of the interface `name`, asked for by any socket.
    pub(crate) fn of(socket: impl AsFd, name: &str) -> Result<Features, Errno> {
        let socket = socket.as_fd();
        // struct ethtool_sset_info: command, reserved, a mask of 64 bits, a number for each bit.
        let mut count = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        #[cfg(target_endian = "big")]
        count.swap(2, 3);
        // SAFETY: one bit is asked for, and there is room for its number.
        unsafe { ask(socket, name, &mut count) }?;
        // How many there are is compiled into the kernel.
        let count = count[4] as usize;
        if count > FEATURES_MAX {
            return Err(Errno::OVERFLOW);
        }
        // struct ethtool_gstrings: command, set, length, strings.
        let mut strings = vec![0; HEAD + count * NAME_LEN / size_of::<u32>()];
        strings[..HEAD].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
        // SAFETY: there is room for as many names as the kernel has.
        unsafe { ask(socket, name, &mut strings) }?;
        // struct ethtool_gfeatures: command, size, blocks of four words.
        let blocks = count.div_ceil(32);
        let mut features = vec![0; 2 + blocks * 4];
        features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
        // SAFETY: there is room for as many blocks as it says.
        unsafe { ask(socket, name, &mut features) }?;
        let names = strings[HEAD..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Features { names, words: features.split_off(2) })
    }

    /// Whether the feature `wanted` is switched on.
    pub(crate) fn has(&self, wanted: &str) -> bool {
        let is = |name: &[u8]| name.split(|&byte| byte == 0).next() == Some(wanted.as_bytes());
        let at = self.names.chunks_exact(NAME_LEN).position(is);
        at.is_some_and(|at| self.words[at / 32 * 4 + 2] >> (at % 32) & 1 == 1)
    }
}

/// SIOCETHTOOL: the answer takes the question's place.
///
/// # Safety
/// The words have room for the answer.
unsafe fn ask(socket: impl AsFd, name: &str, words: &mut [u32]) -> Result<(), Errno> {
    let mut request = tap::request(name)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the question and writes an answer, for which there is room; the words outlive the call.
    checked(unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, &raw mut request) }).map(drop)
}
