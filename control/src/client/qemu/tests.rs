//! Ports of a switch, and the machines that are plugged into them.

use super::*;

/// A switch with ports of all kinds.
fn answers() -> Answers {
    let unix = |path: &str| json!({"type": "unix", "path": path});
    let inet = |host: &str, port: &str| json!({"type": "inet", "host": host, "port": port, "ipv4": true});
    Answers {
        netdevs: json!([
            {"id": "vm1", "type": "vhost-user", "chardev": "c1", "queues": 1, "peer-id": "g1"},
            {"id": "vm2", "type": "vhost-user", "chardev": "c2", "queues": 2, "peer-id": "h2"},
            {"id": "vm3", "type": "vhost-user", "chardev": "c3", "queues": 1},
            {"id": "s1", "type": "stream", "server": true, "addr": inet("", "4000")},
            {"id": "s2", "type": "stream", "addr": unix("/run/a,b")},
            {"id": "s3", "type": "stream", "server": true, "addr": inet("::", "0")},
            {"id": "d1", "type": "dgram", "local": unix("here"), "remote": unix("/there")},
            {"id": "d2", "type": "dgram", "remote": inet("230.0.0.1", "1234")},
            {"id": "d3", "type": "dgram", "local": {"type": "fd", "str": "7"}},
            {"id": "o1", "type": "socket", "listen": ":5000"},
            {"id": "o2", "type": "socket", "udp": "10.0.0.2:1", "localaddr": "10.0.0.1:2"},
            {"id": "t0", "type": "tap", "ifname": "t0"},
        ]),
        chardevs: json!([
            {"label": "c1", "filename": "disconnected:unix:/run/vm1.sock,server=on"},
            {"label": "c2", "filename": "unix:/run/vm 2.sock"},
            {"label": "c3", "filename": "unix:vm3.sock,server=on"},
        ]),
        nics: json!([{"name": "g1", "main-mac": "52:54:00:00:00:07"}]),
    }
}

fn plug(id: &str) -> Result<Plug, String> {
    let directory = Path::new("/cwd");
    answers().plugs(&[id.to_owned()], Some(directory)).map(|mut plugs| plugs.remove(0))
}

fn options(ids: &[&str], memory: Option<MemorySize>) -> String {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let plugs = answers().plugs(&ids, None).expect("they are ports for machines");
    options::line(&plugs, memory, true).0
}

fn netdev(id: &str) -> String {
    let line = options::line(&[plug(id).expect(id)], None, true).0;
    let (_, rest) = line.split_once("-netdev ").expect("there is a netdev");
    rest.split(" -device").next().unwrap_or_default().to_owned()
}

#[test]
fn a_listening_port_is_connected_to_by_a_machine_with_its_nic() {
    assert_eq!(
        options(&["vm1"], MemorySize::parse("2048").ok()),
        "-m 2G -object memory-backend-memfd,id=ringyard-memory,size=2G,share=on \
         -machine memory-backend=ringyard-memory -chardev socket,id=vm1-socket,path=/run/vm1.sock \
         -netdev vhost-user,id=vm1,chardev=vm1-socket -device virtio-net-pci,id=g1,netdev=vm1,\
         mac=52:54:00:00:00:07,rx_queue_size=1024,tx_queue_size=1024\n"
    );
}

#[test]
fn a_connecting_port_is_listened_for_with_all_its_queues() {
    let line = options(&["vm2"], None);
    assert!(line.starts_with("-chardev 'socket,id=vm2-socket,path=/run/vm 2.sock,server=on' "), "{line}");
    assert!(line.contains("-netdev vhost-user,id=vm2,chardev=vm2-socket,queues=2 "), "{line}");
    assert!(line.ends_with(",mq=on,vectors=6\n") && !line.contains("-m "), "{line}");
    let (line, note) = options::line(&[plug("vm2").expect("it is a port")], None, false);
    assert!(line.ends_with(",mq=on,vectors=0\n") && note.is_some_and(|note| note.contains("eval")), "{line}");
}

