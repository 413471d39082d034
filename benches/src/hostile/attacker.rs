//! A front end that means harm: negotiates like any other, starts its rings, and then does what a case wants.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::innocents::Kind;
use super::memory::{BUFFER_LEN, Memory, RECEIVE_BUFFERS, SEND_BUFFERS};
use super::ring::{Desc, HostileRing, SIZE};
use super::wire::{Answer, Wire, addresses, of, request::*, state, table};
use crate::error::{Doing, Error, Result};

/// The ring that it receives by.
pub const RX: usize = 0;
/// The ring that it sends by.
pub const TX: usize = 1;
/// The ring that it commands by.
pub const CONTROL: usize = 2;
/// Bytes of the virtio-net header.
pub const NET_HEADER: usize = 12;
/// Protocol features: MQ, REPLY_ACK and CONFIGURE_MEM_SLOTS.
pub const PROTOCOL: u64 = 1 | 1 << 3 | 1 << 15;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What an attacker begins with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Packed rings, else split ones.
    pub packed: bool,
    /// Entries of each ring.
    pub size: u16,
    /// Virtio features to accept, if they are offered, beside the usual.
    pub features: u64,
    /// Protocol features to accept if they are offered.
    pub protocol: u64,
    /// Rings to start: 0, 2, or 3 with the control queue.
    pub rings: usize,
    /// Buffers that its receive ring begins with.
    pub buffers: u16,
    /// Its memory file can shrink.
    pub shrinks: bool,
}

impl Setup {
    /// Both rings started, split.
    pub const SPLIT: Setup = Setup {
        packed: false,
        size: SIZE,
        features: 0,
        protocol: PROTOCOL,
        rings: 2,
        buffers: 32,
        shrinks: false,
    };
}

/// What a ring came to, after something was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The device used all of it.
    Used,
    /// The device said that the ring is at fault.
    Fault,
    /// The device ended the connection.
    Closed,
    /// Nothing happened within the time.
    Nothing,
}

/// Who tells whom about one ring.
pub struct Events {
    /// The attacker kicks.
    pub kick: OwnedFd,
    /// The device calls.
    pub call: OwnedFd,
    /// The device reports a fault.
    pub error: OwnedFd,
}

/// The attacker.
pub struct Attacker {
    /// Its connection.
    pub wire: Wire,
    /// Its memory.
    pub memory: Arc<Memory>,
    /// Its rings: [`RX`], [`TX`], [`CONTROL`].
    pub rings: Vec<HostileRing>,
    /// Their descriptors.
    pub events: Vec<Events>,
    /// What it began with.
    pub setup: Setup,
    /// Virtio features that were offered.
    pub offered: u64,
    /// Virtio features that it accepted.
    pub features: u64,
    /// Protocol features that were offered.
    pub offered_protocol: u64,
}

