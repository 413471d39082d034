use super::recorder::PAGE_BYTES;
use super::*;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::frame::{BURST_FRAMES, Burst, FRAME_LEN_MAX, Taken};
use ringyard_dataplane::port::{
    Arming, Attachment, Doorbell, Egress, EgressScratch, Ingress, IngressEnd, IngressScratch,
};

/// Sends what it was given, and keeps what is not settled.
#[derive(Default)]
struct Source(Mutex<VecDeque<Vec<u8>>>);

impl Ingress for Source {
    fn poll(&self, scratch: &mut IngressScratch, forward: &mut dyn FnMut(&Burst<'_>) -> Taken) -> usize {
        let mut frames = self.0.lock().unwrap();
        let mut builder = scratch.burst.begin(0);
        frames.iter().take(BURST_FRAMES).for_each(|frame| builder.push_slice(frame).unwrap());
        let taken = forward(&builder.burst());
        let (mut index, before) = (0.., frames.len());
        frames.retain(|_| index.next().is_some_and(|index| index >= BURST_FRAMES || !taken.settled(index)));
        before - frames.len()
    }
}

impl Doorbell for Source {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&self) -> Arming {
        Arming::Quiet
    }

    fn disarm(&self) {}
}

/// Has room for so many frames a call.
struct Room(usize);

impl Egress for Room {
    fn send(&self, _: &mut EgressScratch, _: &Burst<'_>, picks: &[u8]) -> usize {
        picks.len().min(self.0)
    }
}

fn end(discard: Option<DropReason>) -> (Arc<Source>, Arc<IngressEnd>) {
    let source = Arc::new(Source::default());
    let end =
        IngressEnd { queue: 3, ingress: source.clone(), doorbell: source.clone(), linger_us: 5, discard };
    (source, Arc::new(end))
}

fn numbered(number: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![number; len];
    frame[6..12].fill(0xee);
    frame
}

fn dump_to(path: &Path, snaplen: u32) -> Dump {
    let options = DumpOptions {
        id: "f0".into(),
        path: path.to_owned(),
        file: None,
        snaplen,
        drawer: Drawer::default(),
    };
    Dump::open(options).expect("the directory is ours")
}

fn dump_into(file: impl Into<OwnedFd>) -> Dump {
    let (id, path, file) = ("f0".into(), PathBuf::from("/dev/fdset/0"), Some(file.into()));
    Dump::open(DumpOptions { id, path, file, snaplen: 65_536, drawer: Drawer::default() })
        .expect("there is room for the header")
}

fn record(recorder: &Recorder, frames: &[Vec<u8>]) {
    let mut scratch = IngressScratch::default();
    for frames in frames.chunks(BURST_FRAMES) {
        let mut builder = scratch.burst.begin(0);
        frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
        recorder.record(&builder.burst(), 0..frames.len());
    }
}

/// The frames of a capture: what is kept of each, its length, and its time.
fn read(mut bytes: &[u8]) -> Vec<(Vec<u8>, usize, Duration)> {
    let mut take = |count: usize| {
        let (taken, rest) = bytes.split_at(count);
        bytes = rest;
        (taken.to_vec(), rest.is_empty())
    };
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap());
    let (header, mut is_end) = take(24);
    assert_eq!((word(&header, 0), header[4], header[6]), (0xa1b2_c3d4, 2, 4));
    assert_eq!((word(&header, 2), word(&header, 3), word(&header, 5)), (0, 0, 1));
    let mut frames = Vec::new();
    while !is_end {
        let (header, _) = take(16);
        let time = Duration::new(word(&header, 0).into(), word(&header, 1) * 1000);
        let kept;
        (kept, is_end) = take(word(&header, 2) as usize);
        frames.push((kept, word(&header, 3) as usize, time));
    }
    frames
}

