//! Where attacks happen: a back end with three ports, an attacker's and two innocents', and what is known of its process.

use std::path::{Path, PathBuf};

use super::attacker::{Attacker, RX, Setup};
use super::innocents::Innocents;
use super::process::BackEndProcess;
use crate::bench::target::{OwnConfig, OwnSwitch, allowed_cores};
use crate::error::{Doing, Error, Result};

/// What is attacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A ringyard of our own, in a process of its own.
    Own {
        /// The program.
        program: PathBuf,
    },
    /// A back end that listens at these sockets: the attacker's, and those of two innocents, between which it forwards.
    Sockets([PathBuf; 3]),
}

/// The back end and the innocents.
pub struct Arena {
    target: Target,
    own: Option<OwnSwitch>,
    sockets: [PathBuf; 3],
    innocents: Option<Innocents>,
    /// The back end's process, if it is known.
    pub process: Option<BackEndProcess>,
    /// Virtio features that it offers.
    pub features: u64,
    /// Protocol features that it offers.
    pub protocol: u64,
    /// What innocents send to everybody reaches the attacker.
    pub hears: bool,
    /// Frames that innocents who are gone exchanged.
    exchanged: u64,
}

impl Arena {
    /// Starts or finds the back end, and plugs the innocents in.
    pub fn open(target: &Target) -> Result<Arena> {
        let mut arena = Arena {
            target: target.clone(),
            own: None,
            sockets: Default::default(),
            innocents: None,
            process: None,
            features: 0,
            protocol: 0,
            hears: false,
            exchanged: 0,
        };
        arena.start()?;
        Ok(arena)
    }

    /// A back end that has crashed begins anew, if it is ours.
    pub fn start(&mut self) -> Result<()> {
        self.take_innocents();
        self.own = None;
        self.sockets = match &self.target {
            Target::Sockets(sockets) => sockets.clone(),
            Target::Own { program } => {
                let (core, allowed) = (0, allowed_cores()?);
                let config = OwnConfig { ports: 3, pairs: 1, nics: true, core, mode: "adaptive", allowed };
                let own = OwnSwitch::start(program, config)?;
                // Guests' addresses are those of their ports; the attacker is the last one.
                let [first, second, attacker] = [0, 1, 2].map(|port| own.socket(port).path);
                self.own = Some(own);
                [attacker, first, second]
            }
        };
        self.process = BackEndProcess::behind(&self.sockets[0]);
        self.plug_innocents()?;
        let attacker =
            Attacker::plug(self.attackers_socket(), Setup::SPLIT).doing("plugging an attacker in")?;
        (self.features, self.protocol) = (attacker.offered, attacker.offered_protocol);
        self.innocents()?.call(4);
        self.innocents()?.turn();
        self.hears = attacker.rings[RX].used() > 0;
        Ok(())
    }

    /// As reports name it.
    pub fn name(&self) -> String {
        match &self.target {
            Target::Own { .. } => "ringyard".into(),
            Target::Sockets([attacker, ..]) => attacker.display().to_string(),
        }
    }

    /// Whether another of it can be started.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Where attackers connect.
    pub fn attackers_socket(&self) -> &Path {
        &self.sockets[0]
    }

    /// The innocents.
    pub fn innocents(&self) -> Result<&Innocents> {
        self.innocents.as_ref().ok_or_else(|| Error::new("the innocents are not plugged in"))
    }

    /// New innocents, after what happened to the others.
    pub fn plug_innocents(&mut self) -> Result<()> {
        self.take_innocents();
        let innocents =
            Innocents::plug([&self.sockets[1], &self.sockets[2]]).doing("plugging innocents in")?;
        innocents.exchange(1).doing("exchanging the first frames")?;
        self.innocents = Some(innocents);
        Ok(())
    }

    /// Frames that innocents have exchanged so far.
    pub fn exchanged(&self) -> u64 {
        self.exchanged + self.innocents.as_ref().map_or(0, |innocents| innocents.frames().iter().sum())
    }

    fn take_innocents(&mut self) {
        self.exchanged = self.exchanged();
        self.innocents = None;
    }
}
