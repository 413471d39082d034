//! What a netdev type that is opened beside control gives to it: a specification that opens, and the open port.
//!
//! A type is a struct of members in [`wire`](crate::wire), a specification in [`ports`](crate::ports) and a driver. Nothing
//! else of control knows it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{fmt, io};

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::chardev::SocketAccess;
use ringyard_drivers::line::Line;
use ringyard_drivers::store::Drawer;
use ringyard_drivers::user::UserControl;
use serde_json::{Map, Value};

use crate::wire::FdRef;

/// What opening a port gets from control.
pub struct Opening {
    /// The netdev's.
    pub id: String,
    /// Those that [`PortSpec::fds`] named, in its order.
    pub fds: Vec<OwnedFd>,
    /// Who may use sockets that we make.
    pub access: Arc<SocketAccess>,
    /// Where what is opened can outlive this process; what one before left there is not to be opened again.
    pub drawer: Drawer,
}

/// A netdev of which everything is checked that can be checked without opening it.
pub trait PortSpec: fmt::Debug + Send + Sync {
    /// The type that `info network` shows.
    fn type_name(&self) -> &'static str;

    /// The descriptors that its options name.
    fn fds(&self) -> Vec<FdRef> {
        Vec::new()
    }

    /// Whether one process after the other can use such a descriptor. A stream that is cut within a frame cannot be gone on
    /// with.
    fn can_outlive_us(&self, _fd: &OwnedFd) -> bool {
        true
    }

    /// The commands that it has programs started with, word by word.
    fn commands(&self) -> Vec<Vec<String>> {
        Vec::new()
    }

    /// The error about one of those that is not to be had, in the type's own words.
    fn fd_error(&self, why: String) -> String {
        why
    }

    /// What it is instead when one of those is not to be had, for the reason `why`; `None`: `netdev_add` answers that.
    fn without_fds(&self, _why: &str) -> Option<Arc<dyn PortSpec>> {
        None
    }

    /// Opens it, beside control: it may block.
    ///
    /// Errors: the text that `netdev_add` answers.
    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String>;
}

/// A port that is open. Dropping it closes it.
pub trait OpenPort: Send {
    /// What workers get of it at first.
    fn attachment(&self) -> Attachment;

    /// Called once, on control's thread, when the port is there and reports are heard: starts a thread of its own if it
    /// has one. Must not block.
    fn start(&mut self, line: Line) -> io::Result<()> {
        // A port that never changes has nothing to report.
        drop(line);
        Ok(())
    }

    /// What `info network` shows of a queue, until the port itself says something else over its line.
    fn info(&self, queue: usize) -> String;

    /// Queues that it has from the first: the lines of `info network`.
    fn queues(&self) -> usize {
        1
    }

    /// Adds to the members as given what only the open port knows, so that `query-netdev` shows what would make it again.
    fn complete(&self, _members: &mut Map<String, Value>) {}

    /// Of a `user` port, what the human monitor's commands need.
    fn user_control(&self) -> Option<UserControl> {
        None
    }

    /// Closes it, beside control and when no worker uses it: it may block.
    ///
    /// Errors: what to warn of; it is closed all the same.
    fn close(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}
