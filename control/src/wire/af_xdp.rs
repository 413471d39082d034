//! `af-xdp`: an interface of the host, past its network stack.

use std::path::PathBuf;
use std::sync::Arc;

use ringyard_drivers::af_xdp::{Attach, QUEUE_MAX, QUEUES_MAX};
use serde_json::{Map, Value};

use super::FdRef;
use super::netdev::{Members, NetdevKind};
use crate::ports::{AfXdpSource, AfXdpSpec};
use crate::qapi::{QapiEnum, QapiError, Word, options, written};

options! {
    /// The members of an `af-xdp` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct AfXdp as "NetdevAFXDPOptions" {
        /// The interface's name.
        pub ifname: String,
        /// How the program is attached; else `native`, or `skb` where that is not to be had.
        pub mode: Option<Word<Attach>>,
        /// Whether frames are copied even where the driver could use our memory.
        pub force_copy: Option<bool>,
        /// Queues, one by default.
        pub queues: Option<i64>,
        /// The first of them.
        pub start_queue: Option<i64>,
        /// Whether a program is there already.
        pub inhibit: Option<bool>,
        /// Sockets that the program knows, between colons, one a queue.
        pub sock_fds: Option<String>,
        /// The file of the map in which the program looks sockets up.
        pub map_path: Option<String>,
        /// The place of the first queue's socket in it.
        pub map_start_index: Option<i32>,
    }
}

impl QapiEnum for Attach {
    const TYPE: &'static str = "AFXDPMode";
    const NAMES: &'static [(&'static str, Self)] = &[("native", Attach::Native), ("skb", Attach::Skb)];
}

impl Members for AfXdp {
    fn type_name(&self) -> &'static str {
        "af-xdp"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(self.spec()?)))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl AfXdp {
    /// In QEMU's order.
    fn spec(&self) -> Result<AfXdpSpec, QapiError> {
        let name = &self.ifname;
        let queues = self.queues.unwrap_or(1);
        let queues = u32::try_from(queues)
            .ok()
            .filter(|queues| (1..=QUEUES_MAX).contains(queues))
            .ok_or_else(|| QapiError::generic(format!("invalid number of queues ({queues}) for '{name}'")))?;
        let start_queue = self.start_queue.unwrap_or(0);
        let start_queue = u32::try_from(start_queue)
            .ok()
            .filter(|first| first.saturating_add(queues - 1) <= QUEUE_MAX)
            .ok_or_else(|| QapiError::generic(format!("invalid start queue ({start_queue}) for '{name}'")))?;
        Ok(AfXdpSpec {
            ifname: name.clone(),
            mode: self.mode.map(|Word(attach)| attach),
            force_copy: self.force_copy.unwrap_or(false),
            queues,
            start_queue,
            source: self.source(queues)?,
        })
    }

    fn source(&self, queues: u32) -> Result<AfXdpSource, QapiError> {
        let inhibit = self.inhibit.unwrap_or(false);
        let (sockets, map) = (&self.sock_fds, &self.map_path);
        if inhibit && sockets.is_none() && map.is_none() {
            return refused("'inhibit=on' requires 'sock-fds' or 'map-path'");
        }
        if !inhibit && (sockets.is_some() || map.is_some()) {
            return refused("'sock-fds' and 'map-path' require 'inhibit=on'");
        }
        if sockets.is_some() && map.is_some() {
            return refused("'sock-fds' and 'map-path' are mutually exclusive");
        }
        if map.is_none() && self.map_start_index.is_some() {
            return refused("'map-start-index' requires 'map-path'");
        }
        let index = self.map_start_index.unwrap_or(0);
        let start_index = u32::try_from(index)
            .map_err(|_| QapiError::generic(format!("'map-start-index' cannot be negative ({index})")))?;
        if let Some(path) = map {
            return Ok(AfXdpSource::Map { path: PathBuf::from(path), start_index });
        }
        let Some(sockets) = sockets else { return Ok(AfXdpSource::Own) };
        let count = sockets.split(':').count();
        if count != queues as usize {
            return refused(&format!("expected {queues} socket fds, got {count}"));
        }
        sockets.split(':').map(FdRef::parse).collect::<Result<_, _>>().map(AfXdpSource::Sockets)
    }
}

