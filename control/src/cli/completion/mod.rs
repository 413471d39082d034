//! `ringyard completions`: a script for a shell, and what the script asks while somebody types.
//!
//! The script passes the words of the line to the hidden command [`SUBCOMMAND`], the last of them as far as it is typed,
//! and gets what that can become, a line each. So all shells offer the same: options with one dash or two, the members
//! of netdevs, and the names that the running switch has.

use clap::CommandFactory;
use clap::builder::ValueHint;

use super::args::Args;
use crate::client::{Connection, MonitorAddress};
use crate::complete::{Candidate, Names, SchemaIndex, option_value};
use crate::wire::Command;

/// The shells that there is a script for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// source <(ringyard completions bash)
    Bash,
    /// source <(ringyard completions zsh)
    Zsh,
    /// ringyard completions fish | source
    Fish,
}

impl Shell {
    /// The shell's script.
    pub fn script(self) -> &'static str {
        match self {
            Shell::Bash => include_str!("ringyard.bash"),
            Shell::Zsh => include_str!("ringyard.zsh"),
            Shell::Fish => include_str!("ringyard.fish"),
        }
    }
}

/// What the scripts call.
pub(super) const SUBCOMMAND: &str = "complete-words";

/// What the last of `words` can become, a line each with a tab before what is said about it. The program's name is not
/// among the words.
pub fn complete_words(words: &[String]) -> String {
    let mut root = Args::command();
    root.build();
    let Some((typed, before)) = words.split_last() else { return String::new() };
    match offer(&root, before, typed) {
        Offer::Paths => ":paths\n".into(),
        Offer::Words(candidates) => {
            candidates.iter().map(|Candidate { text, help }| format!("{text}\t{help}\n")).collect()
        }
    }
}

/// What the last of the words of one of the client's commands can become; `names` says what there is.
pub(crate) fn complete_verb(words: &[String], names: &dyn Fn() -> Names) -> Vec<Candidate> {
    let mut root = Args::command();
    root.build();
    let [name, before @ .., typed] = words else { return Vec::new() };
    let Some(command) = root.find_subcommand(name) else { return Vec::new() };
    let line = Line { names: Some(names), ..Line::read(command, before) };
    match line.offer(typed) {
        Offer::Words(candidates) => candidates,
        Offer::Paths => Vec::new(),
    }
}

/// What is offered.
enum Offer {
    Words(Vec<Candidate>),
    /// What there is in the file system: the shell knows better how.
    Paths,
}

/// A line that was read up to the word that is typed.
struct Line<'l> {
    command: &'l clap::Command,
    /// The words behind the command's name.
    words: &'l [String],
    /// Options that were given.
    given: Vec<&'l str>,
    /// How many arguments without an option were given.
    positionals: usize,
    /// The option whose value is next.
    open: Option<&'l clap::Arg>,
    /// Whether `--` has ended the options.
    no_options: bool,
    /// Who says what the running switch has; without it, its monitor is asked.
    names: Option<&'l dyn Fn() -> Names>,
}

fn offer(root: &clap::Command, before: &[String], typed: &str) -> Offer {
    let Some((name, words)) = before.split_first() else {
        return Offer::Words(match typed.starts_with('-') {
            true => options(root, &[], typed),
            false => commands(root, typed),
        });
    };
    if name == "help" && words.is_empty() {
        return Offer::Words(commands(root, typed));
    }
    match root.find_subcommand(name) {
        Some(command) => Line::read(command, words).offer(typed),
        None => Offer::Words(Vec::new()),
    }
}

