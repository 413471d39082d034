//! Plugging in, with the switch played by the test.

use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::{fs, thread};

use tempfile::TempDir;

fn options(sock: Option<&Path>) -> VdeOptions {
    VdeOptions {
        sock: sock.map(Path::to_owned),
        port: 0,
        group: None,
        mode: 0o700,
        description: "ringyard v0".into(),
    }
}

/// Waits as long as it takes; the switch is a thread of the test.
fn forever(fd: BorrowedFd<'_>, _limit: Duration) -> Waited {
    super::super::wait(fd, Duration::from_secs(100))
}

/// What a switch finds out before it answers.
struct Asked {
    request: Vec<u8>,
    path: PathBuf,
    metadata: fs::Metadata,
}

fn ask(stream: &mut UnixStream) -> Asked {
    let mut request = vec![0; 512];
    let len = stream.read(&mut request).expect("a request comes");
    request.truncate(len);
    let path = request[14..122].split(|&byte| byte == 0).next().expect("there is always a first part");
    let path = PathBuf::from(OsStr::from_bytes(path));
    let metadata = fs::metadata(&path).expect("the socket is there");
    Asked { request, path, metadata }
}

fn address(path: &Path) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(path.as_os_str().as_bytes());
    address.resize(ADDRESS_LEN, 0);
    address
}

/// Plugs in at a switch that does what `serve` says with its first connection.
fn plug_into<T: Send>(
    options: impl FnOnce(&Path) -> VdeOptions,
    patience: Patience<'_>,
    serve: impl FnOnce(UnixStream, &Path) -> T + Send,
) -> (Result<Plug, Failure>, T, TempDir) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let listener = UnixListener::bind(directory.path().join(CONTROL)).expect("it is empty");
    let (plug, served) = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (stream, _) = listener.accept().expect("the plug connects");
            serve(stream, directory.path())
        });
        let plug = Plug::insert(&options(directory.path()), patience);
        (plug, server.join().expect("the switch does not panic"))
    });
    (plug, served, directory)
}

/// Files in the directory besides the switch's own.
fn left(directory: &TempDir) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory.path()).expect("it is there").map(|entry| entry.expect("so is this").path());
    entries.filter(|path| !path.ends_with(CONTROL) && !path.ends_with("000.7")).collect()
}

#[test]
fn a_port_is_asked_for_and_frames_go_both_ways_after_that() {
    let with = |directory: &Path| VdeOptions { port: 0x0102, mode: 0o660, ..options(Some(directory)) };
    let (plug, (asked, socket, _stream), directory) = plug_into(with, &forever, |mut stream, directory| {
        let asked = ask(&mut stream);
        let socket = UnixDatagram::bind(directory.join("000.7")).unwrap();
        socket.connect(&asked.path).unwrap();
        stream.write_all(&address(&directory.join("000.7"))).unwrap();
        (asked, socket, stream)
    });
    let plug = plug.expect("the switch is willing");
    let expected = [
        &0xfeed_faceu32.to_ne_bytes()[..],
        &3u32.to_ne_bytes(),
        &0x0001_0200u32.to_ne_bytes(),
        &address(&asked.path),
        b"ringyard v0",
    ];
    assert_eq!(asked.request, expected.concat());
    assert!(asked.metadata.file_type().is_socket());
    assert_eq!(asked.metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(left(&directory), Vec::<PathBuf>::new(), "our path is gone");
    socket.send(b"to us").unwrap();
    let mut data = [0; 9];
    assert_eq!(rustix::net::recv(&plug.data, &mut data, RecvFlags::empty()).unwrap().0, 5);
    rustix::net::send(&plug.data, b"to them", SendFlags::empty()).unwrap();
    assert_eq!(socket.recv(&mut data).unwrap(), 7);
}

#[test]
fn the_socket_has_its_group_and_its_mode_and_nothing_else_whatever_the_umask() {
    // This process may belong to no other group, unless it is root.
    let root = rustix::process::geteuid().is_root();
    let group = if root { 54_321 } else { rustix::process::getegid().as_raw() };
    for mode in [0o700, 0o777, 0o000, 0o4660, 0o17_0622] {
        let with = |directory: &Path| VdeOptions { mode, group: Some(group), ..options(Some(directory)) };
        let (plug, asked, directory) = plug_into(with, &forever, |mut stream, _| ask(&mut stream));
        assert_eq!(plug.err(), Some(Failure::Switch(HUNG_UP)));
        assert_eq!((asked.metadata.mode() & 0o7777, asked.metadata.gid()), (mode & 0o7777, group));
        assert_eq!(left(&directory), Vec::<PathBuf>::new());
    }
}

#[test]
fn s05_an_answer_that_names_no_socket_is_refused() {
    let path = Path::new("/tmp/x");
    let answer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut answer = address(path);
        change(&mut answer);
        answer
    };
    let no_address = || Failure::Switch(NO_ADDRESS);
    let too_long = || answer(&|bytes| bytes[3..].fill(b'x'));
    let cases = [
        (answer(&|bytes| bytes[..2].fill(0)), no_address()),
        (answer(&|bytes| bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes())), no_address()),
        (answer(&|bytes| bytes[2..].fill(0)), no_address()),
        (answer(&|bytes| bytes[2] = b'.'), no_address()),
        (answer(&|bytes| bytes.rotate_left(2)), no_address()),
        (too_long(), no_address()),
        (answer(&|bytes| bytes.truncate(109)), Failure::Switch(HUNG_UP)),
        (Vec::new(), Failure::Switch(HUNG_UP)),
        (address(Path::new("/no/such/socket")), Failure::System(Errno::NOENT)),
        (address(Path::new("/")), Failure::System(Errno::CONNREFUSED)),
    ];
    for (answer, failure) in cases {
        let (plug, (), directory) = plug_into(
            |path| options(Some(path)),
            &forever,
            |mut stream, _| {
                ask(&mut stream);
                stream.write_all(&answer).unwrap();
            },
        );
        assert_eq!(plug.err(), Some(failure), "{answer:?}");
        assert_eq!(left(&directory), Vec::<PathBuf>::new());
    }
}

