//! `with_faults SYSTEMCALL=ERROR PROGRAM ARGUMENTS…` becomes the program, for which that system call always fails so.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ringyard_tests::faults::{ERRORS, SYSTEM_CALLS};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(fault), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("with_faults SYSTEMCALL=ERROR PROGRAM ARGUMENTS…");
        return ExitCode::from(2);
    };
    let why = match confine(&fault.to_string_lossy()) {
        Ok(()) => Command::new(program).args(arguments).exec().to_string(),
        Err(why) => why,
    };
    eprintln!("with_faults: {why}");
    ExitCode::from(2)
}

fn confine(fault: &str) -> Result<(), String> {
    let (call, error) = fault.split_once('=').ok_or("no SYSTEMCALL=ERROR")?;
    let find = |table: &[(&str, i64)], name: &str| {
        let found = table.iter().find(|(known, _)| *known == name);
        found.map(|(_, number)| *number).ok_or(format!("{name} is not known"))
    };
    let rules = BTreeMap::from([(find(&SYSTEM_CALLS, call)?, Vec::new())]);
    let action = SeccompAction::Errno(find(&ERRORS, error)? as u32);
    let architecture = std::env::consts::ARCH.try_into().map_err(|_| "an unknown architecture")?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}
