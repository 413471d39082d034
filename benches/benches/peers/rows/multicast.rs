//! One sender, eight receivers: frames delivered a second when each goes to all of them, against frames to one.

use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::Guest;
use ringyard_benches::load;
use ringyard_benches::traffic::Template;
use ringyard_tests::error::{Error, Result};

use super::rate::{RING_SIZE, ROUND_TIME, WARM_UP};
use crate::DRIVER_CORE;
use crate::pair::polling_guest;
use crate::yard;
use ringyard_benches::comparison::{Figure, Part, Series};
use ringyard_benches::interrupt;
use ringyard_benches::pin::Pinned;
use ringyard_benches::stream::{self, Pace};

pub fn run(rounds: usize) -> Result<Vec<Part>> {
    let (switch, sockets) = yard::polling(1 + RECEIVERS)?;
    let mut front_ends = sockets
        .iter()
        .map(|socket| FrontEnd::connect(socket, &polling_guest(RING_SIZE)))
        .collect::<ringyard_benches::error::Result<Vec<_>>>()?;
    let (from, to) = front_ends.split_first_mut().ok_or_else(|| Error::new("there is no sender"))?;
    let from = &mut from.guest;
    let mut to: Vec<&mut Guest> = to.iter_mut().map(|front_end| &mut front_end.guest).collect();
    for (index, guest) in to.iter_mut().enumerate() {
        load::open_way_between((0, from), (index + 1, guest))?;
        load::open_way_between((index + 1, guest), (0, from))?;
    }
    let unicast = Template::new(0, 1, FRAME_LEN)?.stamp(0).to_vec();
    let multicast = [&GROUP, &unicast[GROUP.len()..]].concat();

    let mut series = [Series::new("multicast to 8"), Series::new("unicast to 1")];
    let _pinned = Pinned::to(DRIVER_CORE)?;
    for _ in 0..rounds {
        for (place, (frame, receivers)) in [(&multicast, RECEIVERS), (&unicast, 1)].into_iter().enumerate() {
            interrupt::check()?;
            let mut measure = |time: Duration| {
                let end = Instant::now() + time;
                stream::run(from, &mut to[..receivers], frame, Pace::ClosedLoop, || Instant::now() > end)
            };
            measure(WARM_UP)?;
            let outcome = measure(ROUND_TIME)?;
            if outcome.disordered > 0 {
                return Err(Error::new(format!("{} frames came twice, late or cut", outcome.disordered)));
            }
            series[place].push(outcome.mpps(), outcome.lost, outcome.waiting());
        }
    }
    drop(front_ends);
    switch.finish()?;
    let name = "64 B frames delivered, Mpps".into();
    Ok(vec![Part::Figure(Figure { name, digits: 2, subject: Some(0), series: series.into() })])
}

const RECEIVERS: usize = 8;
const FRAME_LEN: usize = 64;
/// An IPv4 group, 239.1.1.1.
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x01, 0x01];
