//! Virtio front ends, load and measuring methods: what `ringyard demo` runs, and what the side-by-side runs against
//! peers are made of.
//!
//! A [`guest::Guest`] is a guest's memory and rings. [`front_end`] plugs it into any vhost-user back end, [`bare`] into a
//! switch of this process. [`traffic`] makes frames and proves that they arrived, [`exchange`] moves them in a
//! closed loop. [`demo`] is the newcomer's first run, [`load`] the measurement, [`floor`] what no switch gets below, and
//! [`bench`] the harness for any switch.

pub mod bare;
pub mod bench;
pub mod demo;
pub mod error;
pub mod exchange;
pub mod floor;
pub mod front_end;
pub mod guest;
pub mod load;
pub mod traffic;
