//! What the human monitor does with the networks of `user` netdevs. It asks helper processes, so it is done beside the
//! control thread, and yields what the monitor prints.

use ringyard_drivers::user::{HostEnd, HostForward, RequestError, UserControl};

/// One command, with whom to ask.
#[derive(Debug)]
pub enum Usernet {
    /// `hostfwd_add`
    AddHostForward {
        /// The network.
        network: UserControl,
        /// The rule.
        forward: HostForward,
    },
    /// `hostfwd_remove`
    RemoveHostForward {
        /// The network.
        network: UserControl,
        /// Where the host listens.
        end: HostEnd,
        /// The same as it was written.
        text: String,
    },
    /// `info usernet`
    Connections(Vec<NamedNetwork>),
}

/// A network as `info usernet` names it.
#[derive(Debug)]
pub struct NamedNetwork {
    /// The netdev.
    pub id: String,
    /// The hub that it is on.
    pub hub: Option<i32>,
    /// Whom to ask.
    pub network: UserControl,
}

impl Usernet {
    /// Does it; what the monitor prints.
    pub fn run(self) -> String {
        match self {
            Usernet::AddHostForward { network, forward } => match network.add_host_forward(forward) {
                Ok(()) => String::new(),
                Err(error) => format!("{error}\r\n"),
            },
            Usernet::RemoveHostForward { network, end, text } => match network.remove_host_forward(&end) {
                Ok(()) => format!("host forwarding rule for {text} removed\r\n"),
                Err(RequestError::NotFound) => format!("host forwarding rule for {text} not found\r\n"),
                Err(error) => format!("{error}\r\n"),
            },
            Usernet::Connections(networks) => networks.iter().map(connections).collect(),
        }
    }
}

fn connections(named: &NamedNetwork) -> String {
    let NamedNetwork { id, hub, network } = named;
    let text = match network.connections() {
        Ok(text) => text.lines().map(|line| format!("{line}\r\n")).collect(),
        Err(error) => format!("  {error}\r\n"),
    };
    format!("Hub {} ({id}):\r\n{text}", hub.unwrap_or(-1))
}
