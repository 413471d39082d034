//! Guests whose front end hands the control queue on, honest and not. Names of the latter begin with the case of the
//! hostile catalogue.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringyard_dataplane::filter::RxState;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::ring::{DriverMemory, DriverOptions, DriverRing, Part};
use ringyard_drivers::vhost_user::NicState;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::{self, FEATURES, Guest, frame};
use crate::raw::{GET_CONFIG, Raw, SET_FEATURES, SET_VRING_CALL, SET_VRING_KICK};
use crate::yard::{Yard, until};

const SIZE: u16 = 16;
const RING_LEN: usize = 0x1000;
const MEMORY_LEN: usize = 0x10_0000;
const BUFFERS: usize = 0x2_0000;
const BUFFER_LEN: usize = 0x800;
const COMMAND: usize = 0x8_0000;
const ANSWER: usize = 0xa_0000;
const TABLE: usize = 0xb_0000;
/// CTRL_VQ, CTRL_RX, CTRL_VLAN, CTRL_RX_EXTRA, GUEST_ANNOUNCE and CTRL_MAC_ADDR.
const CONTROL: u64 = 0x1f << 17 | 1 << 23;
const MQ: u64 = 1 << 22;
const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
/// What nobody answers.
const NOTHING: u8 = 0xee;
const OK: u8 = 0;
const ERR: u8 = 1;

/// A driver with all its queues behind a front end that passes every one.
struct Driver {
    frontend: Frontend,
    socket: UnixStream,
    memory: Arc<DriverMemory>,
    rings: Vec<DriverRing>,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
    channel: UnixStream,
    features: u64,
    options: DriverOptions,
    /// Given so far: every other one is a table.
    commands: u32,
}

impl Driver {
    fn start(path: &Path, features: u64) -> Driver {
        Driver::with(path, features, 1, DriverOptions::default())
    }

    fn with(path: &Path, features: u64, pairs: usize, options: DriverOptions) -> Driver {
        let mut driver = Driver::connect(path, features, pairs, options);
        driver.start_rings();
        driver
    }

