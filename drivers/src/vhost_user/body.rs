//! The bodies of requests, each of exactly the size of its type.

use ringyard_dataplane::mac::Mac;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserMemory, VhostUserMemoryRegion};
use vm_memory::ByteValued;

use super::device::Refusal;

/// The body of a request that needs none.
pub(super) fn empty(body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() { Ok(()) } else { Err(Refusal::Bad(format!("{} bytes instead of none", body.len()))) }
}

/// The body of a request, which has the size of its type and no other.
pub(super) fn read<T: ByteValued + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.len() != size_of::<T>() {
        return Err(Refusal::Bad(format!("{} bytes instead of {}", body.len(), size_of::<T>())));
    }
    let mut value = T::default();
    value.as_mut_slice().copy_from_slice(body);
    Ok(value)
}

/// Frames of any size that fits the receiver's buffers are served, so any MTU that IP can use is (RFC 791).
pub(super) fn check_mtu(mtu: u64) -> Result<(), Refusal> {
    if (68..=65535).contains(&mtu) { Ok(()) } else { Err(Refusal::Bad(format!("an MTU of {mtu}"))) }
}

/// The address of SEND_RARP: the first six bytes of the number as it lies in memory.
pub(super) fn mac(number: u64) -> Result<Mac, Refusal> {
    let [a, b, c, d, e, f, ..] = number.to_ne_bytes();
    let mac = Mac([a, b, c, d, e, f]);
    if mac.is_multicast() {
        Err(Refusal::Bad(format!("an announcement of the group {mac}")))
    } else {
        Ok(mac)
    }
}

/// The body of GET_INFLIGHT_FD and SET_INFLIGHT_FD. Some send the four bytes that fill up its last word, and some do not.
pub(super) fn inflight(body: &[u8]) -> Result<VhostUserInflight, Refusal> {
    let mut whole = body.to_vec();
    if body.len() == INFLIGHT_LEN {
        whole.resize(size_of::<VhostUserInflight>(), 0);
    }
    read(&whole)
}

/// Bytes of it that say something.
const INFLIGHT_LEN: usize = 20;

/// The regions of SET_MEM_TABLE. User Mode Linux sends the whole of a table of its own size, however many it has.
pub(super) fn memory_table(body: &[u8]) -> Result<Vec<VhostUserMemoryRegion>, Refusal> {
    let bad = || Refusal::Bad(format!("a memory table of {} bytes", body.len()));
    let (head, rest) = body.split_at_checked(size_of::<VhostUserMemory>()).ok_or_else(bad)?;
    let count = read::<VhostUserMemory>(head)?.num_regions as usize;
    let parts = rest.chunks(size_of::<VhostUserMemoryRegion>());
    let regions = parts.map(read).collect::<Result<Vec<_>, _>>()?;
    regions.get(..count).map(<[_]>::to_vec).ok_or_else(bad)
}
