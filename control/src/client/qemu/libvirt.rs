//! A machine as a part of libvirt's domain, to be copied into one: memory that is shared, and interfaces.

use std::fmt::Write;

use super::{End, MemorySize, Plug};

/// The part, well-formed by itself.
///
/// Errors: which port libvirt has no words for.
pub(super) fn domain(plugs: &[Plug], memory: Option<MemorySize>) -> Result<String, String> {
    let mut text = String::from("<domain>\n");
    if let Some(MemorySize { mib }) = memory {
        text += &format!("  <memory unit='MiB'>{mib}</memory>\n");
    }
    text +=
        "  <memoryBacking>\n    <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>\n";
    text += "  <devices>\n";
    for plug in plugs {
        text += &interface(plug)?;
    }
    text += "  </devices>\n</domain>\n";
    Ok(text)
}

fn interface(Plug { id, mac, end, .. }: &Plug) -> Result<String, String> {
    let End::VhostUser { socket, switch_listens, queues } = end else {
        return Err(format!(
            "{id}: libvirt attaches machines to vhost-user ports only; without --libvirt there is more"
        ));
    };
    let path = escaped(&socket.to_string_lossy());
    let mut text = String::new();
    let mut line = |line: &str| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "    {line}");
    };
    line("<interface type='vhostuser'>");
    line(&format!("  <mac address='{mac}'/>"));
    // To libvirt, who listens is the server; it speaks of the machine.
    match switch_listens {
        true => {
            line(&format!("  <source type='unix' path='{path}' mode='client'>"));
            line("    <reconnect enabled='yes' timeout='1'/>");
            line("  </source>");
        }
        false => line(&format!("  <source type='unix' path='{path}' mode='server'/>")),
    }
    line("  <model type='virtio'/>");
    let several = if *queues > 1 { format!(" queues='{queues}'") } else { String::new() };
    line(&format!("  <driver{several} rx_queue_size='1024' tx_queue_size='1024'/>"));
    line("</interface>");
    Ok(text)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '\'' => escaped += "&apos;",
            c => escaped.push(c),
        }
    }
    escaped
}
