//! A connection that a switch before this one left behind, as somebody has changed it.
//!
//! The record and the descriptors of a real connection are there to begin with. The bytes say what becomes of them: members
//! of the record are other ones, or gone; descriptors are exchanged, of another kind, or not there; what the journal has
//! besides is written over. Whether the port then goes on with the connection or ends it: the innocents lose nothing, the
//! next front end at that port is served, and nothing is left.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use ringyard_dataplane::ring::{RING_SIZE_MAX, RingJournal};
use ringyard_drivers::record::Record;
use ringyard_drivers::store::Store;
use ringyard_drivers::vhost_user::Keeping;
use serde_json::{Value, json};

use super::{Bytes, PEER, World};
use crate::garble::change;
use crate::guest::Guest;
use crate::keeping::{Keeper, assert_no_panic, watch_for_panics};
use crate::raw::{GET_FEATURES, Raw};
use crate::yard::until;

/// Changes of one input, at most.
const CHANGES_MAX: usize = 12;
/// Bytes of a record, and behind it for three rings; as the port has them.
const RECORD_LEN_MAX: usize = 512 << 10;
const ROOM: usize = 3 * RingJournal::len(RING_SIZE_MAX, true).next_multiple_of(4096);
/// Descriptors that a port has without a connection.
const PORT_DESCRIPTORS: usize = 3;
/// What the port's connection is kept as.
const NAME: &str = "vhost-user/peer";

/// What a switch left behind.
struct Left {
    keeper: Keeper,
    /// What its record is, and the record.
    kind: u64,
    record: Value,
    /// By their names below [`NAME`]; the guest's memory is among them.
    fds: BTreeMap<String, OwnedFd>,
}

impl Left {
    /// That of a connection of `world`'s third port, which has exchanged frames and has ended.
    fn of(world: &mut World) -> Left {
        let keeper = Keeper::start();
        world.start_port(keeping(keeper.store()));
        let mut guest = Guest::start(&world.yard.path(PEER));
        let sent = world.pass(false);
        guest.expect(&sent);
        let successor = keeper.successor();
        let names = successor.names_under(NAME);
        let leaf = |name: &String| name[NAME.len() + 1..].to_owned();
        let mut fds: BTreeMap<String, OwnedFd> =
            names.iter().filter_map(|name| Some((leaf(name), successor.take(name)?))).collect();
        let file = fds.remove("journal").expect("the journal is kept");
        let mut head = [0; 8];
        rustix::io::pread(&file, &mut head, 0).expect("it can be read");
        let kind = u64::from_ne_bytes(head);
        let (_, bytes) = Record::adopt(&file, kind, ROOM).expect("it is whole");
        let record = serde_json::from_slice(&bytes).expect("it is JSON");
        drop(guest);
        world.wait_for_the_end();
        world.start_port(Keeping::default());
        keeper.clear();
        world.count_descriptors();
        // What a port that was replaced had to itself may go with the next change only. Whatever is lost for good adds up.
        world.descriptors += PORT_DESCRIPTORS;
        Left { keeper, kind, record, fds }
    }

