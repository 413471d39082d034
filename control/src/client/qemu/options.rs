//! A machine as QEMU's options, in one line for a shell.

use serde_json::{Map, Value};

use super::{End, MemorySize, Plug};

/// The line, and what there is to say about it.
///
/// `$(…)` splits it into words and takes no quotes away, so a word is quoted only where it has to be. Then the line is for
/// `eval`, which is said.
pub(super) fn line(
    plugs: &[Plug],
    memory: Option<MemorySize>,
    has_vectors: bool,
) -> (String, Option<&'static str>) {
    let words = words(plugs, memory, has_vectors);
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let note = (quoted != words).then_some(NEEDS_EVAL);
    (quoted.join(" ") + "\n", note)
}

fn words(plugs: &[Plug], memory: Option<MemorySize>, has_vectors: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    let shares_memory = plugs.iter().any(|plug| matches!(plug.end, End::VhostUser { .. }));
    if let Some(size) = memory.map(MemorySize::text) {
        add("-m", size.clone());
        if shares_memory {
            add("-object", format!("memory-backend-memfd,id={MEMORY},size={size},share=on"));
            add("-machine", format!("memory-backend={MEMORY}"));
        }
    }
    for plug in plugs {
        let Plug { id, device, mac, end } = plug;
        let mut nic = format!("virtio-net-pci,id={device},netdev={id},mac={mac}");
        match end {
            End::VhostUser { socket, switch_listens, queues } => {
                let role = if *switch_listens { "" } else { ",server=on" };
                let path = escaped(&socket.to_string_lossy());
                add("-chardev", format!("socket,id={id}-socket,path={path}{role}"));
                let several = if *queues > 1 { format!(",queues={queues}") } else { String::new() };
                add("-netdev", format!("vhost-user,id={id},chardev={id}-socket{several}"));
                nic += &device_options(*queues, has_vectors);
            }
            End::Netdev(members) => add("-netdev", keyval(members)),
        }
        add("-device", nic);
    }
    words
}

/// Rings as long as they can be, and with several queues an interrupt for each half of one, for changes of the
/// configuration, and for the control queue.
fn device_options(queues: u64, has_vectors: bool) -> String {
    let mut options = format!(",rx_queue_size={RING_SIZE},tx_queue_size={RING_SIZE}");
    if queues > 1 {
        options += ",mq=on";
    }
    if !has_vectors {
        options += ",vectors=0";
    } else if queues > 1 {
        options += &format!(",vectors={}", 2 * queues + 2);
    }
    options
}

/// A netdev's members as an option's value, its type first.
fn keyval(members: &Map<String, Value>) -> String {
    let mut parts = Vec::new();
    flatten("", members, &mut parts);
    // The type needs no key.
    parts.join(",").trim_start_matches("type=").to_owned()
}

fn flatten(place: &str, members: &Map<String, Value>, parts: &mut Vec<String>) {
    for (member, value) in members {
        let key = format!("{place}{member}");
        match value {
            Value::Object(members) => flatten(&format!("{key}."), members, parts),
            Value::Bool(true) => parts.push(format!("{key}=on")),
            Value::Bool(false) => parts.push(format!("{key}=off")),
            Value::String(text) => parts.push(format!("{key}={}", escaped(text))),
            value => parts.push(format!("{key}={value}")),
        }
    }
}

/// In QEMU's lists a comma within a value is written twice.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// A word that a shell reads as this one.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The id of the machine's memory.
const MEMORY: &str = "ringyard-memory";
/// The longest that QEMU has.
const RING_SIZE: u32 = 1024;
const NEEDS_EVAL: &str =
    "a path needs quotes, which $(…) does not take away: write eval \"qemu-system-x86_64 $(…)\"";
