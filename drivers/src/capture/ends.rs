//! A port's ends, wrapped: each hands on what it is asked and records what came of it.

use std::sync::Arc;

use ringyard_dataplane::frame::{Burst, Taken};
use ringyard_dataplane::port::{Attachment, Egress, EgressScratch, Ingress, IngressEnd, IngressScratch};

use super::Recorder;

/// Which frames of a port are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Those that it sends into the switch, and those that the switch sends to it.
    #[default]
    Both,
    /// Those that it sends.
    Ingress,
    /// Those that it is sent.
    Egress,
}

/// The captures of one port.
#[derive(Default)]
pub struct Captured {
    ingress: Vec<Arc<Recorder>>,
    egress: Vec<Arc<Recorder>>,
    /// What was wrapped last, and in what: as long as an end stays, so does its wrapping, and its worker sees no change.
    wrapped: Vec<(Arc<IngressEnd>, Arc<IngressEnd>)>,
}

impl Captured {
    /// Of a port whose frames these recorders are given.
    pub fn new<'a>(recorders: impl Iterator<Item = (Direction, &'a Arc<Recorder>)>) -> Captured {
        let mut captured = Captured::default();
        for (direction, recorder) in recorders {
            if direction != Direction::Egress {
                captured.ingress.push(recorder.clone());
            }
            if direction != Direction::Ingress {
                captured.egress.push(recorder.clone());
            }
        }
        captured
    }

    /// The attachment with its ends wrapped, where there is something to record.
    pub fn wrap(&mut self, mut attachment: Attachment) -> Attachment {
        if !self.egress.is_empty() {
            let egress = attachment.egress.into_iter();
            attachment.egress = egress.map(|inner| self.wrap_egress(inner)).collect();
        }
        if !self.ingress.is_empty() {
            let ends = attachment.ingress.into_iter();
            self.wrapped = ends.map(|end| (end.clone(), self.wrap_ingress(end))).collect();
            attachment.ingress = self.wrapped.iter().map(|(_, wrapped)| wrapped.clone()).collect();
        }
        attachment
    }

    fn wrap_egress(&self, inner: Arc<dyn Egress>) -> Arc<dyn Egress> {
        Arc::new(CaptureEgress { inner, recorders: self.egress.clone().into() })
    }

    /// An end whose frames are discarded sends none.
    fn wrap_ingress(&self, end: Arc<IngressEnd>) -> Arc<IngressEnd> {
        let known = self.wrapped.iter().find(|(inner, _)| Arc::ptr_eq(inner, &end));
        match known {
            Some((_, wrapped)) => wrapped.clone(),
            None if end.discard.is_some() => end,
            None => Arc::new(IngressEnd {
                ingress: Arc::new(CaptureIngress {
                    inner: end.ingress.clone(),
                    recorders: self.ingress.clone().into(),
                }),
                doorbell: end.doorbell.clone(),
                ..*end
            }),
        }
    }
}

struct CaptureIngress {
    inner: Arc<dyn Ingress>,
    recorders: Box<[Arc<Recorder>]>,
}

impl Ingress for CaptureIngress {
    /// What is not settled is lent again, and recorded then.
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        self.inner.poll(scratch, &mut |burst| {
            let taken = forward(burst);
            for recorder in &self.recorders {
                recorder.record(burst, (0..burst.len()).filter(|&index| taken.settled(index)));
            }
            taken
        })
    }
}

struct CaptureEgress {
    inner: Arc<dyn Egress>,
    recorders: Box<[Arc<Recorder>]>,
}

impl Egress for CaptureEgress {
    /// What finds no room is sent again, or was never sent.
    fn send(&self, scratch: &mut EgressScratch, burst: &Burst<'_>, picks: &[u8]) -> usize {
        let settled = self.inner.send(scratch, burst, picks);
        for recorder in &self.recorders {
            recorder.record(burst, picks[..settled].iter().map(|&pick| usize::from(pick)));
        }
        settled
    }
}
