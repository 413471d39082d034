//! The names of what a monitor's program has: for completion, so that whatever cannot be asked is just not offered.

use serde_json::{Value, json};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Netdevs.
    pub(crate) netdevs: Vec<String>,
    /// Nics and hub ports.
    pub(crate) others: Vec<String>,
    /// Chardevs.
    pub(crate) chardevs: Vec<String>,
}

impl Names {
    /// Asks for them; `execute` executes a command.
    pub(crate) fn ask(mut execute: impl FnMut(&str, Value) -> Option<Value>) -> Names {
        let mut names = Names::default();
        let network = execute("human-monitor-command", json!({"command-line": "info network"}));
        for line in network.as_ref().and_then(Value::as_str).unwrap_or_default().lines() {
            names.add_line(line);
        }
        let chardevs = execute("query-chardev", json!({})).unwrap_or_default();
        let labels = chardevs.as_array().into_iter().flatten();
        names.chardevs.extend(labels.filter_map(|chardev| chardev["label"].as_str()).map(str::to_owned));
        names
    }

    /// Takes in a line of `info network`: `NAME: …,type=TYPE,…`, or ` \ NAME` with or without the line of a peer.
    fn add_line(&mut self, line: &str) {
        let mut rest = line.strip_prefix(" \\ ").unwrap_or(line);
        if rest.starts_with(' ') || rest.starts_with("hub ") || rest == "filters:" {
            return;
        }
        // A hub port comes before its peer.
        while let Some((name, more)) = rest.split_once(": ") {
            let list = match more.starts_with("index=") && !more.contains("type=nic,") {
                true => &mut self.netdevs,
                false => &mut self.others,
            };
            insert(list, name);
            if more.starts_with("index=") {
                return;
            }
            rest = more;
        }
        insert(&mut self.others, rest);
    }

    /// What the member of that name may name.
    pub(crate) fn for_member(&self, key: &str) -> Vec<String> {
        match key.rsplit('.').next() {
            Some("chardev") => self.chardevs.clone(),
            Some("netdev") => self.netdevs.clone(),
            Some("id" | "name") => self.all(),
            _ => Vec::new(),
        }
    }

    /// Netdevs, nics and hub ports.
    pub(crate) fn all(&self) -> Vec<String> {
        self.netdevs.iter().chain(&self.others).cloned().collect()
    }
}

fn insert(list: &mut Vec<String>, name: &str) {
    if !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_what_the_human_monitor_says() {
        let network = "hub 7\r\n \\ h1: n1: index=0,type=vhost-user,vhost-user0 to c1\r\n \\ h0\r\n\
            g1: index=0,type=nic,model=virtio,macaddr=52:54:00:00:00:01\r\n \\ n1: index=0,type=vhost-user,x\r\n\
            t0: index=0,type=tap,ifname=t0\r\nfilters:\r\n  - f0: type=filter-dump\r\n";
        let names = Names::ask(|command, _| match command {
            "query-chardev" => Some(json!([{"label": "c1"}, {}])),
            _ => Some(json!(network)),
        });
        assert_eq!(names.netdevs, ["n1", "t0"]);
        assert_eq!(names.others, ["h1", "h0", "g1"]);
        assert_eq!(names.for_member("chardev"), ["c1"]);
        assert_eq!(names.for_member("id").len(), 5);
        assert!(names.for_member("ifname").is_empty());
        assert_eq!(Names::ask(|_, _| None), Names::default());
    }
}
