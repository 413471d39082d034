//! What `x-query-stats` answers, and whether its books balance: what came in was forwarded or dropped by name, what was
//! offered went out or was dropped by name, and every taker of a forwarded frame was offered it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Drops by reason.
pub type Drops = BTreeMap<String, u64>;

/// The answer to `x-query-stats`.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    /// The ports that are there, or some of them.
    pub ports: Vec<PortStats>,
    /// Whether there are more of them.
    pub more: bool,
    /// The sums over the ports that were deleted.
    pub retired: Retired,
    /// The workers.
    pub workers: Vec<WorkerStats>,
}

/// One port.
#[derive(Clone, Debug, Deserialize)]
pub struct PortStats {
    /// The netdev's id.
    pub name: String,
    /// The netdev's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The hub that it is on.
    pub hub: Option<i64>,
    /// Whether `set_link` has it up.
    pub link: bool,
    /// Whether its other side is there.
    pub carrier: bool,
    /// Frames into the switch.
    pub ingress: IngressStats,
    /// Frames out of it.
    pub egress: EgressStats,
    /// Frames of bursts in which a switch before this one was killed.
    pub uncertain: u64,
    /// Its rings, if it has any.
    #[serde(default)]
    pub queues: Vec<QueueStats>,
}

/// Frames into the switch.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct IngressStats {
    /// Frames that came in.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that somebody took.
    pub forwarded: u64,
    /// The takers of those, summed.
    pub takers: u64,
    /// Frames that nobody took, by reason.
    pub drops: Drops,
}

/// Frames out of the switch.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct EgressStats {
    /// Frames that the port was to take.
    pub offered: u64,
    /// Frames that went out.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What some of them were cut into, because the receiver does not take them whole.
    pub segments: u64,
    /// Frames that did not, by reason.
    pub drops: Drops,
}

/// A queue. A pair of rings has two of them: each `running`, `stopped`, `disabled` or `broken: REASON`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueueStats {
    /// Its number.
    pub index: u32,
    /// The worker that polls it, while one does.
    pub worker: Option<u32>,
    /// The guest's transmit ring; empty for a tap.
    #[serde(default)]
    pub ingress_ring: String,
    /// The guest's receive ring; empty for a tap.
    #[serde(default)]
    pub egress_ring: String,
}

/// The sums over deleted ports.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Retired {
    /// Frames into the switch.
    pub ingress: IngressStats,
    /// Frames out of it.
    pub egress: EgressStats,
    /// Frames of bursts in which a switch before this one was killed.
    pub uncertain: u64,
}

/// One worker.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkerStats {
    /// The core that it is pinned to, if it is.
    pub cpu: Option<u32>,
    /// Whether it sleeps.
    pub asleep: bool,
    /// Queues that it polls.
    pub queues: u32,
    /// Queues that it gave up because polling them panicked.
    pub panics: u64,
}

impl Stats {
    /// The port of that name.
    pub fn port(&self, name: &str) -> Option<&PortStats> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// Frames of bursts in which switches before this one were killed: as far as that, books need not balance.
    pub fn uncertain(&self) -> u64 {
        self.ports.iter().map(|port| port.uncertain).sum::<u64>() + self.retired.uncertain
    }

    /// Every line of the books that does not balance, in words; empty when all do.
    pub fn imbalances(&self) -> Vec<String> {
        // Each may have several takers.
        let slack = self.uncertain() * self.ports.len().max(2) as u64;
        let named = self.ports.iter().map(|port| (port.name.as_str(), &port.ingress, &port.egress));
        let retired = ("deleted ports", &self.retired.ingress, &self.retired.egress);
        let mut found = Vec::new();
        let (mut takers, mut offered) = (0, 0);
        for (name, ingress, egress) in named.chain([retired]) {
            found.extend(ingress.imbalance(slack).map(|line| format!("ingress of {name}: {line}")));
            found.extend(egress.imbalance(slack).map(|line| format!("egress of {name}: {line}")));
            takers += ingress.takers;
            offered += egress.offered;
        }
        if takers.abs_diff(offered) > slack {
            found.push(format!("all ports: {takers} takers of forwarded frames, but {offered} offered"));
        }
        found
    }
}

impl IngressStats {
    fn imbalance(&self, slack: u64) -> Option<String> {
        let Self { frames, forwarded, drops, .. } = self;
        let dropped: u64 = drops.values().sum();
        (frames.abs_diff(forwarded + dropped) > slack)
            .then(|| format!("{frames} in, but {forwarded} forwarded and {dropped} dropped {drops:?}"))
    }
}

impl EgressStats {
    fn imbalance(&self, slack: u64) -> Option<String> {
        let Self { offered, frames, drops, .. } = self;
        let dropped: u64 = drops.values().sum();
        (offered.abs_diff(frames + dropped) > slack)
            .then(|| format!("{offered} offered, but {frames} out and {dropped} dropped {drops:?}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn books(forwarded: u64, takers: u64, no_room: u64) -> Value {
        json!({
            "ports": [{
                "name": "n0", "type": "vhost-user", "hub": null, "link": true, "carrier": true,
                "ingress": {"frames": 10, "bytes": 600, "forwarded": forwarded, "takers": takers, "drops": {"runt": 2}},
                "egress": {"offered": 7, "frames": 4, "bytes": 240, "segments": 0, "drops": {"no_room": no_room}},
                "uncertain": 0,
                "queues": [{"index": 0, "worker": 0, "ingress-ring": "running", "egress-ring": "broken: index jumped"}],
            }],
            "retired": {
                "ingress": {"frames": 0, "bytes": 0, "forwarded": 0, "takers": 0, "drops": {}},
                "egress": {"offered": 1, "frames": 1, "bytes": 60, "segments": 0, "drops": {}},
                "uncertain": 0,
            },
            "workers": [{"cpu": 0, "asleep": true, "queues": 1, "panics": 0}],
            "more": false,
        })
    }

    fn imbalances(books: Value) -> Vec<String> {
        serde_json::from_value::<Stats>(books).expect("the books above are well formed").imbalances()
    }

    #[test]
    fn balanced_books_have_no_imbalance() {
        assert_eq!(imbalances(books(8, 8, 3)), Vec::<String>::new());
    }

    #[test]
    fn books_need_not_balance_as_far_as_they_are_uncertain() {
        let mut books = books(7, 9, 2);
        books["retired"]["uncertain"] = json!(1);
        assert_eq!(imbalances(books), Vec::<String>::new());
    }

    #[test]
    fn each_line_that_does_not_balance_is_named() {
        let found = imbalances(books(7, 9, 2));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("ingress of n0: 10 in, but 7 forwarded and 2 dropped"), "{found:?}");
        assert!(found[1].starts_with("egress of n0: 7 offered, but 4 out and 2 dropped"), "{found:?}");
        assert_eq!(found[2], "all ports: 9 takers of forwarded frames, but 8 offered");
    }
}
