//! The end: `quit` is answered, said to all as an event, and done.

use std::time::Duration;

use ringyard_tests::Result;

use crate::answer::View;
use crate::pair::Pair;

#[test]
fn quit_is_answered_announced_and_done() -> Result<()> {
    let mut pair = Pair::start()?;
    let heard = |side: &mut crate::pair::Side| -> Result<Vec<String>> {
        side.send(br#"{"execute": "quit", "id": "last"}"#)?;
        let lines = std::iter::from_fn(|| side.receive().ok());
        // The reply and the event come in either order.
        let mut heard: Vec<String> = lines.map(|answer| answer.text(View::Values)).collect();
        heard.sort();
        assert!(side.process().wait_for_exit(END_TIME_MAX)?.success());
        Ok(heard)
    };
    let (qemu, ours) = (heard(&mut pair.qemu)?, heard(&mut pair.ours)?);
    assert_eq!(qemu.len(), 2);
    assert_eq!(qemu, ours);
    Ok(())
}

const END_TIME_MAX: Duration = Duration::from_secs(10);
