//! Objects made, tied together, changed and deleted, without a monitor in between.

use std::path::PathBuf;

use ringyard_dataplane::filter::{RxFilter, RxState};
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::Attachment;
use ringyard_dataplane::worker::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::qapi::{ErrorClass, Flags, Form, Visitor, parse_keyval};
use crate::wire::{ChardevAdd, NetdevAdd, SetLink, XQueryStats, XSetRxFilter, XSetWorker};

mod object;

/// A model whose jobs are run at once, with a directory for its sockets.
struct Yard {
    model: Model,
    directory: TempDir,
}

impl Yard {
    fn new() -> Yard {
        let config = SwitchConfig { cores: vec![None], mode: Mode::Adaptive };
        let access = Arc::new(SocketAccess { mode: 0o600, group: None });
        let model = Model::new(&config, access, Store::none()).expect("a worker can be started");
        Yard { model, directory: tempfile::tempdir().expect("the temporary directory is writable") }
    }

    /// A yard with the vhost-user netdevs `n0` and `n1` on the chardevs `c0` and `c1`.
    fn with_two_netdevs() -> Yard {
        let mut yard = Yard::new();
        for number in 0..2 {
            yard.chardev(&format!("c{number}"));
            yard.add(&format!("vhost-user,id=n{number},chardev=c{number}"));
        }
        yard
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn try_chardev(&mut self, options: &str) -> Result<(), QapiError> {
        let members = parse_keyval(options, "type", Flags::Accepted)?;
        let job = self.model.chardev_add(ChardevAdd::visit_flat(Visitor::new(members, Form::Keyval))?)?;
        self.model.finish(job.run())
    }

    fn chardev(&mut self, id: &str) {
        let path = self.path(id);
        self.try_chardev(&format!("socket,id={id},path={},server=on", path.display())).expect(id);
    }

    fn try_add(&mut self, options: &str) -> Result<(), QapiError> {
        let members = parse_keyval(options, "type", Flags::Refused)?;
        let add = NetdevAdd::visit(Visitor::new(members, Form::Keyval))?;
        let mut no_fds = |_: &_| Err(QapiError::generic("this test has no descriptors"));
        match self.model.netdev_add(add, &mut no_fds)? {
            Some(job) => self.model.finish(job.run()),
            None => Ok(()),
        }
    }

    fn add(&mut self, options: &str) {
        self.try_add(options).expect(options);
    }

    fn refused(&mut self, options: &str) -> String {
        self.try_add(options).expect_err(options).desc
    }

    fn delete(&mut self, id: &str) {
        assert!(self.model.netdev_del(id).expect(id).is_none(), "{id} needs no closing");
        self.model.publish();
    }

    fn set_link(&mut self, name: &str, up: bool) {
        self.model.set_link(&SetLink { name: name.into(), up }).expect(name);
    }

    /// Tells the model `news` as the driver of `id` would.
    fn tell(&mut self, id: &str, news: News) {
        let key = self.model.ids.iter().find(|(_, known)| *known == id).map(|(key, _)| *key);
        self.model.take_report(Report { port: key.unwrap_or(PortKey(0)), news });
    }

    /// Tells the model that the driver of `id` has another attachment, and returns the driver's end of the answer.
    fn report(&mut self, id: &str, carrier: bool) -> crossbeam_channel::Receiver<()> {
        let (done, answered) = crossbeam_channel::bounded(1);
        let attachment = Attachment { carrier, ..Attachment::default() };
        self.tell(id, News::Attached { attachment, done });
        answered
    }

    fn port(&self, id: &str) -> Value {
        let stats = self
            .model
            .query_stats(&XQueryStats { name: Some(id.into()), ..XQueryStats::default() })
            .expect(id);
        serde_json::to_value(&stats.ports[0]).expect("it has string keys")
    }

    fn info(&self) -> String {
        self.model.info_network()
    }
}

#[test]
fn a_port_is_what_its_objects_say() {
    let mut yard = Yard::with_two_netdevs();
    assert_eq!(yard.port("n0")["hub"], Value::Null);
    yard.add("hubport,id=h0,hubid=-7,netdev=n0");
    yard.add("nic,id=g0,netdev=n0");
    let port = yard.port("n0");
    assert_eq!((&port["hub"], &port["link"], &port["carrier"]), (&json!(-7), &json!(true), &json!(false)));
    assert_eq!((&port["type"], &port["queues"]), (&json!("vhost-user"), &json!([])));
    yard.delete("h0");
    assert_eq!(yard.port("n0")["hub"], Value::Null);
}

#[test]
fn a_netdev_carries_one_nic_and_one_hubport() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0");
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    assert_eq!(yard.refused("nic,id=g1,netdev=n0"), "netdev 'n0' is already connected to the nic 'g0'");
    let taken = "netdev 'n0' is already connected to the hub port 'h0'";
    assert_eq!(yard.refused("hubport,id=h1,hubid=0,netdev=n0"), taken);
    assert_eq!(yard.refused("hubport,id=h1,hubid=0,netdev=nope"), "netdev 'nope' not found");
    assert!(yard.refused("nic,id=g1,netdev=h0").starts_with("netdev 'h0' is a hub port: a nic stands on"));
    assert!(yard.refused("hubport,id=h1,hubid=0,netdev=g0").starts_with("netdev 'g0' is a nic"));
    assert_eq!(yard.model.netdevs.len(), 4, "nothing half-made remains");
    yard.delete("g0");
    yard.add("nic,id=g1,netdev=n0");
}

