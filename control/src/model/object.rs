//! Objects: the dumps that netdevs are captured in.
//!
//! A netdev knows its captures in their order, head first. Whenever one comes, goes, or is turned on or off, its port is
//! planned anew, with its ends wrapped for those that are on.

use ringyard_drivers::capture::{Captured, Direction, Dump, DumpOptions, Totals};
use serde_json::{Map, Value, json};

use super::Model;
use super::netdev::{Backend, FdSource, Netdev, Part};
use super::record::{Facts, Kind};
use crate::open::Job;
use crate::qapi::{Form, FromQapi, QapiEnum, QapiError, Visitor, Word};
use crate::wire::{Insert, ObjectAdd, ObjectSpec, Position, status_is_on};

/// Dumps that there can be: each has a thread, and some megabytes.
pub const DUMPS_MAX: usize = 64;

/// An open dump.
pub(super) struct Capture {
    /// Grows with age.
    pub(super) serial: u64,
    pub(super) spec: ObjectSpec,
    direction: Direction,
    /// What was asked for last.
    is_on: bool,
    /// The configuration says that it be there.
    pub(super) is_configured: bool,
    /// Under which its file outlives this process.
    number: u64,
    dump: Dump,
}

/// A property of any object: its name, what its value is, and its value.
pub(super) type Property = (String, String, Value);

impl Model {
    /// `object-add`: reserves the id and yields the job that opens the file.
    pub fn object_add(&mut self, add: ObjectAdd, fds: &mut FdSource<'_>) -> Result<Job, QapiError> {
        self.add_object(add.resolve()?, fds)
    }

    /// The same for what the command line resolved.
    pub fn add_object(&mut self, spec: ObjectSpec, fds: &mut FdSource<'_>) -> Result<Job, QapiError> {
        let id = spec.id.clone();
        if self.captures.contains_key(&id) || self.opening_objects.contains_key(&id) {
            return Err(taken_object(&id));
        }
        self.place_of(&spec)?;
        if self.captures.len() + self.opening_objects.len() >= DUMPS_MAX {
            return Err(QapiError::generic(format!("too many dumps: at most {DUMPS_MAX} are possible")));
        }
        let path = spec.path();
        let unusable = |error: QapiError| {
            QapiError::generic(format!("net dump: can't open {}: {}", path.display(), error.desc))
        };
        let left = self.remembered.object(&id).and_then(|facts| facts.dump.as_ref());
        let number = left.map(|(_, number)| *number).unwrap_or_else(|| self.next_serial());
        let drawer = self.drawer(number);
        let file = match spec.fd().filter(|_| drawer.is_empty()) {
            Some(reference) => Some(fds(&reference).map_err(unusable)?),
            None => None,
        };
        let options = DumpOptions { id: id.clone(), path, file, snaplen: spec.maxlen, drawer };
        self.opening_objects.insert(id, (spec, number));
        Ok(Job::OpenDump(options))
    }

    pub(super) fn finish_dump(&mut self, id: &str, opened: Result<Dump, String>) -> Result<(), QapiError> {
        let (spec, number) = self.opening_objects.remove(id).ok_or_else(|| not_found(id))?;
        let dump = opened.map_err(QapiError::generic)?;
        // What it stands on, or beside, may have gone meanwhile.
        let place = match self.place_of(&spec) {
            Ok(place) => place,
            Err(error) => {
                self.closing.push(Job::CloseDump { id: id.to_owned(), dump });
                return Err(error);
            }
        };
        let netdev = spec.given.netdev.clone();
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(&netdev) {
            backend.captures.insert(place, id.to_owned());
        }
        let (direction, is_on) = (spec.direction, spec.is_on);
        let serial = self.next_serial();
        let capture = Capture { serial, spec, direction, is_on, is_configured: false, number, dump };
        self.captures.insert(id.to_owned(), capture);
        self.recall(Kind::Object, id);
        self.recapture(&netdev);
        Ok(())
    }

    /// `object-del`: when the next publish is over, nothing is recorded any more. The job is to run after that, and ends
    /// when the file is complete.
    pub fn object_del(&mut self, id: &str) -> Result<Job, QapiError> {
        let capture = self.captures.remove(id).ok_or_else(|| not_found(id))?;
        self.is_changed = true;
        self.forget_drawer(capture.number);
        let netdev = capture.spec.given.netdev;
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(&netdev) {
            backend.captures.retain(|other| other != id);
        }
        self.recapture(&netdev);
        Ok(Job::CloseDump { id: id.to_owned(), dump: capture.dump })
    }

    /// Removes what a netdev that is gone was captured in.
    pub(super) fn close_captures(&mut self, captures: Vec<String>) {
        for id in captures {
            if let Some(capture) = self.captures.remove(&id) {
                self.forget_drawer(capture.number);
                self.closing.push(Job::CloseDump { id, dump: capture.dump });
            }
        }
    }

    /// Sets what can be set of a capture that there is, `None` if that is not one of these.
    pub(super) fn set_capture(
        &mut self,
        id: &str,
        property: &str,
        value: Value,
    ) -> Option<Result<(), QapiError>> {
        let capture = self.captures.get_mut(id)?;
        let set = match property {
            "status" => typed(property, value).and_then(|status: String| capture.set_status(&status)),
            "queue" => typed(property, value).map(|Word(direction)| capture.direction = direction),
            _ => return None,
        };
        let netdev = capture.spec.given.netdev.clone();
        self.is_changed = true;
        self.recapture(&netdev);
        Some(set)
    }

