//! The hostile catalogue: its 104 cases by number, what each is about, and the worst verdict that a case may end with here.
//!
//! What a front end can do (G, H, P, F) is tried by `ringyard bench --hostile` and asserted in the test target
//! `hostile_suite`; other ports (S), monitors, paths and the process itself (Q) have tests of their own. Every case has a
//! test that bears its number, which the test target `cases` checks.

use ringyard_benches::hostile::Verdict::{self, Pass, Quarantine, Reject};
use ringyard_benches::hostile::cases::CASES;

/// A case: its number, what it is about, and the worst verdict it may end with.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `G01`.
    pub id: &'static str,
    /// In a line.
    pub what: &'static str,
    /// As in a report.
    pub verdict: Verdict,
}

/// All cases, in order.
pub fn entries() -> Vec<Entry> {
    let attacks = CASES.iter().map(|case| Entry { id: case.id, what: case.what, verdict: worst(case.id) });
    let others = OTHERS.iter().map(|&(id, what, verdict)| Entry { id, what, verdict });
    attacks.chain(others).collect()
}

/// How a front end's attack may end: in nothing, in a refusal, or in the end of its own ring or connection.
fn worst(id: &str) -> Verdict {
    if PASSES.contains(&id) {
        Pass
    } else if REJECTS.contains(&id) {
        Reject
    } else {
        Quarantine
    }
}

/// Attacks that are handled like anything else.
const PASSES: [&str; 12] =
    ["G15", "G16", "G32", "G34", "H02", "H06", "H08", "H09", "H21", "P03", "F02", "F04"];

/// Attacks that are refused, and the port goes on.
const REJECTS: [&str; 33] = [
    "F01", "F03", "G08", "G11", "G12", "G13", "G14", "G26", "G35", "H01", "H03", "H04", "H05", "H07", "H10",
    "H11", "H12", "H13", "H14", "H15", "H16", "H17", "H18", "H19", "H20", "P01", "P06", "P07", "P09", "P10",
    "P14", "P16", "P25",
];

/// What is no front end's.
const OTHERS: [(&str, &str, Verdict); 18] = [
    ("S01", "stream records of odd lengths, in pieces", Quarantine),
    ("S02", "a stream peer that stops, or never reads", Reject),
    ("S03", "datagrams that are empty, cut, or a stranger's", Reject),
    ("S04", "L2TPv3 cookies, sessions and headers that lie", Reject),
    ("S05", "a vde switch that answers nonsense", Reject),
    ("S06", "a tap that goes down, away, or is none", Quarantine),
    ("S07", "an AF_PACKET interface that vanishes", Quarantine),
    ("S08", "netmap rings that lie", Quarantine),
    ("S09", "ICMP refusals of datagrams", Reject),
    ("Q01", "JSON that is too deep, too long, or has no end", Reject),
    ("Q02", "JSON that is no JSON", Reject),
    ("Q03", "monitor clients that never read", Quarantine),
    ("Q04", "monitor clients in masses, and floods of commands", Reject),
    ("Q05", "socket paths that are something else", Reject),
    ("Q06", "a start at sockets that answer nothing", Pass),
    ("Q07", "system calls that fail", Reject),
    ("Q08", "signals at any time", Pass),
    ("Q09", "ports that come and go without end", Pass),
];
