//! Reloads: what they do and say, and what they leave alone.

use std::fs;

use super::*;

/// A run that was begun with an empty file, beside a monitor.
struct Yard {
    running: Running,
    client: TestClient,
}

impl Yard {
    fn new(text: &str) -> Yard {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let file = directory.path().join("yard.toml");
        fs::write(&file, in_directory(text, directory.path())).expect("it is writable");
        let monitor = format!("unix:{},server=on,wait=off", directory.path().join("qmp").display());
        let line = ["ringyard", "run", "-qmp", &monitor, "-c", &file.display().to_string()];
        let stopper = stopper();
        let (config, source) = match crate::cli::parse(line.iter().map(Into::into)) {
            Ok(crate::cli::Invocation::Run { config, source }) => (config, source),
            other => panic!("{other:?}"),
        };
        let control = Control::start(&config, stopper.clone()).expect("it can be started").reloading(source);
        let thread = Some(thread::spawn(|| control.run()));
        let running = Running { directory, stopper, thread };
        let client = running.client();
        Yard { running, client }
    }

    fn write(&self, text: &str) {
        let text = in_directory(text, self.running.directory.path());
        fs::write(self.running.path("yard.toml"), text).expect("it is writable");
    }

    /// What a reload of this text returns.
    fn reload(&mut self, text: &str) -> Value {
        self.write(text);
        self.client.execute("x-reload", json!({})).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(&mut self, text: &str) -> String {
        self.write(text);
        let error = self.client.execute("x-reload", json!({})).expect_err(text);
        error.replace(&format!("{}:", self.running.path("yard.toml").display()), "")
    }

    fn ask(&mut self, command: &str) -> Value {
        self.client.execute(command, json!({})).expect(command)
    }

    fn info(&mut self) -> String {
        let line = json!({"command-line": "info network"});
        let text = self.client.execute("human-monitor-command", line).expect("it never fails");
        text.as_str().expect("it is a text").replace("\r\n", "\n")
    }

    /// Waits for a socket that a stream makes when it has come to that.
    fn wait_for(&mut self, socket: &str) {
        while !self.running.path(socket).exists() {
            self.ask("query-status");
        }
    }

    fn generation(&mut self) -> u64 {
        self.ask("x-query-stats")["generation"].as_u64().expect("it is a number")
    }

    /// All ids of netdevs, nics and hub ports, in their alphabet's order.
    fn ids(&mut self) -> Vec<String> {
        let config = self.ask("x-query-config");
        let tables = ["netdev", "nic"].map(|name| config[name].as_array().cloned().unwrap_or_default());
        let ids = tables.iter().flatten().map(|table| table["id"].as_str().unwrap_or("?").to_owned());
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }
}

/// `DIR` stands for the run's directory.
fn in_directory(text: &str, directory: &Path) -> String {
    text.replace("DIR", &directory.display().to_string())
}

/// A report without its empty lists.
fn told(report: &Value) -> Value {
    let lists = report.as_object().expect("it is an object");
    assert_eq!(lists.len(), 6, "every list is there: {report}");
    let full = lists.iter().filter(|(_, list)| list.as_array().is_some_and(|list| !list.is_empty()));
    full.map(|(name, list)| (name.clone(), list.clone())).collect::<serde_json::Map<_, _>>().into()
}

/// A stream netdev that listens, and its hub port.
fn stream(number: u32, hub: i32) -> String {
    format!(
        "[[netdev]]\ntype='stream'\nid='s{number}'\nserver=true\naddr={{type='unix',path='DIR/s{number}'}}\n\
         [[netdev]]\ntype='hubport'\nid='h{number}'\nhubid={hub}\nnetdev='s{number}'\n"
    )
}

/// A chardev, the vhost-user netdev on it and its nic.
fn guest(socket: &str, mac: &str) -> String {
    format!(
        "[[chardev]]\ntype='socket'\nid='c'\npath='DIR/{socket}'\nserver=true\n\
         [[netdev]]\ntype='vhost-user'\nid='n'\nchardev='c'\n\
         [[nic]]\nid='g'\nnetdev='n'\nmacaddr='{mac}'\n\
         [[netdev]]\ntype='hubport'\nid='p'\nhubid=0\nnetdev='n'\n"
    )
}

const MAC: &str = "52:54:00:00:00:01";

#[test]
fn the_difference_is_applied_and_told() {
    let mut yard = Yard::new("");
    let report = yard.reload(&(guest("vm", MAC) + &stream(1, 0) + "[[hub]]\nid=7\n"));
    let added = ["chardev.c", "netdev.n", "netdev.s1", "nic.g", "netdev.p", "netdev.h1"];
    assert_eq!(told(&report), json!({"added": added, "changed": ["hub.7"]}));
    assert_eq!(yard.ids(), ["g", "h1", "n", "p", "s1"]);
    let report = yard.reload(&(guest("vm", MAC) + &stream(2, 0)));
    let expected = json!({"added": ["netdev.s2", "netdev.h2"], "deleted": ["netdev.s1", "netdev.h1"]});
    assert_eq!(told(&report), expected);
    assert_eq!(yard.ids(), ["g", "h2", "n", "p", "s2"]);
    yard.wait_for("s2");
    assert!(!yard.running.path("s1").exists());
    assert_eq!(
        told(&yard.reload("")),
        json!({"deleted": ["chardev.c", "netdev.n", "nic.g", "netdev.p", "netdev.s2", "netdev.h2"]})
    );
    assert_eq!((yard.ids().len(), yard.ask("query-chardev")), (0, json!([])));
}

#[test]
fn a_reload_that_changes_nothing_publishes_nothing() {
    let text = guest("vm", MAC)
        + &stream(1, 0)
        + "[[hub]]\nid=0\nageing_s=60\n[switch]\nname='a'\nmode='adaptive'\n";
    let mut yard = Yard::new(&text);
    let (generation, info) = (yard.generation(), yard.info());
    for _ in 0..3 {
        assert_eq!(told(&yard.reload(&text)), json!({}));
    }
    assert_eq!((yard.generation(), yard.info()), (generation, info));
}

#[test]
fn what_needs_no_opening_takes_one_publish() {
    let text = guest("vm", MAC) + &stream(1, 0);
    let mut yard = Yard::new(&text);
    let generation = yard.generation();
    let moved = text.replace("hubid=0", "hubid=5").replace(MAC, "52:54:00:00:00:02")
        + "[[hub]]\nid=5\nlearning=false\n[[netdev]]\ntype='hubport'\nid='lone'\nhubid=5\n";
    let expected = json!({"added": ["netdev.lone"], "changed": ["nic.g", "netdev.p", "netdev.h1", "hub.5"]});
    assert_eq!(told(&yard.reload(&moved)), expected);
    assert_eq!(yard.generation(), generation + 1);
    let stats = yard.ask("x-query-stats");
    assert_eq!((&stats["ports"][0]["hub"], &stats["ports"][1]["hub"]), (&json!(5), &json!(5)));
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let mut yard = Yard::new(&stream(1, 0));
    let (generation, info) = (yard.generation(), yard.info());
    for (text, expected) in [
        ("[[netdev]]\ntype='tap'\nid='t'\nx=1", "4:1: Parameter 'x' is unexpected"),
        ("[switch\n", "1:8: unclosed table, expected `]`"),
        ("[[nic]]\nnetdev='s1'", "2:8: netdev 's1' not found"),
        ("[sockets]\ngroup='no such group'", "there is no group 'no such group'"),
    ] {
        let error = yard.refused(text);
        assert!(error.starts_with("GenericError: ") && error.contains(expected), "{error}");
    }
    fs::remove_file(yard.running.path("yard.toml")).expect("it is there");
    let error = yard.client.execute("x-reload", json!({})).expect_err("there is no file");
    assert!(error.ends_with("yard.toml: No such file or directory (os error 2)"), "{error}");
    assert_eq!((yard.generation(), yard.info()), (generation, info));
}

#[test]
fn what_clients_made_stays() {
    let mut yard = Yard::new(&stream(1, 0));
    for id in ["mine", "other"] {
        yard.client.done("netdev_add", json!({"type": "hubport", "id": id, "hubid": 0}));
    }
    let port = |id: &str, hub: i32| format!("[[netdev]]\ntype='hubport'\nid='{id}'\nhubid={hub}\n");
    let report = yard.reload(&(port("mine", 0) + &port("other", 4)));
    let desc = "'other' was made by a client, with other members";
    let expected = json!({
        "deleted": ["netdev.s1", "netdev.h1"],
        "failed": [{"id": "netdev.other", "desc": desc}],
    });
    assert_eq!(told(&report), expected, "what is as it shall be is neither new nor changed");
    assert_eq!(yard.ids(), ["mine", "other"]);
    // From when the file has it, it is the file's.
    assert_eq!(told(&yard.reload("")), json!({"deleted": ["netdev.mine"]}));
    assert_eq!(yard.ids(), ["other"]);
}

#[test]
fn what_stands_on_a_netdev_that_is_made_anew_stays() {
    let text = stream(1, 0) + "[[nic]]\nid='g'\nnetdev='s1'\nmacaddr='52:54:00:00:00:01'\n";
    let mut yard = Yard::new(&text);
    yard.wait_for("s1");
    yard.client.done("set_link", json!({"name": "h1", "up": false}));
    yard.client.done("x-set-rx-filter", json!({"name": "g", "promiscuous": true}));
    let filters = yard.ask("query-rx-filter");
    // The same socket in other words: it has to be closed before it is opened.
    let other = text.replace("'DIR/s1'", "'DIR/s1',abstract=false");
    assert_eq!(told(&yard.reload(&other)), json!({"replaced": ["netdev.s1"]}));
    yard.wait_for("s1");
    assert_eq!(yard.ask("query-rx-filter"), filters);
    let port = yard.ask("x-query-stats")["ports"][0].clone();
    assert_eq!((&port["hub"], &port["link"]), (&json!(0), &json!(false)));
    let config = yard.ask("x-query-config");
    assert_eq!(config["unwritable"], json!([]), "nothing is left without its netdev");
}

#[test]
fn a_chardev_that_changes_takes_its_guest_along() {
    let mut yard = Yard::new(&(guest("vm", MAC) + &stream(1, 0)));
    let report = yard.reload(&(guest("other", MAC) + &stream(1, 0)));
    assert_eq!(told(&report), json!({"replaced": ["chardev.c", "netdev.n"]}));
    assert!(yard.running.path("other").exists() && !yard.running.path("vm").exists());
    FrontEnd::connect(&yard.running.path("other"), &GuestConfig::default())
        .expect("the netdev serves the new socket");
    assert!(yard.info().contains("g: "), "{}", yard.info());
}

#[test]
fn a_chardev_that_a_client_uses_is_left_alone() {
    let chardev = "[[chardev]]\ntype='socket'\nid='c'\npath='DIR/c'\nserver=true\n";
    let mut yard = Yard::new(chardev);
    yard.client.done("netdev_add", json!({"type": "vhost-user", "id": "n", "chardev": "c"}));
    let failed = json!({"failed": [{"id": "chardev.c", "desc": "Chardev 'c' is busy"}]});
    assert_eq!(told(&yard.reload("")), failed);
    assert_eq!(told(&yard.reload(&chardev.replace("/c'", "/d'"))), failed);
    yard.client.done("netdev_del", json!({"id": "n"}));
    assert_eq!(told(&yard.reload("")), json!({"deleted": ["chardev.c"]}));
}

#[test]
fn a_nic_gets_another_address_and_keeps_its_filter() {
    let mut yard = Yard::new(&guest("vm", MAC));
    yard.client.done("x-set-rx-filter", json!({"name": "g", "multicast-table": ["33:33:00:00:00:01"]}));
    yard.ask("query-rx-filter");
    let report = yard.reload(&guest("vm", "52:54:00:00:00:09"));
    assert_eq!(told(&report), json!({"changed": ["nic.g"]}));
    assert_eq!(yard.client.event("NIC_RX_FILTER_CHANGED")["data"]["name"], "g");
    let filter = yard.ask("query-rx-filter")[0].clone();
    assert_eq!(filter["main-mac"], "52:54:00:00:00:09");
    assert_eq!(filter["multicast-table"], json!(["33:33:00:00:00:01"]));
    // What the file does not change stays as it was set.
    yard.client.done("x-set-rx-filter", json!({"name": "g", "main-mac": MAC}));
    let text = guest("vm", "52:54:00:00:00:09").replace("netdev='n'\nmac", "netdev='n'\nvectors=3\nmac");
    assert_eq!(told(&yard.reload(&text)), json!({"changed": ["nic.g"]}));
    assert_eq!(yard.ask("query-rx-filter")[0]["main-mac"], MAC);
}

#[test]
fn one_failure_does_not_stop_the_rest_and_is_tried_again() {
    let mut yard = Yard::new("");
    let lost = "[[netdev]]\ntype='dgram'\nid='s1'\nlocal={type='unix',path='DIR/no/such/d'}\n\
        remote={type='unix',path='DIR/r'}\n[[netdev]]\ntype='hubport'\nid='h1'\nhubid=0\nnetdev='s1'\n";
    let report = yard.reload(&(lost.to_owned() + &stream(2, 0)));
    assert_eq!(report["added"], json!(["netdev.s2", "netdev.h2"]));
    let failed: Vec<&str> = report["failed"]
        .as_array()
        .expect("it is a list")
        .iter()
        .map(|failure| failure["id"].as_str().expect("it is a text"))
        .collect();
    assert_eq!(failed, ["netdev.s1", "netdev.h1"]);
    assert_eq!(report["failed"][1]["desc"], "netdev 's1' not found");
    fs::create_dir_all(yard.running.path("no/such")).expect("it is writable");
    assert_eq!(
        told(&yard.reload(&(lost.to_owned() + &stream(2, 0)))),
        json!({"added": ["netdev.s1", "netdev.h1"]})
    );
}

#[test]
fn settings_change_while_it_runs_or_are_said_to_need_another_run() {
    let mut yard = Yard::new("[switch]\nname='a'\nworkers=1\n");
    let report = yard.reload(
        "[switch]\nname='b'\nworkers=2\nmode='poll'\nfull-receiver='drop'\n[sockets]\nmode='0660'\n[log]\nlevel='warn'\n",
    );
    let expected = json!({
        "changed": ["switch.name", "switch.full-receiver", "sockets.mode", "log.level"],
        "restart-needed": ["switch.workers", "switch.mode"],
    });
    assert_eq!(told(&report), expected);
    assert_eq!(yard.ask("query-name"), json!({"name": "b"}));
    let config = yard.ask("x-query-config");
    let switch = json!({"name": "b", "workers": 1, "mode": "adaptive", "full-receiver": "drop"});
    assert_eq!((&config["switch"], &config["sockets"]), (&switch, &json!({"mode": "0660"})));
    assert_eq!(config["log"], json!({"level": "warn"}));
    yard.client.add_chardev("c", &yard.running.path("vm"));
    let mode = fs::metadata(yard.running.path("vm")).expect("it was just made").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let again = yard.reload(
        "[switch]\nname='b'\nworkers=2\nfull-receiver='drop'\n[sockets]\nmode='0660'\n[log]\nlevel='warn'",
    );
    assert_eq!(told(&again), json!({"restart-needed": ["switch.workers"]}));
}

#[test]
fn hubs_learn_as_the_file_says_until_it_says_so_no_more() {
    let mut yard = Yard::new("[[hub]]\nid=3\nlearning=false\n");
    yard.client.done("x-set-hub", json!({"hubid": 3, "learning": true, "ageing": 9}));
    assert_eq!(
        told(&yard.reload("[[hub]]\nid=3\nlearning=false\n[[hub]]\nid=4\n")),
        json!({"changed": ["hub.4"]})
    );
    let hubs = yard.ask("x-query-config")["hub"].clone();
    let hub = |id, learning, ageing| json!({"id": id, "learning": learning, "ageing_s": ageing});
    assert_eq!(hubs, json!([hub(3, true, 9), hub(4, true, 300)]), "what a client set is not what changed");
    assert_eq!(told(&yard.reload("[[hub]]\nid=3\nageing_s=60\n")), json!({"changed": ["hub.3"]}));
    assert_eq!(yard.ask("x-query-config")["hub"][0], hub(3, true, 60));
    assert_eq!(told(&yard.reload("")), json!({"changed": ["hub.3"]}));
    assert_eq!(yard.ask("x-query-config")["hub"][0], hub(3, true, 300));
}

#[test]
fn monitors_come_and_go() {
    let mut yard = Yard::new("");
    let monitor = |name: &str| format!("'unix:DIR/{name},server=on,wait=off'");
    let name = |yard: &Yard, name: &str| {
        in_directory(&format!("qmp.unix:DIR/{name},server=on,wait=off"), yard.running.directory.path())
    };
    let (a, b) = (name(&yard, "a"), name(&yard, "b"));
    assert_eq!(told(&yard.reload(&format!("qmp=[{}]", monitor("a")))), json!({"added": [a]}));
    let mut client = yard.running.client_at("a");
    let mut idle = yard.running.client_at("a");
    // The client that asks for it is answered before it is let go.
    yard.write(&format!("qmp=[{}]", monitor("b")));
    let report = client.execute("x-reload", json!({})).expect("nothing is wrong");
    assert_eq!(told(&report), json!({"added": [b], "deleted": [a]}));
    assert!(client.is_closed() && idle.is_closed());
    assert!(!yard.running.path("a").exists());
    // The same place in another form: one goes before the other comes.
    let pretty = "qmp=['unix:DIR/b,server=on,wait=off,pretty=on']";
    let report = yard.reload(pretty);
    assert_eq!(told(&report), json!({"added": [format!("{b},pretty=on")], "deleted": [b]}));
    assert!(yard.running.path("b").exists());
    assert_eq!(told(&yard.reload(pretty)), json!({}));
    let failed = yard.reload("qmp=['unix:DIR/no/such/place,server=on']");
    assert_eq!((&failed["added"], failed["failed"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    let config = yard.ask("x-query-config");
    assert_eq!(config["qmp"].as_array().map(Vec::len), Some(1), "{config}");
    assert_eq!(told(&yard.reload("qmp=['stdio']")), json!({"restart-needed": ["qmp.stdio"]}));
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let mut yard = Yard::new(&stream(1, 0));
    let info = yard.info();
    yard.write(&(stream(2, 0) + "[switch]\nname='b'\n"));
    let report = yard.client.execute("x-reload", json!({"dry-run": true})).expect("nothing is wrong");
    let expected = json!({
        "added": ["netdev.s2", "netdev.h2"],
        "deleted": ["netdev.s1", "netdev.h1"],
        "changed": ["switch.name"],
    });
    assert_eq!(told(&report), expected);
    assert_eq!((yard.info(), yard.ask("query-name")), (info, json!({})));
    assert_eq!(told(&yard.client.execute("x-reload", json!({})).expect("nothing is wrong")), expected);
}

#[test]
fn another_file_is_the_file_from_then_on() {
    let mut yard = Yard::new(&stream(1, 0));
    let (other, fine) =
        (yard.running.path("other.toml"), in_directory(&stream(2, 0), yard.running.directory.path()));
    fs::write(&other, "x=1").expect("it is writable");
    let file = json!({"file": other});
    yard.client.execute("x-reload", file.clone()).expect_err("nobody knows x");
    assert_eq!(told(&yard.client.execute("x-reload", json!({})).expect("it is the first file")), json!({}));
    fs::write(&other, fine).expect("it is writable");
    yard.client.execute("x-reload", file).expect("nothing is wrong");
    assert_eq!(told(&yard.client.execute("x-reload", json!({})).expect("it is the second file")), json!({}));
    assert_eq!(yard.ids(), ["h2", "s2"]);
}

#[test]
fn there_is_one_reload_at_a_time_and_a_wish_meanwhile_is_kept() {
    let mut yard = Yard::new("");
    let fifo = yard.running.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("every machine has it").success());
    let line = json!({"execute": "x-reload", "arguments": {"file": fifo}}).to_string();
    yard.client.send(line.as_bytes());
    let mut other = yard.running.client();
    while other.execute("x-reload", json!({"file": "/no/such/file"})).expect_err("there is none")
        != "GenericError: a reload is under way"
    {}
    yard.write(&stream(1, 0));
    yard.running.stopper.reload();
    // Whoever is not concerned does not wait.
    other.done("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 0}));
    fs::write(&fifo, "x=1").expect("the reload reads it");
    let error = yard.client.reply().expect_err("nobody knows x");
    assert!(error.contains("fifo:1:1: Parameter 'x' is unexpected"), "{error}");
    while yard.ids() != ["h", "h1", "s1"] {}
}

#[test]
fn a_hangup_reloads() {
    let mut yard = Yard::new("");
    for (text, expected) in
        [(stream(1, 0), &["h1", "s1"][..]), ("x = 1".into(), &["h1", "s1"]), (stream(2, 0), &["h2", "s2"])]
    {
        yard.write(&text);
        yard.running.stopper.reload();
        while yard.ids() != expected {}
    }
}

#[test]
fn a_run_without_a_file_says_so() {
    let running = Running::start();
    let mut client = running.client();
    let error = client.execute("x-reload", json!({})).expect_err("there is no file");
    assert!(error.contains("there is no configuration file: name one with 'file'"), "{error}");
    // Its monitor was not read from a command line here.
    fs::write(running.path("f"), in_directory(&stream(1, 0), running.directory.path()))
        .expect("it is writable");
    let report = client.execute("x-reload", json!({"file": running.path("f")})).expect("nothing is wrong");
    assert_eq!(report["added"], json!(["netdev.s1", "netdev.h1"]));
}

#[test]
fn what_no_file_can_make_is_told_apart() {
    let mut yard = Yard::new(&stream(1, 0));
    let (ours, _theirs) = UnixStream::pair().expect("a pair of sockets can be made");
    let getfd = json!({"execute": "getfd", "arguments": {"fdname": "x"}}).to_string();
    yard.client.pass(getfd.as_bytes(), &ours);
    assert_eq!(yard.client.reply(), Ok(json!({})));
    let addr = json!({"type": "fd", "str": "x"});
    yard.client.done("netdev_add", json!({"type": "stream", "id": "passed", "addr": addr, "server": false}));
    yard.client.done("netdev_add", json!({"type": "hubport", "id": "above", "hubid": 0, "netdev": "passed"}));
    yard.client.done("netdev_del", json!({"id": "s1"}));
    let config = yard.ask("x-query-config");
    assert_eq!((&config["netdev"], &config["nic"]), (&json!([]), &json!([])));
    let port = |id: &str, below: &str, reason: &str| json!({"type": "hubport", "id": id, "hubid": 0, "netdev": below, "table": "netdev", "reason": reason});
    let passed = json!({
        "type": "stream", "id": "passed", "addr": addr, "server": false,
        "table": "netdev", "reason": "a client passed the descriptor 'x'",
    });
    let expected = [
        passed,
        port("h1", "s1", "its netdev 's1' is gone"),
        port("above", "passed", "it stands on 'passed'"),
    ];
    assert_eq!(config["unwritable"], json!(expected));
}

/// A dump of a stream netdev.
fn dump(id: &str, number: u32, more: &str) -> String {
    format!("[[object]]\nqom-type='filter-dump'\nid='{id}'\nnetdev='s{number}'\nfile='DIR/{id}.pcap'\n{more}")
}

#[test]
fn dumps_come_and_go_with_the_file_and_with_their_netdev() {
    let begun = stream(1, 0) + &dump("f1", 1, "") + &dump("f2", 1, "position='id=f1'\ninsert='before'\n");
    let mut yard = Yard::new(&begun);
    let listed = |yard: &mut Yard| {
        let info = yard.info();
        let ids = info.lines().filter_map(|line| line.strip_prefix("  - ")?.split(':').next());
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut yard), ["f2", "f1"]);
    let objects = yard.ask("x-query-config")["object"].clone();
    let ids: Vec<&Value> =
        objects.as_array().expect("it is a list").iter().map(|table| &table["id"]).collect();
    assert_eq!(ids, ["f1", "f2"], "in the order in which they can be made again");
    assert_eq!(told(&yard.reload(&begun)), json!({}));
    let report = yard.reload(&(stream(1, 0) + &dump("f1", 1, "") + &dump("f3", 1, "queue='tx'\n")));
    assert_eq!(told(&report), json!({"added": ["object.f3"], "deleted": ["object.f2"]}));
    let report =
        yard.reload(&(stream(1, 0) + &dump("f1", 1, "maxlen=100\n") + &dump("f3", 1, "queue='tx'\n")));
    assert_eq!(told(&report), json!({"replaced": ["object.f1"]}));
    assert_eq!(listed(&mut yard), ["f3", "f1"]);
    // Another netdev of the same name: its dumps are made anew with it.
    let other = stream(1, 0).replace("server=true\naddr", "server=false\nreconnect=1\naddr");
    let report = yard.reload(&(other + &dump("f1", 1, "maxlen=100\n") + &dump("f3", 1, "queue='tx'\n")));
    assert_eq!(told(&report), json!({"replaced": ["netdev.s1", "object.f1", "object.f3"]}));
    assert_eq!(listed(&mut yard), ["f1", "f3"]);
    let why =
        yard.reload(&(stream(1, 0) + &dump("f4", 1, "").replace("DIR/", "/no/such/")))["failed"][0].clone();
    let desc = "net dump: can't open /no/such/f4.pcap: No such file or directory";
    assert_eq!(why, json!({"id": "object.f4", "desc": desc}));
    assert_eq!(listed(&mut yard), [""; 0]);
    assert!(yard.running.path("f1.pcap").exists());
}

#[test]
fn dumps_of_clients_stay_and_what_they_passed_is_told_apart() {
    let mut yard = Yard::new(&stream(1, 0));
    let file = tempfile::tempfile().expect("the temporary directory is writable");
    yard.client.pass(br#"{"execute":"add-fd","arguments":{"fdset-id":3}}"#, &file);
    assert!(yard.client.reply().is_ok());
    let object =
        |id: &str, file: &str| json!({"qom-type": "filter-dump", "id": id, "netdev": "s1", "file": file});
    yard.client.done("object-add", object("passed", "/dev/fdset/3"));
    let own = yard.running.path("own.pcap").display().to_string();
    yard.client.done("object-add", object("own", &own));
    assert_eq!(told(&yard.reload(&stream(1, 0))), json!({}));
    let config = yard.ask("x-query-config");
    assert_eq!(config["object"], json!([object("own", &own)]));
    let reason = "a client passed the descriptor of /dev/fdset/3";
    let mut passed = object("passed", "/dev/fdset/3");
    (passed["table"], passed["reason"]) = (json!("object"), json!(reason));
    assert_eq!(config["unwritable"], json!([passed]));
}
