//! A switch inside another program: two virtio guests of this process exchange frames through it.
//!
//! `cargo run --release -p ringyard-control --example embed`. Where this example has built-in guests, a virtual machine
//! monitor has its own vhost-user front end.

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{Guest, GuestConfig};
use ringyard_control::{Event, Yard};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let yard = Yard::start(["-workers", "1"])?;
    let events = yard.events()?;
    let mut machines = Vec::new();
    for number in 0..2 {
        let socket = directory.path().join(format!("vm{number}.sock"));
        add_port(&yard, number, &socket)?;
        // The front end: of a machine that you run.
        machines.push(FrontEnd::over(UnixStream::connect(&socket)?, &GuestConfig::default())?);
        await_event(&events, "NETDEV_VHOST_USER_CONNECTED")?;
    }
    let [first, second] = machines.as_mut_slice() else { return Err("there are two machines".into()) };

    for round in 0..ROUNDS {
        send(&mut first.guest, &frame(1, 0, round));
        expect(&mut second.guest, &frame(1, 0, round))?;
        send(&mut second.guest, &frame(0, 1, round));
        expect(&mut first.guest, &frame(0, 1, round))?;
    }
    for port in yard.execute("x-query-stats", json!({}))?["ports"].as_array().into_iter().flatten() {
        println!(
            "{}: {} frames in, {} out",
            port["name"], port["ingress"]["frames"], port["egress"]["frames"]
        );
    }
    drop(machines);
    await_event(&events, "NETDEV_VHOST_USER_DISCONNECTED")?;
    Ok(yard.stop()?)
}

/// Adds the vhost-user port of machine `number` to hub 0, with a nic that takes what is sent to its address.
fn add_port(yard: &Yard, number: u8, socket: &Path) -> Result<(), Box<dyn Error>> {
    let (chardev, port) = (format!("c{number}"), format!("vm{number}"));
    let address = json!({"type": "unix", "data": {"path": socket}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": true}});
    yard.execute("chardev-add", json!({"id": chardev, "backend": backend}))?;
    yard.execute("netdev_add", json!({"id": port, "type": "vhost-user", "chardev": chardev}))?;
    let nic = format!("nic{number}");
    let mac = format!("52:54:00:00:00:{number:02x}");
    yard.execute("netdev_add", json!({"id": nic, "type": "nic", "netdev": port, "macaddr": mac}))?;
    let hubport = format!("hub{number}");
    yard.execute("netdev_add", json!({"id": hubport, "type": "hubport", "hubid": 0, "netdev": port}))?;
    Ok(())
}

fn frame(to: u8, from: u8, round: u8) -> [u8; 60] {
    let mut frame = [round; 60];
    frame[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, to]);
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, from]);
    // A local experimental EtherType.
    frame[12..14].copy_from_slice(&[0x88, 0xB5]);
    frame
}

fn send(guest: &mut Guest, frame: &[u8]) {
    let queue = &mut guest.pair().send;
    queue.send(frame);
    queue.flush();
}

fn expect(guest: &mut Guest, expected: &[u8]) -> Result<(), Box<dyn Error>> {
    let queue = &mut guest.pair().receive;
    if !queue.wait(TIME_MAX)? {
        return Err("no frame came".into());
    }
    let mut is_right = false;
    queue.receive(1, |received| is_right = received.copy_to(&mut [0; 100]) == expected)?;
    if is_right { Ok(()) } else { Err("another frame came".into()) }
}

fn await_event(events: &Receiver<Event>, name: &str) -> Result<(), Box<dyn Error>> {
    loop {
        let event = events.recv_timeout(TIME_MAX).map_err(|error| format!("waiting for {name}: {error}"))?;
        println!("{} {}", event.name, event.data);
        if event.name == name {
            return Ok(());
        }
    }
}

/// Fewer than a ring has entries, so that no buffer has to be taken back.
const ROUNDS: u8 = 100;
const TIME_MAX: Duration = Duration::from_secs(10);
