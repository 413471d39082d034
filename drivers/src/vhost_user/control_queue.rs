//! The device's part that serves the control queue, where a front end hands it on, and that keeps the guest and control
//! of one mind.
//!
//! Only a control queue that runs counts: features alone say nothing of who answers the guest. One that starts from its
//! beginning has a new driver behind it, whose wishes begin anew; one that goes on where it stopped (a guest that was
//! paused, or has moved) keeps them. They end with the connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ringyard_dataplane::ring::{Command, ControlRing};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_STANDBY, VIRTIO_NET_OK,
};

use super::backchannel::Backchannel;
use super::body::read;
use super::config::Space;
use super::control::{Change, Wishes};
use super::device::{Device, Refusal};
use crate::line::Unplugged;

/// How the control queue stands.
#[derive(Default)]
pub(super) struct ControlQueue {
    /// What the driver behind it wants; `None`: nobody uses it.
    wishes: Option<Wishes>,
    /// It runs.
    is_live: bool,
    /// It was started from its beginning, and has not run since.
    is_new: bool,
    /// There may be a command that nobody will kick for.
    is_due: bool,
}

impl ControlQueue {
    /// Queue pairs on which the guest receives, if it said so.
    pub(super) fn pairs(&self) -> Option<u16> {
        self.wishes.as_ref().map(Wishes::pairs)
    }

    /// What the driver behind it wants.
    pub(super) fn wishes(&self) -> Option<&Wishes> {
        self.wishes.as_ref()
    }

    /// It was started from its beginning, and has not run since.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The driver behind it has told a process before this one what it wants.
    pub(super) fn restore(&mut self, wishes: Wishes) {
        self.wishes = Some(wishes);
    }

    /// Its ring starts, from the beginning or where it stopped.
    pub(super) fn note_start(&mut self, from_the_beginning: bool) {
        self.is_new = from_the_beginning;
    }
}

/// What there is to wait for.
pub(super) enum Watch {
    /// The control queue does not run.
    Nothing,
    /// Its kick.
    Kick(Arc<ControlRing>),
    /// It is looked at after this time.
    Look(Duration),
}

