//! The live display: on a terminal the lines are drawn again, elsewhere a line a second is added.

use std::io::Write;
use std::time::{Duration, Instant};

use super::outcome::{DemoOutcome, name};
use crate::error::{Doing, Result};
use crate::exchange::Exchange;
use crate::traffic::Faults;

/// Where the demo draws.
pub(super) struct Screen<'o> {
    out: &'o mut dyn Write,
    interactive: bool,
    /// Lines of the last drawing, to be drawn over.
    drawn: usize,
    /// Length of the frames, when they were last looked at, and how many of each flow there were.
    last: Option<(usize, Instant, Vec<u64>)>,
}

impl<'o> Screen<'o> {
    pub(super) fn new(out: &'o mut dyn Write, interactive: bool) -> Screen<'o> {
        Screen { out, interactive, drawn: 0, last: None }
    }

    /// Draws when it is time to.
    pub(super) fn look(&mut self, len: usize, now: Instant, exchange: &Exchange) -> Result<()> {
        let frames = || exchange.flows().iter().map(|flow| flow.frames()).collect();
        match &self.last {
            Some((last_len, then, _)) if *last_len == len => {
                if now - *then < self.interval() {
                    return Ok(());
                }
            }
            _ => {
                self.last = Some((len, now, frames()));
                return Ok(());
            }
        }
        let before = self.last.replace((len, now, frames()));
        let Some((_, then, counts)) = before else { return Ok(()) };
        self.draw(len, now - then, &counts, exchange)
    }

    /// The results, in place of the live lines.
    pub(super) fn finish(&mut self, outcome: &DemoOutcome) -> Result<()> {
        self.erase()?;
        writeln!(self.out, "{outcome}").doing("printing")
    }

    fn interval(&self) -> Duration {
        if self.interactive { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    fn draw(&mut self, len: usize, span: Duration, before: &[u64], exchange: &Exchange) -> Result<()> {
        self.erase()?;
        let mut faults = Faults::default();
        let mut rates = Vec::new();
        for (flow, before) in exchange.flows().iter().zip(before) {
            faults.add(flow.faults_so_far());
            let mpps = (flow.frames() - before) as f64 / span.as_secs_f64() / 1e6;
            let (from, to, gbits) = (name(flow.from), name(flow.to), mpps * len as f64 * 8.0 / 1e3);
            rates.push(format!("{from} -> {to} {mpps:6.3} Mpps {gbits:6.2} Gbit/s"));
        }
        if self.interactive {
            writeln!(self.out, "  {len:>4} B frames, every byte verified, {faults}").doing("printing")?;
            for rate in &rates {
                writeln!(self.out, "    {rate}").doing("printing")?;
            }
            self.drawn = rates.len() + 1;
        } else {
            writeln!(self.out, "  {len:>4} B  {}  {faults}", rates.join("   ")).doing("printing")?;
        }
        self.out.flush().doing("printing")
    }

    /// Goes back to the first drawn line and clears from there.
    fn erase(&mut self) -> Result<()> {
        let lines = std::mem::take(&mut self.drawn);
        if lines > 0 { write!(self.out, "\x1b[{lines}A\x1b[J").doing("printing") } else { Ok(()) }
    }
}