#[test]
fn several_ports_share_one_machine() {
    let line = options(&["vm1", "s1"], MemorySize::parse("512M").ok());
    assert_eq!((line.matches("-device").count(), line.matches("-m 512M").count()), (2, 1));
    let twice = answers().plugs(&["vm1".into(), "vm1".into()], None);
    assert_eq!(twice.err().as_deref(), Some("vm1 is named twice, and takes one machine"));
}

#[test]
fn a_socket_port_is_met_at_its_other_end() {
    assert_eq!(netdev("s1"), "stream,id=s1,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=4000");
    assert_eq!(netdev("s2"), "stream,id=s2,server=on,addr.type=unix,addr.path=/run/a,,b");
    assert_eq!(
        netdev("d1"),
        "dgram,id=d1,local.type=unix,local.path=/there,remote.type=unix,remote.path=/cwd/here"
    );
    let group = "remote.type=inet,remote.host=230.0.0.1,remote.port=1234,remote.ipv4=on";
    assert_eq!(netdev("d2"), format!("dgram,id=d2,{group}"));
    assert_eq!(netdev("o1"), "socket,id=o1,connect=127.0.0.1:5000");
    assert_eq!(netdev("o2"), "socket,id=o2,udp=10.0.0.1:2,localaddr=10.0.0.2:1");
    // Memory need not be shared for these.
    assert!(!options(&["s1"], MemorySize::parse("1G").ok()).contains("-object"));
}

#[test]
fn a_port_that_no_machine_can_meet_says_why() {
    let refused = |id: &str| plug(id).expect_err(id);
    assert!(refused("s3").contains("give it a fixed one"));
    assert!(refused("d3").contains("was passed to the switch"));
    assert!(refused("t0").contains("t0: no machine attaches to a tap port"));
    assert!(refused("nobody").contains("these there are: vm1 vm2"));
    let relative = answers().plugs(&["vm3".into()], None);
    assert!(relative.expect_err("the directory is not known").contains("with an absolute path"));
}

#[test]
fn a_relative_path_is_in_the_switchs_directory() {
    let line = options::line(&[plug("vm3").expect("it is a port")], None, true).0;
    assert!(line.contains("path=/cwd/vm3.sock "), "{line}");
}

#[test]
fn a_machine_without_a_nic_has_an_address_of_its_own() {
    let mac = |id: &str| plug(id).expect(id).mac;
    assert_eq!(mac("vm2"), mac("vm2"));
    assert_ne!(mac("vm2"), mac("vm3"));
    assert!(mac("vm2").starts_with("52:54:00:") && mac("vm2") != "52:54:00:12:34:56");
}

#[test]
fn libvirt_speaks_of_the_machine_as_server_or_client() {
    let plugs = answers().plugs(&["vm1".into(), "vm2".into()], None).expect("they are ports for machines");
    let domain = libvirt::domain(&plugs, MemorySize::parse("1G").ok()).expect("libvirt has words for them");
    assert!(domain.contains("<memory unit='MiB'>1024</memory>"), "{domain}");
    assert!(domain.contains("<source type='unix' path='/run/vm1.sock' mode='client'>"), "{domain}");
    assert!(domain.contains("<source type='unix' path='/run/vm 2.sock' mode='server'/>"), "{domain}");
    assert!(domain.contains("<driver queues='2' rx_queue_size='1024' tx_queue_size='1024'/>"), "{domain}");
    let stream = answers().plugs(&["s1".into()], None).expect("it is a port for a machine");
    assert!(libvirt::domain(&stream, None).is_err_and(|why| why.contains("vhost-user ports only")));
}

#[test]
fn sizes_are_read_as_qemu_reads_them() {
    let text = |size: &str| MemorySize::parse(size).map(MemorySize::text);
    assert_eq!(text("512"), Ok("512M".into()));
    assert_eq!(text("2g"), Ok("2G".into()));
    assert_eq!(text("1536M"), Ok("1536M".into()));
    for wrong in ["", "G", "0", "-1", "1.5G", "1K", "99999999T", "é"] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
}