#[test]
fn what_is_recorded_is_in_the_file_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.pcap");
    std::fs::write(&path, "what was there before").unwrap();
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let dump = dump_to(&path, 100);
    assert_eq!(std::fs::read(&path).unwrap().len(), 24, "the header is there at once");
    let frames = [numbered(1, 60), numbered(2, FRAME_LEN_MAX), numbered(3, 100), numbered(4, 14)];
    record(dump.recorder(), &frames);
    let recorder = dump.recorder().clone();
    assert_eq!(dump.close(), Ok(()));
    let seen = read(&std::fs::read(&path).unwrap());
    let expected: Vec<_> =
        frames.iter().map(|frame| (frame[..frame.len().min(100)].to_vec(), frame.len())).collect();
    assert_eq!(seen.iter().map(|(kept, len, _)| (kept.clone(), *len)).collect::<Vec<_>>(), expected);
    let after = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(seen.iter().all(|(.., time)| before - Duration::from_micros(1) <= *time && *time <= after));
    assert_eq!((recorder.totals(), recorder.is_over()), (Totals { frames: 4, lost: 0 }, false));
}

#[test]
fn a_new_file_is_for_its_owner_to_write_and_for_others_to_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.pcap");
    dump_to(&path, 1).close().unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o644, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
}

#[test]
fn what_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let options = DumpOptions {
            id: "f0".into(),
            path: path.to_owned(),
            file: None,
            snaplen: 1,
            drawer: Drawer::default(),
        };
        Dump::open(options).err().expect("it cannot be opened")
    };
    assert_eq!(
        refused(Path::new("/no/such/d")),
        "net dump: can't open /no/such/d: No such file or directory"
    );
    assert_eq!(refused(Path::new("/")), "net dump: can't open /: Is a directory");
    assert_eq!(refused(Path::new("/dev/full")), "net dump write error: No space left on device");
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refused(&pipe).ends_with("nobody has opened it to read, or it is no file"));
}

#[test]
fn frame_that_is_held_is_recorded_once_it_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let dump = dump_to(&directory.path().join("d.pcap"), 65_536);
    let (source, end) = end(None);
    let attachment = Attachment { ingress: vec![end], ..Attachment::default() };
    let mut captured = Captured::new([(Direction::Ingress, dump.recorder())].into_iter());
    let wrapped = captured.wrap(attachment);
    source.0.lock().unwrap().extend((0..4).map(|number| numbered(number, 60)));
    let (mut scratch, ingress) = (IngressScratch::default(), &wrapped.ingress[0].ingress);
    let gone: Vec<usize> = [0b0101, 0, 0b10, 0b1]
        .iter()
        .map(|&taken| ingress.poll(&mut scratch, &mut |_| Taken(taken)))
        .collect();
    assert_eq!(gone, [2, 0, 1, 1]);
    dump.close().unwrap();
    let seen = read(&std::fs::read(directory.path().join("d.pcap")).unwrap());
    assert_eq!(seen.iter().map(|(frame, ..)| frame[0]).collect::<Vec<_>>(), [0, 2, 3, 1]);
}

