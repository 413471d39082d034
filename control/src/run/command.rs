//! The commands of the monitors, and those of the human monitor inside them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::Control;
use super::client::Client;
use super::monitor::{Monitor, NamedFds, inherited};
use crate::hmp::{self, HmpCommand};
use crate::model::{FdSource, Model};
use crate::open::Job;
use crate::qapi::{QapiError, Word};
use crate::version::{VERSION, version_info};
use crate::wire::{
    AddFd, CloseFd, Command, FdRef, GetFd, NameInfo, NetdevAdd, NetdevDel, ObjectAdd, ObjectDel, QomList,
    RemoveFd, RunState, ShutdownCause, StatusInfo,
};

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) client: u64,
    pub(super) form: AnswerForm,
}

/// How a command's result is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnswerForm {
    /// As it is.
    Qmp,
    /// As the text that the human monitor would print: nothing when all went well.
    Hmp,
}

impl Asker {
    /// For what we do of our own accord.
    pub(super) fn nobody() -> Asker {
        Asker { client: u64::MAX, form: AnswerForm::Qmp }
    }
}

impl AnswerForm {
    /// The result in this form.
    pub(super) fn render(self, result: Result<Value, QapiError>) -> Result<Value, QapiError> {
        match (self, result) {
            (AnswerForm::Qmp, result) => result,
            (AnswerForm::Hmp, Ok(_)) => Ok(json!("")),
            (AnswerForm::Hmp, Err(error)) => Ok(json!(hmp::error_text(&error))),
        }
    }
}

type Answer = Result<Value, QapiError>;

/// The answer to a command that returns nothing.
fn done(result: Result<(), QapiError>) -> Answer {
    result.map(|()| json!({}))
}

/// The answer to a command that returns this.
fn shown(answer: impl Serialize) -> Answer {
    serde_json::to_value(answer).map_err(|error| QapiError::generic(format!("writing the answer: {error}")))
}

