//! What a process gives up for good: files, and the rights of an administrator.

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use std::path::PathBuf;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Leaves this process no files by their names but `readable` ones, and nothing of what `scopes` says outside of it; how
/// far the kernel has that (Landlock).
pub(crate) fn restrict_files(
    readable: &[PathBuf],
    scopes: BitFlags<Scope>,
) -> Result<&'static str, landlock::RulesetError> {
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(ABI::V5))?.scope(scopes)?.create()?;
    for path in readable {
        // What is not there cannot be read either.
        if let Ok(path) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(path, AccessFs::ReadFile))?;
        }
    }
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => "Landlock",
        RulesetStatus::PartiallyEnforced => "Landlock in part",
        RulesetStatus::NotEnforced => "no Landlock",
    })
}

/// Gives up all capabilities, also those that a program could bring along; what is left, in words.
///
/// AF_XDP's memory is counted against a limit of those who may not lock any amount (CAP_IPC_LOCK). Whoever may raise it does;
/// who may lock any amount, but may not raise it, as in some containers, keeps that right, and no other.
pub(super) fn drop_capabilities() -> rustix::io::Result<&'static str> {
    let has = capabilities(None)?.effective;
    let unlimited = Rlimit { current: None, maximum: None };
    let raised = setrlimit(Resource::Memlock, unlimited).is_ok();
    let kept = if raised { CapabilitySet::empty() } else { has.intersection(CapabilitySet::IPC_LOCK) };
    if has.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            // The kernel may know fewer.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let _ = clear_ambient_capability_set();
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?;
    Ok(if kept.is_empty() { "no capabilities" } else { "no capabilities but that of locking memory" })
}

/// Lets the opener look into this process, as it may into one that was started without rights of its file: by now there is
/// nothing to be had from it but what its user has.
pub(super) fn be_dumpable() {
    if !matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable)) {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
}
