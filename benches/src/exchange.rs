//! A closed loop: guests send to each other in a ring, and none has more frames under way than the receiver has buffers
//! posted. So nothing has to be lost, and whatever is lost is a fault of the switch.

use ringyard_dataplane::ring::DeviceFault;

use crate::error::{Doing, Result};
use crate::guest::{BUFFER_LEN, Guest};
use crate::traffic::{Faults, Template, Verifier};

/// Frames of a flow that may be under way: fewer than the 256 buffers that a guest of the usual configuration posts.
pub const WINDOW: u64 = 192;
/// Frames sent or received in one turn.
const TURN: usize = 64;

/// Frames from one guest to the next.
pub struct Flow {
    /// The sending guest.
    pub from: usize,
    /// The receiving guest.
    pub to: usize,
    template: Template,
    verifier: Verifier,
    sent: u64,
}

impl Flow {
    /// Frames that arrived as they were sent.
    pub fn frames(&self) -> u64 {
        self.verifier.frames()
    }

    /// What went wrong, once no more will come.
    pub fn faults(&self) -> Faults {
        self.verifier.faults(self.sent)
    }

    /// What went wrong so far.
    pub fn faults_so_far(&self) -> Faults {
        self.verifier.faults_so_far()
    }

    /// Frames that are neither received nor known to be lost.
    pub fn under_way(&self) -> u64 {
        self.sent.saturating_sub(self.verifier.next())
    }
}

/// A flow from each guest to the next one, and from the last to the first.
pub struct Exchange {
    flows: Vec<Flow>,
    scratch: Vec<u8>,
    window: u64,
}

impl Exchange {
    /// Between `guests` guests, with frames of `len` bytes without FCS, up to `window` of each flow under way.
    pub fn new(guests: usize, len: usize, window: u64) -> Result<Exchange> {
        let flow = |from| {
            let to = (from + 1) % guests;
            let template = Template::new(from, to, len)?;
            Ok(Flow { from, to, verifier: Verifier::new(&template), template, sent: 0 })
        };
        let flows = (0..guests).map(flow).collect::<Result<_>>()?;
        Ok(Exchange { flows, scratch: vec![0; 2 * BUFFER_LEN], window })
    }

    /// The flows, by sending guest.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Frames under way, of all flows.
    pub fn under_way(&self) -> u64 {
        self.flows.iter().map(Flow::under_way).sum()
    }

    /// One turn of every guest: sends what the windows allow. Returns how many frames were sent.
    pub fn send(&mut self, guests: &mut [&mut Guest]) -> Result<usize> {
        let mut sent = 0;
        for flow in &mut self.flows {
            let queue = &mut guests[flow.from].pair().send;
            reclaimed(queue.reclaim())?;
            let allowed = (self.window.saturating_sub(flow.under_way()) as usize).min(TURN);
            for _ in 0..allowed {
                if !queue.send(flow.template.stamp(flow.sent)) {
                    break;
                }
                flow.sent += 1;
                sent += 1;
            }
            queue.flush();
        }
        Ok(sent)
    }

    /// One turn of every guest: receives what came and verifies all of it. Returns how many frames came.
    pub fn receive(&mut self, guests: &mut [&mut Guest]) -> Result<usize> {
        let mut received = 0;
        for flow in &mut self.flows {
            let (verifier, scratch) = (&mut flow.verifier, &mut self.scratch);
            received += guests[flow.to]
                .pair()
                .receive
                .receive(TURN, |frame| verifier.check(frame.copy_to(scratch)))?;
        }
        Ok(received)
    }

    /// Sends one frame of flow `flow`, whatever its window.
    pub fn send_one(&mut self, guests: &mut [&mut Guest], flow: usize) -> Result<()> {
        let flow = &mut self.flows[flow];
        let queue = &mut guests[flow.from].pair().send;
        reclaimed(queue.reclaim())?;
        if queue.send(flow.template.stamp(flow.sent)) {
            flow.sent += 1;
        }
        queue.flush();
        Ok(())
    }
}

fn reclaimed(result: std::result::Result<usize, DeviceFault>) -> Result<usize> {
    result.doing("taking back sent buffers")
}
