//! One struct for each object of the schema, with the schema's member names, and what each resolves to.
//!
//! Each struct is declared once, by a macro of [`qapi::object`](crate::qapi::object), from which come its reading, its
//! writing and its place in the schema. Reading checks types and unknown members, in QEMU's order; `resolve` checks what
//! the object itself can tell and yields a spec that cannot hold nonsense. What needs the model (is the id taken, does the
//! chardev exist) comes between.

mod address;
mod af_packet;
mod af_xdp;
mod announce;
mod bridge;
mod chardev;
mod command;
mod dgram;
mod event;
mod fd;
mod fdb;
mod hubport;
mod info;
mod l2tpv3;
mod mac;
mod netdev;
mod netmap;
mod nic;
mod object;
mod reload;
mod rx_filter;
mod socket;
mod stats;
mod stream;
mod tap;
mod user;
mod user_rule;
mod vde;
mod vduse;
mod vhost_user;
mod vhost_vdpa;
mod vmnet;
mod words;

pub use address::{FdSocketAddress, InetSocketAddress, SocketAddress, UnixSocketAddress, VsockSocketAddress};
pub use af_packet::AfPacket;
pub use af_xdp::AfXdp;
pub use announce::AnnounceSelf;
pub use bridge::Bridge;
pub(crate) use chardev::reconnect_pause;
pub use chardev::{ChardevAdd, ChardevInfo, ChardevSpec, SocketBackend, unix_path};
pub use command::{
    AddFd, ChardevRemove, CloseFd, Command, GetFd, HumanMonitorCommand, NetdevDel, QmpCapabilities,
    QmpCapability, QueryRxFilter, RemoveFd, STATS_LIMIT_MAX, SetLink, XQueryStats, XSetWorker,
};
pub use dgram::Dgram;
pub use event::{
    Event, EventData, FailoverNegotiated, NetdevStreamConnected, NetdevStreamDisconnected,
    NetdevVhostUserConnected, NetdevVhostUserDisconnected, NicRxFilterChanged, Shutdown, ShutdownCause,
    describe_events,
};
pub use fd::{FdRef, check_fd_name};
pub use fdb::{Count, FDB_LIMIT_MAX, FdbEntryInfo, FdbInfo, XFdbAdd, XFdbDel, XFdbFlush, XQueryFdb, XSetHub};
pub use hubport::Hubport;
pub use info::{
    AddfdInfo, CommandInfo, FdsetFdInfo, FdsetInfo, NameInfo, RunState, StatusInfo, VersionInfo,
    VersionTriple,
};
pub use l2tpv3::L2tpv3;
pub use mac::{check_unicast, mac_of_number, nic_mac};
pub use netdev::{Members, Netdev, NetdevAdd, NetdevInfo, NetdevKind, NetdevSpec};
pub use netmap::Netmap;
pub use nic::{Nic, NicSpec};
pub use object::{
    FilterDump, Insert, MAXLEN, ObjectAdd, ObjectDel, ObjectPropertyInfo, ObjectSpec, Position, QomGet,
    QomList, QomSet, status_is_on,
};
pub use reload::{
    ConfigInfo, LogConfig, ReloadFailure, ReloadReport, SocketsConfig, SwitchConfig, XReload, XUpgrade,
};
pub use rx_filter::{RxFilterInfo, XSetRxFilter};
pub use socket::Socket;
pub use stats::{
    Drops, EgressStats, FdbStats, HubStats, IngressStats, PortStats, QueueStats, RetiredStats, Stats,
    WorkerStats,
};
pub use stream::Stream;
pub use tap::Tap;
pub use user::{Text, User};
pub use user_rule::{host_forward, host_forward_end};
pub use vde::Vde;
pub use vduse::Vduse;
pub use vhost_user::{VhostUser, VhostUserSpec};
pub use vhost_vdpa::VhostVdpa;
pub use vmnet::{VmnetBridged, VmnetHost, VmnetShared};