impl<'l> Line<'l> {
    fn read(command: &'l clap::Command, words: &'l [String]) -> Line<'l> {
        let mut line = Line {
            command,
            words,
            given: Vec::new(),
            positionals: 0,
            open: None,
            no_options: false,
            names: None,
        };
        for word in words {
            if line.open.take().is_some() {
                continue;
            }
            if word == "--" {
                line.no_options = true;
            }
            let option = (!line.no_options).then(|| find_option(command, word)).flatten();
            match option {
                Some(option) => {
                    line.given.push(option.get_id().as_str());
                    let takes_value = option.get_action().takes_values() && !word.contains('=');
                    line.open = takes_value.then_some(option);
                }
                None if word.starts_with('-') && !line.no_options => {}
                None if word == "--" => {}
                None => line.positionals += 1,
            }
        }
        line
    }

    fn offer(&self, typed: &str) -> Offer {
        if let Some(option) = self.open {
            return self.values(option, "", typed);
        }
        if typed.starts_with('-') && !self.no_options {
            let Some((name, value)) = typed.split_once('=') else {
                return Offer::Words(options(self.command, &self.given, typed));
            };
            return match find_option(self.command, name) {
                Some(option) => self.values(option, &format!("{name}="), value),
                None => Offer::Words(Vec::new()),
            };
        }
        let positionals: Vec<&clap::Arg> = self.command.get_positionals().collect();
        let repeats = |last: &&&clap::Arg| last.get_num_args().is_some_and(|count| count.max_values() > 1);
        match positionals.get(self.positionals).or(positionals.last().filter(repeats)) {
            Some(positional) => self.values(positional, "", typed),
            None => Offer::Words(Vec::new()),
        }
    }

    /// What an argument's value can become; `head` stands before it in the word.
    fn values(&self, argument: &clap::Arg, head: &str, typed: &str) -> Offer {
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let visible =
                possible.iter().filter(|value| !value.is_hide_set() && value.get_name().starts_with(typed));
            let help = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string);
            let candidate = |value| {
                Candidate::new(
                    format!("{head}{}", clap::builder::PossibleValue::get_name(value)),
                    help(value).unwrap_or_default(),
                )
            };
            return Offer::Words(visible.map(candidate).collect());
        }
        let names = |list: Vec<String>| {
            let fitting = list.into_iter().filter(|name| name.starts_with(typed));
            fitting.map(|name| Candidate::new(format!("{head}{name}"), "")).collect()
        };
        Offer::Words(match (self.command.get_name(), argument.get_id().as_str()) {
            ("run" | "add", "netdev") => self.netdev(head, typed),
            ("del", "id") | ("link", "name") => names(self.names().all()),
            ("qemu-args", "ports") | ("capture", "netdev") => names(self.names().netdevs),
            ("qmp", "command") => names(schema().commands().into_iter().map(str::to_owned).collect()),
            _ if !matches!(argument.get_value_hint(), ValueHint::Unknown | ValueHint::Other) => {
                return Offer::Paths;
            }
            _ => Vec::new(),
        })
    }

    fn netdev(&self, head: &str, typed: &str) -> Vec<Candidate> {
        let found = option_value(&schema(), "netdev_add", "type", &self.names(), typed);
        found
            .into_iter()
            .map(|Candidate { text, help }| Candidate::new(format!("{head}{text}"), help))
            .collect()
    }

    /// What names there are: those of the line itself when it starts a switch, else those of the one that runs.
    fn names(&self) -> Names {
        if self.command.get_name() == "run" {
            return names_of_options(self.words);
        }
        if let Some(names) = self.names {
            return names();
        }
        let Some(address) = self.monitor() else { return Names::default() };
        let Ok(mut connection) = Connection::open_for_completion(&address) else { return Names::default() };
        Names::ask(|command, arguments| connection.execute(command, arguments).ok())
    }

    /// The monitor that the line names, or else the environment.
    fn monitor(&self) -> Option<MonitorAddress> {
        let monitor = self.command.get_arguments().find(|argument| argument.get_id() == "monitor")?;
        let is_monitor =
            |word: &str| find_option(self.command, word).is_some_and(|found| found.get_id() == "monitor");
        let at = self.words.iter().position(|word| is_monitor(word));
        let named = at.and_then(|at| match self.words[at].split_once('=') {
            Some((_, value)) => Some(value.to_owned()),
            None => self.words.get(at + 1).cloned(),
        });
        let environment = || std::env::var(monitor.get_env()?.to_str()?).ok();
        let default = || monitor.get_default_values().first()?.to_str().map(str::to_owned);
        named.or_else(environment).or_else(default)?.parse().ok()
    }
}

/// The ids that a line gives to netdevs and chardevs.
fn names_of_options(words: &[String]) -> Names {
    let mut names = Names::default();
    for (option, value) in words.iter().zip(words.iter().skip(1)) {
        let id = value.split(',').find_map(|item| item.strip_prefix("id="));
        match (option.trim_start_matches('-'), id) {
            ("netdev" | "nic", Some(id)) => names.netdevs.push(id.to_owned()),
            ("chardev", Some(id)) => names.chardevs.push(id.to_owned()),
            _ => {}
        }
    }
    names
}

