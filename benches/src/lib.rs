//! Virtio front ends, load and measuring methods: what `ringyard demo` runs, and what the side-by-side runs against
//! peers are made of.
//!
//! A [`guest::Guest`] is a guest's memory and rings. [`front_end`] plugs it into any vhost-user back end, [`bare`] into a
//! switch of this process. [`traffic`] makes frames and proves that they arrived, [`exchange`] moves them in a
//! closed loop. [`demo`] is the newcomer's first run, [`load`] and [`stream`] the measurements,
//! [`floor`] what no switch gets below, [`comparison`] the report of several switches, [`bench`] the harness for any,
//! [`hostile`] the suite of attacks on any.
//! [`link_address`] is what packet sockets are bound to, [`pin`] keeps a thread on a core, [`interrupt`] ends a long run
//! in order.

pub mod bare;
pub mod bench;
pub mod comparison;
pub mod demo;
pub mod error;
pub mod exchange;
pub mod floor;
pub mod front_end;
pub mod guest;
pub mod hostile;
pub mod interrupt;
pub mod link_address;
pub mod load;
pub mod pin;
pub mod stream;
pub mod traffic;