    /// All is negotiated, nothing is started.
    fn connect(path: &Path, features: u64, pairs: usize, options: DriverOptions) -> Driver {
        let socket = UnixStream::connect(path).unwrap();
        let mut frontend = Frontend::from_stream(socket.try_clone().unwrap(), 256);
        frontend.set_owner().unwrap();
        let flag = |on: bool, bit: u32| if on { 1 << bit } else { 0 };
        let form = flag(options.packed, 34) | flag(options.in_order, 35) | flag(options.event_idx, 29);
        let features = FEATURES | 1 << 28 | 1 << 16 | form | features | flag(pairs > 1, 22);
        assert_eq!(frontend.get_features().unwrap() & features, features);
        frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE;
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let (channel, theirs) = UnixStream::pair().unwrap();
        frontend.set_backend_request_fd(&theirs).unwrap();
        let memory = Arc::new(DriverMemory::new("guest", MEMORY_LEN).unwrap());
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let rings = 2 * pairs + 1;
        let driver = Driver {
            frontend,
            socket,
            rings: Vec::new(),
            kicks: (0..rings).map(|_| event()).collect(),
            calls: (0..rings).map(|_| event()).collect(),
            memory,
            channel,
            features,
            options,
            commands: 0,
        };
        driver.frontend.set_mem_table(&[driver.region()]).unwrap();
        driver.frontend.set_features(features).unwrap();
        driver
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: DriverMemory::GUEST_ADDR,
            memory_size: MEMORY_LEN as u64,
            userspace_addr: DriverMemory::USER_ADDR,
            mmap_offset: 0,
            mmap_handle: self.memory.file().as_raw_fd(),
        }
    }

    /// All rings from their beginnings, the receive rings full of buffers.
    fn start_rings(&mut self) {
        let count = self.kicks.len();
        self.memory.write(0, &vec![0; count * RING_LEN]);
        let ring =
            |index| DriverRing::new(self.memory.clone(), index * RING_LEN, SIZE, self.options).unwrap();
        self.rings = (0..count).map(ring).collect();
        let beginning = if self.options.packed { 1 << 15 } else { 0 };
        for index in 0..count {
            self.post(index);
            self.start_ring(index, beginning);
        }
    }

    fn start_ring(&mut self, index: usize, base: u16) {
        guest::set_up(&self.frontend, index, self.rings[index].layout(), base);
        self.frontend.set_vring_call(index, &self.calls[index]).unwrap();
        self.frontend.set_vring_kick(index, &self.kicks[index]).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    /// Of a receive ring: posts all buffers that are free.
    fn post(&mut self, index: usize) {
        if index % 2 == 1 || index == self.control() {
            return;
        }
        while let Some(head) = self.rings[index].next_head() {
            self.rings[index].add(Part {
                offset: buffer(index, head),
                len: BUFFER_LEN as u32,
                writable: true,
            });
        }
        self.rings[index].publish();
    }

    fn control(&self) -> usize {
        self.kicks.len() - 1
    }

    /// Gives a command in three descriptors, or in one that is a table of them, and waits for the answer.
    #[track_caller]
    fn command(&mut self, command: &[u8]) -> u8 {
        let (read, cut) = (|offset, len| Part { offset, len, writable: false }, command.len().min(2));
        self.memory.write(COMMAND, command);
        let parts = [
            read(COMMAND, cut as u32),
            read(COMMAND + cut, (command.len() - cut) as u32),
            Part { offset: ANSWER, len: 1, writable: true },
        ];
        self.give(&parts)
    }

    #[track_caller]
    fn give(&mut self, parts: &[Part]) -> u8 {
        self.memory.write(ANSWER, &[NOTHING]);
        let control = self.control();
        let ring = &mut self.rings[control];
        self.commands += 1;
        let added = if self.commands.is_multiple_of(2) {
            ring.add_indirect(TABLE, parts)
        } else {
            ring.add_chain(parts)
        };
        assert!(added.is_some(), "there is room");
        if ring.publish() {
            self.kicks[control].write(1).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.rings[control].collect().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no answer");
            std::thread::yield_now();
        }
        let mut answer = [0];
        self.memory.read(ANSWER, &mut answer);
        answer[0]
    }

    /// The frames that came, each with the ring that it came on; all have the length of [`to`]'s.
    fn received(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut frames = Vec::new();
        for index in (0..self.control()).step_by(2) {
            while let Some(used) = self.rings[index].collect().unwrap() {
                let mut bytes = vec![0; LEN];
                self.memory.read(buffer(index, used.head) + 12, &mut bytes);
                frames.push((index, bytes));
            }
            self.post(index);
        }
        frames
    }

    /// What arrives of `frames`, by number.
    #[track_caller]
    fn taken(&mut self, sender: &mut Guest, frames: &[Vec<u8>]) -> Vec<usize> {
        let last = to(Mac::BROADCAST, None);
        frames.iter().chain([&last]).for_each(|bytes| sender.send(bytes));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut taken = Vec::new();
        loop {
            for (_, bytes) in self.received() {
                if bytes == last {
                    return taken;
                }
                taken.push(frames.iter().position(|frame| *frame == bytes).expect("one of ours"));
            }
            assert!(Instant::now() < deadline, "the last frame never comes");
            std::thread::yield_now();
        }
    }

    /// The bytes at `offset` of the configuration space.
    fn config(&mut self, offset: u32, len: usize) -> Vec<u8> {
        let flags = VhostUserConfigFlags::empty();
        self.frontend.get_config(offset, len as u32, flags, &vec![0; len]).unwrap().1
    }

    /// The next message of the back end is that the configuration changed.
    #[track_caller]
    fn expect_config_change(&mut self) {
        let mut message = [0; 12];
        self.channel.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.channel.read_exact(&mut message).unwrap();
        assert_eq!(message, *[2, 1, 0].map(u32::to_ne_bytes).as_flattened());
    }
}

fn buffer(ring: usize, head: u16) -> usize {
    BUFFERS + (ring * usize::from(SIZE) + usize::from(head)) * BUFFER_LEN
}

/// A frame to `destination`, in a VLAN or none.
fn to(destination: Mac, vlan: Option<u16>) -> Vec<u8> {
    let mut bytes = destination.0.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend(vlan.iter().flat_map(|vlan| [0x81, 0x00, (vlan >> 8) as u8, *vlan as u8]));
    bytes.extend([0x88, 0xb5]);
    bytes.resize(LEN, 7);
    bytes
}

fn nic(mac: Mac) -> NicState {
    NicState { mac: Some(mac), ..NicState::default() }
}

