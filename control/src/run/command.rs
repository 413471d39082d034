//! The commands of the monitors, and those of the human monitor inside them.

use serde_json::{Value, json};

use super::Control;
use super::client::Client;
use super::monitor::{NamedFds, inherited};
use crate::hmp::{self, HmpCommand};
use crate::open::Job;
use crate::qapi::QapiError;
use crate::version::{VERSION, query_version};
use crate::wire::{Command, FdRef, NetdevAdd};

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
            Command::NetdevDel { id } => return self.netdev_del(asker, &id),
            Command::ChardevRemove { id } => self.model.chardev_remove(&id).map(|()| json!({})),
            Command::SetLink(set) => self.model.set_link(&set).map(|()| json!({})),
            Command::AnnounceSelf(announce) => self.model.announce_self(announce).map(|()| json!({})),
            Command::XSetRxFilter(change) => self.model.set_rx_filter(*change).map(|()| json!({})),
            Command::XSetHub(set) => self.model.set_hub(&set).map(|()| json!({})),
            Command::XFdbAdd(add) => self.model.fdb_add(&add).map(|()| json!({})),
            Command::XFdbDel(del) => self.model.fdb_del(&del).map(|()| json!({})),
            Command::XFdbFlush(flush) => self.model.fdb_flush(&flush).map(|()| json!({})),
            Command::XQueryFdb(query) => {
                // What ports that were deleted in this turn are heard from no more.
                self.publish();
                self.model.query_fdb(&query)
            }
            Command::XSetWorker(set) => self.model.set_worker(&set).map(|()| json!({})),
            Command::QueryChardev => Ok(self.model.query_chardev()),
            Command::QueryNetdev => Ok(self.model.query_netdev()),
            Command::QueryRxFilter { name } => self.model.query_rx_filter(name.as_deref()),
            Command::XQueryStats { name } => {
                // Ports that were deleted in this turn belong to the retired ones.
                self.publish();
                self.model.query_stats(name.as_deref())
            }
            Command::QueryVersion => Ok(query_version()),
            Command::QueryCommands => Ok(Command::list()),
            Command::QueryName => Ok(self.name.as_ref().map_or(json!({}), |name| json!({"name": name}))),
            // There is no machine that could stand still.
            Command::Stop | Command::Cont => Ok(json!({})),
            Command::QueryStatus => Ok(json!({"status": "running", "singlestep": false, "running": true})),
            Command::GetFd { fdname } => {
                let passed = self.clients.get_mut(&client).and_then(Client::take_fd);
                self.names_of(client).add(fdname, passed)
            }
            Command::AddFd { fdset_id, opaque } => {
                let passed = self.clients.get_mut(&client).and_then(Client::take_fd);
                self.fdsets.add(fdset_id, opaque, passed)
            }
            Command::RemoveFd { fdset_id, fd } => self.fdsets.remove(fdset_id, fd),
            Command::QueryFdsets => Ok(self.fdsets.query()),
            Command::CloseFd { fdname } => self.names_of(client).close(&fdname),
            Command::HumanMonitorCommand { command_line } => return self.hmp(client, &command_line),
            Command::Quit => {
                self.ending = Some("host-qmp-quit");
                Ok(json!({}))
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
            Ok(HmpCommand::Help) => json!(hmp::help_text()),
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
                return Some(asker.form.render(self.model.set_link(&set).map(|()| json!({}))));
            }
            Ok(HmpCommand::AnnounceSelf(announce)) => {
                let announced = self.model.announce_self(announce);
                return Some(asker.form.render(announced.map(|()| json!({}))));
            }
            Ok(HmpCommand::NetdevAdd(add)) => return self.netdev_add(asker, add),
            Ok(HmpCommand::NetdevDel { id }) => return self.netdev_del(asker, &id),
        }))
    }

    fn netdev_add(&mut self, asker: Asker, add: NetdevAdd) -> Option<Answer> {
        let names = self.monitors[self.clients[&asker.client].monitor].names();
        let fdsets = &self.fdsets;
        let job = self.model.netdev_add(add, &mut |reference| match reference {
            FdRef::Number(number) => inherited(*number),
            FdRef::Name(name) => names.take(name),
            FdRef::Set(id) => fdsets.open(*id),
        });
        self.begun(asker, job)
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
        self.monitors[self.clients[&client].monitor].names()
    }
}
