use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixDatagram;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::getpid;

use super::*;

/// A keeper on a thread of its own.
struct Keeper {
    directory: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Shelf>,
}

impl Keeper {
    fn start(limit: usize) -> Keeper {
        let directory = tempfile::tempdir().unwrap();
        let socket = notify_socket(&directory.path().join("notify")).unwrap();
        let mut shelf = Shelf::new(limit);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                shelf.serve(&socket, |pid| pid == getpid());
                thread::sleep(Duration::from_millis(1));
            }
            shelf
        });
        Keeper { directory, stop, thread }
    }

    fn store(&self, given: Vec<(String, OwnedFd)>) -> Store {
        Store::at(self.directory.path().join("notify").as_os_str(), given).unwrap()
    }

    /// Ends it when it has all that was sent; what the next process is given, in an order that says nothing.
    fn end(self, store: &Store) -> Vec<(String, OwnedFd)> {
        store.barrier().unwrap();
        self.stop.store(true, Ordering::Relaxed);
        let shelf = self.thread.join().unwrap();
        copies(shelf.kept())
    }
}

fn copies(kept: &[(String, OwnedFd)]) -> Vec<(String, OwnedFd)> {
    kept.iter().rev().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
}

fn memory(text: &str) -> File {
    let mut file: File = memfd_create("test", MemfdFlags::CLOEXEC).unwrap().into();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn take(store: &Store, name: &str) -> Option<String> {
    let mut file: File = store.take(name)?.into();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    Some(text)
}

#[test]
fn what_is_kept_is_found_once_by_the_next_one_and_by_the_one_after_it() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    store.keep("a", memory("a")).unwrap();
    store.keep("b/x", memory("bx")).unwrap();
    let given = keeper.end(&store);
    let keeper = Keeper::start(100);
    for given in [copies(&given), given] {
        let next = keeper.store(given);
        assert!(next.has("a") && !next.has("b"));
        assert_eq!(next.names_under("b"), ["b/x"]);
        assert_eq!(take(&next, "b/x").as_deref(), Some("bx"));
        assert_eq!(take(&next, "b/x"), None);
        assert_eq!(take(&next, "a").as_deref(), Some("a"));
    }
}

#[test]
fn one_file_under_several_names_is_found_under_each() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    let file = memory("one");
    store.keep("a", &file).unwrap();
    store.keep("b", &file).unwrap();
    store.keep("a", memory("other")).unwrap();
    let given = keeper.end(&store);
    let keeper = Keeper::start(100);
    let next = keeper.store(given);
    assert_eq!(take(&next, "b").as_deref(), Some("one"));
    assert_eq!(take(&next, "a").as_deref(), Some("other"));
}

#[test]
fn of_two_under_one_name_the_later_counts_and_the_other_goes() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    store.keep("a", memory("old")).unwrap();
    store.keep("b", memory("new")).unwrap();
    let mut given = keeper.end(&store);
    // As if the switch had died between the two messages of one replacement.
    let renamed = |name: &str, text: &str, number| {
        (envelope::label(number), envelope::seal(name, memory(text).as_fd()).unwrap())
    };
    given.push(renamed("a", "new", 2));
    given.push(renamed("a", "oldest", 1 << 40));
    given.push(renamed("a", "newest", 1 << 41));
    let keeper = Keeper::start(100);
    let next = keeper.store(given);
    assert_eq!(take(&next, "a").as_deref(), Some("newest"));
    next.keep("a", memory("last")).unwrap();
    let given = keeper.end(&next);
    assert_eq!(given.len(), 1, "{given:?}");
    let keeper = Keeper::start(100);
    assert_eq!(take(&keeper.store(given), "a").as_deref(), Some("last"));
}

#[test]
fn forgetting_takes_all_below_a_name_and_nothing_beside_it() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    for name in ["a", "a/1", "a/1/2", "a0", "a-", "b"] {
        store.keep(name, memory(name)).unwrap();
    }
    store.forget("a");
    let given = keeper.end(&store);
    let keeper = Keeper::start(100);
    let next = keeper.store(given);
    for (name, is_kept) in [("a", false), ("a/1", false), ("a/1/2", false), ("a0", true), ("a-", true)] {
        assert_eq!(next.has(name), is_kept, "{name}");
    }
    next.forget("a0");
    assert_eq!(take(&next, "a0"), None);
    assert_eq!(take(&next, "a-").as_deref(), Some("a-"));
    assert_eq!(next.forget_untaken(), ["b"]);
    // What was taken stays kept.
    assert_eq!(Keeper::start(0).store(keeper.end(&next)).names_under("x").len(), 0);
}

#[test]
fn what_is_no_envelope_is_let_go_and_what_is_not_ours_is_not_touched() {
    let keeper = Keeper::start(100);
    let (empty, other) = UnixDatagram::pair().unwrap();
    other.send(b"a name and nothing else").unwrap();
    let given = vec![
        ("ry-0".to_owned(), OwnedFd::from(memory("no socket"))),
        ("ry-1".to_owned(), empty.into()),
        ("ry-ffffffffffffffff".to_owned(), memory("there must be a next number").into()),
        ("monitor".to_owned(), memory("somebody else's").into()),
    ];
    let store = keeper.store(given);
    assert!(store.forget_untaken().is_empty());
    store.keep("a", memory("a")).unwrap();
    assert_eq!(keeper.end(&store)[0].0, "ry-2");
}

