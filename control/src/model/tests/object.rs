//! Dumps made, turned on and off, and looked at as parts of the tree of objects.

use serde_json::{Value, json};

use super::Yard;
use crate::model::object::DUMPS_MAX;
use crate::open::Outcome;
use crate::qapi::{Flags, Form, QapiError, Visitor, parse_keyval};
use crate::wire::{ObjectAdd, QomGet, QomSet};

impl Yard {
    fn try_dump(&mut self, options: &str) -> Result<(), QapiError> {
        let members = parse_keyval(&format!("filter-dump,{options}"), "qom-type", Flags::Refused)?;
        let add = ObjectAdd::visit(Visitor::new(members, Form::Keyval))?;
        let mut no_fds = |_: &_| Err(QapiError::generic("No such file or directory"));
        let job = self.model.object_add(add, &mut no_fds)?;
        self.model.finish(job.run())
    }

    fn dump(&mut self, id: &str, options: &str) {
        let options = format!("id={id},file={}{options}", self.path(&format!("{id}.pcap")).display());
        self.try_dump(&options).expect(id);
    }

    fn refused_dump(&mut self, options: &str) -> String {
        self.try_dump(options).expect_err(options).desc
    }

    fn get(&self, path: &str, property: &str) -> Result<Value, String> {
        let get = QomGet { path: path.into(), property: property.into() };
        self.model.qom_get(&get).map_err(|error| error.desc)
    }

    fn set(&mut self, path: &str, property: &str, value: Value) -> Result<(), String> {
        let set = QomSet { path: path.into(), property: property.into(), value };
        self.model.qom_set(set).map_err(|error| error.desc)
    }

    /// The properties of an object, `NAME TYPE` each.
    fn list(&self, path: &str) -> Result<Vec<String>, String> {
        let listed = self.model.qom_list(path).map_err(|error| error.desc)?;
        Ok(listed.into_iter().map(|info| format!("{} {}", info.name, info.kind)).collect())
    }

    /// The ids of a netdev's filters, in their order.
    fn filters(&self) -> Vec<String> {
        let info = self.info();
        let ids = info.lines().filter_map(|line| line.strip_prefix("  - ")?.split(':').next());
        ids.map(String::from).collect()
    }
}

#[test]
fn dumps_stand_in_their_order_behind_their_netdev() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("hubport,id=h0,hubid=0,netdev=n0");
    yard.dump("f1", ",netdev=n0");
    yard.dump("f2", ",netdev=n0");
    yard.dump("f3", ",netdev=n0,position=head");
    yard.dump("f4", ",netdev=n0,position=id=f1");
    yard.dump("f5", ",netdev=n0,position=id=f1,insert=before,maxlen=100,queue=tx,status=off");
    assert_eq!(yard.filters(), ["f3", "f5", "f1", "f4", "f2"]);
    let hub = "hub 0\r\n \\ h0: n0: index=0,type=vhost-user,vhost-user0 to c0\r\nfilters:\r\n";
    let f5 = format!(
        "  - f5: type=filter-dump,file={},maxlen=100,position=id=f1,status=off,insert=before,netdev=n0,queue=tx\r\n",
        yard.path("f5.pcap").display()
    );
    assert!(yard.info().starts_with(hub) && yard.info().contains(&f5), "{}", yard.info());
    let file = yard.path("x").display().to_string();
    let other = "filter 'f1' belongs to a different netdev";
    assert_eq!(yard.refused_dump(&format!("id=f6,netdev=n1,file={file},position=id=f1")), other);
    assert!(!yard.path("x").exists(), "what is refused opens nothing");
}

