//! `x-query-stats`: the books of every port, of the ports that are gone, what hubs have learned, and how the workers are
//! doing.

use std::sync::Arc;

use ringyard_dataplane::counters::{EgressCounters, IngressCounters};
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::port::QueueRings;
use ringyard_dataplane::ring::Ring;
use ringyard_dataplane::switch::WorkerStatus;
use serde_json::{Map, Value, json};

use super::Model;
use super::netdev::{Backend, Netdev, Part};
use crate::qapi::QapiError;

impl Model {
    /// `x-query-stats`, of one port or of all, oldest first. Deleted ports count as such from the next publish on.
    pub fn query_stats(&self, name: Option<&str>) -> Result<Value, QapiError> {
        let port = |id: &str, netdev: &Netdev| match &netdev.part {
            Part::Backend(backend) => Some(self.port_stats(id, netdev, backend)),
            _ => None,
        };
        let ports: Vec<Value> = match name {
            Some(name) => {
                let found = self.netdevs.get(name).and_then(|netdev| port(name, netdev));
                vec![found.ok_or_else(|| QapiError::device_not_found(name))?]
            }
            None => self.by_age().into_iter().filter_map(|(id, netdev)| port(id, netdev)).collect(),
        };
        let retired = self.switch.retired_counters();
        let workers = self.switch.workers().into_iter();
        let workers: Vec<Value> = workers.map(worker_stats).collect();
        Ok(json!({
            "ports": ports,
            "retired": {"ingress": ingress_stats(&retired.ingress), "egress": egress_stats(&retired.egress)},
            "hubs": self.hub_stats(),
            "workers": workers,
        }))
    }

    fn port_stats(&self, id: &str, netdev: &Netdev, backend: &Backend) -> Value {
        let counters = self.switch.counters(backend.index);
        let rings = &backend.attachment.rings;
        let count = rings.len().max(backend.attachment.ingress.len());
        let queue = |index: usize| {
            queue_stats(index, rings.get(index), self.switch.worker_of(backend.index, index as u16))
        };
        let queues: Vec<Value> = (0..count).map(queue).collect();
        json!({
            "name": id,
            "type": netdev.spec.type_name(),
            "hub": self.hub_of(backend),
            "link": self.is_link_up(netdev.link, backend),
            "carrier": backend.attachment.carrier,
            "state": backend.state,
            "ingress": ingress_stats(&counters.ingress),
            "egress": egress_stats(&counters.egress),
            "queues": queues,
        })
    }
}

fn ingress_stats(counters: &IngressCounters) -> Value {
    json!({
        "frames": counters.frames,
        "bytes": counters.bytes,
        "forwarded": counters.forwarded,
        "takers": counters.takers,
        "drops": drops(&counters.drops),
    })
}

fn egress_stats(counters: &EgressCounters) -> Value {
    json!({
        "offered": counters.offered,
        "frames": counters.frames,
        "bytes": counters.bytes,
        "segments": counters.segments,
        "drops": drops(&counters.drops),
    })
}

/// By reason; what never happened is left out.
fn drops(counts: &[u64; DropReason::COUNT]) -> Map<String, Value> {
    let happened = DropReason::ALL.into_iter().filter(|&reason| counts[reason as usize] != 0);
    happened.map(|reason| (reason.name().to_owned(), json!(counts[reason as usize]))).collect()
}

/// A queue, its worker while it is polled, and its rings if its port has any.
fn queue_stats(index: usize, rings: Option<&QueueRings>, worker: Option<usize>) -> Value {
    let mut stats = json!({"index": index, "worker": worker});
    if let Some(rings) = rings {
        stats["ingress-ring"] = json!(ring_state(&rings.ingress, rings.ingress_enabled));
        stats["egress-ring"] = json!(ring_state(&rings.egress, rings.egress_enabled));
    }
    stats
}

fn worker_stats(worker: WorkerStatus) -> Value {
    json!({
        "cpu": worker.core,
        "asleep": worker.asleep,
        "queues": worker.duties,
        "panics": worker.panics,
    })
}

fn ring_state(ring: &Option<Arc<Ring>>, enabled: bool) -> String {
    match ring {
        None => "stopped".into(),
        Some(ring) => match ring.fault() {
            Some(fault) => format!("broken: {fault}"),
            None if enabled => "running".into(),
            None => "disabled".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_says_how_it_is() {
        let ring = Some(Arc::<Ring>::default());
        assert_eq!(ring_state(&None, true), "stopped");
        assert_eq!(ring_state(&ring, false), "disabled");
        assert_eq!(ring_state(&ring, true), "running");
    }

    #[test]
    fn only_drops_that_happened_are_listed() {
        let mut counts = [0; DropReason::COUNT];
        counts[DropReason::NoRoom as usize] = 3;
        assert_eq!(Value::from(drops(&counts)), json!({"no_room": 3}));
    }
}
