//! Captures of real frames: what is in the file is what passed, once and byte by byte, and nobody is delayed by it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringyard_benches::front_end::FrontEnd;
use ringyard_benches::guest::{BUFFER_LEN, GuestConfig};
use ringyard_benches::traffic::{Template, Verifier, guest_mac};
use ringyard_tests::deadline::wait_for;
use ringyard_tests::flow::{Flow, FlowConfig, FlowReport, number_of};
use ringyard_tests::netns::Netns;
use ringyard_tests::packet::{PacketSocket, tagged};
use ringyard_tests::process::{Process, command, run};
use ringyard_tests::switch::Switch;
use ringyard_tests::{Doing, Result, tools};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What tcpdump says of the frames; what is in those that it does not know is in lines that begin with a tab.
fn listed_frames(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter(|line| !line.starts_with('\t'))
}

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    kept: Vec<u8>,
    len: usize,
}

/// The frames in a file of the classic form, in this host's byte order; what is cut at its end is left out.
fn records(path: &Path) -> Result<Vec<Record>> {
    let bytes = std::fs::read(path).doing(format!("reading {}", path.display()))?;
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    assert_eq!(word(0), 0xa1b2_c3d4, "{}", path.display());
    let (mut at, mut records) = (24, Vec::new());
    while at + 16 <= bytes.len() && at + 16 + word(at + 8) <= bytes.len() {
        let kept = bytes[at + 16..at + 16 + word(at + 8)].to_vec();
        records.push(Record { kept, len: word(at + 12) });
        at += 16 + word(at + 8);
    }
    Ok(records)
}

/// Adds a dump of `netdev` with further members; its file.
fn dump(switch: &mut Switch, id: &str, netdev: &str, members: Value) -> Result<PathBuf> {
    let path = switch.path(&format!("{id}.pcap"));
    let mut object = json!({"qom-type": "filter-dump", "id": id, "netdev": netdev, "file": path});
    for (name, value) in members.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    switch.order("object-add", object)?;
    Ok(path)
}

fn end(switch: &mut Switch, id: &str) -> Result<()> {
    switch.order("object-del", json!({"id": id})).map(drop)
}

fn property(switch: &mut Switch, id: &str, property: &str) -> Result<Value> {
    switch.order("qom-get", json!({"path": format!("/objects/{id}"), "property": property}))
}

/// The other end of a `stream` netdev, through which a test sends frames of any length.
struct Streamed(UnixStream);

impl Streamed {
    fn plug(switch: &mut Switch, name: &str) -> Result<Streamed> {
        let path = switch.path(name);
        let addr = json!({"type": "unix", "path": path});
        switch.order("netdev_add", json!({"type": "stream", "id": name, "server": true, "addr": addr}))?;
        let port = json!({"type": "hubport", "id": format!("{name}-port"), "hubid": 0, "netdev": name});
        switch.order("netdev_add", port)?;
        let stream = wait_for("the stream", Duration::from_secs(5), || Ok(UnixStream::connect(&path).ok()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).doing("setting a time limit")?;
        switch.wait_carrier(name, Duration::from_secs(5))?;
        Ok(Streamed(stream))
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.0.write_all(&(frame.len() as u32).to_be_bytes()).doing("sending a length")?;
        self.0.write_all(frame).doing("sending a frame")
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).doing("receiving a length")?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut frame).doing("receiving a frame")?;
        Ok(frame)
    }
}

/// A broadcast of `len` bytes that differs from others.
fn frame(number: usize, from: u8, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, from]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