#[test]
fn what_is_wrong_with_a_dump_is_said_in_qemus_words() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0");
    yard.dump("f0", ",netdev=n0");
    let no_netdev = "Parameter 'netdev' expects a network backend id";
    assert_eq!(yard.refused_dump("id=f1,netdev=nope,file=x,position=zz"), no_netdev);
    assert_eq!(yard.refused_dump("id=f1,netdev=g0,file=x"), no_netdev);
    let position = "Parameter 'position' expects 'head', 'tail' or 'id=<id>'";
    assert_eq!(yard.refused_dump("id=f1,netdev=n0,file=/no/such/x,position=zz"), position);
    assert_eq!(yard.refused_dump("id=f1,netdev=n0,file=x,position=id=zz"), "filter 'zz' not found");
    let taken = "attempt to add duplicate property 'f0' to object (type 'container')";
    assert_eq!(yard.refused_dump("id=f0,netdev=nope,file=x"), taken);
    let nowhere = "net dump: can't open /no/such/x: No such file or directory";
    assert_eq!(yard.refused_dump("id=f1,netdev=n0,file=/no/such/x"), nowhere);
    let no_fd = "net dump: can't open /dev/fdset/9: No such file or directory";
    assert_eq!(yard.refused_dump("id=f1,netdev=n0,file=/dev/fdset/9"), no_fd);
    assert_eq!(yard.filters(), ["f0"]);
    let gone = yard.model.object_del("f1").err().expect("it was refused");
    assert_eq!(gone, QapiError::generic("object 'f1' not found"));
}

#[test]
fn an_id_is_taken_while_its_file_is_opened_and_what_lost_its_netdev_is_closed() {
    let mut yard = Yard::with_two_netdevs();
    let members = json!({"qom-type": "filter-dump", "id": "f0", "netdev": "n0", "file": yard.path("f0")});
    let Value::Object(members) = members else { unreachable!() };
    let add = ObjectAdd::visit(Visitor::new(members, Form::Json)).expect("it is whole");
    let job = yard.model.object_add(add, &mut |_| Err(QapiError::generic("none"))).expect("n0 is there");
    assert!(yard.refused_dump("id=f0,netdev=n0,file=x").starts_with("attempt to add duplicate property"));
    yard.delete("n0");
    let outcome = yard.model.finish(job.run());
    assert_eq!(outcome, Err(QapiError::generic("Parameter 'netdev' expects a network backend id")));
    let closing = yard.model.take_closing();
    assert!(matches!(closing.into_iter().map(|job| job.run()).collect::<Vec<_>>()[..], [Outcome::Closed]));
    yard.dump("f0", ",netdev=n1");
}

#[test]
fn dumps_go_with_their_netdev() {
    let mut yard = Yard::with_two_netdevs();
    yard.dump("f0", ",netdev=n0");
    yard.dump("f1", ",netdev=n1");
    yard.dump("f2", ",netdev=n0");
    yard.delete("n0");
    assert_eq!(yard.list("/objects"), Ok(vec!["type string".into(), "f1 child<filter-dump>".into()]));
    assert_eq!(yard.model.take_closing().len(), 2);
    yard.chardev("c2");
    yard.add("vhost-user,id=n0,chardev=c2");
    assert_eq!(yard.filters(), ["f1"]);
    assert!(yard.model.clear().is_empty());
    assert_eq!(yard.model.take_closing().len(), 1);
}

#[test]
fn a_dump_is_turned_on_and_off_and_told_which_frames() {
    let mut yard = Yard::with_two_netdevs();
    yard.dump("f0", ",netdev=n0");
    assert_eq!(yard.set("/objects/f0", "status", json!("off")), Ok(()));
    assert_eq!(yard.get("f0", "status"), Ok(json!("off")));
    let neither = "Invalid value for netfilter status, should be 'on' or 'off'";
    assert_eq!(yard.set("f0", "status", json!("zz")), Err(neither.into()));
    let kind = "Invalid parameter type for 'status', expected: string";
    assert_eq!(yard.set("f0", "status", json!(true)), Err(kind.into()));
    assert_eq!(yard.set("f0", "queue", json!("rx")), Ok(()));
    assert_eq!(
        yard.set("f0", "queue", json!("zz")),
        Err("Parameter 'queue' does not accept value 'zz'".into())
    );
    assert_eq!(yard.get("f0", "queue"), Ok(json!("rx")));
    assert_eq!((yard.get("f0", "x-frames"), yard.get("f0", "x-lost")), (Ok(json!(0)), Ok(json!(0))));
}