fn refused<T>(text: &str) -> Result<T, QapiError> {
    Err(QapiError::generic(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Form, Visitor};
    use serde_json::json;

    fn members(value: Value) -> Result<AfXdp, String> {
        let Value::Object(members) = value else { panic!("the test needs an object") };
        Visitor::new(members, Form::Json).whole().map_err(|error| error.desc)
    }

    fn refused(value: Value) -> String {
        let error = members(value).and_then(|members| members.spec().map_err(|error| error.desc));
        error.expect_err("the test's members are wrong")
    }

    fn spec(value: Value) -> AfXdpSpec {
        members(value).unwrap().spec().unwrap()
    }

    #[test]
    fn members_have_the_types_of_the_schema() {
        assert_eq!(refused(json!({})), "Parameter 'ifname' is missing");
        let mode = json!({"ifname": "e", "mode": "zero"});
        assert_eq!(refused(mode), "Parameter 'mode' does not accept value 'zero'");
        let index = json!({"ifname": "e", "map-start-index": 1i64 << 31});
        assert_eq!(refused(index), "Parameter 'map-start-index' expects int32_t");
        let copy = json!({"ifname": "e", "force-copy": 1});
        assert_eq!(refused(copy), "Invalid parameter type for 'force-copy', expected: boolean");
    }

    #[test]
    fn queues_are_limited() {
        for queues in [i64::MIN, -1, 0, 257, i64::MAX] {
            let expected = format!("invalid number of queues ({queues}) for 'e'");
            assert_eq!(refused(json!({"ifname": "e", "queues": queues})), expected);
        }
        for first in [-1, 65536 - 3, 1i64 << 32] {
            let expected = format!("invalid start queue ({first}) for 'e'");
            assert_eq!(refused(json!({"ifname": "e", "queues": 4, "start-queue": first})), expected);
        }
        let spec = spec(json!({"ifname": "e", "queues": 256, "start-queue": 65536 - 256}));
        assert_eq!((spec.queues, spec.start_queue), (256, 65280));
    }

    #[test]
    fn sockets_and_map_come_with_inhibit_and_alone() {
        let texts = [
            (json!({"inhibit": true}), "'inhibit=on' requires 'sock-fds' or 'map-path'"),
            (json!({"sock-fds": "3"}), "'sock-fds' and 'map-path' require 'inhibit=on'"),
            (json!({"inhibit": false, "map-path": "/m"}), "'sock-fds' and 'map-path' require 'inhibit=on'"),
            (
                json!({"inhibit": true, "sock-fds": "3", "map-path": "/m"}),
                "'sock-fds' and 'map-path' are mutually exclusive",
            ),
            (json!({"map-start-index": 0}), "'map-start-index' requires 'map-path'"),
            (
                json!({"inhibit": true, "map-path": "/m", "map-start-index": -2}),
                "'map-start-index' cannot be negative (-2)",
            ),
            (json!({"inhibit": true, "sock-fds": "3:4", "queues": 3}), "expected 3 socket fds, got 2"),
            (json!({"inhibit": true, "sock-fds": "3x"}), "Invalid file descriptor number '3x'"),
        ];
        for (mut value, expected) in texts {
            value["ifname"] = json!("e");
            assert_eq!(refused(value), expected);
        }
    }

    #[test]
    fn what_is_given_is_what_is_opened_and_shown() {
        let given = json!({
            "ifname": "e", "mode": "skb", "force-copy": true, "queues": 2, "start-queue": 1, "inhibit": true,
            "sock-fds": "7:xsk",
        });
        assert_eq!(Value::Object(members(given.clone()).unwrap().shown()), given);
        let spec = spec(given);
        assert_eq!(
            (spec.mode, spec.force_copy, spec.queues, spec.start_queue),
            (Some(Attach::Skb), true, 2, 1)
        );
        let fds = vec![FdRef::Number(7), FdRef::Name("xsk".into())];
        assert_eq!(spec.source, AfXdpSource::Sockets(fds));
        let plain = self::spec(json!({"ifname": "e"}));
        assert_eq!((plain.mode, plain.force_copy, plain.queues, plain.start_queue), (None, false, 1, 0));
        assert_eq!(plain.source, AfXdpSource::Own);
    }
}
