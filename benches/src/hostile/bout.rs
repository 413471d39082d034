//! One case: its inputs, one after the other, each by an attacker of its own, and the verdict on each.
//!
//! Verdicts are observed, not believed: after each input the attacker itself tries to send and to receive, then to reset,
//! then to connect again; the innocents exchange frames; the process is looked at.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::arena::Arena;
use super::attacker::{Attacker, Came, PROBE_TIME_MAX, RX, Setup, TX};
use super::innocents::Innocents;
use super::report::{CaseReport, Figure, InputReport, Verdict};
use super::wire::Answer;
use crate::error::{Doing, Result};
use crate::traffic::Faults;

/// What an attack knows of its own effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Something was posted to the ring that it sends by; the rest is to be seen.
    Posted,
    /// A request was taken like this.
    Took(Answer),
    /// What it did was handled as it should be.
    Handled,
    /// A ring is said or seen to have stopped.
    Stopped,
    /// Memory holds what it must not.
    Wrong(&'static str),
    /// There is nothing here to try it on.
    Absent,
}

/// A case being tried.
pub struct Bout<'a> {
    /// Where.
    pub arena: &'a mut Arena,
    /// What came of it so far.
    pub case: CaseReport,
    /// The back end is gone and there is no other.
    pub over: bool,
}