fn all_forms() -> impl Iterator<Item = DriverOptions> {
    (0..8).map(|bits| DriverOptions {
        packed: bits & 1 != 0,
        event_idx: bits & 2 != 0,
        in_order: bits & 4 != 0,
    })
}

/// TABLE_SET.
fn table_set(unicast: &[Mac], multicast: &[Mac]) -> Vec<u8> {
    let table = |macs: &[Mac]| {
        let macs: Vec<u8> = macs.iter().flat_map(|mac| mac.0).collect();
        [&(macs.len() as u32 / 6).to_le_bytes()[..], &macs].concat()
    };
    [&[1, 0][..], &table(unicast), &table(multicast)].concat()
}

/// Two ports, the second with a nic that has the address [`MAC`].
fn two(pairs: u16) -> Yard {
    let yard = Yard::new(2, pairs);
    yard.ports[1].as_ref().unwrap().set_nic(nic(MAC));
    yard
}

#[test]
fn a_guest_receives_what_it_asks_for_from_the_answer_on() {
    const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 7]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
    let frames: Vec<Vec<u8>> =
        [(MAC, None), (OTHER, None), (GROUP, None), (MAC, Some(5)), (MAC, Some(6)), (OTHER, Some(5))]
            .map(|(mac, vlan)| to(mac, vlan))
            .to_vec();
    for options in all_forms() {
        let yard = two(1);
        let mut sender = Guest::start(&yard.path(0));
        let mut driver = Driver::with(&yard.path(1), CONTROL | 1 << 5, 1, options);
        let steps: [(&[u8], &[usize]); 11] = [
            (&[0, 1, 0], &[0, 1, 2, 3, 4, 5]),
            (&[0, 0, 0], &[0]),
            (&[2, 0, 5, 0], &[0, 3]),
            (&[0, 1, 1], &[0, 2, 3]),
            (&[0, 1, 0], &[0, 3]),
            (&table_set(&[OTHER], &[GROUP]), &[0, 1, 2, 3, 5]),
            (&[2, 1, 5, 0], &[0, 1, 2]),
            (&[0, 4, 1], &[2]),
            (&[0, 4, 0], &[0, 1, 2]),
            (&table_set(&[], &[]), &[0]),
            (&[&[1, 1][..], &OTHER.0].concat(), &[1]),
        ];
        for (command, taken) in steps {
            assert_eq!(driver.command(command), OK, "{command:x?}");
            assert_eq!(driver.taken(&mut sender, &frames), taken, "{options:?} {command:x?}");
        }
    }
}

#[test]
fn a_front_end_that_answers_its_guest_itself_leaves_the_filter_alone() {
    let yard = two(1);
    yard.set_mac(1, MAC);
    let before = yard.filter(1);
    let mut driver = Driver::connect(&yard.path(1), CONTROL | 1 << 5, 1, DriverOptions::default());
    let control = driver.control();
    driver.kicks.truncate(control);
    driver.start_rings();
    until("its rings to run", || yard.carrier(1));
    assert_eq!(yard.filter(1), before);
    drop(driver);
    until("it is gone", || !yard.carrier(1));
    assert_eq!(yard.filter(1), before);
}

#[test]
fn what_a_driver_wants_begins_anew_with_the_next_and_ends_with_the_connection() {
    let yard = two(1);
    let mut driver = Driver::start(&yard.path(1), CONTROL | 1 << 5);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    assert_eq!(driver.command(&[2, 0, 5, 0]), OK);
    let filter = || yard.filter(1).expect("the guest said what it wants");
    let told = filter();
    assert_eq!((told.promiscuous, told.vlan, told.main_mac), (false, RxState::Normal, MAC));
    // A pause: the ring goes on where it stopped.
    let control = driver.control();
    let base = driver.frontend.get_vring_base(control).unwrap();
    assert_eq!(filter(), told);
    driver.start_ring(control, base as u16);
    assert_eq!(driver.command(&[2, 0, 6, 0]), OK);
    assert_eq!((filter().promiscuous, filter().vlan_table.iter().collect()), (false, vec![5, 6]));
    // Another driver: all rings from their beginnings.
    for ring in 0..=control {
        driver.frontend.get_vring_base(ring).unwrap();
    }
    driver.start_rings();
    assert_eq!((filter().promiscuous, filter().vlan), (true, RxState::None));
    drop(driver);
    until("its filter has gone with it", || yard.filter(1).is_none());
}