    /// All captures, oldest first.
    pub(super) fn captures_by_age(&self) -> Vec<(&str, &Capture)> {
        let mut captures: Vec<_> = self.captures.iter().map(|(id, capture)| (id.as_str(), capture)).collect();
        captures.sort_by_key(|(_, capture)| capture.serial);
        captures
    }

    /// Gives a capture what is remembered of it.
    pub(super) fn recall_capture(&mut self, id: &str, facts: &Facts) {
        let Some(capture) = self.captures.get_mut(id) else { return };
        (capture.serial, capture.is_configured, capture.is_on) = facts.of_object();
        if let Some((direction, _)) = &facts.dump {
            let known = Direction::NAMES.iter().find(|(name, _)| name == direction);
            capture.direction = known.map_or(capture.direction, |(_, direction)| *direction);
        }
    }

    /// The lines of a backend's captures in `info network`.
    pub(super) fn capture_lines(&self, backend: &Backend) -> Vec<String> {
        let captures = backend.captures.iter().filter_map(|id| Some((id, self.captures.get(id)?)));
        let line = |(id, capture): (&String, &Capture)| {
            let shown = |(name, _, value): Property| match value {
                Value::String(text) => format!(",{name}={text}"),
                value => format!(",{name}={value}"),
            };
            let properties: String = capture.properties().into_iter().map(shown).collect();
            format!("  - {id}: type={}{properties}", Capture::TYPE)
        };
        let mut lines: Vec<String> = captures.map(line).collect();
        if !lines.is_empty() {
            lines.insert(0, "filters:".into());
        }
        lines
    }

    /// Where a capture is to stand among those of its netdev.
    fn place_of(&self, spec: &ObjectSpec) -> Result<usize, QapiError> {
        let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get(&spec.given.netdev) else {
            return Err(no_backend());
        };
        match spec.position()? {
            Position::Head => Ok(0),
            Position::Tail => Ok(backend.captures.len()),
            Position::Beside(id) => match backend.captures.iter().position(|other| *other == id) {
                Some(place) => Ok(place + usize::from(spec.insert() == Insert::Behind)),
                None => {
                    let elsewhere = self.captures.contains_key(&id);
                    let why = if elsewhere { "belongs to a different netdev" } else { "not found" };
                    Err(QapiError::generic(format!("filter '{id}' {why}")).about("position"))
                }
            },
        }
    }

    /// Has a port recorded by those of its captures that are on, from the next publish on.
    fn recapture(&mut self, netdev: &str) {
        let captures = &self.captures;
        if let Some(Netdev { part: Part::Backend(backend), .. }) = self.netdevs.get_mut(netdev) {
            let on =
                backend.captures.iter().filter_map(|id| captures.get(id)).filter(|capture| capture.is_on());
            backend.captured = Captured::new(on.map(|capture| (capture.direction, capture.dump.recorder())));
            self.replan(netdev);
        }
    }
}

impl Capture {
    /// The name of the one type of capture.
    pub(super) const TYPE: &str = "filter-dump";

    /// Those that QEMU has, in the order in which it shows them.
    fn properties(&self) -> Vec<Property> {
        let given = &self.spec.given;
        let direction = Word(self.direction).name();
        let property = |name: &str, kind: &str, value: Value| (name.to_owned(), kind.to_owned(), value);
        vec![
            property("file", "string", json!(given.file)),
            property("maxlen", "uint32", json!(self.spec.maxlen)),
            property("position", "string", json!(given.position.as_deref().unwrap_or("tail"))),
            property("status", "string", json!(if self.is_on() { "on" } else { "off" })),
            property("insert", "string", json!(Word(self.spec.insert()).name())),
            property("netdev", "string", json!(given.netdev)),
            property("queue", "NetFilterDirection", json!(direction)),
        ]
    }

    /// What no file says of it.
    pub(super) fn facts(&self) -> Facts {
        let direction = Word(self.direction).name();
        Facts::of_dump(self.serial, self.is_configured, self.is_on, direction, self.number)
    }

    /// All of them, our own too.
    pub(super) fn all_properties(&self) -> Vec<Property> {
        let Totals { frames, lost } = self.dump.recorder().totals();
        let count = |name: &str, count: u64| (name.to_owned(), "uint64".to_owned(), json!(count));
        let mut properties = self.properties();
        properties.extend([count("x-frames", frames), count("x-lost", lost)]);
        properties
    }

    /// One whose file takes no more is off for good.
    fn is_on(&self) -> bool {
        self.is_on && !self.dump.recorder().is_over()
    }

    fn set_status(&mut self, status: &str) -> Result<(), QapiError> {
        let is_on = status_is_on(status)?;
        if is_on && self.dump.recorder().is_over() {
            return Err(QapiError::generic(format!("'{}' could not be written to", self.spec.given.file)));
        }
        self.is_on = is_on;
        Ok(())
    }
}

/// The value of a property, of the type that it has.
fn typed<T: FromQapi>(property: &str, value: Value) -> Result<T, QapiError> {
    let members = Map::from_iter([(property.to_owned(), value)]);
    Visitor::new(members, Form::Json).required(property)
}

/// The error for an id that an object has.
pub(crate) fn taken_object(id: &str) -> QapiError {
    let taken = format!("attempt to add duplicate property '{id}' to object (type 'container')");
    QapiError::generic(taken).about("id")
}

/// The error for a netdev that is not there, or has no frames of its own.
pub(crate) fn no_backend() -> QapiError {
    QapiError::generic("Parameter 'netdev' expects a network backend id").about("netdev")
}

fn not_found(id: &str) -> QapiError {
    QapiError::generic(format!("object '{id}' not found"))
}
