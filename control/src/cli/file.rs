//! The configuration file: the command line's objects and settings as TOML tables.
//!
//! Arrays of tables `[[chardev]]`, `[[netdev]]`, `[[nic]]`, `[[object]]` and `[[hub]]` hold the objects with their members; `qmp` lists
//! monitors; `[switch]`, `[sockets]` and `[log]` hold what is set once. A key that nobody knows is an error. Reading goes on
//! after an error, with the next object or setting.

use serde_json::{Map, Value};

use super::config::{cores, socket_mode, workers};
use super::draft::{Added, Draft};
use super::fault::Origin;
use crate::qapi::{Form, FromQapi, QapiError, Visitor};

/// Takes a file's members into the draft, faults too.
pub(super) fn read(draft: &mut Draft, members: Map<String, Value>) {
    let mut reader = Reader { draft, visitor: Visitor::new(members, Form::Json) };
    reader.add_monitors();
    reader.add_objects("chardev", Draft::add_chardev);
    reader.add_objects("netdev", Draft::add_netdev);
    reader.add_objects("nic", Draft::add_nic);
    reader.add_objects("object", Draft::add_object);
    reader.add_objects("hub", Draft::add_hub);
    reader.section("switch", read_switch);
    reader.section("sockets", read_sockets);
    reader.section("log", |reader| reader.draft.log_level = reader.setting("level"));
    reader.finish();
}

/// One table whose members are taken, of the file itself or of a section.
struct Reader<'d> {
    draft: &'d mut Draft,
    visitor: Visitor,
}

type Add = fn(&mut Draft, Map<String, Value>, Form, &Origin) -> Added;

impl Reader<'_> {
    fn add_monitors(&mut self) {
        let monitors: Vec<String> = self.setting("qmp").unwrap_or_default();
        for (index, monitor) in monitors.iter().enumerate() {
            let origin = Origin::File(format!("qmp[{index}]"));
            let added = self.draft.add_qmp(monitor, &origin);
            self.draft.note(added);
        }
    }

    fn add_objects(&mut self, name: &str, add: Add) {
        let objects: Vec<Visitor> = self.setting(name).unwrap_or_default();
        for (index, mut object) in objects.into_iter().enumerate() {
            let origin = Origin::File(format!("{name}[{index}]"));
            let added = add(self.draft, object.rest(), Form::Json, &origin);
            self.draft.note(added);
        }
    }

    fn section(&mut self, name: &str, read: impl FnOnce(&mut Reader<'_>)) {
        let Some(visitor) = self.setting(name) else { return };
        let mut reader = Reader { draft: self.draft, visitor };
        read(&mut reader);
        reader.finish();
    }

    fn setting<T: FromQapi>(&mut self, name: &str) -> Option<T> {
        let setting = self.visitor.optional(name);
        self.noted(setting).flatten()
    }

    /// A setting that is read further, by what options of the command line are read with.
    fn parsed<T: FromQapi, P>(
        &mut self,
        section: &str,
        name: &str,
        parse: impl FnOnce(T) -> Result<P, String>,
    ) -> Option<P> {
        let parsed = parse(self.setting(name)?);
        self.noted(parsed.map_err(|why| QapiError::generic(why).about(&format!("{section}.{name}"))))
    }

    fn noted<T>(&mut self, result: Result<T, QapiError>) -> Option<T> {
        result.map_err(|error| self.draft.note(Err(root().fault(error)))).ok()
    }

    fn finish(self) {
        let finished = self.visitor.finish().map_err(|error| root().fault(error));
        self.draft.note(finished);
    }
}

fn read_switch(reader: &mut Reader<'_>) {
    let count = reader.parsed("switch", "workers", workers);
    let list = reader.parsed("switch", "cores", |text: String| cores(&text));
    if count.is_some() && list.is_some() {
        let exclude = QapiError::generic("'workers' and 'cores' exclude each other").about("switch.cores");
        let workers = root().note("these are the workers", "switch.workers");
        reader.draft.note(Err(root().fault(exclude).after(workers)));
    }
    reader.draft.placement = count.or(list);
    reader.draft.name = reader.setting("name");
    reader.draft.mode = reader.setting("mode");
    reader.draft.full_receiver = reader.setting("full-receiver");
}

fn read_sockets(reader: &mut Reader<'_>) {
    reader.draft.socket_group = reader.setting("group");
    reader.draft.socket_mode = reader.parsed("sockets", "mode", |text: String| socket_mode(&text));
}

/// The file as a whole: settings are called by their full names.
fn root() -> Origin {
    Origin::File(String::new())
}