#[test]
fn a_reset_forgets_what_the_driver_wanted() {
    let yard = two(1);
    let mut driver = Driver::start(&yard.path(1), CONTROL | 1 << 5);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    driver.frontend.reset_device().unwrap();
    until("its filter has gone", || yard.filter(1).is_none());
}

#[test]
fn a_guest_whose_address_nobody_knows_receives_all_unicast() {
    let yard = Yard::new(2, 1);
    let mut sender = Guest::start(&yard.path(0));
    let mut driver = Driver::start(&yard.path(1), CONTROL);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    let frames = [to(MAC, None), to(Mac([1, 0, 0x5e, 0, 0, 1]), None)];
    assert_eq!(driver.taken(&mut sender, &frames), [0]);
    assert_eq!(yard.filter(1).unwrap().main_mac, Mac([0; 6]));
    yard.ports[1].as_ref().unwrap().set_nic(nic(MAC));
    until("the nic's address is shown", || yard.filter(1).unwrap().main_mac == MAC);
    assert_eq!(yard.filter(1).unwrap().unicast, RxState::All, "it is not the guest's");
}

#[test]
fn queue_pairs_beyond_those_in_use_get_no_frames() {
    for options in [DriverOptions::default(), DriverOptions { packed: true, ..DriverOptions::default() }] {
        let yard = two(4);
        let mut driver = Driver::with(&yard.path(1), CONTROL | 1 << 5, 4, options);
        assert_eq!(driver.control(), 8);
        let in_use = || yard.attachment(1).egress.len();
        assert_eq!(in_use(), 1, "one pair until the driver says otherwise");
        for (pairs, answer, left) in [(4, OK, 4), (0, ERR, 4), (5, ERR, 4), (65535, ERR, 4), (2, OK, 2)] {
            let [low, high] = u16::to_le_bytes(pairs);
            assert_eq!(driver.command(&[4, 0, low, high]), answer);
            assert_eq!(in_use(), left, "after {pairs}");
        }
        // A front end that does so itself keeps all of them.
        drop(driver);
        until("it is gone", || !yard.carrier(1));
        let mut driver = Driver::connect(&yard.path(1), CONTROL | 1 << 5, 4, options);
        driver.kicks.truncate(8);
        driver.start_rings();
        until("all pairs to be in use", || in_use() == 4);
    }
}

#[test]
fn the_control_queue_follows_the_pairs_that_were_negotiated() {
    let yard = Yard::new(1, 4);
    // Without MQ there is one pair, and the control queue is ring 2.
    let mut driver = Driver::start(&yard.path(0), CONTROL);
    assert_eq!(driver.control(), 2);
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    let (features, mut raw) = (driver.features, Raw::over(driver.socket.try_clone().unwrap()));
    let with_pairs = (features | MQ).to_ne_bytes();
    assert_eq!(raw.ask(SET_FEATURES, &with_pairs, &[]), 1, "ring 2 does not become a receive ring");
    assert_eq!(driver.command(&[0, 0, 1]), OK);
}

#[test]
fn the_configuration_space_shows_the_nic() {
    let yard = Yard::new(1, 3);
    let port = yard.ports[0].as_ref().unwrap();
    port.set_nic(nic(MAC));
    let mut driver = Driver::with(&yard.path(0), CONTROL | 1 << 5, 3, DriverOptions::default());
    assert_eq!(driver.config(0, 10), [0x52, 0x54, 0, 0, 0, 9, 1, 0, 3, 0]);
    port.set_nic(NicState { link: false, ..nic(MAC) });
    driver.expect_config_change();
    assert_eq!(driver.config(6, 2), [0, 0]);
    port.set_nic(nic(MAC));
    driver.expect_config_change();
    assert_eq!(driver.config(6, 2), [1, 0]);
    assert_eq!(driver.command(&[1, 1, 2, 0, 0, 0, 0, 5]), OK);
    assert_eq!(driver.config(0, 6), [2, 0, 0, 0, 0, 5]);
    let flags = VhostUserConfigFlags::empty();
    let mut raw = Raw::over(driver.socket.try_clone().unwrap());
    raw.send(GET_CONFIG, 0, &[&[20, 8, 0].map(u32::to_ne_bytes).concat()[..], &[0; 8]].concat(), &[]);
    let mut reply = [0; 24];
    raw.0.read_exact(&mut reply).unwrap();
    assert_eq!(
        reply,
        *[GET_CONFIG, 1 | 4, 12, 0, 0, 0].map(u32::to_ne_bytes).as_flattened(),
        "beyond the space"
    );
    assert!(driver.frontend.set_config(20, flags, &[0; 8]).is_err(), "beyond the space");
    driver.frontend.set_config(0, flags, &[9; 6]).unwrap();
    assert_eq!(driver.config(0, 6), [2, 0, 0, 0, 0, 5], "there is a command for that");
}