#[test]
fn every_frame_is_recorded_once_and_byte_by_byte_in_both_directions() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let (mut a, mut b) = (Streamed::plug(&mut switch, "a")?, Streamed::plug(&mut switch, "b")?);
    // With its tag the longest frame is longer than what is kept of one by default.
    let both = dump(&mut switch, "both", "a", json!({"maxlen": 70_000}))?;
    let again = dump(&mut switch, "again", "a", json!({"maxlen": 70_000, "position": "head"}))?;
    let sent = dump(&mut switch, "sent", "a", json!({"queue": "tx"}))?;
    let received = dump(&mut switch, "received", "a", json!({"queue": "rx", "maxlen": 100}))?;
    let other = dump(&mut switch, "other", "b", json!({"queue": "rx"}))?;
    let lens = [14, 59, 60, 64, 65, 128, 1514, 9000, 65_535];
    let (mut from_a, mut from_b, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..100 {
        let len = lens[round % lens.len()];
        let (one, two) = (frame(round, 1, len), tagged(&frame(round, 2, len), round as u16));
        a.send(&one)?;
        assert_eq!(b.receive()?, one);
        b.send(&two)?;
        assert_eq!(a.receive()?, two);
        all.extend([one.clone(), two.clone()]);
        from_a.push(one);
        from_b.push(two);
    }
    for id in ["both", "again", "sent", "received", "other"] {
        assert_eq!(property(&mut switch, id, "x-lost")?, 0, "{id}");
        end(&mut switch, id)?;
    }
    let whole = |frames: &[Vec<u8>]| -> Vec<Record> {
        frames.iter().map(|frame| Record { kept: frame.clone(), len: frame.len() }).collect()
    };
    assert!(records(&both)? == whole(&all), "a dump has all frames in their order");
    assert!(records(&again)? == whole(&all), "so has another one of the same netdev");
    assert!(records(&sent)? == whole(&from_a), "tx is what the netdev sends");
    assert!(records(&other)? == whole(&from_a), "rx is what it is sent");
    let mut cut = whole(&from_b);
    cut.iter_mut().for_each(|record| record.kept.truncate(100));
    assert!(records(&received)? == cut, "a snaplen cuts what is kept, not the length");
    let listed = run(command("tcpdump")?.args(["-nn", "-e", "-r"]).arg(&both))?;
    assert_eq!(listed_frames(&listed).count(), all.len());
    assert_eq!(listed_frames(&listed).filter(|line| line.contains("802.1Q")).count(), from_b.len());
    switch.finish()
}

#[test]
fn segments_of_an_offload_are_recorded_as_they_pass() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let hosts = [Netns::new()?, Netns::new()?];
    let vnet = json!({"vnet_hdr": true});
    switch.plug_tap_with("t0", 0, &hosts[0], &["10.0.0.1/24"], &vnet)?;
    switch.plug_tap_with("t1", 0, &hosts[1], &["10.0.0.2/24"], &vnet)?;
    let file = dump(&mut switch, "f0", "t0", json!({"queue": "tx"}))?;
    let listener = hosts[1].enter(|| TcpListener::bind("10.0.0.2:9000").doing("listening"))?;
    let receiving =
        thread::spawn(move || -> io::Result<u64> { io::copy(&mut listener.accept()?.0, &mut io::sink()) });
    let bytes = vec![7; 8 << 20];
    hosts[0].enter(|| {
        let mut stream = TcpStream::connect("10.0.0.2:9000").doing("connecting")?;
        stream.write_all(&bytes).doing("sending")
    })?;
    let received = receiving.join().expect("the receiver does not panic").doing("receiving")?;
    assert_eq!(received, bytes.len() as u64);
    end(&mut switch, "f0")?;
    let packets: Vec<Record> =
        records(&file)?.into_iter().filter(|record| record.kept[12..14] == [8, 0]).collect();
    assert!(packets.iter().any(|packet| packet.len > 10_000), "the kernel leaves segmenting to the receiver");
    for packet in &packets {
        let ip_len = usize::from(u16::from_be_bytes([packet.kept[16], packet.kept[17]]));
        assert!(packet.len == packet.kept.len() && packet.len >= 14 + ip_len, "{} {ip_len}", packet.len);
    }
    switch.finish()
}