#[test]
fn a_worker_is_chosen_for_queues_that_there_are() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    let mut set = |netdev: &str, queue, worker| {
        let set = XSetWorker { netdev: netdev.into(), queue, worker };
        yard.model.set_worker(&set).map_err(|error| error.desc)
    };
    assert_eq!(set("n0", None, 0), Ok(()));
    assert_eq!(set("n0", Some(0), 0), Ok(()));
    assert_eq!(set("n0", Some(1), 0), Err("netdev 'n0' has 1 queues".into()));
    assert_eq!(set("n0", None, 1), Err("there is no worker 1: the switch has 1 of them".into()));
    assert_eq!(
        set("h0", None, 0),
        Err("'h0' has no queues: a netdev with a guest or a host behind it has".into())
    );
    assert!(set("nope", None, 0).is_err());
}

#[test]
fn frames_that_a_driver_gave_up_are_in_the_books() {
    let mut yard = Yard::with_two_netdevs();
    let key = *yard.model.ids.iter().find(|(_, id)| *id == "n1").expect("it was added").0;
    yard.model.take_report(Report { port: key, news: News::Dropped { frames: 3 } });
    yard.model.take_report(Report { port: PortKey(77), news: News::Dropped { frames: 5 } });
    let ingress = |id: &str| yard.port(id)["ingress"].clone();
    assert_eq!((&ingress("n1")["frames"], &ingress("n1")["drops"]), (&json!(3), &json!({"no_room": 3})));
    assert_eq!(ingress("n0")["frames"], 0);
}

#[test]
fn ids_are_taken_once_and_free_after_deletion() {
    let mut yard = Yard::with_two_netdevs();
    assert_eq!(yard.refused("hubport,id=n0,hubid=0"), "Duplicate ID 'n0'");
    yard.delete("n0");
    yard.add("vhost-user,id=n0,chardev=c0");
    let error = yard.model.netdev_del("nope").err().expect("there is no such netdev");
    assert_eq!((error.class, error.desc.as_str()), (ErrorClass::DeviceNotFound, "Device 'nope' not found"));
}