#[test]
fn an_old_driver_writes_its_address() {
    let yard = Yard::new(1, 1);
    yard.ports[0].as_ref().unwrap().set_nic(nic(MAC));
    let features = (CONTROL & !(1 << 23)) | 1 << 5;
    let mut driver = Driver::connect(&yard.path(0), features, 1, DriverOptions::default());
    driver.frontend.set_features(driver.features & !(1 << 32)).unwrap();
    driver.start_rings();
    let flags = VhostUserConfigFlags::empty();
    for (at, byte) in [2, 0, 0, 0, 0, 5].into_iter().enumerate() {
        driver.frontend.set_config(at as u32, flags, &[byte]).unwrap();
    }
    assert_eq!(driver.config(0, 6), [2, 0, 0, 0, 0, 5]);
    let own = || yard.filter(0).is_some_and(|filter| filter.main_mac == Mac([2, 0, 0, 0, 0, 5]));
    until("its filter to follow", own);
}

#[test]
fn a_guest_that_can_is_asked_to_announce_itself() {
    let yard = Yard::new(1, 1);
    let port = yard.ports[0].as_ref().unwrap();
    let mut driver = Driver::start(&yard.path(0), CONTROL);
    assert_eq!(driver.command(&[3, 0]), ERR, "nobody asked");
    for _ in 0..2 {
        port.announce();
        driver.expect_config_change();
        assert_eq!(driver.config(6, 2), [3, 0]);
        assert_eq!(driver.command(&[3, 0]), OK);
        assert_eq!(driver.config(6, 2), [1, 0]);
    }
    drop(driver);
    let mut driver = Driver::start(&yard.path(0), CONTROL & !(1 << 21));
    port.announce();
    port.set_nic(NicState { link: false, ..NicState::default() });
    driver.expect_config_change();
    assert_eq!(driver.config(6, 2), [0, 0], "only the link has changed");
}

#[test]
fn each_time_a_driver_stands_by_is_told() {
    let yard = Yard::new(1, 1);
    let standby = 1 << 62;
    let mut raw = Raw::negotiated(&yard.path(0));
    assert_eq!(raw.ask(SET_FEATURES, &(FEATURES | standby).to_ne_bytes(), &[]), 1, "it was not offered");
    drop(raw);
    yard.ports[0].as_ref().unwrap().set_nic(NicState { standby: true, ..nic(MAC) });
    let driver = Driver::start(&yard.path(0), CONTROL | standby);
    until("it is told", || yard.standbys() == 1);
    driver.frontend.set_features(driver.features).unwrap();
    until("it is told again", || yard.standbys() == 2);
}

#[test]
fn a_guest_that_cannot_wait_for_eventfds_is_called_by_a_socket() {
    let yard = two(1);
    let mut sender = Guest::start(&yard.path(0));
    let mut driver = Driver::start(&yard.path(1), CONTROL | 1 << 5);
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut raw = Raw::over(driver.socket.try_clone().unwrap());
    for ring in [0u64, 2] {
        assert_eq!(raw.ask(SET_VRING_CALL, &ring.to_ne_bytes(), &[writer.as_fd()]), 0);
    }
    let bytes = || rustix::io::ioctl_fionread(&reader).unwrap();
    until("calls of the rings that were set", || bytes() > 0);
    let mut before = bytes();
    sender.send(&to(MAC, None));
    until("a call for a frame", || bytes() > before);
    before = bytes();
    assert_eq!(driver.command(&[0, 0, 0]), OK);
    until("a call for a command", || bytes() > before);
}