    /// Has all of it kept, changed as the bytes say, and whether they do; the front end's end of the connection.
    fn keep(&self, bytes: &mut Bytes<'_>) -> (UnixStream, bool) {
        let store = self.keeper.store();
        let (theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let mut fds: BTreeMap<&str, OwnedFd> = self
            .fds
            .iter()
            .map(|(name, fd)| (name.as_str(), fd.try_clone().expect("a descriptor")))
            .collect();
        fds.insert("socket", ours.into());
        let mut record = self.record.clone();
        let mut progress = 0;
        let mut room = Vec::new();
        let is_changed = !bytes.0.is_empty();
        for _ in 0..CHANGES_MAX {
            match bytes.below(16) {
                0 => break,
                1..=9 => change(&mut record, &mut |end| bytes.below(end)),
                10 => add(&mut record, bytes),
                11 => drop(fds.remove(name(&fds, bytes).as_str())),
                12 => {
                    let (one, other) = (name(&fds, bytes), name(&fds, bytes));
                    // A second socket would keep the connection open, whatever becomes of it.
                    if other != "socket" {
                        let copy = fds[other.as_str()].try_clone().expect("a descriptor");
                        *fds.get_mut(one.as_str()).expect("it has that name") = copy;
                    }
                }
                13 => *fds.get_mut(name(&fds, bytes).as_str()).expect("as above") = another(bytes),
                14 => progress = bytes.word() as u32,
                _ => room.push((bytes.below(64), bytes.word())),
            }
        }
        let (mut journal, file) = Record::new("changed", self.kind, RECORD_LEN_MAX, ROOM).expect("memory");
        let mut text = serde_json::to_vec(&record).expect("it is JSON");
        if bytes.below(8) == 1 {
            let at = bytes.word() as usize % text.len();
            text[at] ^= 1 << bytes.below(8);
        }
        // One that is too long is none.
        let _ = journal.write(&text);
        journal.set_progress(progress);
        let (mapping, at) = journal.room();
        for (place, word) in room {
            mapping.words(at + place / 8 * (ROOM / 8) + place % 8 * 8, 1)[0].store(word, Ordering::Relaxed);
        }
        store.keep(&format!("{NAME}/journal"), file).expect("it is kept");
        for (name, fd) in &fds {
            store.keep(&format!("{NAME}/{name}"), fd).expect("it is kept");
        }
        store.barrier().expect("the keeper is there");
        (theirs, is_changed)
    }
}

fn keeping(store: Store) -> Keeping {
    Keeping { store, chardev: NAME.trim_start_matches("vhost-user/").to_owned() }
}

/// Runs the target.
pub fn run(input: &[u8]) {
    thread_local! {
        static LEFT: OnceCell<Left> = const { OnceCell::new() };
    }
    watch_for_panics();
    super::with_world(|world| {
        LEFT.with(|left| {
            let left = left.get_or_init(|| Left::of(world));
            go_on(world, left, input);
        });
    });
    assert_no_panic();
}

fn go_on(world: &mut World, left: &Left, input: &[u8]) {
    let mut bytes = Bytes(input);
    let (socket, is_changed) = left.keep(&mut bytes);
    world.start_port(keeping(left.keeper.successor()));
    let is_answered = is_answered(socket, || world.pass(true));
    assert!(is_answered || is_changed, "what nobody changed is gone on with");
    // Whatever its rings were taken for, there are others now.
    world.drain(true);
    let mut next = Guest::start(&world.yard.path(PEER));
    world.pass(true);
    let sent = world.pass(true);
    until("a frame for the next front end", || {
        std::iter::from_fn(|| next.receive()).any(|frame| frame == sent)
    });
    drop(next);
    world.wait_for_the_end();
    world.start_port(Keeping::default());
    left.keeper.clear();
    world.check_what_is_left();
}

/// Whether the front end is answered, or its connection ends; until then the innocents exchange frames.
fn is_answered(socket: UnixStream, mut meanwhile: impl FnMut() -> Vec<u8>) -> bool {
    let mut raw = Raw::over(socket);
    raw.0.set_nonblocking(true).expect("a flag");
    let header: Vec<u8> = [GET_FEATURES, 1, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    // The other end may be gone.
    let _ = raw.0.write_all(&header);
    let mut answer = Ok(0);
    until("an answer, or an end", || {
        meanwhile();
        answer = raw.0.read(&mut [0; 4096]);
        !matches!(&answer, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    });
    answer.is_ok_and(|len| len > 0)
}

/// One of the names.
fn name(fds: &BTreeMap<&str, OwnedFd>, bytes: &mut Bytes<'_>) -> String {
    let at = bytes.below(fds.len().max(1));
    fds.keys().nth(at).map_or_else(|| "socket".to_owned(), |name| (*name).to_owned())
}

/// A descriptor that is of no use to a connection.
fn another(bytes: &mut Bytes<'_>) -> OwnedFd {
    match bytes.below(4) {
        0 => rustix::pipe::pipe().expect("a pipe").0,
        1 => File::open("/").expect("it is there").into(),
        2 => crate::raw::memfd("short", [0, 100, 0x1000, 0x40_0000][bytes.below(4)]),
        _ => UnixStream::pair().expect("a pair of sockets").0.into(),
    }
}

/// Adds what the connection did not have, right or nearly so.
fn add(record: &mut Value, bytes: &mut Bytes<'_>) {
    let mut number = || bytes.below(12);
    let (file, offset) = (number(), [0, 1, 0x1000, usize::MAX][number() % 4]);
    let (more, len) = (number(), [0, 64, 0x1000, 0x2_0000, usize::MAX][number() % 5]);
    let ring = json!({"size": 1 << more, "desc": 0x7f00_0000_0000_u64, "avail": 0x7f00_0000_1000_u64,
        "used": 0x7f00_0000_2000_u64, "base": more, "packed": file % 2 == 0, "enabled": true, "kick": null,
        "call": file, "error": null, "used_log": null, "started": {"skew": more, "broken": false}});
    let table = json!({"macs": vec![[2, 0, 0, 0, 0, more]; 1 + more], "overflow": file == 0});
    let (member, value) = match number() {
        0 => ("announce_later", json!([2, 0, 0, 0, 0, file])),
        1 => ("backchannel", json!(file)),
        2 => ("inflight", json!({"file": file, "len": len, "offset": offset, "queues": more, "size": 16})),
        3 => ("log", json!({"file": file, "len": len, "offset": offset})),
        4 => ("log_bell", json!(file)),
        5 => (
            "request",
            json!({"request": 4 * file + more % 4, "need_reply": more > 6, "body": vec![more; 8 * (len & 1 | more)], "fds": [file, more]}),
        ),
        6 => ("reply", json!({"bytes": vec![file; more * 100], "fd": (more > 5).then_some(file)})),
        7 => (
            "wishes",
            json!({"own_mac": null, "nic_mac": [2, 0, 0, 0, 0, 9], "promiscuous": more > 5,
            "all_multicast": false, "all_unicast": false, "no_multicast": false, "no_unicast": false,
            "no_broadcast": false, "unicast": table.clone(), "multicast": table, "vlans": [more, 4095, 65_535],
            "pairs": more, "announces": true}),
        ),
        8 => ("features", json!(record["offered"])),
        9 => ("regions", json!(vec![record["regions"][0].clone(); more])),
        _ => {
            if let Some(rings) = record.get_mut("rings").and_then(Value::as_object_mut) {
                rings.insert(if more == 0 { u64::MAX.to_string() } else { (more % 5).to_string() }, ring);
            }
            return;
        }
    };
    if let Some(record) = record.as_object_mut() {
        record.insert(member.to_owned(), value);
    }
}
