//! QEMU 7.2 as the oracle: a QEMU without a machine and a switch of ours are told the same bytes, and what they answer is
//! compared field by field.
//!
//! A subject is a file: tables of what to say, gone through by one test over one pair. What the two are meant to answer
//! differently is listed in [`differences`], each with its reason, and nowhere else: a difference that is not in the list
//! fails the test, and so does one in the list that is none any more.

mod answer;
mod chardevs;
mod comparison;
mod descriptors;
mod differences;
mod ending;
mod hubs;
mod human;
mod machine;
mod objects;
mod pair;
mod parser;
mod protocol;
mod schema;
mod sockets;
mod taps;
mod tunnels;
mod types;
mod users;
