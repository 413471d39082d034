//! `ringyard run --keep`: a small process that starts the switch, keeps what it has open ([`Shelf`]), and starts it again
//! when it dies.
//!
//! It has one thread, opens nothing, forwards nothing and parses nothing that a guest could have written, so that it does
//! not die of what the switch dies of. The switch is its child, and the same program; a socket that only the two have
//! carries what is kept. Signals are passed on, and when the switch ends by itself, the keeper ends as it did.
//!
//! An [upgrade](upgrade) is a second child that is loaded while the first one still works, and gets what is kept as soon as
//! that has let go of it.

mod child;
mod restarts;
mod signals;
mod upgrade;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use ringyard_drivers::store::{self, Notice, Shelf, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use child::{Child, HELLO, last_words};
use restarts::{Restarts, Verdict};
use signals::Signals;
use upgrade::Upgrade;
pub(crate) use upgrade::{HAND_OVER, HANDED, REFUSED, UPGRADE};

/// Whether this process is the switch of a keeper.
pub fn is_kept() -> bool {
    store::has_keeper()
}

/// Keeps a switch with this process's arguments until it ends by itself, or cannot be kept alive.
///
/// Errors: it cannot even be started.
pub fn run() -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("starting to keep a switch: {error}");
    // What ps shows; for nothing else, so that it does not matter if it fails.
    let _ = rustix::thread::set_name(c"ringyard-keeper");
    let mut keeper = Keeper {
        signals: Signals::catch().map_err(failed)?,
        shelf: Shelf::new(room()),
        is_full: false,
        program: std::env::current_exe().map_err(failed)?,
        arguments: std::env::args_os().skip(1).collect(),
        manager: manager(),
        switch: None,
        leaving: Vec::new(),
        upgrade: Upgrade::None,
        is_upgrade_due: false,
        restarts: Restarts::default(),
        again_at: None,
        is_told_to_stop: false,
    };
    let first = Child::start(&keeper.program, &keeper.arguments).map_err(failed)?;
    keeper.take_on(first);
    loop {
        if let Some(code) = keeper.turn() {
            keeper.upgrade.spare().into_iter().for_each(Child::kill);
            return Ok(code);
        }
    }
}

struct Keeper {
    signals: Signals,
    shelf: Shelf,
    /// Somebody was told that there is no more room.
    is_full: bool,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Whoever started this process and wants to know how the switch is.
    manager: Store,
    /// The one at work.
    switch: Option<Child>,
    /// Those that have let go of everything, and end; when they are late.
    leaving: Vec<(Child, Instant)>,
    upgrade: Upgrade,
    /// A signal asked for one while none could be begun: one is, as soon as the switch serves.
    is_upgrade_due: bool,
    restarts: Restarts,
    /// When there is to be a switch again.
    again_at: Option<Instant>,
    is_told_to_stop: bool,
}

impl Keeper {
    /// Waits until something happens, and does what it asks for. Returns how to end.
    fn turn(&mut self) -> Option<ExitCode> {
        self.wait();
        while let Some(signal) = self.signals.next() {
            self.pass_on(signal);
        }
        self.hear_switch();
        self.tend_upgrade();
        self.leaving.retain_mut(|(child, late_at)| {
            if *late_at <= Instant::now() {
                *late_at += END_TIME_MAX;
                child.kill();
            }
            child.end().is_none()
        });
        if let Some(status) = self.switch.as_mut().and_then(Child::end) {
            return self.bury(status);
        }
        if self.switch.is_none() && self.again_at.is_some_and(|at| at <= Instant::now()) {
            return self.start_again();
        }
        None
    }

    fn wait(&self) {
        let leaving = self.leaving.iter().map(|(child, _)| child);
        let children = self.switch.iter().chain(leaving).chain(self.upgrade.spare());
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        fds.extend(children.flat_map(Child::fds).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let again_at = self.again_at.filter(|_| self.switch.is_none());
        let late_at = self.leaving.iter().map(|(_, at)| *at);
        let limit = again_at.into_iter().chain(self.upgrade.deadline()).chain(late_at).min().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        // Interrupted by a signal, or in time: the caller looks in any case.
        let _ = poll(&mut fds, limit.as_ref());
    }

    fn pass_on(&mut self, signal: Signal) {
        match signal {
            // Nobody hears a refusal.
            Signal::USR2 if !self.can_upgrade() => self.is_upgrade_due = true,
            Signal::USR2 => self.begin_upgrade(None),
            signal => {
                self.is_told_to_stop |= signal != Signal::HUP;
                match &self.switch {
                    Some(switch) => switch.signal(signal),
                    // One that is to come again would only have to be ended again.
                    None if self.is_told_to_stop => self.again_at = Some(Instant::now()),
                    None => {}
                }
            }
        }
    }

    /// Has the child be the switch.
    fn take_on(&mut self, mut child: Child) {
        match child.begin(&self.shelf) {
            Ok(()) => {}
            Err(error) => {
                say(&format!("giving the switch what was kept: {error}"));
                child.kill();
            }
        }
        self.switch = Some(child);
    }

    /// Takes in what the switch sent.
    fn hear_switch(&mut self) {
        let Some(switch) = &mut self.switch else { return };
        for notice in switch.hear(&mut self.shelf) {
            match notice {
                Notice::Full if self.is_full => {}
                Notice::Full => {
                    self.is_full = true;
                    say(&format!(
                        "{} descriptors are kept, and there is no room for more: a next switch will not find what comes \
                         now (raise the limit of open files)",
                        self.shelf.kept().len()
                    ));
                }
                Notice::Said(_, text) => self.take_word(&text),
                Notice::Gone => {}
            }
        }
    }

    fn take_word(&mut self, text: &str) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        if value("READY=").is_some() {
            if let Some(switch) = &mut self.switch {
                switch.ready_at.get_or_insert_with(Instant::now);
            }
            self.upgrade.forget_old_program();
            if self.can_upgrade() && std::mem::take(&mut self.is_upgrade_due) {
                self.begin_upgrade(None);
            }
        }
        if value("UPGRADE=").is_some() {
            self.begin_upgrade(value("BINARY=").map(PathBuf::from));
        }
        if value("HANDED=").is_some() {
            self.hand_over();
        }
        let told: Vec<&str> = text.lines().filter(|line| is_for_manager(line)).collect();
        if !told.is_empty() {
            self.manager.tell(&told.join("\n"));
        }
    }