#[test]
fn what_cannot_be_set_or_is_not_there_is_said_in_qemus_words() {
    let mut yard = Yard::with_two_netdevs();
    yard.dump("f0", ",netdev=n0");
    for (path, property, name) in [
        ("f0", "type", "filter-dump.type"),
        ("f0", "netdev", "filter-dump.netdev"),
        ("/objects", "f0", "container.f0"),
        ("/", "type", "container.type"),
        ("c0", "connected", "chardev-socket.connected"),
    ] {
        let read_only = format!("Property '{name}' is not writable");
        assert_eq!(yard.set(path, property, json!("x")), Err(read_only));
    }
    assert_eq!(yard.get("f0", "nope"), Err("Property 'filter-dump.nope' not found".into()));
    assert_eq!(yard.set("f0", "nope", json!(1)), Err("Property 'filter-dump.nope' not found".into()));
    for path in ["nope", "/f0", "/objects/f0/type", ""] {
        assert_eq!(yard.get(path, "type"), Err(format!("Device '{path}' not found")));
        assert_eq!(yard.set(path, "type", json!(1)), Err(format!("Device '{path}' not found")));
    }
    assert_eq!(yard.list("nope"), Err("Device 'nope' not found".into()));
    assert_eq!(yard.list(""), Err("Path '' is ambiguous".into()));
}

#[test]
fn a_path_may_begin_anywhere_as_long_as_it_is_unambiguous() {
    let mut yard = Yard::with_two_netdevs();
    yard.add("nic,id=g0,netdev=n0,macaddr=52:54:00:aa:bb:cc");
    yard.dump("f0", ",netdev=n0");
    let f0 = yard.list("/objects/f0").expect("it is there");
    for path in ["f0", "objects/f0", "f0/", "//objects//f0/"] {
        assert_eq!(yard.list(path), Ok(f0.clone()), "{path}");
    }
    yard.dump("c0", ",netdev=n0");
    assert_eq!(yard.list("c0"), Err("Path 'c0' is ambiguous".into()));
    assert_eq!(yard.get("c0", "type"), Err("Device 'c0' not found".into()));
    assert_eq!(yard.get("chardevs/c0", "type"), Ok(json!("chardev-socket")));
    for (path, property, value) in [
        ("/", "objects", json!("/objects")),
        ("/objects", "f0", json!("/objects/f0")),
        ("chardevs/c1", "connected", json!(false)),
        ("chardevs/c1", "addr", json!({"type": "unix", "path": yard.path("c1")})),
        ("/machine/peripheral/g0", "mac", json!("52:54:00:aa:bb:cc")),
        ("/machine/peripheral/g0", "virtio-backend", json!("/machine/peripheral/g0/virtio-backend")),
        ("/machine/peripheral/g0/virtio-backend", "netdev", json!("n0")),
        ("virtio-backend", "link", json!(true)),
        ("f0", "maxlen", json!(65_536)),
    ] {
        assert_eq!(yard.get(path, property), Ok(value), "{path}.{property}");
    }
    let root =
        ["type string", "objects child<container>", "machine child<container>", "chardevs child<container>"];
    assert_eq!(yard.list("/").expect("it is the root"), root);
}

#[test]
fn dumps_are_limited() {
    let mut yard = Yard::with_two_netdevs();
    for number in 0..DUMPS_MAX {
        yard.dump(&format!("f{number}"), ",netdev=n0");
    }
    let refused = yard.refused_dump("id=one-more,netdev=n0,file=/dev/null");
    assert_eq!(refused, "too many dumps: at most 64 are possible");
    yard.model.object_del("f7").expect("it is there").run();
    yard.dump("one-more", ",netdev=n0");
}
