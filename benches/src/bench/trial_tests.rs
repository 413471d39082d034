//! Trials over a switch of this process, and the count of frames that arrive in every wrong way.

use ringyard_dataplane::switch::{Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;

use super::*;
use crate::bare;
use crate::guest::{Features, Guest, GuestConfig};

const SIZE: Size = Size::Fixed(128);
const TIME: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_millis(200);

/// What a trial number 1 of 64 frames says about those that arrive at port 1 of two.
fn counted(arriving: impl Fn(&mut Vec<Vec<u8>>)) -> Trial {
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    let frame = |sequence| {
        let stamp = Stamp { flow: 0, trial: 1, sequence };
        streams[0].shape.clone().frame(sequence).stamped(stamp.word()).to_vec()
    };
    let mut frames: Vec<Vec<u8>> = (0..64).map(frame).collect();
    arriving(&mut frames);
    let mut count = Count::new(&streams, 2, 1);
    frames.iter().for_each(|frame| count.take(&mut streams, 1, &Seen::Bytes(frame)));
    let now = Instant::now();
    let mut pacer = Pacer::new(Load::Burst { frames: 64, rate: 1e6 }, 1, now, TIME);
    pacer.issue(64);
    count.finish(&[pacer], TIME, TIME, Idle::new(now))
}

#[test]
fn frames_as_they_were_sent_are_no_loss_and_nothing_wrong() {
    let trial = counted(|_| ());
    assert_eq!((trial.received, trial.lost(), trial.wrongs), (64, 0, Wrongs::default()));
    assert_eq!(trial.compared, 2, "one in {WHOLE_EVERY}");
}

#[test]
fn lost_frames_are_counted_wherever_they_were() {
    let trial = counted(|frames| {
        frames.pop();
        frames.remove(10);
        frames.remove(0);
    });
    assert_eq!((trial.received, trial.lost(), trial.wrongs), (61, 3, Wrongs::default()));
    assert!((trial.loss_ratio() - 3.0 / 64.0).abs() < 1e-9);
}

#[test]
fn doubled_and_late_frames_are_told_apart() {
    let trial = counted(|frames| frames.insert(5, frames[4].clone()));
    assert_eq!((trial.lost(), trial.wrongs), (0, Wrongs { duplicated: 1, ..Wrongs::default() }));
    let trial = counted(|frames| frames.swap(20, 21));
    assert_eq!((trial.lost(), trial.wrongs), (0, Wrongs { reordered: 1, ..Wrongs::default() }));
}

#[test]
fn any_wrong_byte_behind_the_stamp_of_a_compared_frame_is_found() {
    // Number 1 is compared in trial 1.
    for at in (0..SEQUENCE).chain(SEQUENCE + 8..124) {
        let trial = counted(|frames| frames[1][at] ^= 0x20);
        let corrupted = Wrongs { corrupted: 1, ..Wrongs::default() };
        assert_eq!((trial.lost(), trial.wrongs), (1, corrupted), "byte {at}");
    }
}

#[test]
fn cut_and_grown_frames_are_corrupted_wherever_they_are() {
    for place in 0..64 {
        let cut = counted(|frames| frames[place].truncate(123));
        assert_eq!((cut.lost(), cut.wrongs.corrupted), (1, 1));
        let grown = counted(|frames| frames[place].push(0));
        assert_eq!((grown.lost(), grown.wrongs.corrupted), (1, 1));
    }
}

#[test]
fn frames_of_others_and_of_other_trials_are_not_ours() {
    let trial = counted(|frames| frames.push(vec![0; 60]));
    assert_eq!((trial.foreign, trial.received), (1, 64));
    let trial = counted(|frames| {
        let stale = Stamp { flow: 0, trial: 0, sequence: 1 };
        frames[1][SEQUENCE..SEQUENCE + 8].copy_from_slice(&stale.word().to_le_bytes());
    });
    assert_eq!((trial.foreign, trial.received, trial.lost()), (0, 63, 1));
}

#[test]
fn frame_at_a_port_that_it_was_not_for_is_stray() {
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    let stamp = Stamp { flow: 0, trial: 1, sequence: 0 };
    let frame = streams[0].shape.clone().frame(0).stamped(stamp.word()).to_vec();
    let mut count = Count::new(&streams, 3, 1);
    count.take(&mut streams, 2, &Seen::Bytes(&frame));
    assert_eq!(count.stray, 1);
    // A flow that there is not.
    let unknown = Stamp { flow: 9, ..stamp }.word().to_le_bytes();
    let mut frame = frame.clone();
    frame[SEQUENCE..SEQUENCE + 8].copy_from_slice(&unknown);
    count.take(&mut streams, 1, &Seen::Bytes(&frame));
    assert_eq!(count.stray, 2);
}

/// Three guests on a hub of this process.
fn rig() -> (Switch, Generator) {
    let config = SwitchConfig { cores: vec![None], mode: Mode::Adaptive };
    let mut switch = Switch::start(&config).unwrap();
    let features = Features { in_order: false, ..Features::SPLIT };
    let guest_config = GuestConfig { buffer_len: 10_240, ..GuestConfig::default() };
    let port = |place: usize| {
        let guest = Guest::new(&guest_config, features).unwrap();
        bare::plug(&mut switch, &guest, guest_mac(place)).unwrap();
        Port::Bare(Box::new(guest))
    };
    let ports: Vec<Port> = (0..3).map(port).collect();
    switch.publish();
    (switch, Generator::new(ports, QUIET))
}

fn plan(load: Load) -> TrialPlan {
    TrialPlan { load, time: TIME, probe_every: None }
}

#[test]
fn frames_of_every_size_pass_a_switch_and_are_counted() {
    let (_switch, mut generator) = rig();
    for size in [Size::Fixed(64), Size::Fixed(1518), Size::Fixed(9000), Size::Imix] {
        let mut streams = [Stream::unicast(0, 0, 1, size).unwrap(), Stream::unicast(1, 0, 0, size).unwrap()];
        // Few enough for the rings, however long the switch is away.
        let trial = generator.run(&mut streams, plan(Load::Burst { frames: 200, rate: 1e5 })).unwrap();
        assert_eq!((trial.offered, trial.received, trial.lost()), (200, 200, 0), "{size}");
        assert!(trial.wrongs.is_none() && trial.compared > 0 && trial.foreign == 0, "{size}");
    }
}

#[test]
fn greatest_load_sends_as_much_as_there_is_room_for() {
    let (_switch, mut generator) = rig();
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    let trial = generator.run(&mut streams, plan(Load::Max)).unwrap();
    assert!(trial.received > 0 && trial.offered == trial.sent, "{trial:?}");
    assert!(trial.elapsed >= TIME && trial.wait_share() <= 1.0);
    assert!(trial.wrongs.is_none());
}

#[test]
fn frames_that_find_no_room_are_lost() {
    let (switch, mut generator) = rig();
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    generator.run(&mut streams, plan(Load::Burst { frames: 1, rate: 1e6 })).unwrap();
    // Nobody takes frames any more: a ring's worth goes, the rest does not.
    drop(switch);
    let trial = generator.run(&mut streams, plan(Load::Burst { frames: 1000, rate: 1e6 })).unwrap();
    assert_eq!((trial.offered, trial.received, trial.lost()), (1000, 0, 1000));
    assert!(trial.sent <= 256, "{}", trial.sent);
}

#[test]
fn broadcasts_are_expected_at_every_other_port() {
    let (_switch, mut generator) = rig();
    let mut streams = [Stream::broadcast(0, vec![1, 2], SIZE).unwrap()];
    let trial = generator.run(&mut streams, plan(Load::Burst { frames: 100, rate: 1e5 })).unwrap();
    assert_eq!((trial.offered, trial.expected, trial.received), (100, 200, 200));
    assert_eq!(trial.stray, 0);
}

#[test]
fn probes_are_timed_beside_any_load_and_beside_none() {
    let (_switch, mut generator) = rig();
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    for load in [0.0, 1e4] {
        let probe_every = Some(Duration::from_millis(1));
        let plan = TrialPlan { load: Load::Rate(load), time: TIME, probe_every };
        let trial = generator.run(&mut streams, plan).unwrap();
        assert!(trial.probes > 0 && trial.latency.len() == trial.probes, "{load}: {} probes", trial.probes);
        assert!(trial.latency.min() > 0);
        assert_eq!(trial.lost(), 0, "{load}");
    }
}

#[test]
fn something_beside_a_trial_is_called_while_it_runs() {
    let (_switch, mut generator) = rig();
    let mut streams = [Stream::unicast(0, 0, 1, SIZE).unwrap()];
    let mut calls = 0;
    let beside = |_| {
        calls += 1;
        Ok(())
    };
    generator.run_beside(&mut streams, plan(Load::Rate(1e4)), beside).unwrap();
    assert!(calls > 1);
    let fails = |_| Err(Error::new("beside"));
    let error = generator.run_beside(&mut streams, plan(Load::Rate(1e4)), fails).unwrap_err();
    assert_eq!(error.to_string(), "beside");
}

#[test]
fn trial_without_streams_is_refused() {
    let mut generator = Generator::new(Vec::new(), QUIET);
    assert!(generator.run(&mut [], plan(Load::Max)).is_err());
}
