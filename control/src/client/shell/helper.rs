//! What the line editor asks while a line is typed: what a word can become, and what is still missing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::line::{VERBS, words};
use crate::cli;
use crate::client::Connection;
use crate::complete::{Candidate, Names, Place, SchemaIndex};

/// See the module.
pub(super) struct ShellHelper {
    pub(super) connection: Rc<RefCell<Connection>>,
    pub(super) schema: Rc<SchemaIndex>,
}

impl ShellHelper {
    /// What the last word of `typed` can become.
    fn candidates(&self, typed: &str) -> Vec<Candidate> {
        let mut words = words(typed);
        let last = if typed.ends_with(char::is_whitespace) { None } else { words.pop() }.unwrap_or_default();
        let Some((command, before)) = words.split_first() else { return self.first_words(&last) };
        if VERBS.contains(&command.as_str()) {
            words.push(last);
            return cli::complete_verb(&words, &|| self.names());
        }
        let given = |key: &str| {
            let found = before.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        if let Some((key, value)) = last.split_once('=') {
            let head = format!("{key}=");
            let place = Place { names: &self.names(), truth: ["true", "false"], head: &head };
            let member = self.schema.member(command, key, &given);
            return member.map(|member| place.values(&member, value)).unwrap_or_default();
        }
        let members = self.schema.members(command, &given).into_iter();
        let open = members.filter(|member| member.key.starts_with(&last) && given(&member.key).is_none());
        open.map(|member| Candidate::new(format!("{}=", member.key), "")).collect()
    }

    fn first_words(&self, typed: &str) -> Vec<Candidate> {
        let own = VERBS.into_iter().chain(["help", "exit", "info network"]);
        let all = own.chain(self.schema.commands()).filter(|word| word.starts_with(typed));
        all.map(|word| Candidate::new(word, "")).collect()
    }

    fn names(&self) -> Names {
        Names::ask(|command, arguments| self.connection.borrow_mut().execute(command, arguments).ok())
    }
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        let start = typed.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let pair = |Candidate { text, .. }: Candidate| {
            // A word that more has to follow gets no space.
            let space = if text.ends_with(['=', ',', '.']) { "" } else { " " };
            Pair { replacement: format!("{text}{space}"), display: text }
        };
        Ok((start, self.candidates(typed).into_iter().map(pair).collect()))
    }
}

impl Hinter for ShellHelper {
    type Hint = String;

    /// The members that a command cannot do without.
    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        let words = words(line);
        let (command, before) = words.split_first()?;
        if at < line.len() || !line.ends_with(' ') || VERBS.contains(&command.as_str()) {
            return None;
        }
        let given = |key: &str| {
            let found = before.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        let members = self.schema.members(command, &given).into_iter();
        let missing = members.filter(|member| member.is_required && given(&member.key).is_none());
        let hint: Vec<String> = missing.map(|member| format!("{}=", member.key)).collect();
        (!hint.is_empty()).then(|| hint.join(" "))
    }
}

impl Highlighter for ShellHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("\x1b[2m{hint}\x1b[0m").into()
    }
}

impl Validator for ShellHelper {}

impl Helper for ShellHelper {}