#[test]
fn an_id_is_taken_while_its_tap_is_opened() {
    let mut yard = Yard::new();
    let members = parse_keyval("tap,id=t0,ifname=x,script=no", "type", Flags::Refused).expect("it is valid");
    let add = NetdevAdd::visit(Visitor::new(members, Form::Keyval)).expect("it is valid");
    let job = yard.model.netdev_add(add, &mut |_| Err(QapiError::generic("none"))).expect("the id is free");
    assert_eq!(yard.refused("hubport,id=t0,hubid=0"), "Duplicate ID 't0'");
    assert_eq!(yard.refused("hubport,id=h0,hubid=0,netdev=t0"), "netdev 't0' not found");
    assert_eq!(yard.model.netdev_del("t0").err().map(|error| error.class), Some(ErrorClass::DeviceNotFound));
    let outcome = job.expect("a tap is opened beside control").refusal("could not open it");
    assert_eq!(yard.model.finish(outcome), Err(QapiError::generic("could not open it")));
    yard.add("hubport,id=t0,hubid=0");
}

#[test]
fn a_chardev_has_one_user_who_keeps_it() {
    let mut yard = Yard::with_two_netdevs();
    assert_eq!(yard.refused("vhost-user,id=n2,chardev=c9"), "chardev \"c9\" not found");
    assert_eq!(yard.refused("vhost-user,id=n2,chardev=c0"), "Device 'c0' is in use");
    let desc = |result: Result<(), QapiError>| result.expect_err("it is refused").desc;
    assert_eq!(desc(yard.model.chardev_remove("c0")), "Chardev 'c0' is busy");
    assert_eq!(desc(yard.model.chardev_remove("zz")), "Chardev 'zz' not found");
    let again = desc(yard.try_chardev("socket,id=c0,path=/x,server=on"));
    assert_eq!(again, "Chardev with id 'c0' already exists");
    let filename = format!("disconnected:unix:{},server=on", yard.path("c0").display());
    let c0 = &yard.model.query_chardev()[0];
    assert_eq!((c0.label.as_str(), &c0.filename, c0.frontend_open), ("c0", &filename, true));
    yard.delete("n0");
    assert_eq!(yard.model.chardev_remove("c0"), Ok(()));
    assert_eq!(yard.model.query_chardev().len(), 1);
}

#[test]
fn a_chardev_that_cannot_be_opened_is_not_there() {
    let mut yard = Yard::new();
    let error =
        yard.try_chardev("socket,id=c0,path=/no/such/directory/s,server=on").expect_err("no directory");
    assert!(error.desc.starts_with("Failed to add chardev 'c0': "), "{error}");
    assert!(yard.model.query_chardev().is_empty());
    yard.chardev("c0");
}

#[test]
fn set_link_on_a_netdev_takes_its_nic_along_and_on_others_only_themselves() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0");
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    for name in ["g0", "h0"] {
        yard.set_link(name, false);
        assert_eq!(yard.port("n0")["link"], false, "{name} is down");
        yard.set_link("n0", true);
        assert_eq!(yard.port("n0")["link"], name == "g0", "the netdev takes up its nic only");
        yard.set_link(name, true);
    }
    yard.set_link("n0", false);
    yard.delete("g0");
    assert_eq!(yard.port("n0")["link"], false);
    yard.set_link("n0", true);
    assert_eq!(yard.port("n0")["link"], true);
    let error = yard.model.set_link(&SetLink { name: "nope".into(), up: true }).expect_err("unknown");
    assert_eq!(error, QapiError::device_not_found("nope"));
}

#[test]
fn what_set_link_said_survives_a_guests_coming_and_going() {
    let mut yard = Yard::with_two_netdevs();
    yard.set_link("n0", false);
    for carrier in [true, false, true] {
        yard.report("n0", carrier);
        assert_eq!(
            (yard.port("n0")["link"].clone(), &yard.port("n0")["carrier"]),
            (json!(false), &json!(carrier))
        );
    }
}

