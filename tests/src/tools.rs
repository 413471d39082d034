//! Where the rig finds what it does not build: programs, the guest's kernel and initramfs, the switch itself. What is
//! missing is an error that names it and the command that brings it; a test never skips.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The path of a program on `PATH`.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMINISTRATOR_PATHS.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::new(format!("the program {name} is missing here: run tests/install")))
}

/// A file of the test guest, `vmlinuz` or `initramfs`; or of another guest, in the directory of its name.
pub fn guest_file(name: &Path) -> Result<PathBuf> {
    existing(target_directory().join("guest").join(name), "run tests/install")
}

/// A program of the Python environment in which `tests/install` puts the QMP clients.
pub fn python_program(name: &str) -> Result<PathBuf> {
    existing(target_directory().join("python/bin").join(name), "run tests/install")
}

/// The switch's binary: what the environment's `RINGYARD` names, else the release build.
pub fn switch_binary() -> Result<PathBuf> {
    match env::var_os("RINGYARD") {
        Some(path) => existing(path.into(), "RINGYARD names it"),
        None => existing(target_directory().join("release/ringyard"), "run cargo build --release"),
    }
}

/// Whether the processor has a feature, by its name in `/proc/cpuinfo`.
pub fn processor_has(feature: &str) -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("flags")).any(|line| line.split(' ').any(|it| it == feature))
}

/// Cargo's target directory, where `tests/install` and the builds put things.
pub fn target_directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match env::var_os("CARGO_TARGET_DIR") {
        // A relative one is meant from the workspace's root, where cargo is run.
        Some(target) => root.join(target),
        None => root.join("target"),
    }
}

fn existing(path: PathBuf, advice: &str) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!("{} is missing: {advice}", path.display())))
}

/// Root's own directories, which an ordinary user's `PATH` may lack.
const ADMINISTRATOR_PATHS: [&str; 2] = ["/usr/sbin", "/sbin"];
