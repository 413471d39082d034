//! What is known of one connection, as its journal has it: all that a successor cannot ask for again.
//!
//! It is JSON, since a person may have to read it. A successor believes none of it: descriptors, regions and rings go
//! through the same checks as when the front end sent them.

use std::collections::{BTreeMap, BTreeSet};

use ringyard_dataplane::mac::Mac;
use serde::{Deserialize, Serialize};

use super::nic::NicState;

/// The number of a kept descriptor; none is used twice in a connection.
pub(super) type Number = u64;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Features: as offered last, and acknowledged; then those of the protocol.
    pub offered: u64,
    pub features: u64,
    pub protocol: u64,
    pub status: u64,
    /// Workers may have rings of it.
    pub attached: bool,
    pub nic: KnownNic,
    pub regions: Vec<KnownRegion>,
    /// By number, those of which something was said.
    pub rings: BTreeMap<usize, KnownRing>,
    pub wishes: Option<KnownWishes>,
    /// The control queue was started from its beginning, and has not run since.
    pub control_is_new: bool,
    /// Whose announcement is due once its rings run.
    pub announce_later: Option<[u8; 6]>,
    pub backchannel: Option<Number>,
    pub inflight: Option<KnownInflight>,
    pub log: Option<KnownLog>,
    /// Who wants to hear that something was logged.
    pub log_bell: Option<Number>,
    /// A request that was received and may not have been served.
    pub request: Option<KnownRequest>,
    /// A reply that may not have been sent; how much of it was is the record's progress.
    pub reply: Option<KnownReply>,
}

/// A guest's nic, as the front end knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownNic {
    pub mac: Option<[u8; 6]>,
    pub standby: bool,
    pub link: bool,
}

/// A memory region, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownRegion {
    pub guest_addr: u64,
    pub user_addr: u64,
    pub len: u64,
    pub offset: u64,
    pub file: Number,
}

/// A ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownRing {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub base: Option<u16>,
    pub packed: bool,
    pub enabled: bool,
    pub kick: Option<Number>,
    pub call: Option<Number>,
    pub error: Option<Number>,
    /// Under which address its used part is logged, if it is.
    pub used_log: Option<u64>,
    /// Of one that is started.
    pub started: Option<KnownStart>,
}

/// How a started ring stands, as far as its own memory does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownStart {
    pub skew: u16,
    pub broken: bool,
}

/// What a driver wants that uses its control queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownWishes {
    pub own_mac: Option<[u8; 6]>,
    pub nic_mac: Option<[u8; 6]>,
    pub promiscuous: bool,
    pub all_multicast: bool,
    pub all_unicast: bool,
    pub no_multicast: bool,
    pub no_unicast: bool,
    pub no_broadcast: bool,
    pub unicast: KnownTable,
    pub multicast: KnownTable,
    pub vlans: Vec<u16>,
    pub pairs: u16,
    pub announces: bool,
}

/// A table of addresses, or that there were too many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownTable {
    pub macs: Vec<[u8; 6]>,
    pub overflow: bool,
}

/// The buffer that the front end keeps for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownInflight {
    pub file: Number,
    pub len: u64,
    pub offset: u64,
    pub queues: u16,
    pub size: u16,
}

/// The dirty log of a guest that is being migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownLog {
    pub file: Number,
    pub len: u64,
    pub offset: u64,
}

/// A request, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownRequest {
    pub request: u32,
    pub need_reply: bool,
    pub body: Vec<u8>,
    pub fds: Vec<Number>,
}

/// A reply, whole, with its header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownReply {
    pub bytes: Vec<u8>,
    pub fd: Option<Number>,
}

impl Known {
    /// Errors: it is not what a journal has in it; a sentence.
    pub(super) fn read(bytes: &[u8]) -> Result<Known, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("reading its record: {error}"))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // There is nothing in it that has no JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The descriptors that it speaks of.
    pub(super) fn numbers(&self) -> BTreeSet<Number> {
        let rings = self.rings.values().flat_map(|ring| [ring.kick, ring.call, ring.error]);
        let request = self.request.iter().flat_map(|request| request.fds.iter().copied().map(Some));
        let others = [
            self.backchannel,
            self.inflight.map(|inflight| inflight.file),
            self.log.map(|log| log.file),
            self.log_bell,
            self.reply.as_ref().and_then(|reply| reply.fd),
        ];
        let regions = self.regions.iter().map(|region| Some(region.file));
        rings.chain(request).chain(others).chain(regions).flatten().collect()
    }
}

impl From<NicState> for KnownNic {
    fn from(NicState { mac, standby, link }: NicState) -> KnownNic {
        KnownNic { mac: mac.map(|Mac(mac)| mac), standby, link }
    }
}

impl From<KnownNic> for NicState {
    fn from(KnownNic { mac, standby, link }: KnownNic) -> NicState {
        NicState { mac: mac.map(Mac), standby, link }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Known {
        let ring = KnownRing { kick: Some(1), call: Some(2), base: Some(3), ..KnownRing::default() };
        let region = KnownRegion { guest_addr: 0, user_addr: 1, len: u64::MAX, offset: 3, file: 4 };
        Known {
            regions: vec![region],
            rings: [(256, KnownRing { started: Some(KnownStart::default()), ..ring })].into(),
            wishes: Some(KnownWishes {
                own_mac: Some([9; 6]),
                vlans: vec![0, 4095],
                ..KnownWishes::default()
            }),
            backchannel: Some(5),
            inflight: Some(KnownInflight { file: 6, len: 1, offset: 0, queues: 2, size: 3 }),
            log: Some(KnownLog { file: 10, len: 1, offset: 0 }),
            log_bell: Some(11),
            request: Some(KnownRequest { request: 12, need_reply: true, body: vec![7; 9], fds: vec![7, 8] }),
            reply: Some(KnownReply { bytes: vec![0; 20], fd: Some(9) }),
            ..Known::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for known in [Known::default(), full()] {
            assert_eq!(Known::read(&known.bytes()), Ok(known));
        }
        assert_eq!(full().numbers(), (1..=11).filter(|&number| number != 3).collect());
    }

    #[test]
    fn garbled_record_is_an_error_and_no_panic() {
        let whole = full().bytes();
        for cut in 0..whole.len() {
            assert!(Known::read(&whole[..cut]).is_err(), "{cut}");
        }
        for place in 0..whole.len() {
            for byte in [0, b'"', b'{', b'9', b'-', 0xff] {
                let mut garbled = whole.clone();
                garbled[place] = byte;
                let _ = Known::read(&garbled);
            }
        }
    }
}