#[test]
fn frames_that_a_full_receiver_made_wait_are_recorded_once() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let mut guests = Vec::new();
    for index in 0..2 {
        let name = format!("g{index}");
        let socket = switch.plug_listening(&name, 0)?;
        switch.plug_nic(&name, &guest_mac(index).to_string())?;
        guests.push(FrontEnd::connect(&socket, &GuestConfig::default()).doing("plugging a guest in")?);
        switch.wait_carrier(&name, Duration::from_secs(5))?;
    }
    let [mut from, mut to] = <[FrontEnd; 2]>::try_from(guests).ok().expect("there are two");
    let sent = dump(&mut switch, "sent", "g0", json!({"queue": "tx"}))?;
    let received = dump(&mut switch, "received", "g1", json!({"queue": "rx"}))?;
    let mut template = Template::new(0, 1, 200).doing("making a frame")?;
    let mut verifier = Verifier::new(&template);
    let (ring, mut number) = (u64::from(GuestConfig::default().ring_size), 0);
    for _ in 0..50 {
        let last = number + ring + ring / 2;
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut silent_since = Instant::now();
        while silent_since.elapsed() < Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "the switch has stopped");
            let sender = &mut from.guest.pair().send;
            while number < last && sender.send(template.stamp(number)) {
                number += 1;
                silent_since = Instant::now();
            }
            sender.flush();
            sender.reclaim().doing("sending")?;
            // Only once the ring cannot have taken more.
            if number == last {
                let mut buffer = [0; BUFFER_LEN];
                let receiver = &mut to.guest.pair().receive;
                let taken = receiver.receive(64, |frame| verifier.check(frame.copy_to(&mut buffer)));
                if taken.doing("receiving")? > 0 {
                    silent_since = Instant::now();
                }
            }
        }
    }
    ["sent", "received"].iter().try_for_each(|id| end(&mut switch, id))?;
    let (sent, received) = (records(&sent)?, records(&received)?);
    assert_eq!(sent.len() as u64, number, "each once, however often it was lent");
    assert_eq!(received.len() as u64, verifier.frames());
    let in_order = |records: &[Record]| {
        let mut of = sent.iter();
        records.iter().all(|record| of.any(|other| other == record))
    };
    assert!(in_order(&received), "what arrived was sent, in that order");
    assert!(verifier.frames() > number / 2, "{} of {number}", verifier.frames());
    switch.finish()
}

/// A flow between two taps, with a switch in between.
struct Flowing {
    switch: Switch,
    hosts: [Netns; 2],
    config: FlowConfig,
}

impl Flowing {
    fn prepare(length: usize, rate: u32) -> Result<Flowing> {
        let mut switch = Switch::start(&[])?;
        let hosts = [Netns::new()?, Netns::new()?];
        switch.plug_tap("t0", 0, &hosts[0], &[])?;
        switch.plug_tap("t1", 0, &hosts[1], &[])?;
        let (destination, source) = (hosts[1].mac("t1")?, hosts[0].mac("t0")?);
        let config = FlowConfig { destination, source, length, rate };
        Ok(Flowing { switch, hosts, config })
    }

    fn start(&self) -> Result<Flow> {
        let open = |index: usize, name: &str| PacketSocket::open(&self.hosts[index], name);
        Ok(Flow::start(open(0, "t0")?, open(1, "t1")?, self.config))
    }

    fn numbers(&self, path: &Path) -> Result<Vec<u64>> {
        let source = self.config.source;
        Ok(records(path)?.iter().filter_map(|record| number_of(&record.kept, source)).collect())
    }
}

fn assert_whole(report: &FlowReport) {
    assert_eq!((report.lost(), report.doubled, report.overtaken), (0, 0, 0), "{report:?}");
}

#[test]
fn a_dump_is_turned_on_and_off_under_traffic_and_no_frame_is_lost() -> Result<()> {
    let mut flowing = Flowing::prepare(200, 3000)?;
    let tx = dump(&mut flowing.switch, "tx", "t0", json!({"queue": "tx", "status": "off"}))?;
    let rx = dump(&mut flowing.switch, "rx", "t1", json!({"queue": "rx", "status": "off"}))?;
    let flow = flowing.start()?;
    let rounds = 100;
    for _ in 0..rounds {
        for status in ["on", "off"] {
            let set = |id: &str| json!({"path": id, "property": "status", "value": status});
            flowing.switch.order("qom-set", set("tx"))?;
            flowing.switch.order("qom-set", set("rx"))?;
            let seen = property(&mut flowing.switch, "tx", "x-frames")?.as_u64().unwrap_or(0);
            // Lets some frames pass in each state.
            if status == "on" {
                wait_for("a frame", Duration::from_secs(5), || {
                    let now = property(&mut flowing.switch, "tx", "x-frames")?.as_u64().unwrap_or(0);
                    Ok((now > seen).then_some(()))
                })?;
            }
        }
    }
    let report = flow.finish()?;
    assert_whole(&report);
    for (id, path) in [("tx", tx), ("rx", rx)] {
        end(&mut flowing.switch, id)?;
        let numbers = flowing.numbers(&path)?;
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{id}: each once, and in order");
        let runs = 1 + numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
        assert!(runs <= rounds, "{id}: {runs} stretches without a gap");
        assert!(
            numbers.len() >= rounds / 2 && (numbers.len() as u64) < report.sent,
            "{id}: {}",
            numbers.len()
        );
    }
    flowing.switch.finish()
}

