//! What monitors' clients are told unasked.

use serde::Serialize;
use serde_json::Value;

use super::SocketAddress;
use crate::qapi::{Described, QapiEnum, Schema, Word, answer};

/// The data of an event.
pub trait EventData: Serialize + Described {
    /// The event's name in the schema.
    const NAME: &'static str;
}

/// Something to tell every monitor's clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// As in the schema.
    pub name: &'static str,
    /// Its members; null: it has none.
    pub data: Value,
}

impl<T: EventData> From<T> for Event {
    fn from(data: T) -> Event {
        Event { name: T::NAME, data: serde_json::to_value(data).unwrap_or_default() }
    }
}

/// Declares events by their names and their data.
macro_rules! events {
    ($($name:literal => $data:ident),* $(,)?) => {
        $(impl EventData for $data {
            const NAME: &'static str = $name;
        })*

        /// Adds every event to a schema.
        pub fn describe_events(schema: &mut Schema) {
            $(schema.event($name, $data::describe);)*
        }
    };
}

events! {
    "FAILOVER_NEGOTIATED" => FailoverNegotiated,
    "NETDEV_STREAM_CONNECTED" => NetdevStreamConnected,
    "NETDEV_STREAM_DISCONNECTED" => NetdevStreamDisconnected,
    "NETDEV_VHOST_USER_CONNECTED" => NetdevVhostUserConnected,
    "NETDEV_VHOST_USER_DISCONNECTED" => NetdevVhostUserDisconnected,
    "NIC_RX_FILTER_CHANGED" => NicRxFilterChanged,
    "SHUTDOWN" => Shutdown,
}

answer! {
    /// A guest's driver takes its nic for the standby of another.
    pub struct FailoverNegotiated as "q_obj_FAILOVER_NEGOTIATED-arg" {
        /// The nic.
        pub device_id: String,
    }
}

answer! {
    /// A stream has its peer.
    pub struct NetdevStreamConnected as "q_obj_NETDEV_STREAM_CONNECTED-arg" {
        /// The netdev.
        pub netdev_id: String,
        /// The peer, or where it came to.
        pub addr: SocketAddress,
    }
}

answer! {
    /// A stream has lost its peer.
    pub struct NetdevStreamDisconnected as "q_obj_NETDEV_STREAM_DISCONNECTED-arg" {
        /// The netdev.
        pub netdev_id: String,
    }
}

answer! {
    /// A guest is there.
    pub struct NetdevVhostUserConnected as "q_obj_NETDEV_VHOST_USER_CONNECTED-arg" {
        /// The netdev.
        pub netdev_id: String,
        /// By which it came.
        pub chardev_id: String,
    }
}

answer! {
    /// A guest has gone.
    pub struct NetdevVhostUserDisconnected as "q_obj_NETDEV_VHOST_USER_DISCONNECTED-arg" {
        /// The netdev.
        pub netdev_id: String,
    }
}

answer! {
    /// A nic's filter is another one than when it was asked for last.
    pub struct NicRxFilterChanged as "q_obj_NIC_RX_FILTER_CHANGED-arg" {
        /// The nic.
        pub name: Option<String>,
        /// Where QEMU would have it.
        pub path: String,
    }
}

answer! {
    /// The run ends.
    pub struct Shutdown as "q_obj_SHUTDOWN-arg" {
        /// Never: there is no guest of ours to ask for it.
        pub guest: bool,
        /// Why.
        pub reason: Word<ShutdownCause>,
    }
}

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// `quit`.
    HostQmpQuit,
    /// SIGTERM and its like.
    HostSignal,
}

impl QapiEnum for ShutdownCause {
    const TYPE: &'static str = "ShutdownCause";
    const NAMES: &'static [(&'static str, Self)] =
        &[("host-qmp-quit", ShutdownCause::HostQmpQuit), ("host-signal", ShutdownCause::HostSignal)];
}