impl Attacker {
    /// Connects, negotiates, shares its memory, and starts as many rings as `setup` says.
    pub fn plug(socket: &Path, setup: Setup) -> Result<Attacker> {
        let mut wire = Wire::connect(socket)?;
        let silent = |what: &str| Error::new(format!("{what} was not answered"));
        let offered = wire.question(GET_FEATURES, &[]).ok_or_else(|| silent("GET_FEATURES"))?;
        let offered_protocol =
            wire.question(GET_PROTOCOL_FEATURES, &[]).ok_or_else(|| silent("GET_PROTOCOL_FEATURES"))?;
        let protocol = offered_protocol & setup.protocol;
        wire.send(SET_PROTOCOL_FEATURES, 0, &protocol.to_ne_bytes(), &[]);
        wire.set_acknowledges(protocol & 1 << 3 != 0);
        wire.send(SET_OWNER, 0, &[], &[]);
        let usual = bit(VIRTIO_F_VERSION_1)
            | PROTOCOL_FEATURES
            | bit(VIRTIO_NET_F_MRG_RXBUF)
            | bit(VIRTIO_RING_F_INDIRECT_DESC);
        let form = if setup.packed { bit(VIRTIO_F_RING_PACKED) } else { 0 };
        let control = if setup.rings > CONTROL { bit(VIRTIO_NET_F_CTRL_VQ) } else { 0 };
        let features = offered & (usual | form | control | setup.features);
        let memory = if setup.shrinks { Memory::that_shrinks() } else { Memory::new() }?;
        let mut attacker = Attacker {
            wire,
            memory: Arc::new(memory),
            rings: Vec::new(),
            events: Vec::new(),
            setup,
            offered,
            features,
            offered_protocol,
        };
        attacker.expect(SET_FEATURES, &features.to_ne_bytes())?;
        let memory = attacker.memory.clone();
        match attacker.wire.ask(SET_MEM_TABLE, &table(&Memory::regions()), &memory.files()) {
            Answer::Accepted => {}
            answer => return Err(Error::new(format!("SET_MEM_TABLE: {answer:?}"))),
        }
        for number in 0..setup.rings.max(2) {
            let ring = HostileRing::new(memory.clone(), number as u64, setup.size, setup.packed);
            attacker.rings.push(ring);
            attacker.events.push(Events { kick: event()?, call: event()?, error: event()? });
        }
        for number in 0..setup.rings {
            attacker.start(number)?;
        }
        Ok(attacker)
    }

    /// Starts a ring from its beginning.
    pub fn start(&mut self, number: usize) -> Result<()> {
        self.rings[number].clear();
        if number == RX {
            self.post_receive_buffers(self.setup.buffers.min(self.setup.size));
        }
        let (ring, index) = (&self.rings[number], number as u32);
        let start = if ring.packed { 1 << 15 } else { 0 };
        let ([desc, avail, used], size) = (ring.addresses(), ring.size.into());
        self.expect(SET_VRING_NUM, &state(index, size))?;
        self.expect(SET_VRING_BASE, &state(index, start))?;
        self.expect(SET_VRING_ADDR, &addresses(index, desc, used, avail))?;
        for request in [SET_VRING_CALL, SET_VRING_ERR, SET_VRING_KICK] {
            let events = &self.events[number];
            let fd = match request {
                SET_VRING_CALL => &events.call,
                SET_VRING_ERR => &events.error,
                _ => &events.kick,
            };
            match self.wire.ask(request, &u64::from(index).to_ne_bytes(), &of(fd)) {
                Answer::Accepted => {}
                answer => return Err(Error::new(format!("request {request} of ring {number}: {answer:?}"))),
            }
        }
        self.expect(SET_VRING_ENABLE, &state(index, 1))?;
        self.kick(number);
        Ok(())
    }

    /// Stops all rings, as a driver's reset does, and starts them from their beginnings with the same memory.
    pub fn reset(&mut self) -> Result<()> {
        for number in 0..self.setup.rings {
            let stopped = self.wire.question(GET_VRING_BASE, &state(number as u32, 0));
            stopped.ok_or_else(|| Error::new("GET_VRING_BASE was not answered"))?;
            let _ = rustix::io::read(&self.events[number].error, &mut [0; 8]);
        }
        let memory = self.memory.clone();
        match self.wire.ask(SET_MEM_TABLE, &table(&Memory::regions()), &memory.files()) {
            Answer::Accepted => {}
            answer => return Err(Error::new(format!("SET_MEM_TABLE: {answer:?}"))),
        }
        (0..self.setup.rings).try_for_each(|number| self.start(number))
    }

    /// The ring that it sends by.
    pub fn tx(&mut self) -> &mut HostileRing {
        &mut self.rings[TX]
    }

    /// Posts a chain to the ring that it sends by.
    pub fn post(&mut self, chain: &[Desc]) {
        self.rings[TX].post(chain);
    }

