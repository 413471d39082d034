//! `ringyard man`: manual pages, made of the same definitions as `--help`.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::Args;

/// The page of the program, as roff(7) text.
pub fn main_page() -> io::Result<String> {
    page(&built())
}

/// Writes `ringyard.1` and a page for each command, `ringyard-COMMAND.1`, into a directory that is made if need be; their
/// number.
pub fn write_pages(directory: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    let root = built();
    let commands: Vec<&clap::Command> = root.get_subcommands().filter(|command| is_told(command)).collect();
    std::fs::write(directory.join("ringyard.1"), page(&root)?)?;
    for command in &commands {
        let file = format!("ringyard-{}.1", command.get_name());
        std::fs::write(directory.join(file), page(command)?)?;
    }
    Ok(1 + commands.len())
}

fn built() -> clap::Command {
    let mut root = Args::command().disable_help_subcommand(true);
    root.build();
    root
}

fn is_told(command: &clap::Command) -> bool {
    !command.is_hide_set()
}

fn page(command: &clap::Command) -> io::Result<String> {
    // What stands after the help are examples, whose lines are to stay as they are.
    let examples = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    if let Some(examples) = examples {
        page += ".SH EXAMPLES\n.nf\n";
        examples.lines().for_each(|line| page += &literal(line));
        page += ".fi\n";
    }
    Ok(page.chars().map(in_ascii).collect())
}

/// A character as every roff reads it, whatever it takes its input's encoding to be.
fn in_ascii(c: char) -> String {
    if c.is_ascii() { c.into() } else { format!("\\[u{:04X}]", u32::from(c)) }
}

/// A line that roff prints as it is.
fn literal(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    let guard = if escaped.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{escaped}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let count = write_pages(&directory.path().join("man1")).expect("it is ours to write to");
        let run =
            std::fs::read_to_string(directory.path().join("man1/ringyard-run.1")).expect("it was written");
        assert!(run.contains("ringyard\\-run") && run.contains(".SH EXAMPLES\n.nf\n"), "{run}");
        assert!(run.contains("\\-\\-netdev"), "{run}");
        assert!(count > 10 && !directory.path().join("man1/ringyard-help.1").exists());
    }

    #[test]
    fn pages_are_of_what_every_roff_reads() {
        let macros =
            [".ie", ".el", ".TH", ".SH", ".TP", ".RS", ".RE", ".br", ".nf", ".fi", ".IP", ".PP", ".ds"];
        for command in built().get_subcommands().filter(|command| is_told(command)) {
            let page = page(command).expect("it is written to memory");
            assert!(page.is_ascii(), "{page}");
            let requests = page.lines().filter(|line| line.starts_with(['.', '\'']));
            for request in requests {
                assert!(macros.iter().any(|known| request.starts_with(known)), "{request}");
            }
        }
    }

    #[test]
    fn lines_of_examples_stay_as_they_are() {
        assert_eq!(literal("  a -b \\"), "  a \\-b \\e\n");
        assert_eq!(literal(".hidden"), "\\&.hidden\n");
    }
}
