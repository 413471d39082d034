//! `af-packet`: an interface of the host, through packet sockets.

use std::sync::Arc;

use ringyard_drivers::af_packet::{AfPacketOptions, Fanout, QUEUES_MAX};
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use super::tap::check_interface_name;
use crate::ports::AfPacketSpec;
use crate::qapi::{QapiEnum, QapiError, Word, options, written};

options! {
    /// The members of an `af-packet` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct AfPacket as "NetdevAFPacketOptions" {
        /// The interface's name.
        pub ifname: String,
        /// Sockets on it, each with an ingress and an egress; 1 without it.
        pub queues: Option<u32>,
        /// How they share what comes in: `hash` without it.
        pub fanout: Option<Word<Fanout>>,
        /// Whether frames for others are taken; on without it.
        pub promisc: Option<bool>,
        /// Whether the interface completes and cuts what senders left to it; on without it.
        pub vnet_hdr: Option<bool> = "vnet_hdr",
    }
}

impl QapiEnum for Fanout {
    const TYPE: &'static str = "AFPacketFanout";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("hash", Fanout::Hash),
        ("lb", Fanout::LoadBalance),
        ("cpu", Fanout::Cpu),
        ("rollover", Fanout::Rollover),
        ("rnd", Fanout::Random),
        ("qm", Fanout::QueueMapping),
    ];
}

impl Members for AfPacket {
    fn type_name(&self) -> &'static str {
        "af-packet"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(AfPacketSpec { options: self.options()? })))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl AfPacket {
    fn options(&self) -> Result<AfPacketOptions, QapiError> {
        check_interface_name(&self.ifname)?;
        let queues = self.queues.unwrap_or(1);
        let queues = u16::try_from(queues).ok().filter(|queues| (1..=QUEUES_MAX).contains(queues));
        let range = || format!("af-packet number of queues must be in range [1, {QUEUES_MAX}]");
        Ok(AfPacketOptions {
            ifname: self.ifname.clone(),
            queues: queues.ok_or_else(|| QapiError::generic(range()))?,
            fanout: self.fanout.map_or(Fanout::Hash, |Word(fanout)| fanout),
            promiscuous: self.promisc.unwrap_or(true),
            offloads: self.vnet_hdr.unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, Visitor, parse_keyval};

    fn visited(options: &str) -> Result<AfPacket, String> {
        let members = parse_keyval(options, "type", Flags::Refused).expect(options);
        Visitor::new(members, Form::Keyval).whole().map_err(|error| error.desc)
    }

    fn options(text: &str) -> Result<AfPacketOptions, String> {
        visited(text)?.options().map_err(|error| error.desc)
    }

    #[test]
    fn only_the_interface_must_be_named() {
        assert_eq!(options("queues=1").map(drop), Err("Parameter 'ifname' is missing".into()));
        let defaults = options("ifname=eth0").expect("it has all that it needs");
        assert_eq!((defaults.queues, defaults.fanout), (1, Fanout::Hash));
        assert!(defaults.promiscuous && defaults.offloads);
    }

    #[test]
    fn every_fanout_has_its_name() {
        for (name, fanout) in Fanout::NAMES {
            let text = format!("ifname=v0,queues=2,fanout={name},promisc=off,vnet_hdr=off");
            let given = options(&text).expect("all of these are options");
            assert_eq!((given.fanout, given.queues), (*fanout, 2));
            assert!(!given.promiscuous && !given.offloads);
        }
        let unknown = options("ifname=v0,fanout=all").map(drop);
        assert_eq!(unknown, Err("Parameter 'fanout' does not accept value 'all'".into()));
    }

    #[test]
    fn queues_and_names_are_limited() {
        let range = "af-packet number of queues must be in range [1, 256]";
        for queues in ["0", "257", "65537"] {
            assert_eq!(options(&format!("ifname=v0,queues={queues}")).map(drop), Err(range.into()));
        }
        assert!(options("ifname=v0,queues=256").is_ok());
        for bad in ["sixteen-bytes-xx", "a/b", ".."] {
            assert!(options(&format!("ifname={bad}")).is_err(), "{bad}");
        }
        assert!(options("ifname=").is_err());
    }
}
