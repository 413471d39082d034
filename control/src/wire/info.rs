//! What the queries return that are about the program, not about its objects.

use crate::qapi::{QapiEnum, Word, answer};

answer! {
    /// What `query-version` returns.
    #[derive(Clone, Debug)]
    pub struct VersionInfo as "VersionInfo" {
        /// Our own number, in QEMU's place for it.
        pub qemu: VersionTriple,
        /// The product.
        pub package: String,
    }
}

answer! {
    /// A version's number.
    #[derive(Clone, Debug)]
    pub struct VersionTriple as "VersionTriple" {
        /// The first part.
        pub major: u64,
        /// The second part.
        pub minor: u64,
        /// The third part.
        pub micro: u64,
    }
}

answer! {
    /// What `query-name` returns.
    #[derive(Clone, Debug)]
    pub struct NameInfo as "NameInfo" {
        /// What `-name` said.
        pub name: Option<String>,
    }
}

answer! {
    /// What `query-commands` returns of a command.
    #[derive(Clone, Debug)]
    pub struct CommandInfo as "CommandInfo" {
        /// Its name.
        pub name: String,
    }
}

answer! {
    /// What `query-status` returns.
    #[derive(Clone, Debug)]
    pub struct StatusInfo as "StatusInfo" {
        /// Always.
        pub running: bool,
        /// Never.
        pub singlestep: bool,
        /// There is no machine that could stand still.
        pub status: Word<RunState>,
    }
}

/// How the switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// At work.
    Running,
}

impl QapiEnum for RunState {
    const TYPE: &'static str = "RunState";
    const NAMES: &'static [(&'static str, Self)] = &[("running", RunState::Running)];
}

answer! {
    /// What `add-fd` returns.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddfdInfo as "AddfdInfo" {
        /// The set.
        pub fdset_id: i64,
        /// The descriptor's number.
        pub fd: i64,
    }
}

answer! {
    /// What `query-fdsets` returns of a set.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FdsetInfo as "FdsetInfo" {
        /// The set.
        pub fdset_id: i64,
        /// What is in it.
        pub fds: Vec<FdsetFdInfo>,
    }
}

answer! {
    /// A descriptor of a set.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FdsetFdInfo as "FdsetFdInfo" {
        /// Its number.
        pub fd: i64,
        /// What `add-fd` said of it.
        pub opaque: Option<String>,
    }
}
