//! Logged packed rings: all rules once more, and what is written looked for in the log.

use super::*;

type World = super::World<true, true>;

#[allow(clippy::duplicate_mod)] // once for each form
#[path = "offloads.rs"]
mod offloads;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "receive.rs"]
mod receive;
#[allow(clippy::duplicate_mod)] // once for each form
#[path = "rules.rs"]
mod rules;
