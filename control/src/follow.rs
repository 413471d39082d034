//! Following a virtual machine's own monitor: what its driver says of the nic's rx-filter becomes the filter of ours.
//!
//! QEMU answers the guest's control commands itself and tells a vhost-user back end nothing of them, but its monitor does:
//! NIC_RX_FILTER_CHANGED, and `query-rx-filter`. A thread a nic connects there as a client, again every second. What it
//! reads is as untrusted as the guest: it is bounded, and checked like the arguments of a command.
//!
//! It also tells the machine what it cannot see while the back end's socket stands: that the link is down.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::mac::Mac;
use ringyard_drivers::chardev::connect_to;
use ringyard_drivers::line::Line;
use ringyard_drivers::minder::{Minder, Stop, Wait};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use serde_json::{Map, Value, json};

use crate::qapi::{Form, Visitor};
use crate::wire::XSetRxFilter;

/// Whom to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The socket of the machine's monitor.
    pub monitor: PathBuf,
    /// What the machine calls the nic. Without it, it is the one that has our address, or the only one.
    pub nic: Option<String>,
}

/// The thread's owner. Dropping it ends the thread, and does not wait for that.
pub struct Follower {
    _minder: Minder,
    link: Arc<LinkWish>,
}

/// What the machine's link shall be.
struct LinkWish {
    up: AtomicBool,
    /// What the machine was told last, or has unless somebody else told it. The thread's alone, and outlives a connection.
    told_up: AtomicBool,
    changed: OwnedFd,
}

impl Follower {
    /// Follows `followed` for the nic with the address `mac`, whose link is `up`. Reports go over `line`.
    ///
    /// Errors: no descriptor or no thread to be had.
    pub fn start(followed: Followed, mac: Mac, up: bool, line: Line) -> io::Result<Follower> {
        let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let link = Arc::new(LinkWish { up: AtomicBool::new(up), told_up: AtomicBool::new(true), changed });
        let wish = link.clone();
        let minder = Minder::start("follower", move |stop| follow(&followed, mac, &line, &wish, stop))?;
        Ok(Follower { _minder: minder, link })
    }

    /// Tells the machine that the nic's link changed.
    pub fn set_link(&self, up: bool) {
        if self.link.up.swap(up, Ordering::AcqRel) != up {
            let _ = rustix::io::write(&self.link.changed, &1u64.to_ne_bytes());
        }
    }
}

fn follow(followed: &Followed, mac: Mac, line: &Line, link: &LinkWish, stop: &Stop) {
    line.show("connecting");
    loop {
        let end = match connect_to(&followed.monitor) {
            Ok(socket) => Session::new(socket, followed, mac, line, link).run(stop),
            Err(error) => End::Lost(error.to_string()),
        };
        match end {
            End::Stopped => return,
            End::Lost(why) => line.show(format!("error: {why}")),
        }
        // Whoever comes next may want other things than who has gone.
        line.filter(RxFilter::new(mac));
        if !stop.sleep(RECONNECT) {
            return;
        }
    }
}

/// Why a session is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Lost(String),
}

/// What was asked and is to be answered: in order, as the machine executes in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Capabilities,
    Filter,
    Link,
}

/// One connection.
struct Session<'a> {
    socket: UnixStream,
    received: Vec<u8>,
    asked: VecDeque<Question>,
    followed: &'a Followed,
    mac: Mac,
    line: &'a Line,
    link: &'a LinkWish,
    /// The nic's name, once it is known.
    name: Option<String>,
}