#[test]
fn s05_an_answer_that_names_another_kind_of_socket_or_comes_in_pieces() {
    let stream = |mut stream: UnixStream, directory: &Path| {
        ask(&mut stream);
        stream.write_all(&address(&directory.join(CONTROL))).unwrap();
    };
    let (plug, (), _) = plug_into(|path| options(Some(path)), &forever, stream);
    assert_eq!(plug.err(), Some(Failure::System(Errno::PROTOTYPE)));
    let pieces = |mut stream: UnixStream, directory: &Path| {
        ask(&mut stream);
        let socket = UnixDatagram::bind(directory.join("000.7")).unwrap();
        for byte in address(&directory.join("000.7")) {
            stream.write_all(&[byte]).unwrap();
        }
        socket
    };
    let (plug, _, _) = plug_into(|path| options(Some(path)), &forever, pieces);
    assert!(plug.is_ok());
}

#[test]
fn a_switch_that_says_nothing_is_left_after_a_while() {
    let impatient = |_: BorrowedFd<'_>, limit: Duration| {
        assert!(limit <= ANSWER_TIME_MAX);
        Waited::TimedOut
    };
    let stopped = |_: BorrowedFd<'_>, _| Waited::Stopped;
    let cases: [(Patience<'_>, Failure); 2] = [(&impatient, SILENCE), (&stopped, Failure::Stopped)];
    for (patience, failure) in cases {
        // The stream is kept open until the plug has given up.
        let (plug, _stream, directory) = plug_into(|path| options(Some(path)), patience, |stream, _| stream);
        assert_eq!(plug.err(), Some(failure));
        assert_eq!(left(&directory), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_place_without_a_switch_is_an_error_in_the_systems_words() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &Path| Plug::insert(&options(Some(path)), &forever).err().unwrap().to_string();
    assert_eq!(at(&directory.path().join("none")), "No such file or directory");
    assert_eq!(at(directory.path()), "No such file or directory");
    let listener = UnixListener::bind(directory.path().join(CONTROL)).unwrap();
    assert_eq!(at(&directory.path().join(CONTROL)), "Not a directory");
    drop(listener);
    assert_eq!(at(directory.path()), "Connection refused");
    let long = directory.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    assert_eq!(at(&long), "File name too long");
}

#[test]
fn a_directory_whose_name_leaves_no_place_for_ours_gets_it_elsewhere() {
    let base = tempfile::tempdir().unwrap();
    // So long that the control socket's path fits, and ours does not.
    let directory = base.path().join("x".repeat(102 - base.path().as_os_str().len()));
    fs::create_dir(&directory).unwrap();
    let listener = UnixListener::bind(directory.join(CONTROL)).unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| ask(&mut listener.accept().unwrap().0));
        assert_eq!(Plug::insert(&options(Some(&directory)), &forever).err(), Some(Failure::Switch(HUNG_UP)));
        let asked = server.join().unwrap();
        let name = asked.path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name.starts_with("vde.") && SPARE_PLACES.map(Path::new).contains(&asked.path.parent().unwrap())
        );
        assert!(!asked.path.exists());
    });
}

#[test]
fn a_switch_is_looked_for_in_the_usual_places_one_after_the_other() {
    let scene = || {
        for place in ["/run", "/tmp"] {
            let mounted =
                std::process::Command::new("mount").args(["-t", "tmpfs", "none", place]).status().unwrap();
            assert!(mounted.success());
        }
        assert_eq!(Plug::insert(&options(None), &forever).err(), Some(Failure::System(Errno::NOENT)));
        for place in ["/tmp/vde.ctl", "/run/vde.ctl"] {
            fs::create_dir(place).unwrap();
            let listener = UnixListener::bind(Path::new(place).join(CONTROL)).unwrap();
            thread::scope(|scope| {
                let server = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let asked = ask(&mut stream);
                    let socket = UnixDatagram::bind(Path::new(place).join("000.7")).unwrap();
                    stream.write_all(&address(&Path::new(place).join("000.7"))).unwrap();
                    (asked, socket)
                });
                let plug = Plug::insert(&options(None), &forever).unwrap();
                assert_eq!(plug.directory, Path::new(place));
                server.join().unwrap();
            });
        }
    };
    crate::testing::with_own_mounts(scene);
}