#[test]
fn a_driver_is_answered_after_the_publish_and_told_when_its_port_is_gone() {
    let mut yard = Yard::with_two_netdevs();
    let answer = yard.report("n0", true);
    assert!(answer.try_recv().is_err());
    let events = yard.model.publish();
    assert_eq!(answer.try_recv(), Ok(()));
    let connected = json!({"netdev-id": "n0", "chardev-id": "c0"});
    assert_eq!(events, [Event { name: "NETDEV_VHOST_USER_CONNECTED", data: connected }]);
    yard.report("n0", false);
    assert_eq!(yard.model.publish()[0].name, "NETDEV_VHOST_USER_DISCONNECTED");
    yard.delete("n0");
    let answer = yard.report("n0", true);
    assert_eq!(answer.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
}

#[test]
fn ports_are_counted_a_page_at_a_time() {
    let mut yard = Yard::new();
    for id in ["c", "a", "d", "b"] {
        yard.chardev(id);
        yard.add(&format!("vhost-user,id={id},chardev={id}"));
    }
    yard.add("nic,id=g,netdev=d");
    let page = |arguments: Value| {
        let Value::Object(arguments) = arguments else { unreachable!("it is one") };
        let query = Visitor::new(arguments, Form::Json).whole::<XQueryStats>().map_err(|error| error.desc)?;
        let stats = yard.model.query_stats(&query).map_err(|error| error.desc)?;
        let names: Vec<String> = stats.ports.iter().map(|port| port.name.clone()).collect();
        Ok::<_, String>((names.concat(), stats.more))
    };
    assert_eq!(page(json!({})), Ok(("cadb".into(), false)));
    assert_eq!(page(json!({"limit": 3})), Ok(("cad".into(), true)));
    assert_eq!(page(json!({"limit": 4})), Ok(("cadb".into(), false)));
    assert_eq!(page(json!({"after": "a"})), Ok(("db".into(), false)));
    assert_eq!(page(json!({"after": "a", "limit": 1})), Ok(("d".into(), true)));
    assert_eq!(page(json!({"after": "b"})), Ok((String::new(), false)));
    assert_eq!(page(json!({"name": "a"})), Ok(("a".into(), false)));
    assert_eq!(page(json!({"after": "g"})), Err("Device 'g' not found".into()), "a nic is no port");
    assert_eq!(page(json!({"name": "a", "limit": 1})), Err("'name' excludes 'after' and 'limit'".into()));
    assert_eq!(page(json!({"limit": 0})), Err("Parameter 'limit' expects a number from 1 to 1000".into()));
    let nics = yard.model.query_stats(&XQueryStats::default()).expect("all are asked for");
    assert_eq!(nics.ports[2].nic.as_deref(), Some("g"));
}

#[test]
fn all_vlans_are_listed_as_long_as_a_reply_has_room() {
    let mut yard = Yard::new();
    let vlans = |yard: &mut Yard| {
        let filters = yard.model.query_rx_filter(None).expect("all are asked for");
        let reply = crate::json::to_qmp_line(&json!({"return": filters}));
        assert!(reply.len() < crate::monitor::REPLY_BYTES_MAX);
        filters.iter().map(|filter| filter.vlan_table.len()).collect::<Vec<_>>()
    };
    for number in 0..10 {
        yard.add(&format!("nic,id=g{number}"));
    }
    assert_eq!(vlans(&mut yard), [4096; 10]);
    let Value::Object(change) = json!({"name": "g3", "vlan-table": [7, 9]}) else {
        unreachable!("it is one")
    };
    let change = XSetRxFilter::visit(Visitor::new(change, Form::Json)).expect("it is valid");
    yard.model.set_rx_filter(change).expect("it is a nic");
    for number in 10..20 {
        yard.add(&format!("nic,id=g{number}"));
    }
    let mut expected = [0; 20];
    expected[3] = 2;
    assert_eq!(vlans(&mut yard), expected);
    let one = yard.model.query_rx_filter(Some("g0")).expect("it is a nic");
    assert_eq!(one[0].vlan_table.len(), 4096);
}

#[test]
fn nics_without_an_address_get_the_next_free_one() {
    let mut yard = Yard::new();
    for (id, options) in [("a", ""), ("b", ",macaddr=52:54:00:12:34:57"), ("c", "")] {
        yard.add(&format!("nic,id={id}{options}"));
    }
    let all = yard.model.query_rx_filter(None).expect("it lists all");
    let macs: Vec<&str> = all.iter().map(|nic| nic.main_mac.as_str()).collect();
    assert_eq!(macs, ["52:54:00:12:34:56", "52:54:00:12:34:57", "52:54:00:12:34:58"]);
}

#[test]
fn only_nics_have_a_filter() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0");
    let of = |yard: &mut Yard, name| yard.model.query_rx_filter(Some(name)).map_err(|error| error.desc);
    assert_eq!(of(&mut yard, "nope"), Err("invalid net client name: nope".into()));
    assert_eq!(of(&mut yard, "n0"), Err("net client(n0) isn't a NIC".into()));
    let Value::Object(change) = json!({"name": "g0", "vlan-table": [4]}) else { unreachable!() };
    let change = XSetRxFilter::visit(Visitor::new(change, Form::Json)).expect("it is valid");
    yard.model.set_rx_filter(change).expect("g0 is a nic");
    let filter = of(&mut yard, "g0").expect("g0 is a nic");
    assert_eq!((filter[0].vlan.name(), filter[0].vlan_table.as_slice()), ("normal", &[4][..]));
}