impl Bout<'_> {
    /// Forms of rings to try: packed ones only where they are offered.
    pub fn forms(&self) -> &'static [bool] {
        if self.arena.features & 1 << 34 != 0 { &[false, true] } else { &[false] }
    }

    /// Posts something to a transmit ring of either form; the attack says what.
    pub fn sends(&mut self, name: &str, attack: impl Fn(&mut Attacker)) -> Result<()> {
        self.sends_with(name, Setup::SPLIT, attack)
    }

    /// As [`Self::sends`], by an attacker that began otherwise.
    pub fn sends_with(&mut self, name: &str, setup: Setup, attack: impl Fn(&mut Attacker)) -> Result<()> {
        for &packed in self.forms() {
            self.input(name, Setup { packed, ..setup }, |attacker, _| {
                attack(attacker);
                Ok(Tell::Posted)
            })?;
        }
        Ok(())
    }

    /// As [`Self::input`], on either form of rings.
    pub fn on_both(
        &mut self,
        name: &str,
        attack: impl Fn(&mut Attacker, &Innocents) -> Result<Tell>,
    ) -> Result<()> {
        for &packed in self.forms() {
            self.input(name, Setup { packed, ..Setup::SPLIT }, &attack)?;
        }
        Ok(())
    }

    /// Sends a request while both rings run.
    pub fn asks(&mut self, name: &str, request: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.input(name, Setup::SPLIT, |attacker, _| Ok(Tell::Took(attacker.wire.ask(request, body, fds))))
    }

    /// Tries one input and judges it.
    ///
    /// Errors: the innocents could not be plugged in, or nothing was there to attack.
    pub fn input(
        &mut self,
        name: &str,
        setup: Setup,
        attack: impl FnOnce(&mut Attacker, &Innocents) -> Result<Tell>,
    ) -> Result<()> {
        if self.over {
            return Ok(());
        }
        let faults = self.arena.innocents()?.faults();
        let (verdict, note) = self.attacked(setup, attack)?;
        let (verdict, note) = self.aftermath(faults, verdict, note)?;
        let packed = setup.packed;
        self.case.add(InputReport { name: name.into(), packed, verdict, note });
        Ok(())
    }

    /// Notes what was measured.
    pub fn figure(&mut self, what: &str, value: f64, unit: &str) {
        self.case.figures.push(Figure { what: what.into(), value, unit: unit.into() });
    }

    fn attacked(
        &mut self,
        setup: Setup,
        attack: impl FnOnce(&mut Attacker, &Innocents) -> Result<Tell>,
    ) -> Result<(Verdict, Option<String>)> {
        let innocents = self.arena.innocents()?;
        let mut attacker = match Attacker::plug(self.arena.attackers_socket(), setup) {
            Ok(attacker) => attacker,
            Err(error) => return Ok((Verdict::Wedged, Some(format!("before it began: {error}")))),
        };
        let strangers = innocents.strangers();
        let (tell, note) = match attack(&mut attacker, innocents) {
            Ok(tell) => (tell, None),
            // It is the back end that kept the attack from going on.
            Err(error) => (Tell::Took(Answer::Closed), Some(error.to_string())),
        };
        match tell {
            Tell::Absent => return Ok((Verdict::Skipped, note)),
            Tell::Wrong(what) => return Ok((Verdict::Leak, Some(what.into()))),
            _ => {}
        }
        if self.goes_on(&mut attacker, tell, innocents) {
            innocents.turn();
            let arrived = innocents.strangers() > strangers;
            let handled = matches!(tell, Tell::Took(Answer::Accepted) | Tell::Handled)
                || tell == Tell::Posted && arrived;
            return Ok((if handled { Verdict::Pass } else { Verdict::Reject }, note));
        }
        Ok(match self.recovers(attacker, innocents) {
            Ok(how) => (Verdict::Quarantine, note.or(Some(how.into()))),
            Err(error) => (Verdict::Wedged, Some(error.to_string())),
        })
    }

    /// Whether the attacker's port still does what it did before.
    fn goes_on(&self, attacker: &mut Attacker, tell: Tell, innocents: &Innocents) -> bool {
        match tell {
            Tell::Took(Answer::Closed) | Tell::Stopped => return false,
            Tell::Posted => {
                attacker.show(TX);
                if attacker.wait(TX, PROBE_TIME_MAX) != Came::Used {
                    return false;
                }
            }
            _ => {}
        }
        self.works(attacker, innocents)
    }

    /// Whether the attacker can send and receive.
    fn works(&self, attacker: &mut Attacker, innocents: &Innocents) -> bool {
        let rings = attacker.setup.rings;
        if rings == 0 {
            return attacker.wire.state() == Answer::Accepted;
        }
        if (0..rings).any(|ring| attacker.is_at_fault(ring)) || !attacker.sends() {
            return false;
        }
        let received = |attacker: &Attacker| attacker.rings[RX].used_of_first(BUFFERS_WATCHED);
        let before = received(attacker);
        if !self.arena.hears || before == BUFFERS_WATCHED {
            return true;
        }
        let deadline = Instant::now() + PROBE_TIME_MAX;
        while received(attacker) == before && Instant::now() < deadline {
            innocents.call(1);
            (0..TURNS_A_CALL).take_while(|_| received(attacker) == before).for_each(|_| innocents.turn());
        }
        received(attacker) > before
    }

    /// How the port was brought back.
    fn recovers(&self, mut attacker: Attacker, innocents: &Innocents) -> Result<&'static str> {
        // An attack may have begun without buffers to receive by.
        attacker.setup.buffers = Setup::SPLIT.buffers;
        if attacker.setup.rings > 0 && attacker.wire.state() == Answer::Accepted && attacker.reset().is_ok() {
            // What an attack left in the memory is nobody's business any more; the rings begin anew.
            if self.works(&mut attacker, innocents) {
                return Ok("recovers on reset");
            }
        }
        drop(attacker);
        let socket = self.arena.attackers_socket();
        let mut next = Attacker::plug(socket, Setup::SPLIT).doing("connecting again")?;
        if self.works(&mut next, innocents) {
            return Ok("recovers on reconnection");
        }
        Err(crate::error::Error::new("a new connection neither sends nor receives"))
    }

    /// Whether the back end's process has ended.
    fn is_gone(&self) -> bool {
        self.arena.process.as_ref().is_some_and(|process| !process.is_alive())
    }

    /// Goes on with another back end, if there can be one.
    fn crashed(&mut self, note: Option<String>) -> Result<(Verdict, Option<String>)> {
        if self.arena.is_own() {
            self.arena.start()?;
        } else {
            self.over = true;
        }
        Ok((Verdict::Crash, note))
    }

    /// What the input did to others: it overrides what it did to its own port.
    fn aftermath(
        &mut self,
        before: Faults,
        verdict: Verdict,
        note: Option<String>,
    ) -> Result<(Verdict, Option<String>)> {
        if self.is_gone() {
            return self.crashed(note);
        }
        let innocents = self.arena.innocents()?;
        let exchanged = innocents.exchange(FRAMES_AFTERWARDS);
        let faults = innocents.faults();
        // A process takes its time to end.
        if exchanged.is_err() && self.is_gone() {
            return self.crashed(note);
        }
        if exchanged.is_ok() && faults == before {
            return Ok((verdict, note));
        }
        let why = match exchanged {
            Ok(()) => format!("innocents had {before}, then {faults}"),
            Err(error) => format!("innocents: {error}"),
        };
        // Where not even new ones can be plugged in, nothing more can be seen.
        self.over = self.arena.plug_innocents().is_err();
        Ok((Verdict::Collateral, Some(why)))
    }
}

/// Frames that innocents exchange each way after every input.
const FRAMES_AFTERWARDS: u64 = 32;
/// Buffers of the attacker's receive ring by which its working is seen.
const BUFFERS_WATCHED: u16 = 32;
/// Turns of the innocents after which they call once more.
const TURNS_A_CALL: usize = 50;
