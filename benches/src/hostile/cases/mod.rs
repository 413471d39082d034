//! The cases that a front end can do, by their numbers in the hostile catalogue: G ring content, H virtio-net headers and
//! frames, P messages, descriptors and memory, F floods.

mod chains;
mod command;
mod content;
mod descriptors;
mod flood;
mod frames;
mod headers;
mod indices;
mod memory;
mod messages;
mod race;
mod receive;
mod session;
mod tables;
mod truncate;

use super::bout::Bout;
use crate::error::Result;

/// One case.
pub struct Case {
    /// Its number.
    pub id: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// Tries its inputs.
    pub attack: fn(&mut Bout<'_>) -> Result<()>,
}

const fn case(id: &'static str, what: &'static str, attack: fn(&mut Bout<'_>) -> Result<()>) -> Case {
    Case { id, what, attack }
}

/// All cases, in the catalogue's order.
pub const CASES: [Case; 86] = [
    case("G01", "a descriptor that is its own next", chains::own_next),
    case("G02", "loops of two descriptors and of all", chains::loops),
    case("G03", "a head beyond the ring", indices::heads),
    case("G04", "a next beyond the ring", chains::nexts),
    case("G05", "an address in no region", chains::nowhere),
    case("G06", "a buffer over a region's end", chains::over_the_end),
    case("G07", "address plus length wraps", chains::wraps),
    case("G08", "buffers of no length", chains::empty),
    case("G09", "no length at a bad address", chains::empty_nowhere),
    case("G10", "a length of 2^32 - 1", chains::longest),
    case("G11", "256 descriptors of 60,000 bytes", chains::large),
    case("G12", "a virtio-net header and no frame", content::header_alone),
    case("G13", "less than a virtio-net header", content::half_a_header),
    case("G14", "frames of 1 to 13 bytes", content::runts),
    case("G15", "a header in 12 descriptors", content::header_in_bytes),
    case("G16", "indirect tables as they should be", tables::honest),
    case("G17", "an indirect table of no length", tables::empty),
    case("G18", "an indirect table with half an entry", tables::halves),
    case("G19", "an indirect table in an indirect table", tables::nested),
    case("G20", "INDIRECT and NEXT together", tables::with_next),
    case("G21", "an indirect table outside, or over a border", tables::places),
    case("G22", "a loop inside an indirect table", tables::loops),
    case("G23", "an indirect table of 65,536 entries", tables::long),
    case("G24", "an available index that jumps", indices::jumps),
    case("G25", "an available index that goes back", indices::back),
    case("G26", "a transmit buffer marked as writable", content::writable),
    case("G27", "receive buffers that are not writable", receive::not_writable),
    case("G28", "readable and writable in the wrong order", receive::order),
    case("G29", "everything changes between check and use", race::everything),
    case("G30", "an index written byte by byte", race::torn_index),
    case("G31", "rings and buffers over one another", indices::overlaps),
    case("G32", "one buffer, or one head, many times", content::twice),
    case("G33", "packed rings that lie about rounds", indices::rounds),
    case("G34", "events far away, flags that flip", race::flags),
    case("G35", "a storm of kicks, kicks out of turn", race::kicks),
    case("G36", "control commands that lie", command::commands),
    case("H01", "a checksum beyond the frame", headers::checksum),
    case("H02", "a header that changes meanwhile", race::header),
    case("H03", "segmentation of unknown kinds", headers::kinds),
    case("H04", "segments of no length", headers::no_size),
    case("H05", "segmentation without a checksum", headers::no_checksum),
    case("H06", "a header length that lies", headers::header_length),
    case("H07", "offloads that were not negotiated", headers::not_negotiated),
    case("H08", "a number of buffers that lies", headers::buffers),
    case("H09", "a frame that is larger than the buffers", receive::too_small),
    case("H10", "a larger header than negotiated", headers::larger),
    case("H11", "every header bit, relayed to another port", headers::every_bit),
    case("H12", "frames that are too long", frames::too_long),
    case("H13", "stacks of VLAN tags", frames::tags),
    case("H14", "IP and TCP headers that are cut or lie", frames::cut),
    case("H15", "protocol 0, padding, odd EtherTypes", frames::odd),
    case("H16", "a flood of source addresses", frames::sources),
    case("H17", "LLDP, DHCP, ARP and ND that lie", frames::protocols),
    case("H18", "TCP with lying pointers and fragments", frames::tcp_states),
    case("H19", "commands of FTP, IRC and SIP", frames::helpers),
    case("H20", "frames to their own port", frames::own_port),
    case("H21", "bytes behind a received frame", receive::behind),
    case("P01", "ring sizes", messages::sizes),
    case("P02", "ring numbers", messages::numbers),
    case("P03", "a ring size set 20,000 times", messages::repeated),
    case("P04", "ring addresses", messages::addresses),
    case("P05", "memory tables of wrong length", memory::tables),
    case("P06", "memory regions that wrap", memory::wraps),
    case("P07", "a memory region larger than its file", memory::larger),
    case("P08", "a memory file that is truncated", truncate::files),
    case("P09", "memory regions that overlap", memory::overlaps),
    case("P10", "memory that is no memory file", memory::kinds),
    case("P11", "descriptors missing or left over", descriptors::counts),
    case("P12", "2,000 messages that fail", descriptors::failures),
    case("P13", "call descriptors that block", descriptors::calls),
    case("P14", "kick and error descriptors of other kinds", descriptors::kicks),
    case("P15", "memory that changes during traffic", memory::changes),
    case("P16", "messages about a running ring", session::running),
    case("P17", "half messages, and replies never read", session::halves),
    case("P18", "message sizes that lie", messages::lengths),
    case("P19", "unknown requests and flags", messages::unknown),
    case("P20", "inflight regions that lie", messages::inflight),
    case("P21", "dirty logs that lie", messages::logs),
    case("P22", "features never offered, or changed", messages::features),
    case("P23", "front ends that leave at any step", session::leaving),
    case("P24", "requests that were not negotiated", messages::not_negotiated),
    case("P25", "more memory than there are addresses for", memory::sparse),
    case("F01", "a port that sends as fast as it can", flood::sender),
    case("F02", "a receiver that never refills", flood::receiver),
    case("F03", "200 connections that trickle", flood::trickle),
    case("F04", "the time after an overload", flood::recovery),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_stand_in_order_and_each_once() {
        let letters = [('G', 36), ('H', 21), ('P', 25), ('F', 4)];
        let expected = letters
            .into_iter()
            .flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}{number:02}")));
        assert!(CASES.iter().map(|case| case.id.to_string()).eq(expected));
    }
}
