//! Address learning rate and address caching capacity (RFC 2889, 5.8 and 5.7), with three ports: 0 sends to addresses,
//! 1 says that they are its own, 2 sees what is flooded because nobody knew.
//!
//! Every attempt uses addresses that were never used before, so nothing has to age meanwhile. What is known is counted,
//! not guessed: each frame carries the number of its address, and those that port 2 sees were not known.

use std::time::{Duration, Instant};

use ringyard_dataplane::mac::Mac;

use super::frame::{Frame, SIZE_MIN, Size, Stamp};
use super::pacer::{Load, Pacer};
use super::report::{Figure, Learning};
use super::rig::Rig;
use super::target::{OwnConfig, OwnSwitch, Target, plug};
use super::trial::Generator;
use crate::error::{Error, Result};
use crate::traffic::guest_mac;

/// Addresses of one attempt at a rate.
const ATTEMPT: u32 = 1000;
/// The fastest that addresses are shown, in addresses a second.
const RATE_MAX: f64 = 4_000_000.0;
/// The slowest.
const RATE_MIN: f64 = 100.0;
/// The rate at which addresses are shown when only their number counts.
const RATE_EASY: f64 = 100_000.0;
/// Halvings between a rate that is learned and one that is not.
const BISECTIONS: usize = 5;
/// How long a switch may take to make use of what it learned.
const SETTLE_TIME: Duration = Duration::from_millis(100);
const TELLER: usize = 1;
const ONLOOKER: usize = 2;

/// Measures it: at a switch of our own, a further one whose ports take everything.
pub fn measure(rig: &mut Rig<'_>) -> Result<Figure<Learning>> {
    let size = Size::Fixed(SIZE_MIN);
    if rig.ports_max() < 3 {
        return Ok(Figure::Absent("it takes three ports".into()));
    }
    rig.say("address learning");
    let config = rig.config;
    let Target::Own { program } = &config.target else {
        rig.plug(rig.ports_max(), size)?;
        return figure(&mut rig.generator, config.effort.addresses_max);
    };
    // The load's switch must not poll on the same core meanwhile.
    rig.unplug();
    rig.own = None;
    let own = OwnConfig {
        ports: 3,
        pairs: 1,
        nics: false,
        core: config.switch_core,
        mode: "poll",
        allowed: rig.allowed,
    };
    let switch = OwnSwitch::start(program, own)?;
    let mut guest = config.guest(size);
    guest.pairs = 1;
    let ports = (0..3).map(|port| plug(&switch.socket(port), None, &guest)).collect::<Result<_>>()?;
    let mut generator = Generator::new(ports, rig.quiet_time);
    let figure = figure(&mut generator, config.effort.addresses_max);
    // The guests go before their switch.
    drop(generator);
    figure
}

fn figure(generator: &mut Generator, addresses_max: usize) -> Result<Figure<Learning>> {
    let mut test = Test { generator, next: 0 };
    if !test.is_flooding()? {
        return Ok(Figure::Absent("frames to unknown addresses are not flooded, so nothing shows".into()));
    }
    if test.learn(1, RATE_EASY)?.0 == 0 {
        let learns = false;
        return Ok(Figure::Value(Learning {
            learns,
            rate: None,
            rate_unlimited: false,
            capacity: None,
            capacity_unlimited: false,
        }));
    }
    let (rate, rate_unlimited) = test.rate()?;
    let easy = rate.map_or(RATE_MIN, |rate| rate / 2.0).min(RATE_EASY);
    let (capacity, capacity_unlimited) = test.capacity(addresses_max as u32, easy)?;
    Ok(Figure::Value(Learning {
        learns: true,
        rate,
        rate_unlimited,
        capacity: Some(capacity),
        capacity_unlimited,
    }))
}

/// Where frames to some addresses went.
struct Seen {
    /// Of those, the onlooker saw so many.
    flooded: u32,
    /// So many went to the teller alone.
    known: u32,
}

struct Test<'g> {
    generator: &'g mut Generator,
    /// The first address that was never used.
    next: u32,
}