#[test]
fn a_pipe_that_nobody_reads_loses_what_it_has_no_room_for_and_delays_nobody() -> Result<()> {
    let mut flowing = Flowing::prepare(1500, 4000)?;
    let (reader, writer) = io::pipe().doing("making a pipe")?;
    let set = flowing.switch.qmp().execute_with_fds("add-fd", json!({}), &[writer.as_fd()]);
    let set = set.doing("passing a pipe")?["fdset-id"].clone();
    drop(writer);
    let members = json!({"file": format!("/dev/fdset/{set}")});
    dump(&mut flowing.switch, "f0", "t0", members)?;
    let flow = flowing.start()?;
    wait_for("a frame that is lost", Duration::from_secs(30), || {
        Ok((property(&mut flowing.switch, "f0", "x-lost")? != 0).then_some(()))
    })?;
    let report = flow.finish()?;
    assert_whole(&report);
    let count = |value: Value| value.as_u64().unwrap_or(0);
    let frames = count(property(&mut flowing.switch, "f0", "x-frames")?);
    let lost = count(property(&mut flowing.switch, "f0", "x-lost")?);
    assert!(frames + lost >= report.sent, "{frames} and {lost} of {}", report.sent);
    assert_eq!(property(&mut flowing.switch, "f0", "status")?, "on");
    end(&mut flowing.switch, "f0")?;
    drop(reader);
    flowing.switch.finish()
}

#[test]
fn a_dump_goes_with_its_netdev_and_its_file_is_complete() -> Result<()> {
    let mut flowing = Flowing::prepare(200, 2000)?;
    let path = dump(&mut flowing.switch, "f0", "t0", json!({"queue": "tx"}))?;
    let flow = flowing.start()?;
    wait_for("some frames", Duration::from_secs(10), || {
        Ok((property(&mut flowing.switch, "f0", "x-frames")?.as_u64() > Some(500)).then_some(()))
    })?;
    let report = flow.finish()?;
    assert_whole(&report);
    flowing.switch.order("netdev_del", json!({"id": "t0"}))?;
    let objects = flowing.switch.order("qom-list", json!({"path": "/objects"}))?;
    assert_eq!(objects.as_array().map(Vec::len), Some(1), "{objects}");
    let whole = wait_for("the file", Duration::from_secs(5), || {
        let numbers = flowing.numbers(&path)?;
        Ok((numbers.len() as u64 == report.sent).then_some(numbers))
    })?;
    assert!(whole.iter().copied().eq(0..report.sent));
    flowing.switch.finish()
}

/// `ringyard capture t0 WORDS` of a switch.
fn capture(switch: &Switch, words: &[&str]) -> Result<Command> {
    let mut ringyard = command(tools::switch_binary()?)?;
    ringyard.args(["capture", "t0", "--monitor"]).arg(switch.monitor()).args(words);
    Ok(ringyard)
}

/// Waits until a capture of a client records; its object.
fn recording(switch: &mut Switch) -> Result<String> {
    wait_for("the capture", Duration::from_secs(10), || {
        let objects = switch.order("qom-list", json!({"path": "/objects"}))?;
        let names = objects.as_array().into_iter().flatten().filter_map(|object| object["name"].as_str());
        let name = names.filter(|name| name.starts_with("capture-")).map(String::from).next_back();
        let Some(name) = name else { return Ok(None) };
        let frames = property(switch, &name, "x-frames")?;
        Ok((frames.as_u64() > Some(100)).then_some(name))
    })
}

fn signal(process: &Process, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.id() as i32).expect("it has a number");
    kill_process(pid, signal).doing("signalling a capture")
}

