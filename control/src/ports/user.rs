//! `user`: libslirp in a helper process.

use std::io;

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::sandbox::share_words;
use ringyard_drivers::user::{GuestTarget, Launch, UserControl, UserOptions, UserPort};
use serde_json::{Map, Value, json};

use crate::port::{OpenPort, Opening, PortSpec};

/// A `user` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec(pub UserOptions);

impl PortSpec for UserSpec {
    fn type_name(&self) -> &'static str {
        "user"
    }

    fn commands(&self) -> Vec<Vec<String>> {
        let answering = self.0.guest_forwards.iter().filter_map(|forward| match &forward.target {
            GuestTarget::Command(words) => Some(words.clone()),
            GuestTarget::Device(_) => None,
        });
        answering.chain(self.0.smb.as_ref().map(|share| share_words(&share.directory))).collect()
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let launch = Launch::new(opening.access.mode, opening.access.group);
        let port = UserPort::open(&opening.id, self.0.clone(), launch)?;
        Ok(Box::new(OpenUser(port)))
    }
}

struct OpenUser(UserPort);

impl OpenPort for OpenUser {
    fn attachment(&self) -> Attachment {
        self.0.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        self.0.start(line)
    }

    fn info(&self, _queue: usize) -> String {
        self.0.info()
    }

    fn complete(&self, members: &mut Map<String, Value>) {
        let UserOptions { restrict, ipv4, ipv6, host_forwards, .. } = self.0.options();
        members.shift_remove("ip");
        members.insert("restrict".into(), json!(restrict));
        members.insert("ipv4".into(), json!(ipv4.enabled));
        members.insert("ipv6".into(), json!(ipv6.enabled));
        if ipv4.enabled {
            members.insert("net".into(), json!(format!("{}/{}", ipv4.network, ipv4.mask)));
            members.insert("host".into(), json!(ipv4.host));
            members.insert("dns".into(), json!(ipv4.dns));
        }
        if ipv6.enabled {
            members.insert("ipv6-prefix".into(), json!(ipv6.prefix));
            members.insert("ipv6-prefixlen".into(), json!(ipv6.prefix_len));
            members.insert("ipv6-host".into(), json!(ipv6.host));
            members.insert("ipv6-dns".into(), json!(ipv6.dns));
        }
        // With those that came and went since; the first one is set up last.
        let rules = host_forwards.iter().rev().map(|forward| json!({"str": forward.rule}));
        match rules.collect::<Vec<_>>() {
            none if none.is_empty() => drop(members.shift_remove("hostfwd")),
            rules => drop(members.insert("hostfwd".into(), json!(rules))),
        }
    }

    fn user_control(&self) -> Option<UserControl> {
        Some(self.0.control())
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        self.0.close()
    }
}