impl<'a> Session<'a> {
    fn new(
        socket: UnixStream,
        followed: &'a Followed,
        mac: Mac,
        line: &'a Line,
        link: &'a LinkWish,
    ) -> Session<'a> {
        let (received, asked) = (Vec::new(), VecDeque::new());
        Session { socket, received, asked, followed, mac, line, link, name: None }
    }

    fn run(mut self, stop: &Stop) -> End {
        loop {
            let wish = self.link.changed.as_fd();
            let fds: [(BorrowedFd<'_>, PollFlags); 2] =
                [(self.socket.as_fd(), PollFlags::IN), (wish, PollFlags::IN)];
            let done = match stop.wait(&fds, None) {
                Wait::Stopped => return End::Stopped,
                Wait::Ready(0) => self.receive(),
                _ => {
                    let _ = rustix::io::read(wish, &mut [0; 8]);
                    self.tell_link()
                }
            };
            if let Err(why) = done {
                return End::Lost(why);
            }
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        let mut chunk = [0; 16 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => return Err("the machine's monitor hung up".into()),
            Ok(count) => self.received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let message = serde_json::from_slice(&line);
            self.take(message.map_err(|error| format!("the machine's monitor speaks no QMP: {error}"))?)?;
        }
        if self.received.len() > LINE_MAX {
            return Err(format!("the machine's monitor says more than {LINE_MAX} bytes in a line"));
        }
        Ok(())
    }

    fn take(&mut self, mut message: Value) -> Result<(), String> {
        if !message.is_object() {
            return Err("the machine's monitor speaks no QMP: a line is no object".into());
        }
        if message.get("QMP").is_some() {
            return self.ask(Question::Capabilities, "qmp_capabilities", json!({}));
        }
        match message["event"].as_str() {
            // After a reset the filter is a new one, and nobody says so.
            Some("NIC_RX_FILTER_CHANGED" | "RESET") => return self.ask_filter(),
            Some(_) => return Ok(()),
            None => {}
        }
        let question = self.asked.pop_front().ok_or("the machine's monitor answers what nobody asked")?;
        if let Some(why) = message["error"]["desc"].as_str() {
            return match question {
                // Of a nic that has gone meanwhile.
                Question::Link => Ok(()),
                _ => Err(format!("the machine's monitor refuses: {}", cut(why))),
            };
        }
        match question {
            Question::Capabilities => self.ask_filter(),
            Question::Filter => self.take_filter(message["return"].take()),
            Question::Link => Ok(()),
        }
    }

    fn ask_filter(&mut self) -> Result<(), String> {
        self.ask(Question::Filter, "query-rx-filter", json!({}))
    }

    fn take_filter(&mut self, filters: Value) -> Result<(), String> {
        let Value::Array(filters) = filters else {
            return Err("the machine's monitor lists no filters".into());
        };
        let chosen = choose(filters, self.name.as_deref().or(self.followed.nic.as_deref()), self.mac)?;
        let name = chosen.get("name").and_then(Value::as_str).map(str::to_owned);
        let filter = filter(chosen, self.mac)?;
        self.line.filter(filter);
        if self.name.is_none() {
            self.line.show("following");
        }
        self.name = name;
        self.tell_link()
    }

    /// Only what changes is told: the machine's manager has a say, too.
    fn tell_link(&mut self) -> Result<(), String> {
        let up = self.link.up.load(Ordering::Acquire);
        let told_up = self.link.told_up.load(Ordering::Relaxed);
        let Some(name) = self.name.clone().filter(|_| up != told_up) else { return Ok(()) };
        self.link.told_up.store(up, Ordering::Relaxed);
        self.ask(Question::Link, "set_link", json!({"name": name, "up": up}))
    }

    fn ask(&mut self, question: Question, command: &str, arguments: Value) -> Result<(), String> {
        if self.asked.len() >= QUESTIONS_MAX {
            return Err("the machine's monitor does not answer".into());
        }
        self.asked.push_back(question);
        let request = json!({"execute": command, "arguments": arguments}).to_string();
        // Short: a monitor that has no room for it has long stopped reading.
        self.socket.write_all(request.as_bytes()).map_err(|error| error.to_string())
    }
}

/// The nic of that name, or that has the address, or that is alone.
fn choose(filters: Vec<Value>, name: Option<&str>, mac: Mac) -> Result<Map<String, Value>, String> {
    let is_it = |filter: &Value| match name {
        Some(name) => filter["name"] == name,
        None => filter["main-mac"].as_str().is_some_and(|text| text.parse() == Ok(mac)),
    };
    let alone = name.is_none() && filters.len() == 1;
    match filters.into_iter().find(|filter| alone || is_it(filter)) {
        Some(Value::Object(members)) => Ok(members),
        _ => Err(match name {
            Some(name) => format!("the machine has no nic '{}'", cut(name)),
            None => format!("the machine has no nic with the address {mac}: name it with x-follow-nic"),
        }),
    }
}

/// The filter that QEMU describes; it gives `broadcast-allowed` inverted. A member that it does not give is as after a
/// reset.
fn filter(mut members: Map<String, Value>, mac: Mac) -> Result<RxFilter, String> {
    members.retain(|member, _| MEMBERS.contains(&member.as_str()));
    let allowed = members.get("broadcast-allowed").and_then(Value::as_bool);
    members.extend(allowed.map(|inverted| ("broadcast-allowed".into(), json!(!inverted))));
    let change = XSetRxFilter::visit(Visitor::new(members, Form::Json));
    let change = change.map_err(|error| format!("the machine's filter is odd: {}", cut(&error.desc)))?;
    Ok(change.apply(&RxFilter::new(mac)))
}

/// A machine's text, as much of it as anybody wants to see.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Those of `RxFilterInfo`; a later QEMU may have more.
const MEMBERS: [&str; 12] = [
    "name",
    "promiscuous",
    "multicast",
    "unicast",
    "vlan",
    "broadcast-allowed",
    "multicast-overflow",
    "unicast-overflow",
    "main-mac",
    "vlan-table",
    "unicast-table",
    "multicast-table",
];
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);
/// A reply of 32 nics without VLAN filters, which each list 4096 VLANs, is about as long.
const LINE_MAX: usize = 1 << 20;
/// Questions that wait for an answer; QEMU reads one ahead, and answers at once.
const QUESTIONS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use ringyard_dataplane::filter::RxState;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn info(name: &str, mac: &str) -> Value {
        json!({
            "name": name, "main-mac": mac, "promiscuous": false, "broadcast-allowed": false,
            "multicast": "normal", "unicast": "normal", "vlan": "normal", "multicast-overflow": false,
            "unicast-overflow": false, "vlan-table": [4, 0], "unicast-table": [],
            "multicast-table": ["01:00:5e:00:00:01"], "of-a-later-release": 1,
        })
    }

    fn chosen(filters: &[Value], name: Option<&str>) -> Result<String, String> {
        choose(filters.to_vec(), name, MAC).map(|members| members["name"].as_str().unwrap().to_owned())
    }

    #[test]
    fn the_nic_is_the_named_one_or_the_one_with_the_address_or_the_only_one() {
        let (a, b) = (info("a", "52:54:00:00:00:09"), info("b", "52:54:00:00:00:01"));
        assert_eq!(chosen(&[a.clone(), b.clone()], None).as_deref(), Ok("b"));
        assert_eq!(chosen(&[a.clone(), b.clone()], Some("a")).as_deref(), Ok("a"));
        assert_eq!(chosen(std::slice::from_ref(&a), None).as_deref(), Ok("a"));
        assert!(chosen(&[a.clone(), a.clone()], None).is_err_and(|why| why.contains("x-follow-nic")));
        assert!(chosen(&[b], Some("c")).is_err() && chosen(&[], None).is_err());
    }

    #[test]
    fn broadcast_is_inverted_and_unknown_members_are_nothing() {
        let Value::Object(members) = info("a", "52:54:00:00:00:01") else { unreachable!("it is an object") };
        let filter = filter(members, MAC).expect("it is valid");
        assert!(filter.broadcast_allowed && !filter.promiscuous);
        assert_eq!(
            (filter.vlan, filter.vlan_table.iter().collect::<Vec<_>>()),
            (RxState::Normal, vec![0, 4])
        );
        assert_eq!(filter.multicast_table, [Mac([1, 0, 0x5e, 0, 0, 1])]);
    }

    #[test]
    fn nothing_that_a_machine_says_is_taken_unchecked() {
        for (member, value) in [
            ("main-mac", json!("01:00:00:00:00:00")),
            ("vlan-table", json!([4096])),
            ("multicast", json!("x")),
        ] {
            let Value::Object(mut members) = info("a", "52:54:00:00:00:01") else { unreachable!() };
            members.insert(member.into(), value);
            assert!(filter(members, MAC).is_err(), "{member}");
        }
        assert_eq!(cut("a\x1b[2J"), "a\\u{1b}[2J");
        assert_eq!(cut(&"x".repeat(1000)).len(), TEXT_CHARS_MAX);
    }
}
