//! What `x-query-stats` returns: the books of ports, hubs and workers.

use ringyard_dataplane::drops::DropReason;

use crate::qapi::{Described, Member, Schema, answer};

answer! {
    /// All of it.
    pub struct Stats as "Stats" {
        /// Oldest first.
        pub ports: Vec<PortStats>,
        /// Whether there are ports behind the last of these, which were not asked for or did not fit.
        pub more: bool,
        /// Of ports that are gone.
        pub retired: RetiredStats,
        /// In the order in which they were made.
        pub hubs: Vec<HubStats>,
        /// By number.
        pub workers: Vec<WorkerStats>,
        /// How often the workers were made to follow something.
        pub generation: u64,
    }
}

answer! {
    /// A port and its books.
    pub struct PortStats as "PortStats" {
        /// The netdev.
        pub name: String,
        /// The netdev's type.
        pub kind: String = "type",
        /// The hub that it is on.
        pub hub: Option<i32>,
        /// The nic on it.
        pub nic: Option<String>,
        /// What `set_link` says of it and of what belongs to it.
        pub link: bool,
        /// Whether somebody is there.
        pub carrier: bool,
        /// What the port says of itself.
        pub state: Option<String>,
        /// Into the switch.
        pub ingress: IngressStats,
        /// Out of the switch.
        pub egress: EgressStats,
        /// Frames of bursts that a switch before this one was killed in.
        pub uncertain: u64,
        /// Its queues.
        pub queues: Vec<QueueStats>,
    }
}

answer! {
    /// The sums of ports that are gone.
    pub struct RetiredStats as "RetiredStats" {
        /// Into the switch.
        pub ingress: IngressStats,
        /// Out of the switch.
        pub egress: EgressStats,
        /// Frames of bursts that a switch before this one was killed in.
        pub uncertain: u64,
    }
}

answer! {
    /// frames = forwarded + drops.
    pub struct IngressStats as "IngressStats" {
        /// That came.
        pub frames: u64,
        /// Their bytes.
        pub bytes: u64,
        /// That had a taker.
        pub forwarded: u64,
        /// Takers of all of them.
        pub takers: u64,
        /// By reason.
        pub drops: Drops,
    }
}

answer! {
    /// offered = frames + drops.
    pub struct EgressStats as "EgressStats" {
        /// That were to go.
        pub offered: u64,
        /// That went.
        pub frames: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Into which some of them were cut.
        pub segments: u64,
        /// By reason.
        pub drops: Drops,
    }
}

answer! {
    /// A queue, and how its rings are where it has any.
    pub struct QueueStats as "QueueStats" {
        /// Its number.
        pub index: usize,
        /// The worker that polls it.
        pub worker: Option<usize>,
        /// The guest's transmit ring.
        pub ingress_ring: Option<String>,
        /// The guest's receive ring.
        pub egress_ring: Option<String>,
    }
}

answer! {
    /// What a hub has learned.
    pub struct HubStats as "HubStats" {
        /// The hub.
        pub hubid: i32,
        /// Whether it learns.
        pub learning: bool,
        /// Seconds after which it forgets.
        pub ageing: u32,
        /// Its addresses.
        pub fdb: FdbStats,
    }
}

answer! {
    /// Addresses, and what became of others.
    pub struct FdbStats as "FdbStats" {
        /// That are known.
        pub entries: u64,
        /// That were entered.
        pub learned: u64,
        /// That were heard behind another port than before.
        pub moved: u64,
        /// That were forgotten for their age.
        pub aged: u64,
        /// That made room for others.
        pub evicted: u64,
        /// For which there was no room.
        pub not_learned: u64 = "not_learned",
    }
}

answer! {
    /// A forwarding thread.
    pub struct WorkerStats as "WorkerStats" {
        /// The core that it is pinned to.
        pub cpu: Option<usize>,
        /// Whether it sleeps.
        pub asleep: bool,
        /// Queues that it polls.
        pub queues: usize,
        /// Queues that it gave up after an error of ours.
        pub panics: u64,
    }
}

/// Frames by the reason for which they were dropped; what never happened is left out.
#[derive(Clone, Copy, Debug)]
pub struct Drops(pub [u64; DropReason::COUNT]);

impl serde::Serialize for Drops {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let happened = DropReason::ALL.into_iter().filter(|&reason| self.0[reason as usize] != 0);
        serializer.collect_map(happened.map(|reason| (reason.name(), self.0[reason as usize])))
    }
}

impl Described for Drops {
    fn describe(schema: &mut Schema) -> String {
        schema.object("Drops", |schema| {
            DropReason::ALL
                .into_iter()
                .map(|reason| Member::of::<Option<u64>>(schema, reason.name()))
                .collect()
        })
    }
}

crate::qapi::shown!(Drops);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drops_that_happened_are_listed() {
        let mut counts = [0; DropReason::COUNT];
        counts[DropReason::NoRoom as usize] = 3;
        let shown = serde_json::to_value(Drops(counts)).expect("it has string keys");
        assert_eq!(shown, serde_json::json!({"no_room": 3}));
    }
}