impl Device<'_> {
    /// What the control queue waits for.
    pub(super) fn control_watch(&self) -> Watch {
        match self.control_ring() {
            None => Watch::Nothing,
            Some(_) if self.control.is_due => Watch::Look(Duration::ZERO),
            Some(ring) if ring.kick_fd().is_some() => Watch::Kick(ring),
            Some(_) => Watch::Look(LOOK),
        }
    }

    /// Follows what a message did to the control queue.
    pub(super) fn tend_control(&mut self) -> Result<(), Unplugged> {
        let is_live = self.control_ring().is_some();
        let was_live = std::mem::replace(&mut self.control.is_live, is_live);
        // It may be another place, with other wishes to be told; whatever it is, it is looked at.
        self.control.is_due = is_live;
        if !is_live || was_live {
            return Ok(());
        }
        if std::mem::take(&mut self.control.is_new) || self.control.wishes.is_none() {
            tracing::info!(socket = self.port.name, "vhost-user: the guest's driver uses its control queue");
            self.control.wishes = Some(Wishes::new(self.features, self.port.pairs, self.nic.mac));
            self.publish_filter()?;
            self.publish()?;
        }
        Ok(())
    }

    /// Follows what a device was restored to: its guest receives what it wants, and is looked at.
    pub(super) fn restore_control(&mut self) -> Result<(), Unplugged> {
        self.control.is_live = self.control_ring().is_some();
        self.control.is_due = self.control.is_live;
        self.publish_filter()
    }

    /// Serves some of the commands that wait.
    pub(super) fn serve_commands(&mut self) -> Result<(), Unplugged> {
        let Some(ring) = self.control_ring() else { return Ok(()) };
        for _ in 0..COMMANDS_A_TURN {
            // Commands and kicks for nothing alike: a guest that sends many has only its own thread to wait for.
            self.bucket.take();
            let mut served = Ok(());
            let any = ring.serve(|command| match self.execute(command) {
                Ok(answer) => answer,
                Err(unplugged) => {
                    served = Err(unplugged);
                    VIRTIO_NET_ERR as u8
                }
            });
            served?;
            if !any {
                self.control.is_due = ring.arm();
                return Ok(());
            }
        }
        self.control.is_due = true;
        Ok(())
    }

    /// Does a command, and returns when all workers go by it.
    fn execute(&mut self, command: Command<'_>) -> Result<u8, Unplugged> {
        let (Command::Whole(command), Some(wishes)) = (command, &mut self.control.wishes) else {
            return Ok(VIRTIO_NET_ERR as u8);
        };
        match wishes.command(command) {
            Ok(Change::Filter) => self.publish_filter()?,
            Ok(Change::Pairs) => self.publish()?,
            Ok(Change::Announced) => {}
            Err(_) => return Ok(VIRTIO_NET_ERR as u8),
        }
        self.record();
        Ok(VIRTIO_NET_OK as u8)
    }

    /// Has the guest receive what it wants, and returns when it does.
    fn publish_filter(&self) -> Result<(), Unplugged> {
        let Some(wishes) = &self.control.wishes else { return Ok(()) };
        self.port.gate.wait(|| self.port.line.set_filter(wishes.filter()))
    }

    /// Follows what a driver acknowledged.
    pub(super) fn follow_features(&mut self) {
        if self.has(VIRTIO_NET_F_STANDBY) {
            self.port.line.standby();
        }
        if !self.has(VIRTIO_NET_F_CTRL_VQ) {
            self.forget_wishes();
        }
    }

    /// The guest has no wishes any more.
    pub(super) fn forget_wishes(&mut self) {
        if self.control.wishes.take().is_some() {
            self.port.line.forget_filter();
        }
    }

    /// Takes what control has to say, and calls whom workers want called.
    pub(super) fn take_notices(&mut self) {
        self.socket_calls.values().for_each(|call| call.relay());
        let state = self.port.notices.state();
        let old = std::mem::replace(&mut self.nic, state);
        if old.mac != state.mac
            && let Some(wishes) = &mut self.control.wishes
        {
            wishes.set_nic_mac(state.mac);
            self.port.line.filter(wishes.filter());
        }
        let announce = self.port.notices.take_announce() && self.ask_to_announce();
        if announce || old.link != state.link {
            self.tell_config_changed();
        }
    }

    /// Whether the guest was asked. It must be able to hear of it, and to answer.
    fn ask_to_announce(&mut self) -> bool {
        let can_hear = self.control.is_live && self.backchannel.is_some();
        can_hear && self.control.wishes.as_mut().is_some_and(Wishes::ask_to_announce)
    }

    fn tell_config_changed(&mut self) {
        if self.backchannel.as_ref().is_some_and(|channel| !channel.tell_config_changed()) {
            self.backchannel = None;
        }
    }

    /// The configuration space.
    pub(super) fn config(&self) -> Space {
        let wishes = self.control.wishes.as_ref();
        Space {
            mac: wishes.map_or(self.nic.mac, Wishes::mac),
            link: self.nic.link,
            announce: wishes.is_some_and(Wishes::announces),
            pairs_max: self.port.pairs,
        }
    }

    /// The address can be written by old drivers that have no command for it (virtio 1.2, 5.1.4); it counts where they use
    /// their control queue.
    pub(super) fn set_config(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mac = self.config().write(body)?;
        if self.has(VIRTIO_F_VERSION_1) || self.has(VIRTIO_NET_F_CTRL_MAC_ADDR) || mac.is_multicast() {
            return Ok(());
        }
        if let Some(wishes) = &mut self.control.wishes {
            wishes.set_own_mac(mac);
            self.port.line.filter(wishes.filter());
        }
        Ok(())
    }

    pub(super) fn set_backchannel(&mut self, body: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        // The body means nothing; QEMU sends none, others a number.
        if !body.is_empty() {
            read::<u64>(body)?;
        }
        match (fds.pop(), fds.is_empty()) {
            (Some(fd), true) => {
                self.backchannel = Some(Backchannel::new(fd)?);
                Ok(())
            }
            _ => Err(Refusal::Bad("the back-end channel is one descriptor".into())),
        }
    }

    fn has(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }
}

/// Commands between two looks at the socket.
const COMMANDS_A_TURN: usize = 16;
/// Between two looks at a control queue whose driver never kicks.
const LOOK: Duration = Duration::from_millis(5);