#[test]
fn what_a_guest_wants_holds_for_its_port_and_for_the_nic_that_comes_until_it_goes() {
    let mut yard = Yard::with_two_netdevs();
    let wanted = RxFilter { vlan: RxState::None, ..RxFilter::new(Mac([2, 0, 0, 0, 0, 9])) };
    let (done, answered) = crossbeam_channel::bounded(1);
    yard.tell("n0", News::Filter { filter: Box::new(wanted), done: Some(done) });
    assert!(answered.try_recv().is_err(), "not published yet");
    assert!(yard.model.publish().is_empty(), "there is no nic to speak of");
    assert_eq!(answered.try_recv(), Ok(()));
    yard.add("nic,id=g0,netdev=n0,macaddr=52:54:00:00:00:01");
    let shown = |yard: &mut Yard| yard.model.query_rx_filter(Some("g0")).expect("g0 is a nic").remove(0);
    let filter = shown(&mut yard);
    assert_eq!((filter.vlan.name(), filter.main_mac.as_str()), ("none", "02:00:00:00:00:09"));
    yard.tell("n0", News::NoFilter);
    let filter = shown(&mut yard);
    assert_eq!((filter.vlan.name(), filter.main_mac.as_str()), ("all", "52:54:00:00:00:01"));
    assert_eq!(yard.model.publish()[0].name, "NIC_RX_FILTER_CHANGED");
}

#[test]
fn a_driver_that_stands_by_is_an_event_of_its_nic_each_time() {
    let mut yard = Yard::with_two_netdevs();
    yard.tell("n0", News::Standby);
    assert!(yard.model.publish().is_empty(), "there is no nic to speak of");
    yard.add("nic,id=g0,netdev=n0,x-failover=on");
    for _ in 0..2 {
        yard.tell("n0", News::Standby);
        let event = Event { name: "FAILOVER_NEGOTIATED", data: json!({"device-id": "g0"}) };
        assert_eq!(yard.model.publish(), [event]);
    }
}

