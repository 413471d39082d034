//! A switch with nothing to do costs nothing, and is there when there is something.

use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::GuestConfig;
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result};

#[test]
fn eight_idle_guests_cost_next_to_nothing_and_a_frame_still_passes() -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(3);
    let mut switch = Switch::start(&["--workers", "2"])?;
    let mut guests = Vec::new();
    for number in 0..8 {
        let socket = switch.plug_listening(&format!("vm{number}"), 0)?;
        guests.push(FrontEnd::connect(&socket, &GuestConfig::default()).doing("plugging a guest in")?);
    }
    switch.wait_stats("the workers to sleep", Duration::from_secs(5), |stats| {
        stats.ports.iter().all(|port| port.carrier) && stats.workers.iter().all(|worker| worker.asleep)
    })?;
    let (began, before) = (Instant::now(), switch.process().cpu_time("")?);
    std::thread::sleep(WATCHED);
    let (took, busy) = (began.elapsed(), switch.process().cpu_time("")? - before);
    assert!(busy * 100 < took, "idle, it was busy for {busy:?} of {took:?}");

    let mut frame = [0xff; 60];
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    assert!(guests[0].guest.pair().send.send(&frame), "a fresh ring has room");
    guests[0].guest.pair().send.flush();
    for guest in &mut guests[1..] {
        let receive = &mut guest.guest.pair().receive;
        assert!(receive.wait(Duration::from_secs(5)).doing("waiting for a frame")?, "the frame woke nobody");
        assert_eq!(receive.receive(64, |_| ()).doing("receiving")?, 1);
    }
    drop(guests);
    switch.finish()
}

#[test]
fn control_keeps_off_the_core_of_a_pinned_worker() -> Result<()> {
    let cores = std::thread::available_parallelism().doing("counting cores")?.get();
    assert!(cores > 1, "this needs two cores");
    let switch = Switch::start(&["--cores", "0"])?;
    let process = switch.process().id();
    let allowed = |thread: &str| -> Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/status"))
            .doing("reading a thread's status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Ok(list.unwrap_or_default().trim().to_owned())
    };
    let is_on_core_0 = |list: &str| list == "0" || list.starts_with("0-") || list.starts_with("0,");
    let mut workers = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).doing("listing threads")? {
        let thread = task.doing("listing threads")?.file_name().into_string().unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
        let list = allowed(&thread)?;
        if name.doing("reading a thread's name")?.trim() == "worker 0" {
            assert_eq!(list, "0");
            workers += 1;
        } else if thread == process.to_string() {
            assert!(!is_on_core_0(&list), "control may run on {list}");
        }
    }
    assert_eq!(workers, 1);
    switch.finish()
}