#[test]
fn g36_odd_commands_are_refused_and_change_nothing() {
    for options in all_forms() {
        let yard = two(1);
        let (mut a, mut driver) =
            (Guest::start(&yard.path(0)), Driver::with(&yard.path(1), CONTROL | 1 << 5, 1, options));
        assert_eq!(driver.command(&[0, 0, 0]), OK);
        let before = yard.filter(1);
        let mut lying = table_set(&[MAC], &[]);
        lying[2] = 2;
        for command in [&[][..], &[0], &[0, 0], &[9, 9, 9], &lying, &[4, 0, 1, 0], &[2, 0, 0xff, 0xff]] {
            assert_eq!(driver.command(command), ERR, "{command:x?}");
        }
        driver.memory.write(COMMAND, &[0, 0, 1]);
        let part = |offset, len, writable| Part { offset, len, writable };
        // No place for the answer, or an empty one; a command behind the answer; one that is all of the memory.
        assert_eq!(driver.give(&[part(COMMAND, 3, false)]), NOTHING);
        assert_eq!(driver.give(&[part(COMMAND, 3, false), part(ANSWER, 0, true)]), NOTHING);
        assert_eq!(driver.give(&[part(ANSWER, 1, true), part(COMMAND, 3, false)]), ERR);
        assert_eq!(driver.give(&[part(0, MEMORY_LEN as u32, false), part(ANSWER, 1, true)]), ERR);
        assert_eq!(yard.filter(1), before, "{options:?}");
        assert_eq!(driver.taken(&mut a, &[to(MAC, None)]), [0]);
    }
}

#[test]
fn g36_chains_that_break_the_rules_stop_the_control_queue_alone() {
    for packed in [false, true] {
        let yard = Yard::new(3, 1);
        let (mut a, mut b) = (Guest::start(&yard.path(0)), Guest::start(&yard.path(1)));
        let options = DriverOptions { packed, ..DriverOptions::default() };
        let mut attacker = Driver::with(&yard.path(2), CONTROL, 1, options);
        let filter = yard.filter(2);
        let control = attacker.control();
        // A descriptor that is followed by itself, or by what is not there; of both forms, NEXT is bit 0 of the flags.
        let layout = attacker.rings[control].layout();
        let place = (layout.desc - DriverMemory::USER_ADDR) as usize;
        attacker.memory.write_u64(place, DriverMemory::GUEST_ADDR);
        let (next, available) = if packed { (1 << 48, 1 << 55) } else { (1 << 32, 0) };
        attacker.memory.write_u64(place + 8, 2 | next | available);
        if !packed {
            let avail = (layout.avail - DriverMemory::USER_ADDR) as usize;
            attacker.memory.write(avail + 2, &1u16.to_le_bytes());
        }
        attacker.kicks[control].write(1).unwrap();
        for fill in 0..50 {
            a.send(&frame(1, fill, 60));
            b.expect(&frame(1, fill, 60));
        }
        assert_eq!(yard.filter(2), filter);
        // It is out of service until it is started again; the guest's other rings go on.
        assert!(!attacker.received().is_empty());
        let base = attacker.frontend.get_vring_base(control).unwrap();
        assert_eq!(base, if packed { 0x8000_8000 } else { 0 }, "nothing was taken");
    }
}

#[test]
fn a_storm_of_kicks_and_commands_costs_only_its_own_connection() {
    let yard = two(1);
    let mut a = Guest::start(&yard.path(0));
    let mut b = Driver::start(&yard.path(1), CONTROL | 1 << 5);
    let kick = b.kicks[2].try_clone().unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let storm = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = kick.write(1);
            }
        }
    });
    let began = Instant::now();
    for step in 0..1000u16 {
        assert_eq!(b.command(&[0, 0, (step % 2) as u8]), OK);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(200), "1,000 commands were taken within {took:?}");
    let mut raw = Raw::over(b.socket.try_clone().unwrap());
    raw.assert_alive();
    assert_eq!(b.taken(&mut a, &[to(MAC, None)]), [0]);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    storm.join().unwrap();
}

#[test]
fn a_control_queue_that_was_not_negotiated_does_not_start() {
    let yard = Yard::new(1, 2);
    let mut raw = Raw::negotiated(&yard.path(0));
    assert_eq!(raw.ask(SET_FEATURES, &(FEATURES | MQ).to_ne_bytes(), &[]), 0);
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    assert_eq!(raw.ask(SET_VRING_KICK, &4u64.to_ne_bytes(), &[event.as_fd()]), 1);
    raw.assert_alive();
}

/// Bytes of a frame of [`to`].
const LEN: usize = 60;
