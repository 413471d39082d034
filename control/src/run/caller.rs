//! Callers in this process: whoever embeds the switch gives commands and hears of events without a socket.
//!
//! Commands are the monitors' own, and are answered as theirs are: after the publish that makes the answer true.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};
use serde_json::Value;

use super::Control;
use super::monitor::NamedFds;
use crate::qapi::QapiError;
use crate::wire::{Command, Event};

type Answer = Result<Value, QapiError>;

/// Events that wait for a subscriber, at most: one that lets more pile up hears of no further ones.
pub const EVENTS_MAX: usize = 1024;

/// A caller's end; any thread may have it, and clones of it.
#[derive(Clone)]
pub(crate) struct Caller {
    requests: Sender<Request>,
    wake: Arc<OwnedFd>,
}

/// The run has ended, or does so before it could answer.
#[derive(Debug)]
pub(crate) struct Ended;

enum Request {
    Execute(Command, Sender<Answer>),
    Subscribe(SyncSender<Event>),
}

/// Control's end.
pub(super) struct Callers {
    incoming: Receiver<Request>,
    caller: Caller,
    next: u64,
    /// Callers whose command has left a job, by the number that stands for a client's.
    waiting: BTreeMap<u64, Sender<Answer>>,
    /// Answers that the next publish makes true.
    ready: Vec<(Sender<Answer>, Answer)>,
    subscribers: Vec<SyncSender<Event>>,
    /// Descriptors by name: `getfd` has none to name here, so there are none.
    names: NamedFds,
}

impl Caller {
    /// Has a command executed, and waits for its answer.
    pub(crate) fn execute(&self, command: Command) -> Result<Answer, Ended> {
        let (answer, answered) = channel();
        self.send(Request::Execute(command, answer))?;
        answered.recv().map_err(|_| Ended)
    }

    /// The events from now on.
    pub(crate) fn subscribe(&self) -> Result<Receiver<Event>, Ended> {
        let (events, received) = sync_channel(EVENTS_MAX);
        self.send(Request::Subscribe(events))?;
        Ok(received)
    }

    fn send(&self, request: Request) -> Result<(), Ended> {
        self.requests.send(request).map_err(|_| Ended)?;
        // Cannot fail but by an overflow, and then it is readable anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }
}

impl Callers {
    pub(super) fn new() -> io::Result<Callers> {
        let (requests, incoming) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Callers {
            incoming,
            caller: Caller { requests, wake },
            next: FIRST,
            waiting: BTreeMap::new(),
            ready: Vec::new(),
            subscribers: Vec::new(),
            names: NamedFds::default(),
        })
    }

    /// Becomes readable when there are requests.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.caller.wake.as_fd()
    }

    /// Tells the caller of that number, if there is one, what its command came to.
    pub(super) fn answer(&mut self, number: u64, answer: Answer) {
        if let Some(caller) = self.waiting.remove(&number) {
            self.ready.push((caller, answer));
        }
    }

    /// Lets the answers out.
    pub(super) fn flush(&mut self) {
        for (caller, answer) in self.ready.drain(..) {
            // A caller that does not wait any more is a thread that panicked.
            let _ = caller.send(answer);
        }
    }

    pub(super) fn tell(&mut self, event: &Event) {
        self.subscribers.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }

    pub(super) fn names(&mut self) -> &mut NamedFds {
        &mut self.names
    }
}

impl Control {
    /// A caller of this run.
    pub(crate) fn caller(&self) -> Caller {
        self.callers.caller.clone()
    }

    /// Executes what callers ask.
    pub(super) fn take_calls(&mut self) {
        let _ = rustix::io::read(&*self.callers.caller.wake, &mut [0; 8]);
        while let Ok(request) = self.callers.incoming.try_recv() {
            match request {
                Request::Subscribe(events) => self.callers.subscribers.push(events),
                Request::Execute(command, caller) => {
                    let number = self.callers.next;
                    self.callers.next += 1;
                    self.callers.waiting.insert(number, caller);
                    if let Some(answer) = self.execute(number, command) {
                        self.callers.answer(number, answer);
                    }
                }
            }
        }
    }
}

/// Where callers' numbers begin; those of clients stay far below.
const FIRST: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_does_not_listen_is_given_up() {
        let mut callers = Callers::new().expect("an eventfd can be made");
        let (events, received) = sync_channel(EVENTS_MAX);
        callers.subscribers.push(events);
        let event = Event { name: "E", data: Value::Null };
        (0..EVENTS_MAX).for_each(|_| callers.tell(&event));
        assert_eq!(callers.subscribers.len(), 1);
        callers.tell(&event);
        assert!(callers.subscribers.is_empty());
        assert_eq!(received.iter().count(), EVENTS_MAX);
    }
}
