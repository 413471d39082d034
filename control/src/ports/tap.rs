//! `tap`: opened by name, or made of descriptors that were passed.

use std::io;
use std::path::{Path, PathBuf};

use ringyard_dataplane::port::Attachment;
use ringyard_drivers::line::Line;
use ringyard_drivers::tap::{self, TapOptions, TapPort, VnetHeader};
use serde_json::{Map, Value, json};

use crate::port::{OpenPort, Opening, PortSpec};
use crate::wire::FdRef;

/// A `tap` that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSpec {
    /// Where the descriptors come from.
    pub source: TapSource,
    /// For TUNSETSNDBUF; `i32::MAX`, which is also the default, means no limit.
    pub sndbuf_bytes: i32,
}

/// Where a tap's descriptors come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapSource {
    /// `/dev/net/tun`, opened by us.
    Name {
        /// At most 15 bytes; the kernel's `tap%d` without one.
        ifname: Option<String>,
        /// Run with the name once the interface exists.
        script: Script,
        /// Run with the name before it goes.
        downscript: Script,
        /// Queue pairs, 1 to 256.
        queues: u16,
        /// Whether to ask for the virtio-net header: where the kernel can, if nothing was said.
        vnet_hdr: VnetHeader,
    },
    /// One descriptor, whose interface is asked whether it has the header.
    Fd(FdRef),
    /// One descriptor a queue pair, at least one.
    Fds(Vec<FdRef>),
    /// One that a program opens for us.
    Helper {
        /// The program's path, or a shell command.
        helper: String,
        /// The bridge that it is to be on.
        bridge: String,
    },
}

/// A script around an interface's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// None.
    Off,
    /// Nothing was said: this one, if it is installed.
    Default(PathBuf),
    /// This one; it is an error if it is missing or fails.
    Run(PathBuf),
}

impl PortSpec for TapSpec {
    fn type_name(&self) -> &'static str {
        "tap"
    }

    fn fds(&self) -> Vec<FdRef> {
        match &self.source {
            TapSource::Name { .. } | TapSource::Helper { .. } => Vec::new(),
            TapSource::Fd(fd) => vec![fd.clone()],
            TapSource::Fds(fds) => fds.clone(),
        }
    }

    fn commands(&self) -> Vec<Vec<String>> {
        let named = |script: &Script| match script {
            Script::Off => None,
            Script::Default(path) | Script::Run(path) => Some(path.display().to_string()),
        };
        let words = match &self.source {
            TapSource::Name { script, downscript, .. } => vec![named(script), named(downscript)],
            TapSource::Helper { helper, .. } => vec![Some(helper.clone())],
            TapSource::Fd(_) | TapSource::Fds(_) => Vec::new(),
        };
        words.into_iter().flatten().map(|word| vec![word]).collect()
    }

    fn open(&self, opening: Opening) -> Result<Box<dyn OpenPort>, String> {
        let (source, script, downscript) = match &self.source {
            TapSource::Name { ifname, script, downscript, queues, vnet_hdr } => {
                let source =
                    tap::TapSource::Name { ifname: ifname.clone(), queues: *queues, vnet_hdr: *vnet_hdr };
                (source, installed(script), installed(downscript))
            }
            TapSource::Fd(_) | TapSource::Fds(_) => (tap::TapSource::Fds(opening.fds), None, None),
            TapSource::Helper { helper, bridge } => {
                let source = tap::TapSource::Helper { helper: helper.clone(), bridge: bridge.clone() };
                (source, None, None)
            }
        };
        let options = TapOptions {
            source,
            script: script.clone(),
            downscript: downscript.clone(),
            sndbuf_bytes: self.sndbuf_bytes,
            drawer: opening.drawer,
        };
        let port = TapPort::open(options).map_err(|error| error.to_string())?;
        let helper = match &self.source {
            TapSource::Helper { helper, bridge } => Some((helper.clone(), bridge.clone())),
            _ => None,
        };
        Ok(Box::new(OpenTap { port, fds: self.fds(), helper, script, downscript }))
    }
}

/// A tap with what its options came to.
struct OpenTap {
    port: TapPort,
    /// As they were named; none for a tap that has a name.
    fds: Vec<FdRef>,
    /// Who opened it, and on what bridge, if it was not us.
    helper: Option<(String, String)>,
    /// The script that was run.
    script: Option<PathBuf>,
    /// The script that will be run.
    downscript: Option<PathBuf>,
}

impl OpenPort for OpenTap {
    fn attachment(&self) -> Attachment {
        self.port.attachment()
    }

    fn start(&mut self, line: Line) -> io::Result<()> {
        let info = self.info(0);
        self.port.start(line, info)
    }

    fn info(&self, queue: usize) -> String {
        if let Some((helper, bridge)) = &self.helper {
            return format!("helper={helper},br={bridge}");
        }
        match self.fds.get(queue) {
            Some(FdRef::Number(number)) => format!("fd={number}"),
            Some(FdRef::Name(name)) => format!("fd={name}"),
            Some(FdRef::Set(id) | FdRef::WritableSet(id)) => format!("fd=/dev/fdset/{id}"),
            None => {
                let (script, downscript) = (script_name(&self.script), script_name(&self.downscript));
                format!("ifname={},script={script},downscript={downscript}", self.port.ifname())
            }
        }
    }

    fn queues(&self) -> usize {
        self.port.queues()
    }

    /// Takes out, too, what goes without saying.
    fn complete(&self, members: &mut Map<String, Value>) {
        if let Some(fd) = members.shift_remove("fd") {
            members.insert("fds".into(), fd);
        }
        for member in ["vnet_hdr", "vhost"] {
            if members.get(member) == Some(&json!(false)) {
                members.shift_remove(member);
            }
        }
        if let Some((_, bridge)) = &self.helper {
            members.insert("br".into(), json!(bridge));
        } else if self.fds.is_empty() {
            members.insert("ifname".into(), json!(self.port.ifname()));
            members.insert("script".into(), json!(script_name(&self.script)));
            members.insert("downscript".into(), json!(script_name(&self.downscript)));
        }
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        let name = self.port.ifname().to_owned();
        self.port.close().map_err(|error| format!("closing the tap {name}: {error}"))
    }
}

/// The script to run: a default one only if it is there.
fn installed(script: &Script) -> Option<PathBuf> {
    match script {
        Script::Off => None,
        Script::Default(path) => Path::exists(path).then(|| path.clone()),
        Script::Run(path) => Some(path.clone()),
    }
}

/// How a script, or none, is written.
fn script_name(script: &Option<PathBuf>) -> String {
    script.as_deref().unwrap_or(Path::new("no")).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_script_runs_only_where_it_is_installed() {
        assert_eq!(installed(&Script::Default("/no/such/script".into())), None);
        assert_eq!(installed(&Script::Default("/".into())), Some("/".into()));
        assert_eq!(installed(&Script::Run("/no/such/script".into())), Some("/no/such/script".into()));
        assert_eq!(installed(&Script::Off), None);
    }
}