#[test]
fn a_client_captures_until_it_is_interrupted() -> Result<()> {
    let mut flowing = Flowing::prepare(200, 2000)?;
    let flow = flowing.start()?;
    let path = flowing.switch.path("client.pcap");
    let words = ["-w", &path.display().to_string(), "--direction", "in", "--snaplen", "60"];
    let directory = tempfile::tempdir().doing("making a directory")?;
    for signalled in [Signal::INT, Signal::TERM] {
        let mut client = Process::start("client", capture(&flowing.switch, &words)?, directory.path())?;
        recording(&mut flowing.switch)?;
        signal(&client, signalled)?;
        let status = client.wait_for_exit(Duration::from_secs(10))?;
        assert!(status.success(), "{}", client.log());
        let numbers = flowing.numbers(&path)?;
        // A worker waits for no file: on a busy machine frames may find no room, and are counted.
        let is_whole = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(is_whole || client.log().contains("that were lost"), "{}", client.log());
        assert!(numbers.len() > 100, "{}", numbers.len());
        assert!(client.log().contains(" frames\n"), "{}", client.log());
        let objects = flowing.switch.order("qom-list", json!({"path": "/objects"}))?;
        assert_eq!(objects.as_array().map(Vec::len), Some(1), "nothing is left: {objects}");
        assert_eq!(flowing.switch.order("query-fdsets", json!({}))?, json!([]));
    }
    assert_whole(&flow.finish()?);
    flowing.switch.finish()
}

#[test]
fn a_client_that_is_killed_ends_its_capture_and_the_next_one_clears_up() -> Result<()> {
    let mut flowing = Flowing::prepare(200, 2000)?;
    let flow = flowing.start()?;
    let path = flowing.switch.path("client.pcap").display().to_string();
    let directory = tempfile::tempdir().doing("making a directory")?;
    let mut client = Process::start("client", capture(&flowing.switch, &["-w", &path])?, directory.path())?;
    let killed = recording(&mut flowing.switch)?;
    client.kill()?;
    wait_for("the end of the capture", Duration::from_secs(10), || {
        Ok((property(&mut flowing.switch, &killed, "status")? == "off").then_some(()))
    })?;
    let set = json!({"path": killed, "property": "status", "value": "on"});
    assert!(flowing.switch.qmp().execute("qom-set", set).is_err(), "there is nobody to write to");
    let mut next = Process::start("next", capture(&flowing.switch, &["-w", &path])?, directory.path())?;
    let found = wait_for("the next capture", Duration::from_secs(10), || {
        let objects = flowing.switch.order("qom-list", json!({"path": "/objects"}))?.to_string();
        Ok((!objects.contains(&killed) && objects.contains("capture-")).then_some(()))
    });
    found?;
    recording(&mut flowing.switch)?;
    signal(&next, Signal::INT)?;
    assert!(next.wait_for_exit(Duration::from_secs(10))?.success(), "{}", next.log());
    assert_whole(&flow.finish()?);
    flowing.switch.finish()
}

#[test]
fn a_capture_is_read_live_by_tcpdump() -> Result<()> {
    let mut flowing = Flowing::prepare(200, 2000)?;
    let flow = flowing.start()?;
    let mut client = capture(&flowing.switch, &[])?;
    let mut client =
        client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().doing("starting a capture")?;
    let frames = client.stdout.take().expect("it is piped");
    let mut tcpdump = command("tcpdump")?;
    tcpdump.args(["-nn", "-e", "-c", "1000", "-r", "-"]).stdin(frames);
    let listed = tcpdump.output().doing("running tcpdump")?;
    // The command has the pipe, too.
    drop(tcpdump);
    assert_eq!(listed_frames(&String::from_utf8_lossy(&listed.stdout)).count(), 1000);
    // tcpdump has seen enough, and the capture ends with it.
    let ended = client.wait_with_output().doing("waiting for the capture")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains(" frames"), "{said}");
    let objects = flowing.switch.order("qom-list", json!({"path": "/objects"}))?;
    assert_eq!(objects.as_array().map(Vec::len), Some(1), "nothing is left: {objects}");
    assert_whole(&flow.finish()?);
    flowing.switch.finish()
}

#[test]
fn what_cannot_be_captured_is_said() -> Result<()> {
    let mut switch = Switch::start(&[])?;
    let output = capture(&switch, &["-w", "/dev/null"])?.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "ringyard: object-add: Parameter 'netdev' expects a network backend id\n");
    assert_eq!(switch.order("query-fdsets", json!({}))?, json!([]));
    // `script` gives it a terminal.
    let mut words = capture(&switch, &[])?;
    let line = std::iter::once(words.get_program()).chain(words.get_args());
    let line: Vec<String> = line.map(|word| word.to_string_lossy().into_owned()).collect();
    words = command("script")?;
    let output = words.args(["-qec", &line.join(" "), "/dev/null"]).output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("no text for a terminal: give -w FILE"), "{said}");
    switch.finish()
}