    /// Posts buffers for frames to the ring that it receives by.
    pub fn post_receive_buffers(&mut self, count: u16) {
        for slot in 0..count {
            let buffer = Desc::write(RECEIVE_BUFFERS + BUFFER_LEN * u64::from(slot), BUFFER_LEN as u32);
            self.rings[RX].post(&[buffer]);
        }
        self.rings[RX].publish();
    }

    /// Shows what was posted, and kicks.
    pub fn show(&mut self, number: usize) {
        self.rings[number].publish();
        self.kick(number);
    }

    /// Writes a virtio-net header of zeros and a frame into buffer `slot`; the descriptor of all of it.
    pub fn frame(&self, slot: u64, frame: &[u8]) -> Desc {
        self.frame_behind(slot, &[0; NET_HEADER], frame)
    }

    /// As [`Self::frame`], behind any virtio-net header. A frame may be longer than a buffer: then those of later slots
    /// are not to be used.
    pub fn frame_behind(&self, slot: u64, header: &[u8], frame: &[u8]) -> Desc {
        let offset = SEND_BUFFERS + BUFFER_LEN * slot;
        self.memory.write(offset, header);
        self.memory.write(offset + header.len() as u64, frame);
        Desc::read(offset, (header.len() + frame.len()) as u32)
    }

    /// A frame that an innocent would see, in buffer `slot`.
    pub fn attack_frame(&self, slot: u64) -> Desc {
        self.frame(slot, &Kind::Attack.frame(100))
    }

    /// Kicks.
    pub fn kick(&self, number: usize) {
        // It does not block: a full counter already says what there is to say.
        let _ = rustix::io::write(&self.events[number].kick, &1u64.to_ne_bytes());
    }

    /// Whether the device has reported a fault of that ring since the last time.
    pub fn is_at_fault(&self, number: usize) -> bool {
        rustix::io::read(&self.events[number].error, &mut [0; 8]).is_ok()
    }

    /// Waits until the device has used what was posted, or says or does otherwise.
    pub fn wait(&self, number: usize, time_max: Duration) -> Came {
        let deadline = Instant::now() + time_max;
        loop {
            if self.is_at_fault(number) {
                return Came::Fault;
            }
            if self.rings[number].is_used_up() {
                return Came::Used;
            }
            if self.wire.is_closed_within(Duration::ZERO) {
                return Came::Closed;
            }
            if Instant::now() > deadline {
                return Came::Nothing;
            }
            thread::sleep(LOOK);
        }
    }

    /// Sends a frame for nobody, and says whether the device took it.
    pub fn sends(&mut self) -> bool {
        let frame = self.frame(u64::from(SIZE) - 1, &Kind::Probe.frame(60));
        self.post(&[frame]);
        self.show(TX);
        self.wait(TX, PROBE_TIME_MAX) == Came::Used
    }

    /// Waits until the device has used one of the first `count` buffers to receive by, and says whether it did.
    pub fn receives(&self, count: u16) -> bool {
        let deadline = Instant::now() + PROBE_TIME_MAX;
        while self.rings[RX].used_of_first(count) == 0 && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.rings[RX].used_of_first(count) > 0
    }

    fn expect(&mut self, request: u32, body: &[u8]) -> Result<()> {
        match self.wire.ask(request, body, &[]) {
            Answer::Accepted => Ok(()),
            answer => Err(Error::new(format!("request {request}: {answer:?}"))),
        }
    }
}

/// A new eventfd.
pub fn event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).doing("making an eventfd")
}

/// An eventfd that blocks.
pub fn blocking_event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).doing("making an eventfd")
}

/// Fills an eventfd up.
pub fn fill(event: &impl AsFd) {
    let _ = rustix::io::write(event, &(u64::MAX - 1).to_ne_bytes());
}

fn bit(number: u32) -> u64 {
    1 << number
}

const LOOK: Duration = Duration::from_micros(100);
/// How long the device may take for a frame; it takes some microseconds, but may not be let run.
pub const PROBE_TIME_MAX: Duration = Duration::from_millis(1500);