impl Control {
    /// Executes a client's command. No answer yet: it comes when a job is done.
    pub(super) fn execute(&mut self, client: u64, command: Command) -> Option<Answer> {
        let asker = Asker { client, form: AnswerForm::Qmp };
        Some(match command {
            Command::ChardevAdd(add) => {
                let job = self.model.chardev_add(add);
                return self.begun(asker, job.map(Some));
            }
            Command::NetdevAdd(add) => return self.netdev_add(asker, add),
            Command::XReload(request) => match self.begin_reload(Some(asker), request) {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
            Command::XUpgrade(request) => match self.begin_upgrade(asker, request) {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
            Command::XQueryConfig => shown(self.query_config()),
            Command::NetdevDel(NetdevDel { id }) => return self.netdev_del(asker, &id),
            Command::ObjectAdd(add) => return self.object_add(asker, add),
            Command::ObjectDel(ObjectDel { id }) => return self.object_del(asker, &id),
            Command::QomList(QomList { path }) => self.model.qom_list(&path).and_then(shown),
            Command::QomGet(get) => self.model.qom_get(&get),
            Command::QomSet(set) => done(self.model.qom_set(set)),
            Command::ChardevRemove(remove) => done(self.model.chardev_remove(&remove.id)),
            Command::SetLink(set) => done(self.model.set_link(&set)),
            Command::AnnounceSelf(announce) => done(self.model.announce_self(announce)),
            Command::XSetRxFilter(change) => done(self.model.set_rx_filter(*change)),
            Command::XSetHub(set) => done(self.model.set_hub(&set)),
            Command::XFdbAdd(add) => done(self.model.fdb_add(&add)),
            Command::XFdbDel(del) => done(self.model.fdb_del(&del)),
            Command::XFdbFlush(flush) => done(self.model.fdb_flush(&flush)),
            Command::XQueryFdb(query) => {
                // What ports that were deleted in this turn are heard from no more.
                self.publish();
                self.model.query_fdb(&query).and_then(shown)
            }
            Command::XSetWorker(set) => done(self.model.set_worker(&set)),
            Command::QueryChardev => shown(self.model.query_chardev()),
            Command::QueryNetdev => shown(self.model.query_netdev()),
            Command::QueryRxFilter(query) => {
                self.model.query_rx_filter(query.name.as_deref()).and_then(shown)
            }
            Command::XQueryStats(query) => {
                // Ports that were deleted in this turn belong to the retired ones.
                self.publish();
                self.model.query_stats(&query).and_then(shown)
            }
            Command::QueryVersion => shown(version_info()),
            Command::QueryCommands => shown(Command::list()),
            Command::QueryQmpSchema => Ok(Command::schema().clone()),
            Command::QueryName => shown(NameInfo { name: self.name.clone() }),
            // There is no machine that could stand still.
            Command::Stop | Command::Cont => done(Ok(())),
            Command::QueryStatus => {
                shown(StatusInfo { running: true, singlestep: false, status: Word(RunState::Running) })
            }
            Command::GetFd(GetFd { fdname }) => {
                let passed = self.clients.get_mut(&client).and_then(Client::take_fd);
                done(self.names_of(client).add(fdname, passed))
            }
            Command::AddFd(AddFd { fdset_id, opaque }) => {
                let passed = self.clients.get_mut(&client).and_then(Client::take_fd);
                self.fdsets.add(fdset_id, opaque, passed).and_then(shown)
            }
            Command::RemoveFd(RemoveFd { fdset_id, fd }) => done(self.fdsets.remove(fdset_id, fd)),
            Command::QueryFdsets => shown(self.fdsets.query()),
            Command::CloseFd(CloseFd { fdname }) => done(self.names_of(client).close(&fdname)),
            Command::HumanMonitorCommand(command) => return self.hmp(client, &command.command_line),
            Command::Quit => {
                self.ending = Some(ShutdownCause::HostQmpQuit);
                done(Ok(()))
            }
        })
    }

    fn hmp(&mut self, client: u64, line: &str) -> Option<Answer> {
        let asker = Asker { client, form: AnswerForm::Hmp };
        Some(Ok(match hmp::parse(line) {
            Err(text) => json!(text),
            Ok(HmpCommand::Nothing) => json!(""),
            Ok(HmpCommand::InfoNetwork) => json!(self.model.info_network()),
            Ok(HmpCommand::InfoFdb) => json!(self.model.info_fdb()),
            Ok(HmpCommand::InfoVersion) => json!(format!("{VERSION}\r\n")),
            Ok(HmpCommand::Help { text }) => json!(text),
            Ok(HmpCommand::InfoUsernet) => {
                let job = self.model.info_usernet();
                return self.printing(asker, Ok(job));
            }
            Ok(HmpCommand::HostfwdAdd { id, rule }) => {
                let job = self.model.hostfwd_add(id.as_deref(), &rule);
                return self.printing(asker, job);
            }
            Ok(HmpCommand::HostfwdRemove { id, rule }) => {
                let job = self.model.hostfwd_remove(id.as_deref(), &rule);
                return self.printing(asker, job);
            }
            Ok(HmpCommand::SetLink(set)) => {
                return Some(asker.form.render(done(self.model.set_link(&set))));
            }
            Ok(HmpCommand::AnnounceSelf(announce)) => {
                let announced = self.model.announce_self(announce);
                return Some(asker.form.render(done(announced)));
            }
            Ok(HmpCommand::NetdevAdd(add)) => return self.netdev_add(asker, add),
            Ok(HmpCommand::NetdevDel { id }) => return self.netdev_del(asker, &id),
            Ok(HmpCommand::ObjectAdd(add)) => return self.object_add(asker, add),
            Ok(HmpCommand::ObjectDel { id }) => return self.object_del(asker, &id),
        }))
    }

    fn netdev_add(&mut self, asker: Asker, add: NetdevAdd) -> Option<Answer> {
        let begun = self.with_fds(asker, |model, fds| model.netdev_add(add, fds));
        self.begun(asker, begun)
    }

    fn object_add(&mut self, asker: Asker, add: ObjectAdd) -> Option<Answer> {
        let begun = self.with_fds(asker, |model, fds| model.object_add(add, fds));
        self.begun(asker, begun.map(Some))
    }

    fn object_del(&mut self, asker: Asker, id: &str) -> Option<Answer> {
        let begun = self.model.object_del(id);
        self.begun(asker, begun.map(Some))
    }

    /// Does `work`, which may name descriptors that the client's monitor knows.
    fn with_fds<T>(&mut self, asker: Asker, work: impl FnOnce(&mut Model, &mut FdSource<'_>) -> T) -> T {
        let names = match self.clients.get(&asker.client) {
            Some(client) => names(&mut self.monitors, client),
            None => self.callers.names(),
        };
        let fdsets = &self.fdsets;
        work(&mut self.model, &mut |reference| match reference {
            FdRef::Number(number) => inherited(*number),
            FdRef::Name(name) => names.take(name),
            FdRef::Set(id) => fdsets.open(*id),
            FdRef::WritableSet(id) => fdsets.open_to_write(*id),
        })
    }

    fn netdev_del(&mut self, asker: Asker, id: &str) -> Option<Answer> {
        let job = self.model.netdev_del(id);
        self.begun(asker, job)
    }

    /// The answer to a command of the human monitor that has left a job, or what it prints at once.
    fn printing(&mut self, asker: Asker, begun: Result<Job, String>) -> Option<Answer> {
        match begun {
            Ok(job) => {
                self.defer(asker, job);
                None
            }
            Err(text) => Some(Ok(json!(text))),
        }
    }

    /// The answer to a command that may have left a job.
    fn begun(&mut self, asker: Asker, begun: Result<Option<Job>, QapiError>) -> Option<Answer> {
        match begun {
            Ok(Some(job)) => {
                self.defer(asker, job);
                None
            }
            Ok(None) => Some(asker.form.render(Ok(json!({})))),
            Err(error) => Some(asker.form.render(Err(error))),
        }
    }

    /// The descriptors that the monitor of a client, whose command this is, has names for.
    fn names_of(&mut self, client: u64) -> &mut NamedFds {
        match self.clients.get(&client) {
            Some(client) => names(&mut self.monitors, client),
            None => self.callers.names(),
        }
    }
}

fn names<'m>(monitors: &'m mut BTreeMap<usize, Monitor>, client: &Client) -> &'m mut NamedFds {
    monitors.get_mut(&client.monitor).expect("a monitor stays as long as its clients").names()
}