#[test]
fn what_an_egress_has_no_room_for_is_not_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let dump = dump_to(&directory.path().join("d.pcap"), 65_536);
    let attachment = Attachment { egress: vec![Arc::new(Room(2))], ..Attachment::default() };
    let mut captured = Captured::new([(Direction::Egress, dump.recorder())].into_iter());
    let wrapped = captured.wrap(attachment);
    let mut scratch = IngressScratch::default();
    let mut builder = scratch.burst.begin(0);
    let frames: Vec<_> = (0..5).map(|number| numbered(number, 200)).collect();
    frames.iter().for_each(|frame| builder.push_slice(frame).unwrap());
    let settled = wrapped.egress[0].send(&mut EgressScratch::default(), &builder.burst(), &[4, 1, 3]);
    assert_eq!(settled, 2);
    dump.close().unwrap();
    let seen = read(&std::fs::read(directory.path().join("d.pcap")).unwrap());
    assert_eq!(seen.iter().map(|(frame, ..)| frame[0]).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn only_what_is_captured_is_wrapped_and_in_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let dump = dump_to(&directory.path().join("d.pcap"), 1);
    let (one, other, silent) = (end(None).1, end(None).1, end(Some(DropReason::NotReady)).1);
    let egress: Arc<dyn Egress> = Arc::new(Room(0));
    let attachment = Attachment {
        ingress: vec![one.clone(), silent.clone()],
        egress: vec![egress.clone()],
        ..Attachment::default()
    };
    let mut out = Captured::new([(Direction::Egress, dump.recorder())].into_iter());
    let wrapped = out.wrap(attachment.clone());
    assert!(Arc::ptr_eq(&wrapped.ingress[0], &one) && !Arc::ptr_eq(&wrapped.egress[0], &egress));
    let mut into = Captured::new([(Direction::Ingress, dump.recorder())].into_iter());
    let first = into.wrap(attachment.clone());
    assert!(!Arc::ptr_eq(&first.ingress[0], &one) && Arc::ptr_eq(&first.egress[0], &egress));
    assert!(Arc::ptr_eq(&first.ingress[1], &silent), "what is discarded is not sent");
    assert_eq!((first.ingress[0].queue, first.ingress[0].linger_us), (3, 5));
    let second = into.wrap(Attachment { ingress: vec![other, one], ..Attachment::default() });
    assert!(Arc::ptr_eq(&first.ingress[0], &second.ingress[1]));
}

#[test]
fn a_pipe_that_nobody_reads_loses_frames_and_delays_nobody() {
    let (reader, writer) = std::io::pipe().unwrap();
    let dump = dump_into(writer);
    let frames = vec![numbered(1, 1500); BURST_FRAMES];
    let start = Instant::now();
    let deadline = start + Duration::from_secs(20);
    while dump.recorder().totals().lost == 0 {
        record(dump.recorder(), &frames);
        assert!(Instant::now() < deadline, "the pages have an end");
    }
    let Totals { frames: kept, .. } = dump.recorder().totals();
    assert!(kept as usize <= (2 * PAGE_BYTES + (1 << 20)) / 1516, "{kept}");
    let before_close = Instant::now();
    assert_eq!(dump.close(), Ok(()), "the rest is given up");
    assert!(before_close.elapsed() < CLOSE_TIME_MAX);
    drop(reader);
}

#[test]
fn a_pipe_gets_all_that_its_reader_keeps_up_with() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let dump = dump_into(writer);
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let frames: Vec<_> = (0..1000).map(|number| numbered(number as u8, 1000)).collect();
    record(dump.recorder(), &frames);
    dump.close().unwrap();
    let seen = read(&reading.join().unwrap());
    assert_eq!(seen.into_iter().map(|(frame, ..)| frame).collect::<Vec<_>>(), frames);
}

#[test]
fn a_dump_whose_reader_has_gone_is_over() {
    let (reader, writer) = std::io::pipe().unwrap();
    let dump = dump_into(writer);
    drop(reader);
    let recorder = dump.recorder().clone();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !recorder.is_over() {
        record(&recorder, &[numbered(1, 60)]);
        assert!(Instant::now() < deadline, "the pipe is broken");
    }
    let totals = recorder.totals();
    record(&recorder, &[numbered(1, 60)]);
    assert_eq!(recorder.totals(), totals);
    assert_eq!(dump.close(), Ok(()));
}

#[test]
fn a_socket_is_a_file_too() {
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let dump = dump_into(writer);
    record(dump.recorder(), &[numbered(7, 60)]);
    dump.close().unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(read(&bytes)[0].0, numbered(7, 60));
}

#[test]
fn a_given_file_goes_on_where_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.pcap");
    std::fs::write(&path, "before").unwrap();
    let file = File::options().append(true).open(&path).unwrap();
    dump_into(file).close().unwrap();
    assert!(std::fs::read(&path).unwrap().starts_with(b"before\xd4") || cfg!(target_endian = "big"));
}
