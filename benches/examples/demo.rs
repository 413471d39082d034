//! The demo against any running vhost-user switch: `demo SOCKET SOCKET [SOCKET…]`.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;

use ringyard_benches::demo::{self, DemoConfig};
use ringyard_benches::error::{Error, Result};

fn main() -> Result<()> {
    let sockets: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let interactive = stdout().is_terminal();
    let outcome =
        demo::run(&DemoConfig { sockets, interactive, ..DemoConfig::default() }, &mut stdout().lock())?;
    outcome.failure().map_or(Ok(()), |failure| Err(Error::new(failure)))
}
