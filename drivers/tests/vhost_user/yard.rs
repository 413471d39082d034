//! A switch with vhost-user ports on one hub, and the control loop that it needs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ringyard_dataplane::counters::PortCounters;
use ringyard_dataplane::drops::DropReason;
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::Attachment;
use ringyard_dataplane::snapshot::PortIndex;
use ringyard_dataplane::switch::{PortPlan, Switch, SwitchConfig};
use ringyard_dataplane::worker::Mode;
use ringyard_drivers::chardev::{SocketAccess, SocketChardev, SocketRole};
use ringyard_drivers::line::{Line, News, PortKey, Switchboard};
use ringyard_drivers::vhost_user::{Keeping, VhostUserPort};

pub struct Yard {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    board: Arc<Switchboard>,
    stop: Arc<AtomicBool>,
    control: Option<JoinHandle<()>>,
    pub ports: Vec<Option<VhostUserPort>>,
    pub chardevs: Vec<Arc<SocketChardev>>,
}

struct State {
    switch: Switch,
    ports: Vec<(PortIndex, Attachment)>,
    /// By port; others take everything.
    filters: HashMap<usize, Arc<RxFilter>>,
    announced: Vec<Mac>,
    standbys: usize,
    /// Connections that are yet to be gone on with before any frame moves, and what those that are there were told.
    awaited: usize,
    held: Vec<Sender<()>>,
}

impl Yard {
    /// With `count` ports of `queues` pairs that listen.
    pub fn new(count: usize, queues: u16) -> Yard {
        let mut yard = Yard::empty();
        for index in 0..count {
            let path = yard.path(index);
            yard.add(
                SocketChardev::open(&path, SocketRole::Server, &SocketAccess::default()).unwrap(),
                queues,
            );
        }
        yard
    }

    pub fn empty() -> Yard {
        Yard::after(0)
    }

    /// In place of a switch that was killed with `connections`.
    pub fn after(connections: usize) -> Yard {
        let config = SwitchConfig { cores: vec![None], mode: Mode::Adaptive };
        let switch = Switch::start(&config).unwrap();
        let (ports, filters, announced) = (Vec::new(), HashMap::new(), Vec::new());
        let (awaited, held) = (connections, Vec::new());
        let state = State { switch, ports, filters, announced, standbys: 0, awaited, held };
        let (state, board) = (Arc::new(Mutex::new(state)), Arc::new(Switchboard::new().unwrap()));
        let stop = Arc::new(AtomicBool::new(false));
        let control = {
            let (state, board, stop) = (state.clone(), board.clone(), stop.clone());
            thread::spawn(move || control(&state, &board, &stop))
        };
        Yard {
            dir: tempfile::tempdir().unwrap(),
            state,
            board,
            stop,
            control: Some(control),
            ports: Vec::new(),
            chardevs: Vec::new(),
        }
    }

    /// A port on `chardev`.
    pub fn add(&mut self, chardev: Arc<SocketChardev>, queues: u16) {
        self.add_kept(chardev, queues, Keeping::default());
    }

    /// A port on `chardev` whose connections are kept.
    pub fn add_kept(&mut self, chardev: Arc<SocketChardev>, queues: u16, keeping: Keeping) {
        let mut state = self.state.lock().unwrap();
        let index = state.switch.add_port().unwrap();
        state.ports.push((index, Attachment::default()));
        drop(state);
        let line = self.line(self.ports.len());
        self.ports.push(Some(VhostUserPort::start(chardev.clone(), queues, line, keeping).unwrap()));
        self.chardevs.push(chardev);
    }

    /// Lets a port that has no guest yet take frames for `mac` only, and broadcasts.
    pub fn set_mac(&self, port: usize, mac: Mac) {
        self.state.lock().unwrap().filters.insert(port, Arc::new(RxFilter::new(mac)));
    }

    /// What front ends had announced, oldest first.
    pub fn announced(&self) -> Vec<Mac> {
        self.state.lock().unwrap().announced.clone()
    }

    /// How often a driver took its nic for a standby.
    pub fn standbys(&self) -> usize {
        self.state.lock().unwrap().standbys
    }

    /// What a port's guest receives; `None`: everything.
    pub fn filter(&self, port: usize) -> Option<Arc<RxFilter>> {
        self.state.lock().unwrap().filters.get(&port).cloned()
    }

    pub fn line(&self, port: usize) -> Line {
        self.board.line(PortKey(port as u64))
    }

    pub fn path(&self, port: usize) -> PathBuf {
        self.dir.path().join(port.to_string())
    }

    pub fn attachment(&self, port: usize) -> Attachment {
        self.state.lock().unwrap().ports[port].1.clone()
    }

    pub fn carrier(&self, port: usize) -> bool {
        self.attachment(port).carrier
    }

    pub fn counters(&self, port: usize) -> PortCounters {
        let state = self.state.lock().unwrap();
        state.switch.counters(state.ports[port].0)
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.ports.clear();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}

fn control(state: &Mutex<State>, board: &Switchboard, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for report in board.drain() {
            state.lock().unwrap().take(report.port.0 as usize, report.news);
        }
        thread::sleep(Duration::from_micros(100));
    }
}

impl State {
    fn take(&mut self, port: usize, news: News) {
        let done = match news {
            News::Attached { attachment, done } => {
                self.ports[port].1 = attachment;
                Some(done)
            }
            News::Filter { filter, done } => {
                self.filters.insert(port, Arc::new(*filter));
                done
            }
            News::NoFilter => {
                self.filters.remove(&port);
                None
            }
            News::Dropped { frames } => {
                let index = self.ports[port].0;
                return self.switch.count_ingress_drops(index, DropReason::NoRoom, frames);
            }
            News::Announce { mac } => return self.announced.push(mac),
            News::Standby => {
                self.standbys += 1;
                return;
            }
            // A guest has no state to show, and is no stream.
            News::State { .. } | News::Connected { .. } | News::Disconnected => return,
        };
        let (index, attachment) = self.ports[port].clone();
        let filter = self.filters.get(&port).cloned();
        self.switch.set_port(index, PortPlan { hub: Some(0), link: true, filter, attachment });
        self.held.extend(done);
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited == 0 {
            self.switch.publish();
            self.held.drain(..).for_each(|done| done.send(()).unwrap_or_default());
        }
    }
}

/// Waits for `condition`, which must come true soon.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
