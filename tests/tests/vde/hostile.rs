//! With a switch that the test plays: one that answers nonsense, hangs up, or sends whatever it likes.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use ringyard_tests::deadline::wait_for;
use ringyard_tests::{Doing, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::bench::{Bench, PORT, SOON, frame};

/// A switch without ports.
struct Fake {
    listener: UnixListener,
    directory: TempDir,
    sockets: u32,
}

/// Who has plugged in.
struct Client {
    control: UnixStream,
    data: UnixDatagram,
}

impl Fake {
    fn new() -> Result<Fake> {
        let directory = tempfile::tempdir().doing("making a directory")?;
        let listener = UnixListener::bind(directory.path().join("ctl")).doing("binding ctl")?;
        Ok(Fake { listener, directory, sockets: 0 })
    }

    /// Waits for a request; who asks, and the path of its socket.
    fn ask(&self) -> Result<(UnixStream, PathBuf)> {
        let (mut control, _) = self.listener.accept().doing("accepting")?;
        let mut request = [0; 512];
        control.read(&mut request).doing("reading a request")?;
        let path = request[14..122].split(|&byte| byte == 0).next().unwrap_or_default();
        Ok((control, PathBuf::from(std::ffi::OsStr::from_bytes(path))))
    }

    /// Gives the next one that asks what it wants.
    fn serve(&mut self) -> Result<Client> {
        let (mut control, theirs) = self.ask()?;
        self.sockets += 1;
        let path = self.directory.path().join(format!("001.{}", self.sockets));
        let data = UnixDatagram::bind(&path).doing("binding a data socket")?;
        data.connect(&theirs).doing("connecting to the port's socket")?;
        data.set_read_timeout(Some(SOON)).doing("setting a time limit")?;
        control.write_all(&address(&path)).doing("answering")?;
        Ok(Client { control, data })
    }
}

fn address(path: &Path) -> Vec<u8> {
    let mut address = 1u16.to_ne_bytes().to_vec();
    address.extend(path.as_os_str().as_bytes());
    address.resize(110, 0);
    address
}

/// A port that the test serves, with the innocents at work.
fn plugged(bench: &mut Bench) -> Result<(Fake, Client)> {
    let mut fake = Fake::new()?;
    let path = fake.directory.path().to_owned();
    let client = std::thread::scope(|scope| {
        let served = scope.spawn(|| fake.serve());
        bench.plug(&path, json!({}))?;
        served.join().expect("it does not panic")
    })?;
    Ok((fake, client))
}

#[test]
fn s05_a_switch_that_answers_nonsense_is_asked_again_until_it_does_not() -> Result<()> {
    let mut bench = Bench::start()?;
    let innocents = bench.innocents()?;
    let (mut fake, client) = plugged(&mut bench)?;
    let nowhere = address(Path::new("/no/such/socket"));
    let answers: [(&[u8], &str); 7] = [
        (&[], "error: the switch hung up"),
        (&nowhere[..109], "error: the switch hung up"),
        (&[0; 110], "error: the switch's answer names no socket"),
        (&[0xff; 110], "error: the switch's answer names no socket"),
        (&[&[1, 0][..], &[b'/'; 108]].concat(), "error: the switch's answer names no socket"),
        (&[&nowhere[..], &[0xfe; 4000]].concat(), "error: No such file or directory"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "error: the switch hung up"),
    ];
    drop(client);
    for (answer, text) in answers {
        let (mut control, theirs) = fake.ask()?;
        // It may have gone already.
        let _ = control.write_all(answer);
        drop(control);
        bench.wait(false, text)?;
        wait_for("our socket's path to go", SOON, || Ok((!theirs.exists()).then_some(())))?;
    }
    let client = fake.serve()?;
    bench.wait(true, "sock=")?;
    bench.tap.send(&frame(60, 1))?;
    let mut data = [0; 100];
    assert_eq!(client.data.recv(&mut data).doing("receiving")?, 60);
    bench.expect_whole(innocents)?;
    bench.switch.finish()
}

#[test]
fn s05_a_switch_that_removes_its_socket_or_speaks_out_of_turn() -> Result<()> {
    let mut bench = Bench::start()?;
    let innocents = bench.innocents()?;
    let (mut fake, client) = plugged(&mut bench)?;
    // The path is needed no more.
    std::fs::remove_file(fake.directory.path().join("001.1")).doing("removing a path")?;
    for sent in [frame(60, 1), frame(1514, 2)] {
        client.data.send(&sent).doing("sending a frame")?;
        assert_eq!(bench.at_tap()?, sent);
    }
    // Its datagram socket is gone, its control socket is not: the next frame finds that out.
    let Client { control, data } = client;
    drop(data);
    bench.tap.send(&frame(60, 3))?;
    bench.wait(false, "error: ")?;
    drop(control);
    let Client { mut control, data } = fake.serve()?;
    bench.wait(true, "sock=")?;
    // Nothing is said over the control socket of a port, so what is said is its end.
    control.write_all(&[0xff; 4096]).doing("speaking out of turn")?;
    bench.wait(false, "error: ")?;
    drop((control, data));
    let client = fake.serve()?;
    bench.wait(true, "sock=")?;
    client.data.send(&frame(60, 4)).doing("sending a frame")?;
    assert_eq!(bench.at_tap()?, frame(60, 4));
    bench.expect_whole(innocents)?;
    bench.switch.finish()
}

#[test]
fn frames_of_any_length_pass_whole_and_shorter_ones_do_not() -> Result<()> {
    let mut bench = Bench::start()?;
    let (_fake, client) = plugged(&mut bench)?;
    for len in [14, 60, 1518, 9018, 65_535] {
        let sent = frame(len, 1);
        client.data.send(&sent).doing("sending a frame")?;
        assert!(bench.at_tap()? == sent, "{len} bytes to the tap");
        bench.tap.send(&sent)?;
        let mut data = vec![0; 70_000];
        let came = client.data.recv(&mut data).doing("receiving a frame")?;
        assert!(data[..came] == sent, "{len} bytes from the tap");
    }
    // Two tags pass as they are.
    let tagged = [&frame(60, 2)[..12], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], &frame(60, 2)[12..]].concat();
    bench.tap.send(&tagged)?;
    let mut data = [0; 100];
    let came = client.data.recv(&mut data).doing("receiving a frame")?;
    assert_eq!(data[..came], tagged);
    // An empty datagram and a short one are nothing; a frame that is too long is too long.
    for len in [0, 1, 13, 65_558, 69_632] {
        client.data.send(&vec![0xff; len]).doing("sending no frame")?;
    }
    bench.switch.wait_stats("three runts and two long ones", SOON, |stats| {
        let drops = stats.port(PORT).map(|port| port.ingress.drops.clone()).unwrap_or_default();
        drops.get("runt") == Some(&3) && drops.get("too_long") == Some(&2)
    })?;
    client.data.send(&frame(60, 5)).doing("sending a frame")?;
    assert_eq!(bench.at_tap()?, frame(60, 5));
    bench.switch.finish()
}
