//! The way back from memory as it lies here to guest addresses, for the dirty log.

use super::memory::{MemoryTable, Window};

/// What guest address stands where. Stretches that do not overlap, sorted by where they begin here.
pub(crate) struct Reverse(Vec<Stretch>);

struct Stretch {
    start: usize,
    len: u64,
    guest_addr: u64,
}

impl Reverse {
    /// That of a guest's memory. What has several guest addresses is known by one of them.
    pub(crate) fn of(memory: &MemoryTable) -> Reverse {
        let stretch = |Window { first, len, start }| Stretch { start: start.addr(), len, guest_addr: first };
        let mut stretches: Vec<Stretch> = memory.windows().map(stretch).collect();
        stretches.sort_by_key(|stretch| stretch.start);
        let mut end = 0usize;
        for stretch in &mut stretches {
            let known = (end.saturating_sub(stretch.start) as u64).min(stretch.len);
            stretch.start += known as usize;
            stretch.len -= known;
            stretch.guest_addr += known;
            end = end.max(stretch.start + stretch.len as usize);
        }
        stretches.retain(|stretch| stretch.len > 0);
        Reverse(stretches)
    }

    /// The guest address of what lies at `start`.
    pub(crate) fn guest_addr(&self, start: *const u8) -> Option<u64> {
        self.find(start).map(|(addr, _)| addr)
    }

    /// Shows the guest ranges of `len` bytes from `start` on to `visit`, until it says no. Whether it was shown them all.
    pub(crate) fn each(&self, start: *const u8, len: u64, mut visit: impl FnMut(u64, u64) -> bool) -> bool {
        let mut done = 0;
        while done < len {
            let Some((addr, here)) = self.find(start.wrapping_add(done as usize)) else { return false };
            let here = here.min(len - done);
            if !visit(addr, here) {
                return false;
            }
            done += here;
        }
        true
    }

    /// The guest address of what lies at `start`, and how many bytes follow it there.
    fn find(&self, start: *const u8) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|stretch| stretch.start <= start.addr());
        let stretch = &self.0[after.checked_sub(1)?];
        let offset = (start.addr() - stretch.start) as u64;
        (offset < stretch.len).then(|| (stretch.guest_addr + offset, stretch.len - offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Mapping, Region};
    use super::*;

    /// Regions of one mapping, by guest address, length and place.
    fn reverse(mapping: &Arc<Mapping>, regions: &[(u64, u64, u64)]) -> Reverse {
        let region = |&(guest_addr, len, offset): &(u64, u64, u64)| Region {
            guest_addr,
            user_addr: guest_addr,
            len,
            offset,
            mapping: mapping.clone(),
        };
        Reverse::of(&MemoryTable::new(regions.iter().map(region).collect()).unwrap())
    }

    #[test]
    fn what_lies_here_is_found_where_the_guest_has_it() {
        let mapping = Arc::new(Mapping::memfd("reverse", 0x9000).unwrap().0);
        let reverse = reverse(&mapping, &[(0x10_0000, 0x2000, 0x4000), (0x20_0000, 0x3000, 0x1000)]);
        let at = |offset: usize| reverse.guest_addr(mapping.start().wrapping_add(offset));
        assert_eq!((at(0xfff), at(0x1000), at(0x3fff)), (None, Some(0x20_0000), Some(0x20_2fff)));
        assert_eq!((at(0x4000), at(0x5fff), at(0x6000)), (Some(0x10_0000), Some(0x10_1fff), None));
        let mut seen = Vec::new();
        let whole = reverse.each(mapping.start().wrapping_add(0x3800), 0x1000, |addr, len| {
            seen.push((addr, len));
            true
        });
        assert!(whole);
        assert_eq!(seen, [(0x20_2800, 0x800), (0x10_0000, 0x800)]);
        assert!(!reverse.each(mapping.start().wrapping_add(0x5800), 0x1000, |_, _| true), "runs out");
    }

    #[test]
    fn memory_with_several_addresses_is_known_by_one_of_them() {
        let mapping = Arc::new(Mapping::memfd("reverse", 0x9000).unwrap().0);
        let regions = [(0x10_0000, 0x6000, 0x1000), (0x20_0000, 0x1000, 0x2000), (0x30_0000, 0x4000, 0x4000)];
        let reverse = reverse(&mapping, &regions);
        for offset in 0x1000u64..0x8000 {
            let found = reverse.guest_addr(mapping.start().wrapping_add(offset as usize)).unwrap();
            let is_named = |&(addr, len, at): &(u64, u64, u64)| {
                found.checked_sub(addr).is_some_and(|in_region| in_region < len && at + in_region == offset)
            };
            assert!(regions.iter().any(is_named), "{offset:#x}: {found:#x}");
        }
    }
}