fn schema() -> SchemaIndex {
    SchemaIndex::new(Command::schema().clone())
}

fn commands(root: &clap::Command, typed: &str) -> Vec<Candidate> {
    let visible = root.get_subcommands().filter(|command| !command.is_hide_set());
    let fitting = visible.filter(|command| command.get_name().starts_with(typed));
    fitting.map(|command| Candidate::new(command.get_name(), first_line(command.get_about()))).collect()
}

/// The options that are not given yet, or may be given again, with as many dashes as are typed. A lone dash stands for
/// two.
fn options(command: &clap::Command, given: &[&str], typed: &str) -> Vec<Candidate> {
    let dashes = if typed.starts_with("--") || typed == "-" { "--" } else { "-" };
    let is_open = |option: &&clap::Arg| {
        let repeats = matches!(option.get_action(), clap::ArgAction::Append);
        !option.is_hide_set() && (repeats || !given.contains(&option.get_id().as_str()))
    };
    let candidate = |option: &clap::Arg| {
        let text = format!("{dashes}{}", option.get_long()?);
        text.starts_with(typed).then(|| Candidate::new(text, first_line(option.get_help())))
    };
    command.get_arguments().filter(is_open).filter_map(candidate).collect()
}

/// The option that a word with dashes is, whatever follows a `=`.
fn find_option<'c>(command: &'c clap::Command, word: &str) -> Option<&'c clap::Arg> {
    let dashed = word.strip_prefix('-')?;
    let name = dashed.strip_prefix('-').unwrap_or(dashed).split('=').next()?;
    let is_short = |option: &clap::Arg| {
        let mut letters = dashed.chars();
        option.get_short() == letters.next() && letters.next().is_none()
    };
    command
        .get_arguments()
        .find(|option| option.get_long() == Some(name) || is_short(option) && !dashed.is_empty())
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let lines = complete_words(&words);
        lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_and_options_are_completed() {
        assert!(texts("").contains(&"run".into()) && texts("").contains(&"show".into()));
        assert_eq!(texts("qm"), ["qmp"]);
        assert_eq!(texts("help qm"), ["qmp"]);
        assert_eq!(texts("run --netd"), ["--netdev"]);
        assert_eq!(texts("run -netd"), ["-netdev"]);
        assert_eq!(texts("run -netdev tap,id=t0 -netd"), ["-netdev"]);
        assert!(texts("run -mode poll -mo").is_empty());
        assert!(texts("show -").contains(&"--json".into()));
        assert!(texts("no-command ").is_empty() && complete_words(&[]).is_empty());
    }

    #[test]
    fn values_are_completed() {
        assert_eq!(texts("show w"), ["workers"]);
        assert_eq!(texts("show --json -m /nowhere w"), ["workers"]);
        assert_eq!(texts("run --log-level=de"), ["--log-level=debug"]);
        assert_eq!(texts("link n0 "), ["up", "down"]);
        assert_eq!(texts("run --config "), [":paths"]);
        assert_eq!(texts("check "), [":paths"]);
        assert_eq!(texts("qmp netdev_"), ["netdev_add", "netdev_del"]);
        assert!(texts("run --workers ").is_empty());
    }

    #[test]
    fn netdevs_have_their_members_and_the_names_of_the_line() {
        assert_eq!(texts("run -netdev hubp"), ["hubport,"]);
        assert_eq!(texts("run -netdev tap,id=t0 -netdev hubport,netdev="), ["hubport,netdev=t0"]);
        let chardev = "run -chardev socket,id=c0,path=/p -netdev=vhost-user,chardev=";
        assert_eq!(texts(chardev), ["-netdev=vhost-user,chardev=c0"]);
        assert!(texts("add -m /nowhere tap,id=t0,").contains(&"tap,id=t0,ifname=".into()));
    }

    #[test]
    fn nobody_waits_for_a_switch_that_is_not_there() {
        assert!(texts("del -m /no/such/socket ").is_empty());
        assert!(texts("link --monitor=tcp:127.0.0.1:1 ").is_empty());
    }
}
