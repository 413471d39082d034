//! The two ends of a measurement: a source that floods the switch at A with numbered frames, and a sink that counts what
//! comes out at B and looks at a sample of it, byte by byte. Both are driven by one thread in turns.

mod sink;
mod source;

use ringyard_benches::traffic::Faults;
use ringyard_tests::error::Result;

pub use sink::{DatagramSink, PacketSink, StreamSink};
pub use source::{DatagramSource, StreamSource};

/// Sends numbered frames, as many as it is told, or as the switch takes.
pub trait Source {
    /// From now on frames have `len` bytes and are numbered from 0.
    fn start(&mut self, len: usize) -> Result<()>;

    /// Sends at most `most` frames; how many.
    fn send(&mut self, most: usize) -> Result<usize>;

    /// Frames that were sent as a whole since the start.
    fn sent(&self) -> u64;

    /// Whether the last frame has gone as a whole; sends the rest of it if it can.
    fn complete(&mut self) -> Result<bool> {
        Ok(true)
    }
}

/// Counts frames.
pub trait Sink {
    /// From now on frames have `len` bytes and are numbered from 0.
    fn start(&mut self, len: usize) -> Result<()>;

    /// Takes what has come, or a part of it when that is much; how many frames.
    fn drain(&mut self) -> Result<usize>;

    /// The number after the highest that has come.
    fn next(&self) -> u64;

    /// What went wrong, when `sent` frames were sent and no more will come.
    fn faults(&self, sent: u64) -> Faults;
}
