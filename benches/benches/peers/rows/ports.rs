//! What other ports cost those that talk: 1,000 connected guests on the hub, of which two exchange frames, against two.

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::GuestConfig;
use ringyard_benches::load;
use ringyard_tests::error::Result;

use super::rate::{RING_SIZE, ROUND_TIME, WARM_UP, series};
use crate::DRIVER_CORE;
use crate::pair::{Pair, plug, polling_guest};
use crate::yard;
use ringyard_benches::comparison::{Figure, Part};
use ringyard_benches::pin::Pinned;
use ringyard_tests::running::Running;

/// Two switches that differ in 998 guests.
pub fn run(rounds: usize) -> Result<Vec<Part>> {
    let mut pairs = Vec::new();
    for ports in [PORTS, 2] {
        let (switch, sockets) = yard::polling(ports)?;
        let name = format!("ringyard with {ports} ports");
        let guests = plug(&sockets[..2], &polling_guest(RING_SIZE))?;
        let config = GuestConfig { ring_size: IDLE_RING_SIZE, ..GuestConfig::default() };
        let idle = sockets[2..].iter().map(|socket| FrontEnd::connect(socket, &config));
        let idle = idle.collect::<Result<Vec<_>>>()?;
        let mut pair = Pair::of(name, guests, Running::Ringyard(Box::new(switch)))?;
        pair.keep(idle);
        pairs.push(pair);
    }
    let series = series(&mut pairs, rounds, |[a, b]| {
        let _pinned = Pinned::to(DRIVER_CORE)?;
        load::measure(a, b, 64, WARM_UP)?;
        load::measure(a, b, 64, ROUND_TIME)
    })?;
    Ok(vec![Part::Figure(Figure {
        name: "64 B between two of them, Mpps".into(),
        digits: 2,
        subject: Some(0),
        series,
    })])
}

const PORTS: usize = 1000;
/// The other guests only have to be there.
const IDLE_RING_SIZE: u16 = 16;
