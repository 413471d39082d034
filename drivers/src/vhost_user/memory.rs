//! A guest's memory, from the files that its front end sends; its dirty log comes in such a file, too.
//!
//! A file is mapped from its first byte, whatever part of it the region is, and to the end of its last page: so huge
//! pages need no case of their own. Only regular files of tmpfs and hugetlbfs are taken (a page fault in any other could
//! wait for somebody), only as far as they reach. They are kept from shrinking where the file allows that; where it does
//! not, the connection of whoever truncates one ends.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libc::{HUGETLBFS_MAGIC, TMPFS_MAGIC};
use ringyard_dataplane::ring::{Mapping, MemoryTable, Region};
use rustix::fs::{FileType, SealFlags};
use vhost::vhost_user::message::VhostUserMemoryRegion;

/// Regions that can be added one by one; as many as other back ends have.
pub(super) const SLOTS_MAX: usize = 509;

/// `kept` and new regions, each with its file. `trouble` is signalled when one of the files is truncated later.
pub(super) fn table(
    kept: &[Region],
    new: &[VhostUserMemoryRegion],
    fds: Vec<OwnedFd>,
    trouble: &Arc<OwnedFd>,
) -> Result<Arc<MemoryTable>, String> {
    if new.is_empty() || new.len() != fds.len() {
        return Err(format!("{} memory regions with {} files", new.len(), fds.len()));
    }
    if kept.len() + new.len() > SLOTS_MAX {
        return Err(format!("more than {SLOTS_MAX} memory regions"));
    }
    let check = |(fd, region): (OwnedFd, &VhostUserMemoryRegion)| {
        File::check(fd, "a memory region", region.mmap_offset, region.memory_size)
    };
    let mut files = fds.into_iter().zip(new).map(check).collect::<Result<Vec<File>, String>>()?;
    share(&mut files);
    let mut regions = kept.to_vec();
    for (file, region) in files.iter().zip(new) {
        let mapping = match file.shared_with {
            Some(first) => regions[kept.len() + first].mapping.clone(),
            None => file.map_beside(&regions, trouble)?,
        };
        regions.push(Region {
            guest_addr: region.guest_phys_addr,
            user_addr: region.user_addr,
            len: region.memory_size,
            offset: region.mmap_offset,
            mapping,
        });
    }
    MemoryTable::new(regions).map(Arc::new).map_err(|error| error.to_string())
}

/// Whether the region is there, known by its addresses and size. QEMU 7.2 adds and removes each region once for every
/// queue pair, so a second time must change nothing.
pub(super) fn has(kept: &[Region], region: &VhostUserMemoryRegion) -> bool {
    kept.iter().any(|known| is_same(known, region))
}

fn is_same(known: &Region, region: &VhostUserMemoryRegion) -> bool {
    let VhostUserMemoryRegion { guest_phys_addr, memory_size, user_addr, .. } = *region;
    (known.guest_addr, known.len, known.user_addr) == (guest_phys_addr, memory_size, user_addr)
}

/// `kept` without `gone`.
pub(super) fn without(kept: &[Region], gone: &VhostUserMemoryRegion) -> Result<Arc<MemoryTable>, String> {
    let rest: Vec<Region> = kept.iter().filter(|region| !is_same(region, gone)).cloned().collect();
    MemoryTable::new(rest).map(Arc::new).map_err(|error| error.to_string())
}

/// A file that is fit to be mapped.
pub(super) struct File {
    fd: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
    /// Bytes to map: up to the end of what is wanted, in whole pages.
    len: u64,
    /// The first file of the message that is the same.
    shared_with: Option<usize>,
}

impl File {
    /// A file for `what`, of which `size` bytes from byte `offset` on are wanted.
    pub(super) fn check(fd: OwnedFd, what: &str, offset: u64, size: u64) -> Result<File, String> {
        let cannot = |error| format!("looking at the file of {what}: {error}");
        let system = rustix::fs::fstatfs(&fd).map_err(cannot)?;
        let stat = rustix::fs::fstat(&fd).map_err(cannot)?;
        let known = [TMPFS_MAGIC, HUGETLBFS_MAGIC].iter().any(|&magic| magic as u64 == system.f_type as u64);
        if !known || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(format!("{what} is no file of tmpfs or hugetlbfs"));
        }
        // May fail: sealed against sealing, or no file that can be sealed. Before the size is asked for.
        let _ = rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK);
        let reach = rustix::fs::fstat(&fd).map_err(cannot)?.st_size as u64;
        let end = offset.checked_add(size).filter(|&end| size > 0 && end <= reach);
        let end = end.ok_or_else(|| {
            format!("{what} of {size:#x} bytes at {offset:#x} of a file of {reach:#x} bytes")
        })?;
        let page = u64::try_from(system.f_bsize).unwrap_or(0).max(1);
        let len = end.checked_next_multiple_of(page).ok_or_else(|| format!("{what} wraps around"))?;
        Ok(File { fd, identity: (stat.st_dev, stat.st_ino), len, shared_with: None })
    }

    /// Bytes to map.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Maps the file. `trouble` is signalled when it is truncated later.
    pub(super) fn map(&self, trouble: &Arc<OwnedFd>) -> Result<Mapping, String> {
        Mapping::of_foreign_file(&self.fd, self.len as usize, trouble.clone())
            .map_err(|error| format!("mapping {:#x} bytes of memory: {error}", self.len))
    }

    /// Maps the file if the port, whose other regions are `regions`, has addresses left.
    fn map_beside(&self, regions: &[Region], trouble: &Arc<OwnedFd>) -> Result<Arc<Mapping>, String> {
        let mapped = |region: &Region| (Arc::as_ptr(&region.mapping), region.mapping.len() as u64);
        let taken: u64 = regions.iter().map(mapped).collect::<BTreeMap<_, _>>().into_values().sum();
        if taken.saturating_add(self.len) > ADDRESSES_MAX {
            return Err(format!("more than {ADDRESSES_MAX:#x} bytes of memory"));
        }
        self.map(trouble).map(Arc::new)
    }
}

/// Regions of the same file share one mapping, as long as the longest needs.
fn share(files: &mut [File]) {
    for index in 1..files.len() {
        let identity = files[index].identity;
        if let Some(first) = files[..index].iter().position(|file| file.identity == identity) {
            files[first].len = files[first].len.max(files[index].len);
            files[index].shared_with = Some(first);
        }
    }
}

/// Bytes of our address space that the memory of one port may take.
const ADDRESSES_MAX: u64 = 1 << 40;
