//! `x-query-stats`: the books of every port, of the ports that are gone, what hubs have learned, and how the workers are
//! doing.

use std::sync::Arc;

use ringyard_dataplane::counters::{EgressCounters, IngressCounters};
use ringyard_dataplane::port::QueueRings;
use ringyard_dataplane::ring::Ring;
use ringyard_dataplane::switch::WorkerStatus;

use super::Model;
use super::netdev::{Backend, Netdev, Part};
use crate::qapi::QapiError;
use crate::wire::{
    Drops, EgressStats, IngressStats, PortStats, QueueStats, RetiredStats, Stats, WorkerStats,
};

impl Model {
    /// `x-query-stats`, of one port or of all, oldest first. Deleted ports count as such from the next publish on.
    pub fn query_stats(&self, name: Option<&str>) -> Result<Stats, QapiError> {
        let port = |id: &str, netdev: &Netdev| match &netdev.part {
            Part::Backend(backend) => Some(self.port_stats(id, netdev, backend)),
            _ => None,
        };
        let ports = match name {
            Some(name) => {
                let found = self.netdevs.get(name).and_then(|netdev| port(name, netdev));
                vec![found.ok_or_else(|| QapiError::device_not_found(name))?]
            }
            None => self.by_age().into_iter().filter_map(|(id, netdev)| port(id, netdev)).collect(),
        };
        let retired = self.switch.retired_counters();
        Ok(Stats {
            ports,
            retired: RetiredStats {
                ingress: ingress_stats(&retired.ingress),
                egress: egress_stats(&retired.egress),
            },
            hubs: self.hub_stats(),
            workers: self.switch.workers().into_iter().map(worker_stats).collect(),
            generation: self.switch.generation(),
        })
    }

    fn port_stats(&self, id: &str, netdev: &Netdev, backend: &Backend) -> PortStats {
        let counters = self.switch.counters(backend.index);
        let rings = &backend.attachment.rings;
        let count = rings.len().max(backend.attachment.ingress.len());
        let queue = |index: usize| {
            queue_stats(index, rings.get(index), self.switch.worker_of(backend.index, index as u16))
        };
        PortStats {
            name: id.to_owned(),
            kind: netdev.spec.type_name().to_owned(),
            hub: self.hub_of(backend),
            link: self.is_link_up(netdev.link, backend),
            carrier: backend.attachment.carrier,
            state: backend.state.clone(),
            ingress: ingress_stats(&counters.ingress),
            egress: egress_stats(&counters.egress),
            queues: (0..count).map(queue).collect(),
        }
    }
}

fn ingress_stats(counters: &IngressCounters) -> IngressStats {
    let IngressCounters { frames, bytes, forwarded, takers, drops, .. } = *counters;
    IngressStats { frames, bytes, forwarded, takers, drops: Drops(drops) }
}

fn egress_stats(counters: &EgressCounters) -> EgressStats {
    let EgressCounters { offered, frames, bytes, segments, drops, .. } = *counters;
    EgressStats { offered, frames, bytes, segments, drops: Drops(drops) }
}

/// A queue, its worker while it is polled, and its rings if its port has any.
fn queue_stats(index: usize, rings: Option<&QueueRings>, worker: Option<usize>) -> QueueStats {
    QueueStats {
        index,
        worker,
        ingress_ring: rings.map(|rings| ring_state(&rings.ingress, rings.ingress_enabled)),
        egress_ring: rings.map(|rings| ring_state(&rings.egress, rings.egress_enabled)),
    }
}

fn worker_stats(worker: WorkerStatus) -> WorkerStats {
    let WorkerStatus { core, asleep, duties, panics } = worker;
    WorkerStats { cpu: core, asleep, queues: duties, panics }
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
}