#[test]
fn names_have_a_length_and_descriptors_a_number() {
    let keeper = Keeper::start(2);
    let store = keeper.store(Vec::new());
    assert!(store.keep("", memory("")).is_err());
    assert!(store.keep(&"n".repeat(NAME_LEN_MAX + 1), memory("")).is_err());
    let longest = "n".repeat(NAME_LEN_MAX);
    store.keep(&longest, memory("n")).unwrap();
    store.keep("b", memory("b")).unwrap();
    store.keep("c", memory("c")).unwrap();
    let given = keeper.end(&store);
    assert_eq!(given.len(), 2);
    let keeper = Keeper::start(2);
    let next = keeper.store(given);
    assert_eq!(take(&next, &longest).as_deref(), Some("n"));
    assert!(next.has("b") && !next.has("c"));
}

#[test]
fn a_keeper_that_is_gone_fails_at_once_and_is_told_once() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    keeper.end(&store);
    assert!(store.keep("a", memory("a")).is_err());
    assert!(store.barrier().is_err());
    store.forget("a");
    store.tell("READY=1");
}

#[test]
fn a_drawer_has_what_is_below_its_name() {
    let keeper = Keeper::start(100);
    let store = keeper.store(Vec::new());
    let drawer = store.drawer("tap");
    drawer.keep(7, memory("7"));
    store.drawer("other").keep(7, memory("other"));
    let given = keeper.end(&store);
    let keeper = Keeper::start(100);
    let next = keeper.store(given);
    let drawer = next.drawer("tap");
    assert!(!drawer.is_empty() && next.has("tap/7"));
    assert!(drawer.take(7).is_some() && drawer.is_empty());
    next.drawer("other").forget_all();
    assert!(!next.has("other/7"));
}

#[test]
fn without_a_keeper_nothing_is_kept_and_nothing_fails() {
    let store = Store::none();
    store.keep("a", memory("a")).unwrap();
    store.barrier().unwrap();
    assert!(!store.is_there() && store.take("a").is_none());
}

#[test]
fn a_shelf_takes_nothing_from_strangers_and_loses_no_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = notify_socket(&path).unwrap();
    let mut shelf = Shelf::new(100);
    let store = Store::at(path.as_os_str(), Vec::new()).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    let (mut end, kept) = std::io::pipe().unwrap();
    store.keep("a", &kept).unwrap();
    drop(kept);
    assert_eq!(shelf.serve(&socket, |_| false), []);
    assert!(shelf.kept().is_empty());
    assert_eq!(end.read(&mut [0]).unwrap(), 0, "it is open nowhere");
    for bytes in
        [&b"\xFF\xFE"[..], b"", b"FDSTORE", &[b'x'; wire::TEXT_LEN_MAX + 1], b"FDSTORE=1\nFDNAME=a:b"]
    {
        sender.send_to(bytes, &path).unwrap();
    }
    let notices = shelf.serve(&socket, |pid| pid == getpid());
    let said = |text: &str| Notice::Said(getpid(), text.to_owned());
    assert_eq!(notices, [said(""), said("FDSTORE"), Notice::Full]);
    store.tell("READY=1\nSTATUS=here");
    assert_eq!(shelf.serve(&socket, |_| true), [said("READY=1\nSTATUS=here")]);
    assert!(shelf.kept().is_empty());
}

#[test]
fn a_message_with_more_descriptors_than_there_is_room_for_leaves_none_behind() {
    let (ours, theirs) = keeper_sockets().unwrap();
    let mut shelf = Shelf::new(wire::FDS_MAX - 1);
    let (mut end, kept) = std::io::pipe().unwrap();
    let many = [kept.as_fd(); wire::FDS_MAX];
    wire::send(&theirs, "FDSTORE=1\nFDNAME=a", &many).unwrap();
    wire::send(&theirs, "no store", &many).unwrap();
    drop(kept);
    let notices = shelf.serve(&ours, |_| true);
    assert_eq!(notices, [Notice::Full, Notice::Said(getpid(), "no store".into())]);
    assert_eq!(end.read(&mut [0]).unwrap(), 0, "it is open nowhere");
    drop(theirs);
    assert_eq!(shelf.serve(&ours, |_| true), [Notice::Gone]);
}

#[test]
fn our_keeper_gives_all_that_was_kept_and_is_heard_until_it_is_gone() {
    let (ours, theirs) = keeper_sockets().unwrap();
    let mut shelf = Shelf::new(1000);
    let store = Store::new(Notifier::over(theirs), Vec::new());
    for number in 0..2 * wire::FDS_MAX {
        store.keep(&format!("m/{number}"), memory(&number.to_string())).unwrap();
        shelf.serve(&ours, |_| true);
    }
    let (next, theirs) = keeper_sockets().unwrap();
    let kept = thread::spawn(move || keeper::await_turn(&theirs));
    begin(&next, shelf.kept()).unwrap();
    let kept = kept.join().unwrap().unwrap();
    let (again, theirs) = keeper_sockets().unwrap();
    let next = Store::new(Notifier::over(theirs), kept);
    assert_eq!(next.names_under("m").len(), 2 * wire::FDS_MAX);
    assert_eq!(take(&next, "m/500").as_deref(), Some("500"));
    assert_eq!(next.hear(), Heard::Nothing);
    say(&again, "HELLO").unwrap();
    assert_eq!(next.hear(), Heard::Said("HELLO".into()));
    drop(again);
    assert_eq!(next.hear(), Heard::Gone);
    assert!(keeper::await_turn(next.keeper().unwrap()).is_err());
}
