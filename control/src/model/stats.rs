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
    Count, Drops, EgressStats, IngressStats, PortStats, QueueStats, RetiredStats, STATS_LIMIT_MAX, Stats,
    WorkerStats, XQueryStats,
};

impl Model {
    /// `x-query-stats`: of one port; of some, if a place to begin or a limit is given; or of all. Oldest first. Deleted ports
    /// count as such from the next publish on.
    pub fn query_stats(&self, query: &XQueryStats) -> Result<Stats, QapiError> {
        let backends = self.backends();
        let place = |name: &String| {
            let found = backends.iter().position(|(id, ..)| id == name);
            found.ok_or_else(|| QapiError::device_not_found(name))
        };
        let stats = |&(id, netdev, backend): &_| self.port_stats(id, netdev, backend);
        let (ports, more) = match query {
            XQueryStats { name: None, after: None, limit: None } => {
                (backends.iter().map(stats).collect(), false)
            }
            XQueryStats { name: Some(name), after: None, limit: None } => {
                (vec![stats(&backends[place(name)?])], false)
            }
            XQueryStats { name: Some(_), .. } => {
                return Err(QapiError::generic("'name' excludes 'after' and 'limit'"));
            }
            XQueryStats { name: None, after, limit } => {
                let start = after.as_ref().map(place).transpose()?.map_or(0, |place| place + 1);
                let limit = limit.map_or(STATS_LIMIT_MAX, |Count(limit)| limit);
                page(backends[start..].iter().map(stats), limit as usize)
            }
        };
        let retired = self.switch.retired_counters();
        Ok(Stats {
            ports,
            more,
            retired: RetiredStats {
                ingress: ingress_stats(&retired.ingress),
                egress: egress_stats(&retired.egress),
                uncertain: retired.uncertain,
            },
            hubs: self.hub_stats(),
            workers: self.switch.workers().into_iter().map(worker_stats).collect(),
            generation: self.switch.generation(),
        })
    }

    /// The netdevs that are ports, oldest first.
    fn backends(&self) -> Vec<(&str, &Netdev, &Backend)> {
        let mut backends = Vec::new();
        for (id, netdev) in self.by_age() {
            if let Part::Backend(backend) = &netdev.part {
                backends.push((id, netdev, backend.as_ref()));
            }
        }
        backends
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
            nic: backend.nic.clone(),
            link: self.is_link_up(netdev.link, backend),
            carrier: backend.attachment.carrier,
            state: backend.state.clone(),
            ingress: ingress_stats(&counters.ingress),
            egress: egress_stats(&counters.egress),
            uncertain: counters.uncertain,
            queues: (0..count).map(queue).collect(),
        }
    }
}

/// As many as are wanted and fit into a reply, and one at least if there is any; whether there are more.
fn page(ports: impl Iterator<Item = PortStats>, limit: usize) -> (Vec<PortStats>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for port in ports {
        bytes += serde_json::to_vec(&port).map_or(0, |json| json.len());
        if page.len() == limit || bytes > PAGE_BYTES_MAX && !page.is_empty() {
            return (page, true);
        }
        page.push(port);
    }
    (page, false)
}

/// Bytes of a page's ports, without the spaces that a reply has. The rest is for those, hubs and workers.
const PAGE_BYTES_MAX: usize = 96 << 10;

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
