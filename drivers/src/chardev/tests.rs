use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::*;

const SERVER: SocketRole = SocketRole::Server;
const CLIENT: SocketRole = SocketRole::Client { reconnect: None };

fn open(path: &Path, role: SocketRole) -> Result<Arc<SocketChardev>, OpenError> {
    SocketChardev::open(path, role, &SocketAccess::default())
}

fn error(path: &Path, role: SocketRole) -> String {
    open(path, role).err().expect("must not open").to_string()
}

fn stop() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn server_listens_at_once_and_removes_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let chardev = open(&path, SERVER).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let _peer = UnixStream::connect(&path).unwrap();
    assert!(chardev.next_connection(stop().as_fd()).is_some());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the socket");
    drop(chardev);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn mode_and_group_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let group = rustix::process::getegid().as_raw();
    let access = SocketAccess { mode: 0o666, group: Some(group) };
    let _chardev = SocketChardev::open(&path, SERVER, &access).unwrap();
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o777, file.gid()), (0o666, group));
}

#[test]
fn q05_live_socket_of_another_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _other = UnixListener::bind(&path).unwrap();
    assert_eq!(
        error(&path, SERVER),
        format!("Failed to bind socket to {}: Address already in use", path.display())
    );
    UnixStream::connect(&path).unwrap();
}

#[test]
fn q05_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let _chardev = open(&path, SERVER).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn q05_files_and_links_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    symlink(dir.path().join("nowhere"), &link).unwrap();
    assert_eq!(error(&file, SERVER), format!("Failed to bind socket to {}: File exists", file.display()));
    assert!(error(&link, SERVER).ends_with("File exists"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn q05_path_may_be_as_long_as_a_socket_address() {
    let dir = tempfile::tempdir().unwrap();
    let room = 107 - dir.path().as_os_str().len() - 1;
    let _chardev = open(&dir.path().join("x".repeat(room)), SERVER).unwrap();
    assert!(error(&dir.path().join("x".repeat(room + 1)), SERVER).ends_with("name too long"));
}

#[test]
fn q05_missing_directory_is_named() {
    let path = Path::new("/nonexistent/s");
    assert_eq!(error(path, SERVER), "Failed to bind socket to /nonexistent/s: No such file or directory");
}

#[test]
fn file_of_a_successor_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let first = open(&path, SERVER).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = open(&path, SERVER).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn client_without_reconnect_needs_its_server() {
    let path = Path::new("/nonexistent/s");
    assert_eq!(error(path, CLIENT), "Failed to connect to '/nonexistent/s': No such file or directory");
}

#[test]
fn q06_client_with_reconnect_waits_for_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let chardev = open(&path, SocketRole::Client { reconnect: Some(Duration::from_millis(10)) }).unwrap();
    assert!(!chardev.is_connected());
    let _server = UnixListener::bind(&path).unwrap();
    assert!(chardev.next_connection(stop().as_fd()).is_some());
}

#[test]
fn client_is_connected_from_the_start_and_pauses_between_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _server = UnixListener::bind(&path).unwrap();
    let interval = Duration::from_millis(50);
    let chardev = open(&path, SocketRole::Client { reconnect: Some(interval) }).unwrap();
    assert!(chardev.is_connected());
    let stop = stop();
    let start = Instant::now();
    assert!(chardev.next_connection(stop.as_fd()).is_some());
    assert!(chardev.next_connection(stop.as_fd()).is_some());
    assert!(start.elapsed() >= interval);
}

#[test]
fn stop_ends_all_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let stop = stop();
    rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
    let server = open(&dir.path().join("s"), SERVER).unwrap();
    assert!(server.next_connection(stop.as_fd()).is_none());
    let reconnect = Some(Duration::from_secs(1000));
    let client = open(&dir.path().join("nobody"), SocketRole::Client { reconnect }).unwrap();
    assert!(client.next_connection(stop.as_fd()).is_none());
}

#[test]
fn path_is_free_at_once_though_a_port_still_holds_the_chardev() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let access = SocketAccess::default();
    let old = SocketChardev::open(&path, SocketRole::Server, &access).unwrap();
    old.remove_file();
    let new = SocketChardev::open(&path, SocketRole::Server, &access).unwrap();
    drop(old);
    assert!(path.exists(), "the last handle of the old one leaves the new one's file alone");
    drop(new);
    assert!(!path.exists());
}
