//! The memory that a driver shares: what VDUSE has under each address, mapped.
//!
//! With virtio_vdpa it is the kernel's bounce buffer and the rings; with vhost_vdpa the files of whoever drives the
//! device, who may be anybody: only such are mapped whose pages nobody can keep from us, and one that is truncated hurts
//! its own port alone.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use libc::{HUGETLBFS_MAGIC, TMPFS_MAGIC};
use ringyard_dataplane::ring::{Mapping, MemoryTable, REGIONS_MAX, Region};

use super::device::Device;
use crate::errno;
use crate::sys::vduse::{ACCESS_RW, IotlbEntry};

/// All that is mapped now. `trouble` is signalled when a file of it is truncated later. What is read-only to devices is
/// left out, and so is what is not fit to be mapped, each with a word in the log: a ring that needs it breaks.
pub(super) fn table(device: &Device, trouble: &Arc<OwnedFd>) -> Result<Arc<MemoryTable>, String> {
    let (mut regions, mut next, mut taken) = (Vec::new(), Some(0), 0u64);
    while let Some(start) = next {
        let Some((entry, file)) = device.mapping(start) else { break };
        if regions.len() == REGIONS_MAX {
            return Err(format!("more than {REGIONS_MAX} mappings"));
        }
        next = entry.last.checked_add(1).filter(|&next| next > start);
        match region(&entry, &file, &mut taken, trouble) {
            Ok(region) => regions.push(region),
            Err(why) => tracing::warn!(
                device = device.name(),
                why,
                "x-vduse: addresses from {:#x} to {:#x} are not reached",
                entry.start,
                entry.last
            ),
        }
    }
    MemoryTable::new(regions).map(Arc::new).map_err(|error| error.to_string())
}

fn region(
    entry: &IotlbEntry,
    file: &OwnedFd,
    taken: &mut u64,
    trouble: &Arc<OwnedFd>,
) -> Result<Region, String> {
    if entry.perm != ACCESS_RW {
        return Err("they are not to be both read and written".into());
    }
    let system = rustix::fs::fstatfs(file).map_err(errno::text)?;
    let known = [TMPFS_MAGIC as u64, HUGETLBFS_MAGIC as u64, ANON_INODE_FS_MAGIC];
    if !known.contains(&(system.f_type as u64)) {
        return Err("they are no memory of the kernel, tmpfs or hugetlbfs".into());
    }
    let Extent { start, inner, bytes, len } = extent(entry, u64::try_from(system.f_bsize).unwrap_or(0))?;
    *taken = taken.saturating_add(bytes);
    if *taken > ADDRESSES_MAX {
        return Err(format!("they are more than {ADDRESSES_MAX:#x} bytes with those before"));
    }
    let mapping = Mapping::of_foreign_range(file, start, bytes as usize, trouble.clone());
    let mapping = mapping.map_err(errno::text)?;
    Ok(Region {
        guest_addr: entry.start,
        user_addr: entry.start,
        len,
        offset: inner,
        mapping: Arc::new(mapping),
    })
}

/// What of a file is to be mapped: whole blocks, `bytes` from `start` on; `inner` bytes behind that the mapping's `len`
/// begin.
#[derive(Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    inner: u64,
    bytes: u64,
    len: u64,
}

fn extent(entry: &IotlbEntry, block: u64) -> Result<Extent, String> {
    let wraps = || "they wrap around".to_owned();
    let block = block.max(PAGE_LEN);
    let len = entry.last.checked_sub(entry.start).and_then(|len| len.checked_add(1)).ok_or_else(wraps)?;
    let inner = entry.offset % block;
    let bytes =
        inner.checked_add(len).and_then(|bytes| bytes.checked_next_multiple_of(block)).ok_or_else(wraps)?;
    Ok(Extent { start: entry.offset - inner, inner, bytes, len })
}

const PAGE_LEN: u64 = 4096;
/// Bytes of our address space that the memory of one port may take.
const ADDRESSES_MAX: u64 = 1 << 40;
/// ANON_INODE_FS_MAGIC of `linux/magic.h`: files that only the kernel makes, such as VDUSE's bounce buffer.
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64, start: u64, last: u64) -> IotlbEntry {
        IotlbEntry { offset, start, last, perm: ACCESS_RW, ..IotlbEntry::default() }
    }

    #[test]
    fn whole_blocks_are_mapped_and_the_region_begins_inside() {
        let bounce = extent(&entry(0, 0, 0x3ff_ffff), 4096);
        assert_eq!(bounce, Ok(Extent { start: 0, inner: 0, bytes: 0x400_0000, len: 0x400_0000 }));
        let odd = extent(&entry(0x1800, 0x7000, 0x77ff), 4096);
        assert_eq!(odd, Ok(Extent { start: 0x1000, inner: 0x800, bytes: 0x1000, len: 0x800 }));
        let huge = extent(&entry(0x30_0000, 0, 0xf_ffff), 0x20_0000);
        assert_eq!(huge, Ok(Extent { start: 0x20_0000, inner: 0x10_0000, bytes: 0x20_0000, len: 0x10_0000 }));
    }

    #[test]
    fn addresses_that_wrap_are_refused() {
        for (offset, start, last) in [(0, 0, u64::MAX), (0, 2, 1), (1, 0, u64::MAX - 1)] {
            assert_eq!(extent(&entry(offset, start, last), 4096), Err("they wrap around".into()));
        }
    }

    #[test]
    fn only_memory_that_is_there_and_stays_is_mapped() {
        let trouble = Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap());
        let (_, memfd) = Mapping::memfd("test", 0x4000).unwrap();
        let map = |entry: &IotlbEntry, file| region(entry, file, &mut 0, &trouble).map(|region| region.len);
        assert_eq!(map(&entry(0x1000, 0x10_0000, 0x10_1fff), &memfd), Ok(0x2000));
        let read_only = IotlbEntry { perm: 1, ..entry(0, 0, 0xfff) };
        assert!(map(&read_only, &memfd).is_err());
        let proc: OwnedFd = std::fs::File::open("/proc/self/maps").unwrap().into();
        assert!(map(&entry(0, 0, 0xfff), &proc).is_err_and(|why| why.contains("tmpfs")));
        let mut taken = ADDRESSES_MAX;
        assert!(region(&entry(0, 0, 0xfff), &memfd, &mut taken, &trouble).is_err());
    }
}