    /// The switch has ended: how to end, or when to start it again.
    fn bury(&mut self, status: ExitStatus) -> Option<ExitCode> {
        // What it said last.
        self.hear_switch();
        let switch = self.switch.take()?;
        let how = last_words(status);
        let is_rolled_back = match self.upgrade.take_old_program() {
            Some(old) => {
                say(&format!("the upgrade to {} failed: it {how}", self.program.display()));
                self.program = old;
                true
            }
            None => false,
        };
        match self.restarts.judge(status, switch.lived(), self.is_told_to_stop, is_rolled_back) {
            Verdict::End(code) => Some(ExitCode::from(code)),
            Verdict::GiveUp => {
                let count = restarts::TRIES_MAX;
                say(&format!("the switch {how}; it has died {count} times, each time at once: giving up"));
                Some(ExitCode::FAILURE)
            }
            Verdict::Again { pause, fresh } => {
                let without = if fresh { ", without anything that was kept" } else { "" };
                say(&format!("the switch (process {}) {how}: it is started again{without}", switch.id()));
                if fresh {
                    self.shelf.clear();
                }
                self.again_at = Some(Instant::now() + pause);
                if pause.is_zero() { self.start_again() } else { None }
            }
        }
    }

    fn start_again(&mut self) -> Option<ExitCode> {
        self.again_at = None;
        if self.is_told_to_stop {
            return Some(ExitCode::SUCCESS);
        }
        // One that was loaded for an upgrade saves the time that loading takes.
        if let Some((spare, program)) = self.upgrade.take_loaded(&self.program) {
            self.program = program;
            self.take_on(spare);
            return None;
        }
        match Child::start(&self.program, &self.arguments) {
            Ok(child) => {
                self.take_on(child);
                None
            }
            Err(error) => {
                say(&format!("starting {}: {error}", self.program.display()));
                match self.restarts.failed() {
                    Some(pause) => {
                        self.again_at = Some(Instant::now() + pause);
                        None
                    }
                    None => Some(ExitCode::FAILURE),
                }
            }
        }
    }
}

/// Whoever started this process and wants to hear how the switch is.
fn manager() -> Store {
    let address = std::env::var_os("NOTIFY_SOCKET");
    address.and_then(|address| Store::at(&address, Vec::new()).ok()).unwrap_or_default()
}

/// What a switch says when it is loaded: the keeper lets one follow another only if both say the same.
pub fn hello(format: u32) -> String {
    format!("{HELLO}\nFORMAT={format}")
}

/// Whether a line is for a service manager (sd_notify(3)), and not between the two of us.
fn is_for_manager(line: &str) -> bool {
    let keys = [
        "READY=",
        "RELOADING=",
        "STOPPING=",
        "STATUS=",
        "WATCHDOG=",
        "MONOTONIC_USEC=",
        "EXTEND_TIMEOUT_USEC=",
    ];
    keys.iter().any(|key| line.starts_with(key))
}

/// Descriptors that can be kept: what this process may have, less what it needs itself.
fn room() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    limit.saturating_sub(OWN_DESCRIPTORS)
}

/// Says something to whoever reads the log; nothing if nobody reads it. The keeper waits for nobody.
fn say(text: &str) {
    let stderr = io::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if matches!(poll(&mut fds, Some(&now)), Ok(1..)) {
        // A pipe that takes anything takes a line.
        let _ = rustix::io::write(stderr.as_fd(), format!("ringyard-keeper: {text}\n").as_bytes());
    }
}

/// Descriptors that are none of the switch's: three standard ones, signals, and three a child; some for what the program was
/// started with.
const OWN_DESCRIPTORS: usize = 64;
/// From SIGKILL, or the word that all is handed over, to the end of a process.
const END_TIME_MAX: Duration = Duration::from_secs(2);
