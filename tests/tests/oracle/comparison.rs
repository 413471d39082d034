//! Goes through the rows of a subject and collects what is not as it should be.

use std::os::fd::OwnedFd;

use ringyard_tests::Result;
use ringyard_tests::error::Error;
use serde_json::json;

use crate::answer::{Answer, View};
use crate::differences::{Difference, Unasked};
use crate::pair::{Pair, Side};

/// What a subject's rows have shown so far.
pub struct Comparison {
    differences: &'static [Difference],
    met: Vec<bool>,
    rows: usize,
    failures: Vec<String>,
}

impl Comparison {
    /// Of a subject with those differences.
    pub fn new(differences: &'static [Difference]) -> Comparison {
        Comparison { differences, met: vec![false; differences.len()], rows: 0, failures: Vec::new() }
    }

    /// Says each row to both.
    pub fn say_all(&mut self, pair: &mut Pair, view: View, rows: &[&str]) -> Result<()> {
        rows.iter().try_for_each(|row| self.say(pair, view, row))
    }

    /// Says one thing to both.
    pub fn say(&mut self, pair: &mut Pair, view: View, row: &str) -> Result<()> {
        self.say_as(pair, view, row, row)
    }

    /// The same for what is said more than once: `row` names it.
    pub fn say_as(&mut self, pair: &mut Pair, view: View, row: &str, input: &str) -> Result<()> {
        self.ask(pair, row, |side| heard(side, input.as_bytes(), &[], view))
    }

    /// Adds the netdev of each row, whose members stand there without an id, to both; where that succeeds, deletes it.
    pub fn add_all(&mut self, pair: &mut Pair, rows: &[&str]) -> Result<()> {
        rows.iter().try_for_each(|row| self.add(pair, row))
    }

    fn add(&mut self, pair: &mut Pair, row: &str) -> Result<()> {
        self.ask(pair, row, |side| added(side, row))
    }

    /// Adds netdevs to ours alone, which would be the end of QEMU.
    pub fn add_ours_all(&mut self, pair: &mut Pair, rows: &[Unasked]) -> Result<()> {
        rows.iter().try_for_each(|unasked| {
            self.rows += 1;
            let heard = added(&mut pair.ours, unasked.row)?;
            if heard != unasked.ours {
                self.failures.push(format!(
                    "{}, not asked of QEMU ({})\n    ours: {heard:?}\n    list: {:?}",
                    unasked.row, unasked.reason, unasked.ours
                ));
            }
            Ok(())
        })
    }

    /// As [`Comparison::add_all`], but deletes none: QEMU crashes when a netdev goes that is connecting.
    pub fn add_and_keep_all(&mut self, pair: &mut Pair, rows: &[&str]) -> Result<()> {
        rows.iter().enumerate().try_for_each(|(number, row)| {
            let add = netdev_add(&format!("kept{number}"), row);
            self.ask(pair, row, |side| heard(side, add.as_bytes(), &[], View::Values))
        })
    }

    /// As [`Comparison::add_all`], and compares what `info network` shows of it meanwhile.
    pub fn show_all(&mut self, pair: &mut Pair, rows: &[&str]) -> Result<()> {
        rows.iter().try_for_each(|row| self.show(pair, row))
    }

    fn show(&mut self, pair: &mut Pair, row: &str) -> Result<()> {
        let add = netdev_add("n0", row);
        self.ask(pair, row, |side| {
            let mut heard_all = heard(side, add.as_bytes(), &[], View::Values)?;
            heard_all.extend(side.lines_of("n0")?);
            heard_all.extend(heard(side, NETDEV_DEL.as_bytes(), &[], View::Values)?);
            Ok(heard_all)
        })
    }

    /// Gives a line to both human monitors.
    pub fn type_line(&mut self, pair: &mut Pair, row: &str, line: &str) -> Result<()> {
        self.ask(pair, row, |side| heard(side, human(line).as_bytes(), &[], View::Values))
    }

    /// Has both asked, and compares what was heard. `row` names it in the list of differences.
    pub fn ask(
        &mut self,
        pair: &mut Pair,
        row: &str,
        mut ask: impl FnMut(&mut Side) -> Result<Vec<String>>,
    ) -> Result<()> {
        self.rows += 1;
        let qemu = ask(&mut pair.qemu).map_err(|error| Error::new(format!("QEMU, {row}: {error}")))?;
        let ours = ask(&mut pair.ours).map_err(|error| Error::new(format!("ours, {row}: {error}")))?;
        self.compare(row, &qemu, &ours);
        Ok(())
    }

    /// Compares what was heard from each.
    pub fn compare(&mut self, row: &str, qemu: &[String], ours: &[String]) {
        let found = self.differences.iter().position(|difference| difference.row == row);
        let Some(at) = found else {
            if qemu != ours {
                self.failures.push(format!("{row}\n    QEMU: {qemu:?}\n    ours: {ours:?}"));
            }
            return;
        };
        self.met[at] = true;
        let Difference { qemu: their_words, ours: our_words, reason, .. } = &self.differences[at];
        if qemu == ours {
            self.failures.push(format!("{row}, a listed difference ({reason}), is none: {ours:?}"));
        } else if qemu != *their_words || ours != *our_words {
            self.failures.push(format!(
                "{row}, a listed difference ({reason})\n    QEMU: {qemu:?}\n    list: {their_words:?}\n    ours: {ours:?}\n    list: {our_words:?}"
            ));
        }
    }

    /// Fails if anything was not as it should be.
    pub fn finish(mut self) -> Result<()> {
        let unmet = self.differences.iter().zip(&self.met).filter(|(_, met)| !**met);
        self.failures.extend(
            unmet.map(|(difference, _)| format!("{}, a listed difference, is in no row", difference.row)),
        );
        match self.failures.as_slice() {
            [] => Ok(()),
            failures => Err(Error::new(format!(
                "{} of {} rows are not as they should be:\n{}",
                failures.len(),
                self.rows,
                failures.join("\n")
            ))),
        }
    }
}

/// What a side answers.
pub fn heard(side: &mut Side, input: &[u8], fds: &[OwnedFd], view: View) -> Result<Vec<String>> {
    Ok(side.ask(input, fds)?.iter().map(|answer| answer.text(view)).collect())
}

/// What a side answers when it is to add a netdev of these members, which is deleted again.
fn added(side: &mut Side, members: &str) -> Result<Vec<String>> {
    let answers = side.ask(netdev_add("n0", members).as_bytes(), &[])?;
    if answers.iter().any(Answer::is_return) {
        side.ask(NETDEV_DEL.as_bytes(), &[])?;
    }
    Ok(answers.iter().map(|answer| answer.text(View::Values)).collect())
}

/// The command that adds a netdev of these members.
pub fn netdev_add(id: &str, members: &str) -> String {
    let members = members.strip_prefix('{').unwrap_or(members);
    format!("{{\"execute\": \"netdev_add\", \"arguments\": {{\"id\": \"{id}\", {members}}}")
}

/// The command that gives the human monitor a line.
pub fn human(line: &str) -> String {
    json!({"execute": "human-monitor-command", "arguments": {"command-line": line}}).to_string()
}

const NETDEV_DEL: &str = r#"{"execute": "netdev_del", "arguments": {"id": "n0"}}"#;