#[test]
fn the_first_change_of_a_filter_since_it_was_asked_for_is_an_event() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0");
    yard.add("nic,id=g1,netdev=n1");
    let mut events = |id: &str, broadcast: bool, asks: bool| {
        let Value::Object(change) = json!({"name": id, "broadcast-allowed": broadcast}) else {
            unreachable!()
        };
        let change = XSetRxFilter::visit(Visitor::new(change, Form::Json)).expect("it is valid");
        yard.model.set_rx_filter(change).expect("it is a nic");
        if asks {
            yard.model.query_rx_filter(Some(id)).expect("it is a nic");
        }
        yard.model.publish().into_iter().map(|event| event.data["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(events("g0", true, false), [json!(null); 0], "nothing changed");
    assert_eq!(events("g0", false, false), ["g0"]);
    assert_eq!(events("g0", true, true), [json!(null); 0], "nobody has asked");
    assert_eq!(events("g1", false, false), ["g1"]);
    assert_eq!(events("g0", false, false), ["g0"]);
}

#[test]
fn query_netdev_shows_backends_newest_first_with_their_peers() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    yard.add("hubport,id=h1,hubid=0,netdev=n1");
    yard.add("nic,id=g0,netdev=n0");
    let n0 = json!({"id": "n0", "type": "vhost-user", "chardev": "c0", "queues": 1, "peer-id": "g0"});
    let n1 = json!({"id": "n1", "type": "vhost-user", "chardev": "c1", "queues": 1, "peer-id": "h1"});
    assert_eq!(json!(yard.model.query_netdev()), json!([n1, n0]));
    yard.delete("n1");
    assert_eq!(json!(yard.model.query_netdev()), json!([n0]));
}

#[test]
fn info_network_lists_hubs_then_nics_then_the_rest() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=ha,hubid=0,netdev=n0");
    yard.add("hubport,id=hb,hubid=1");
    yard.add("hubport,id=hc,hubid=1,netdev=n1");
    yard.add("nic,id=g0,netdev=n0,macaddr=52:54:00:aa:bb:cc");
    yard.chardev("c2");
    yard.add("vhost-user,id=n2,chardev=c2,queues=2");
    let expected = "hub 1\r\n \\ hc: n1: index=0,type=vhost-user,vhost-user0 to c1\r\n \\ hb\r\n\
        hub 0\r\n \\ ha: n0: index=0,type=vhost-user,vhost-user0 to c0\r\n\
        g0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:bb:cc\r\n \
        \\ n0: index=0,type=vhost-user,vhost-user0 to c0\r\n\
        n2: index=0,type=vhost-user,vhost-user0 to c2\r\nn2: index=1,type=vhost-user,vhost-user1 to c2\r\n";
    assert_eq!(yard.info(), expected);
}

#[test]
fn what_stood_on_a_deleted_netdev_stays_without_it() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=h0,hubid=3,netdev=n0");
    yard.add("nic,id=g0,netdev=n0,macaddr=52:54:00:aa:bb:cc");
    yard.delete("n0");
    yard.delete("n1");
    let nic = "g0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:bb:cc\r\n \
        \\ n0: index=0,type=vhost-user,vhost-user0 to c0\r\n";
    assert_eq!(yard.info(), format!("hub 3\r\n \\ h0\r\n{nic}"));
    yard.delete("g0");
    yard.delete("h0");
    assert_eq!(yard.info(), "hub 3\r\n", "a hub stays listed");
}

#[test]
fn hubs_without_ports_do_not_pile_up() {
    let mut yard = Yard::new();
    yard.add("hubport,id=keep,hubid=-1");
    for hub in 0..OBJECTS_MAX + 10 {
        yard.add(&format!("hubport,id=h,hubid={hub}"));
        yard.model.netdev_del("h").expect("it was just added");
    }
    assert_eq!(yard.model.hubs.len(), OBJECTS_MAX);
    assert_eq!((yard.model.hubs[0], yard.model.hubs[1]), (-1, 11), "one with a port is never forgotten");
}

#[test]
fn clearing_leaves_nothing() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    assert!(yard.model.clear().is_empty(), "there are no taps to close");
    yard.model.publish();
    assert_eq!((yard.model.port_count(), yard.model.query_netdev()), (0, Vec::new()));
    assert!(!yard.path("c0").exists(), "the sockets are removed");
}

#[test]
fn objects_of_each_kind_are_limited() {
    let mut yard = Yard::new();
    for number in 0..OBJECTS_MAX {
        yard.add(&format!("hubport,id=h{number},hubid=0"));
        yard.add(&format!("nic,id=g{number},macaddr={number}"));
    }
    assert_eq!(yard.refused("nic,id=one-more"), "too many NICs");
    assert_eq!(yard.refused("hubport,id=one-more,hubid=0"), "too many hub ports: at most 4096 are possible");
    yard.delete("g7");
    yard.add("nic,id=one-more");
}
