//! Which worker polls a queue, and what all hubs do with a full receiver.

use ringyard_dataplane::hold::FullReceiver;
use ringyard_dataplane::hub::HubOptions;

use super::Model;
use super::info::queue_count;
use super::netdev::{Netdev, Part};
use crate::qapi::QapiError;
use crate::wire::XSetWorker;

impl Model {
    /// `x-set-worker`: from the next publish on, and whenever they start again, the queues are polled by that worker. Frames
    /// keep their order, and none is lost.
    pub fn set_worker(&mut self, set: &XSetWorker) -> Result<(), QapiError> {
        let XSetWorker { netdev: id, queue, worker } = set;
        let netdev = self.netdevs.get(id).ok_or_else(|| QapiError::device_not_found(id))?;
        let Netdev { part: Part::Backend(backend), .. } = netdev else {
            return Err(QapiError::generic(format!(
                "'{id}' has no queues: a netdev with a guest or a host behind it has"
            )));
        };
        let count = queue_count(netdev);
        let queues = match queue {
            None => 0..count as u16,
            Some(queue) if usize::from(*queue) < count => *queue..queue + 1,
            Some(_) => return Err(QapiError::generic(format!("netdev '{id}' has {count} queues"))),
        };
        for queue in queues {
            let workers = self.switch.workers().len();
            let unknown = |_| {
                QapiError::generic(format!("there is no worker {worker}: the switch has {workers} of them"))
            };
            self.switch.move_duty(backend.index, queue, *worker as usize).map_err(unknown)?;
            self.is_changed = true;
        }
        Ok(())
    }

    /// What hubs do with a full receiver that were told nothing else.
    pub fn set_full_receiver(&mut self, full: FullReceiver) {
        self.switch.set_default_hub_options(HubOptions { full });
    }
}
