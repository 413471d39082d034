//! A fixed number of bursts through the whole forwarding step, for counting instructions:
//! `valgrind --tool=callgrind --toggle-collect='*serve_bursts*' target/release/examples/instructions [FRAME_LEN]`.
//! Divide the sum by the frames that it prints.

use ringyard_benches::bare;
use ringyard_benches::error::{Error, Result};
use ringyard_benches::guest::{Features, Guest, GuestConfig};
use ringyard_benches::traffic::{SEQUENCE, Template, guest_mac};
use ringyard_dataplane::counters::Journal;
use ringyard_dataplane::forward::Forwarder;
use ringyard_dataplane::frame::BURST_FRAMES;
use ringyard_dataplane::hold::Holding;
use ringyard_dataplane::snapshot::{Duty, Snapshot};

const BURSTS: u64 = 2000;

fn main() -> Result<()> {
    let frame_len = std::env::args().nth(1).map_or(Ok(64), |text| text.parse()).map_err(Error::new)?;
    let features = Features { in_order: false, event_idx: false, ..Features::SPLIT };
    let mut from = Guest::new(&GuestConfig::default(), features)?;
    let mut to = Guest::new(&GuestConfig::default(), features)?;
    let snapshot = bare::snapshot(&[&from, &to], &[guest_mac(0), guest_mac(1)])?;
    let journal = Journal::new(1).map_err(Error::new)?;
    let mut forwarder = Forwarder::new(&journal, 0);
    forwarder.adopt(&snapshot);
    from.pair().send.prepare(Template::new(0, 1, frame_len)?.stamp(0));
    let (mut frames, mut holding) = (0, Holding::default());
    for burst in 0..BURSTS {
        let sender = &mut from.pair().send;
        sender.reclaim().map_err(Error::new)?;
        for place in 0..BURST_FRAMES as u64 {
            sender.send_stamped(frame_len, SEQUENCE, burst * BURST_FRAMES as u64 + place);
        }
        sender.flush();
        frames += serve_bursts(&mut forwarder, &snapshot, &snapshot.duties[0][0], &mut holding);
        to.pair().receive.receive(BURST_FRAMES, |_| ())?;
    }
    println!("{frames} frames of {frame_len} bytes");
    Ok(())
}

/// What is counted.
#[inline(never)]
fn serve_bursts(
    forwarder: &mut Forwarder<'_>,
    snapshot: &Snapshot,
    duty: &Duty,
    holding: &mut Holding,
) -> usize {
    forwarder.serve(snapshot, duty, holding)
}