impl Test<'_> {
    /// Whether a frame to an address that nobody has reaches the onlooker, within the time that plugging in takes.
    fn is_flooding(&mut self) -> Result<bool> {
        let deadline = Instant::now() + FIRST_TIME_MAX;
        while Instant::now() < deadline {
            let first = self.fresh(1);
            if self.ask_for(first, 1)?.flooded == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The highest rate at which all addresses are learned, and whether nothing faster could be tried.
    fn rate(&mut self) -> Result<(Option<f64>, bool)> {
        // What was really shown a second counts, not what was meant to be.
        let mut all = |rate: f64| -> Result<Option<f64>> {
            let (known, shown) = self.learn(ATTEMPT, rate)?;
            Ok((known == ATTEMPT).then_some(shown.min(rate)))
        };
        if let Some(shown) = all(RATE_MAX)? {
            return Ok((Some(shown), true));
        }
        let mut bad = RATE_MAX;
        while bad > RATE_MIN {
            let Some(mut shown) = all(bad / 4.0)? else {
                bad /= 4.0;
                continue;
            };
            let mut good = bad / 4.0;
            for _ in 0..BISECTIONS {
                let rate = (good * bad).sqrt();
                match all(rate)? {
                    Some(more) => (good, shown) = (rate, more.max(shown)),
                    None => bad = rate,
                }
            }
            return Ok((Some(shown), false));
        }
        Ok((None, false))
    }

    /// How many addresses are known at once, and whether that is only what was tried.
    fn capacity(&mut self, most: u32, rate: f64) -> Result<(u64, bool)> {
        let start = self.next;
        let (mut count, mut known) = (0, 0);
        while count < most {
            let more = count.max(ATTEMPT).min(most - count);
            let first = self.fresh(more);
            self.show(first, more, rate)?;
            count += more;
            known = u64::from(self.known(start, count)?);
            if known < u64::from(count) {
                return Ok((known, false));
            }
        }
        Ok((known, true))
    }

    /// Shows fresh addresses at a rate. How many of them are known then, and how many were shown a second.
    fn learn(&mut self, count: u32, rate: f64) -> Result<(u32, f64)> {
        let first = self.fresh(count);
        let shown = self.show(first, count, rate)?;
        Ok((self.known(first, count)?, shown))
    }

    fn fresh(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next = self.next.wrapping_add(count);
        first
    }

    /// Has the teller send a frame from each address. How many it sent a second.
    fn show(&mut self, first: u32, count: u32, rate: f64) -> Result<f64> {
        let mut frame = FrameOf::new(guest_mac(0), guest_mac(TELLER))?;
        let load = Load::Burst { frames: u64::from(count), rate };
        let start = Instant::now();
        let mut pacer = Pacer::new(load, 1, start, Duration::MAX);
        while !pacer.is_done() {
            let due = pacer.due(Instant::now(), TURN).min(TURN);
            for _ in 0..due {
                let address = address(first.wrapping_add(pacer.issued() as u32));
                let bytes = frame.with(Addresses::Source(address), 0);
                // What finds no room is shown later, and the rate is less.
                while !self.generator.ports[TELLER].send_frame(bytes)? {
                    self.take(&mut |_, _| ())?;
                    if start.elapsed() > SHOW_TIME_MAX {
                        return Err(Error::new("the switch takes no more frames to learn from"));
                    }
                }
                pacer.issue(1);
            }
            self.take(&mut |_, _| ())?;
        }
        let shown = f64::from(count) / start.elapsed().as_secs_f64();
        self.generator.drain()?;
        Ok(shown)
    }

    /// How many of the addresses are known, once what was learned had time to be made use of.
    fn known(&mut self, first: u32, count: u32) -> Result<u32> {
        let seen = self.ask_for(first, count)?;
        if seen.known == count {
            return Ok(count);
        }
        let end = Instant::now() + SETTLE_TIME;
        while Instant::now() < end {
            self.generator.drain()?;
        }
        Ok(self.ask_for(first, count)?.known)
    }

    /// Sends a frame to each address, and sees where it goes; what came nowhere is sent again a few times.
    fn ask_for(&mut self, first: u32, count: u32) -> Result<Seen> {
        let mut seen = vec![0u8; count as usize];
        for _ in 0..PASSES {
            self.ask_once(first, &mut seen)?;
            if !seen.contains(&0) {
                break;
            }
        }
        let at = |port: usize| move |seen: &&u8| **seen >> port & 1 == 1;
        let flooded = seen.iter().filter(at(ONLOOKER)).count() as u32;
        // A frame that came nowhere proves nothing.
        let known = seen.iter().filter(at(TELLER)).filter(|seen| !at(ONLOOKER)(seen)).count() as u32;
        Ok(Seen { flooded, known })
    }

    /// Sends a frame to each address of which nothing was seen, and notes which ports see it.
    fn ask_once(&mut self, first: u32, seen: &mut [u8]) -> Result<()> {
        let mut frame = FrameOf::new(guest_mac(ONLOOKER), guest_mac(0))?;
        let note = |seen: &mut [u8], port: usize, stamp: Stamp| {
            if let Some(seen) = seen.get_mut((stamp.sequence as u32).wrapping_sub(first) as usize) {
                *seen |= 1 << port.min(7);
            }
        };
        for place in 0..seen.len() {
            if seen[place] != 0 {
                continue;
            }
            let number = first.wrapping_add(place as u32);
            let to = Addresses::Destination(address(number));
            while !self.generator.ports[0].send_frame(frame.with(to, number))? {
                self.take(&mut |port, stamp| note(seen, port, stamp))?;
            }
            if place % TURN == TURN - 1 {
                self.take(&mut |port, stamp| note(seen, port, stamp))?;
            }
        }
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < self.generator.quiet_time {
            if self.take(&mut |port, stamp| note(seen, port, stamp))? > 0 {
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }

    fn take(&mut self, note: &mut impl FnMut(usize, Stamp)) -> Result<usize> {
        let mut count = 0;
        for (place, port) in self.generator.ports.iter_mut().enumerate() {
            count += port.receive(|seen| {
                if let Some(stamp) = seen.stamp() {
                    note(place, stamp);
                }
            })?;
        }
        Ok(count)
    }
}

/// Which of a frame's addresses is to be replaced.
#[derive(Clone, Copy)]
enum Addresses {
    Source(Mac),
    Destination(Mac),
}

/// A frame whose addresses change.
struct FrameOf {
    frame: Frame,
    bytes: Vec<u8>,
}

impl FrameOf {
    fn new(destination: Mac, source: Mac) -> Result<FrameOf> {
        Ok(FrameOf { frame: Frame::new(source, destination, SIZE_MIN)?, bytes: Vec::new() })
    }

    fn with(&mut self, addresses: Addresses, number: u32) -> &[u8] {
        let stamp = Stamp { flow: 0, trial: 0, sequence: u64::from(number) };
        self.bytes.clear();
        self.bytes.extend_from_slice(self.frame.stamped(stamp.word()));
        let (at, mac) = match addresses {
            Addresses::Destination(mac) => (0, mac),
            Addresses::Source(mac) => (6, mac),
        };
        self.bytes[at..at + 6].copy_from_slice(&mac.0);
        &self.bytes
    }
}

/// A locally administered address, mixed so that neighbours do not fall into neighbouring places of a table.
fn address(number: u32) -> Mac {
    let [a, b, c, d] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    Mac([0x02, 0x59, a, b, c, d])
}

const TURN: usize = 64;
/// How long addresses are shown, at most.
const SHOW_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a frame is sent that comes nowhere.
const PASSES: usize = 5;
/// How long the first flooded frame may take.
const FIRST_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_unicast_local_and_all_different() {
        let addresses: HashSet<[u8; 6]> = (0..100_000).map(|number| address(number).0).collect();
        assert_eq!(addresses.len(), 100_000);
        assert!(addresses.iter().all(|address| address[0] & 3 == 2));
    }

    #[test]
    fn frames_take_the_address_that_is_asked_for() {
        let mut frame = FrameOf::new(guest_mac(2), guest_mac(0)).unwrap();
        let bytes = frame.with(Addresses::Destination(address(7)), 7).to_vec();
        assert_eq!((&bytes[..6], &bytes[6..12]), (&address(7).0[..], &guest_mac(0).0[..]));
        let bytes = frame.with(Addresses::Source(address(8)), 8).to_vec();
        assert_eq!((&bytes[..6], &bytes[6..12]), (&guest_mac(2).0[..], &address(8).0[..]));
    }
}
