//! What the process of `ringyard run` puts itself under, before it starts a thread. Whoever embeds the switch is not
//! confined: it has work of its own, which nobody here knows.

use std::panic;
use std::path::{self, Path};

use ringyard_drivers::sandbox::{self, Allowed, Needs};

use crate::cli::{ConfigSource, Placement, RunConfig};
use crate::wire::{Bridge, Members, NetdevKind, Tap};

/// Confines what this process is about to run; what is in force, or why nothing is.
///
/// Errors: a sentence; the process must end.
pub fn enter(config: &RunConfig, source: &ConfigSource) -> Result<String, String> {
    if !source.wants_sandbox() {
        return Ok("none, as --no-sandbox says".into());
    }
    // A worker may not write to stderr, and nobody should wait for whoever reads it.
    panic::set_hook(Box::new(|panic| tracing::error!("an error of ringyard itself: {panic}")));
    let workers = match &config.placement {
        Placement::Workers(count) => *count,
        Placement::Cores(cores) => cores.len(),
    };
    let files = config.objects.iter().map(|object| Path::new(&object.given.file));
    let directories = files.filter_map(|file| path::absolute(file).ok()?.parent().map(Path::to_owned));
    let allowed = Allowed { commands: commands(config), programs: source.may_run().to_vec() };
    sandbox::enter(Needs { workers, writable: directories.collect(), allowed })
}

/// What netdevs have started: those that there are, and those of which a monitor says nothing more.
fn commands(config: &RunConfig) -> Vec<Vec<String>> {
    let usual = [Members::resolve(&Tap::default()), Members::resolve(&Bridge::default())];
    let kinds = usual.into_iter().flatten().collect::<Vec<_>>();
    let kinds = kinds.iter().chain(config.netdevs.iter().map(|netdev| &netdev.kind));
    kinds
        .flat_map(|kind| match kind {
            NetdevKind::Port(spec) => spec.commands(),
            _ => Vec::new(),
        })
        .collect()
}
