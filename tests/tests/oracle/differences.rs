//! What QEMU and the switch are meant to answer differently: all of it, by subject, with the reasons; and what QEMU is not
//! asked, since it would not survive.

/// A row that is answered differently.
pub struct Difference {
    /// The row as it stands in its table, or what it is called there.
    pub row: &'static str,
    /// What QEMU answers.
    pub qemu: &'static [&'static str],
    /// What we answer.
    pub ours: &'static [&'static str],
    /// Why that is better.
    pub reason: &'static str,
}

/// A row that ends QEMU.
pub struct Unasked {
    /// The row.
    pub row: &'static str,
    /// What we answer.
    pub ours: &'static [&'static str],
    /// What QEMU does.
    pub reason: &'static str,
}

/// Of [`types`](crate::types).
pub const TYPES: &[Difference] = &[
    Difference {
        row: r#"{"execute": "announce-self", "arguments": {"initial": 1, "max": 1, "rounds": -1, "step": 1}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Parameter 'rounds' expects a non-negative value"],
        reason: "QEMU announces for years",
    },
    Difference {
        row: r#"{"execute": "chardev-add", "arguments": {"id": "c", "backend": {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "a"}}}}}}"#,
        qemu: &["GenericError: Parameter 'backend.data.addr.data.port' is missing"],
        ours: &["GenericError: Parameter 'type' does not accept value 'inet'"],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"{"type": "netmap", "ifname": "v0"}"#,
        qemu: &["GenericError: network backend 'netmap' is not compiled into this binary"],
        ours: &[
            "GenericError: Failed to nm_open() v0: could not open /dev/netmap: No such file or directory; is the kernel module 'netmap' loaded?",
        ],
        reason: NETMAP,
    },
    Difference {
        row: r#"{"type": "nic"}"#,
        qemu: &["GenericError: network backend 'nic' is not compiled into this binary"],
        ours: &["return {}"],
        reason: NIC,
    },
    Difference {
        row: r#"{"type": "vmnet-host"}"#,
        qemu: &["GenericError: Parameter 'type' does not accept value 'vmnet-host'"],
        ours: &["GenericError: network backend 'vmnet-host' is not compiled into this binary"],
        reason: VMNET,
    },
    Difference {
        row: r#"{"type": "vmnet-shared"}"#,
        qemu: &["GenericError: Parameter 'type' does not accept value 'vmnet-shared'"],
        ours: &["GenericError: network backend 'vmnet-shared' is not compiled into this binary"],
        reason: VMNET,
    },
    Difference {
        row: r#"{"type": "vmnet-bridged", "ifname": "en0"}"#,
        qemu: &["GenericError: Parameter 'type' does not accept value 'vmnet-bridged'"],
        ours: &["GenericError: network backend 'vmnet-bridged' is not compiled into this binary"],
        reason: VMNET,
    },
];

/// Of [`protocol`](crate::protocol).
pub const SESSIONS: &[Difference] = &[];
pub const REQUESTS: &[Difference] = &[];
pub const IDS: &[Difference] = &[];

/// Of [`parser`](crate::parser).
pub const PARSER: &[Difference] = &[
    Difference {
        row: r#"{\"a\":1e999}"#,
        qemu: &["GenericError: QMP input member 'a' is unexpected", STRAY_FF],
        ours: &["GenericError: JSON parse error, number out of range '1e999'", STRAY_FF],
        reason: INFINITE,
    },
    Difference {
        row: r#"{\"a\":-1e999}"#,
        qemu: &["GenericError: QMP input member 'a' is unexpected", STRAY_FF],
        ours: &["GenericError: JSON parse error, number out of range '-1e999'", STRAY_FF],
        reason: INFINITE,
    },
    Difference {
        row: r#"[\"\xc0\x80\"]"#,
        qemu: &["GenericError: QMP input must be a JSON object", STRAY_FF],
        ours: &["GenericError: JSON parse error, invalid UTF-8 sequence in string", STRAY_FF],
        reason: "only C needs another form of NUL; in UTF-8 it is invalid (RFC 3629, 3)",
    },
];

/// Of [`sockets`](crate::sockets).
pub const SOCKETS: &[Difference] = &[
    Difference {
        row: r#"{"type": "stream", "addr": {"type": "unix", "path": "s"}, "reconnect": 1}"#,
        qemu: &["GenericError: Parameter 'reconnect' is unexpected"],
        ours: &["return {}"],
        reason: "QEMU 8.0 has it, and users of it expect it",
    },
    Difference {
        row: r#"{"type": "stream", "addr": {"type": "unix", "path": "s"}, "reconnect-ms": 1}"#,
        qemu: &["GenericError: Parameter 'reconnect-ms' is unexpected"],
        ours: &["return {}"],
        reason: "QEMU 9.2 has it, and users of it expect it",
    },
    Difference {
        row: r#"{"type": "dgram", "local": {"type": "inet", "host": "127.0.0.1", "port": "18100"}, "remote": {"type": "inet", "host": "127.0.0.2", "port": "18101"}}"#,
        qemu: &["return {}", "n0: index=0,type=dgram,udp=127.0.0.1:18100/127.0.0.1:18101", "return {}"],
        ours: &["return {}", "n0: index=0,type=dgram,udp=127.0.0.1:18100/127.0.0.2:18101", "return {}"],
        reason: "QEMU prints one of the two addresses twice",
    },
];

/// Of [`tunnels`](crate::tunnels).
pub const TUNNELS: &[Difference] = &[
    Difference {
        row: r#"{"type": "l2tpv3", "src": "10.9.9.9", "dst": "10.0.0.2", "txsession": 1}"#,
        qemu: &["GenericError: could not bind socket err=99"],
        ours: &["GenericError: could not bind socket: Cannot assign requested address"],
        reason: L2TPV3_ERRNO,
    },
    Difference {
        row: r#"{"type": "l2tpv3", "src": "10.9.9.9", "dst": "nosuch.invalid", "txsession": 1}"#,
        qemu: &["GenericError: could not bind socket err=99"],
        ours: &["GenericError: could not bind socket: Cannot assign requested address"],
        reason: L2TPV3_ERRNO,
    },
    Difference {
        row: r#"{"type": "vhost-vdpa", "vhostfd": "99"}"#,
        qemu: &["GenericError: Fail to query features from vhost-vDPA device: Bad file descriptor"],
        ours: &[
            "GenericError: vhost-vdpa: unable to parse vhostfd: n0: Can't use file descriptor 99: Bad file descriptor",
        ],
        reason: "the number is looked at before the device",
    },
];

/// Of [`taps`](crate::taps).
pub const TAPS: &[Difference] = &[
    Difference {
        row: r#"{"type": "tap", "helper": "/bin/true"}"#,
        qemu: &["GenericError: Failed to set FD nonblocking: Bad file descriptor"],
        ours: &["GenericError: bridge helper failed"],
        reason: "the helper gave no descriptor, and QEMU uses one all the same",
    },
    Difference {
        row: r#"{"type": "tap", "ifname": "a/b", "script": "no"}"#,
        qemu: &["GenericError: could not configure /dev/net/tun (a/b): Invalid argument"],
        ours: &["GenericError: 'a/b' is no interface name: at most 15 bytes, without '/', ':' and spaces"],
        reason: "it says what is wrong with the name",
    },
    Difference {
        row: r#"{"type": "tap", "ifname": "sixteen-bytes-name", "script": "no"}"#,
        qemu: &["return {}"],
        ours: &[
            "GenericError: 'sixteen-bytes-name' is no interface name: at most 15 bytes, without '/', ':' and spaces",
        ],
        reason: "QEMU makes an interface of another name",
    },
    Difference {
        row: r#"{"type": "tap", "ifname": "t0", "script": "", "downscript": "no"}"#,
        qemu: &["return {}", "n0: index=0,type=tap,ifname=t0,script=,downscript=no", "return {}"],
        ours: &["return {}", "n0: index=0,type=tap,ifname=t0,script=no,downscript=no", "return {}"],
        reason: NO_SCRIPT,
    },
    Difference {
        row: r#"{"type": "tap", "ifname": "t0", "script": "no", "downscript": ""}"#,
        qemu: &["return {}", "n0: index=0,type=tap,ifname=t0,script=no,downscript=", "return {}"],
        ours: &["return {}", "n0: index=0,type=tap,ifname=t0,script=no,downscript=no", "return {}"],
        reason: NO_SCRIPT,
    },
];
pub const TAPS_UNASKED: &[Unasked] = &[
    Unasked {
        row: r#"{"type": "tap", "ifname": "t0", "script": "no", "vhost": true}"#,
        ours: &[
            "GenericError: vhost=on is not available: ringyard forwards the frames itself, the kernel's vhost-net has no part in it",
        ],
        reason: "where vhost-net is missing QEMU 7.2 deletes the netdev and asserts that it is there",
    },
    Unasked {
        row: r#"{"type": "tap", "ifname": "t0", "script": "no", "vhostforce": true}"#,
        ours: &[
            "GenericError: vhost=on is not available: ringyard forwards the frames itself, the kernel's vhost-net has no part in it",
        ],
        reason: "where vhost-net is missing QEMU 7.2 deletes the netdev and asserts that it is there",
    },
    Unasked {
        row: r#"{"type": "tap", "ifname": "t0", "script": "no", "vhostfd": "3"}"#,
        ours: &[
            "GenericError: vhost=on is not available: ringyard forwards the frames itself, the kernel's vhost-net has no part in it",
        ],
        reason: "where vhost-net is missing QEMU 7.2 deletes the netdev and asserts that it is there",
    },
    Unasked {
        row: r#"{"type": "tap", "ifname": "t0", "script": "no", "queues": 0}"#,
        ours: &["GenericError: queues must be greater than zero"],
        reason: "QEMU 7.2 aborts",
    },
    Unasked {
        row: r#"{"type": "tap", "fds": "99"}"#,
        ours: &["GenericError: n0: Can't use file descriptor 99: Bad file descriptor"],
        reason: "QEMU 7.2 uses what it could not get, and crashes",
    },
    Unasked {
        row: r#"{"type": "tap", "fds": "0:0"}"#,
        ours: &["GenericError: Unable to query TUNGETIFF on FD N: Inappropriate ioctl for device"],
        reason: "QEMU 7.2 uses what it could not get, and crashes",
    },
];

/// Of [`users`](crate::users).
pub const USERS: &[Difference] = &[Difference {
    row: r#"{"type": "user", "hostfwd": [{"str": "unix:/tmp/x-:2"}]}"#,
    qemu: &["GenericError: Invalid host forwarding rule 'unix:/tmp/x-:2' (Bad protocol name)"],
    ours: &["return {}"],
    reason: "QEMU 10.2 forwards from unix sockets",
}];
pub const USER_RULES: &[Difference] = &[];

/// Of [`hubs`](crate::hubs).
pub const HUBS: &[Difference] = &[
    Difference {
        row: "3: netdev_add hubport,id=h0,hubid=0",
        qemu: &[TRY_NETDEV_ADD],
        ours: &[r#"return "Error: Duplicate ID 'h0'\r\n""#],
        reason: TOLD_ON_STDERR,
    },
    Difference {
        row: "4: netdev_add hubport,id=h0,hubid=7",
        qemu: &[TRY_NETDEV_ADD],
        ours: &[r#"return "Error: Duplicate ID 'h0'\r\n""#],
        reason: TOLD_ON_STDERR,
    },
    Difference {
        row: "9: netdev_add socket,id=h0,udp=127.0.0.1:1,localaddr=127.0.0.1:2",
        qemu: &[TRY_NETDEV_ADD],
        ours: &[r#"return "Error: Duplicate ID 'h0'\r\n""#],
        reason: TOLD_ON_STDERR,
    },
];
pub const HUB_COMMANDS: &[Difference] = &[Difference {
    row: r#"{"execute": "netdev_add", "arguments": {"type": "netmap", "id": "h0", "ifname": "x"}}"#,
    qemu: &["GenericError: network backend 'netmap' is not compiled into this binary"],
    ours: &["GenericError: Duplicate ID 'h0'"],
    reason: NETMAP,
}];

/// Of [`descriptors`](crate::descriptors).
pub const DESCRIPTORS: &[Difference] = &[
    Difference {
        row: r#"20: {"execute": "netdev_add", "arguments": {"type": "dgram", "id": "d0", "local": {"type": "fd", "str": "s"}}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: a socket of type 1 is passed where SOCK_DGRAM is needed"],
        reason: "in a stream the frames would run into each other",
    },
    Difference {
        row: r#"21: {"execute": "netdev_del", "arguments": {"id": "d0"}}"#,
        qemu: &["return {}"],
        ours: &["DeviceNotFound: Device 'd0' not found"],
        reason: "it was not made",
    },
    Difference {
        row: r#"32: {"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 2}"#,
        qemu: &[r#"id 2: return "d2: index=0,type=dgram,fd=N\r\ns2: index=0,type=socket,socket: fd=N\r\n""#],
        ours: &[r#"id 2: return "s2: index=0,type=socket,socket: fd=N\r\n""#],
        reason: "QEMU keeps what it refused to make, d2",
    },
];
pub const SETS: &[Difference] = &[];

/// Of [`chardevs`](crate::chardevs).
pub const CHARDEVS: &[Difference] = &[
    Difference {
        row: r#"0: {"execute": "query-chardev"}"#,
        qemu: &["return [{filename: string, frontend-open: boolean, label: string}]"],
        ours: &["return []"],
        reason: "the monitors of QEMU are chardevs of it",
    },
    Difference {
        row: r#"3: {"execute": "chardev-add", "arguments": {"id": "c0", "backend": {"type": "null", "data": {}}}}"#,
        qemu: &["GenericError: Chardev with id 'c0' already exists"],
        ours: &["GenericError: Parameter 'type' does not accept value 'null'"],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"4: {"execute": "chardev-add", "arguments": {"id": "", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "e"}}, "server": true, "wait": false}}}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Parameter 'id' expects an identifier"],
        reason: "what has another name cannot be spoken of on a command line",
    },
    Difference {
        row: r#"5: {"execute": "chardev-add", "arguments": {"id": "1a", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "e"}}, "server": true, "wait": false}}}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Parameter 'id' expects an identifier"],
        reason: "what has another name cannot be spoken of on a command line",
    },
    Difference {
        row: r#"14: {"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": ""}}, "server": false}}}}"#,
        qemu: &["GenericError: Failed to add chardev 'c3': Failed to connect to '': Connection refused"],
        ours: &["GenericError: Failed to add chardev 'c3': UNIX socket path is empty or contains a NUL"],
        reason: "to bind to no path is to be given an abstract name by Linux, which is in nobody's interest",
    },
    Difference {
        row: r#"16: {"execute": "chardev-add", "arguments": {"id": "c3", "backend": {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "nosuch"}}}}}}"#,
        qemu: &[
            "GenericError: Failed to add chardev 'c3': File descriptor named 'nosuch' has not been found",
        ],
        ours: &["GenericError: Parameter 'type' does not accept value 'fd'"],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"17: {"execute": "chardev-add", "arguments": {"id": "t0", "backend": {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}, "server": true, "wait": false}}}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Parameter 'type' does not accept value 'inet'"],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"18: {"execute": "chardev-add", "arguments": {"id": "n0", "backend": {"type": "null", "data": {}}}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Parameter 'type' does not accept value 'null'"],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"21: {"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "n0"}}"#,
        qemu: &[r#"GenericError: chardev "n0" is not reconnectable"#],
        ours: &[r#"GenericError: chardev "n0" not found"#],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"22: {"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "t0"}}"#,
        qemu: &[r#"GenericError: chardev "t0" does not support FD passing"#],
        ours: &[r#"GenericError: chardev "t0" not found"#],
        reason: ONLY_UNIX,
    },
    Difference {
        row: r#"26: {"execute": "netdev_add", "arguments": {"type": "vhost-user", "id": "v0", "chardev": "nosuch", "queues": 0}}"#,
        qemu: &[r#"GenericError: chardev "nosuch" not found"#],
        ours: &["GenericError: vhost-user number of queues must be in range [1, 1024]"],
        reason: "what the options say is checked before anything is looked for",
    },
];

/// Of [`human`](crate::human).
pub const HUMAN: &[Difference] = &[
    Difference {
        row: "netdev_add hubport,id=h,hubid=x",
        qemu: &[r#"return "Error: Parameter 'hubid' expects an int64 value\r\n""#],
        ours: &[r#"return "Error: Parameter 'hubid' expects integer\r\n""#],
        reason: KEYVAL,
    },
    Difference {
        row: "netdev_add hubport,id=1h,hubid=1",
        qemu: &[r#"return "Try \"help netdev_add\" for more information\r\n""#],
        ours: &[r#"return "Error: Parameter 'id' expects an identifier\r\n""#],
        reason: TOLD_ON_STDERR,
    },
    Difference {
        row: "netdev_add hubport,id=h,hubid=1,bogus=1",
        qemu: &[r#"return "Error: Invalid parameter 'bogus'\r\n""#],
        ours: &[r#"return "Error: Parameter 'bogus' is unexpected\r\n""#],
        reason: KEYVAL,
    },
    Difference {
        row: "netdev_add hubport,id=h,hubid=0x10",
        qemu: &[r#"return "Try \"help netdev_add\" for more information\r\n""#],
        ours: &[r#"return "Error: Duplicate ID 'h'\r\n""#],
        reason: TOLD_ON_STDERR,
    },
    Difference {
        row: "netdev_add hubport,id=h,hubid=1",
        qemu: &[r#"return "Try \"help netdev_add\" for more information\r\n""#],
        ours: &[r#"return "Error: Duplicate ID 'h'\r\n""#],
        reason: TOLD_ON_STDERR,
    },
    Difference {
        row: "netdev_add nic,id=a,macaddr=x",
        qemu: &[r#"return "Error: network backend 'nic' is not compiled into this binary\r\n""#],
        ours: &[r#"return "Error: invalid syntax for ethernet address\r\n""#],
        reason: NIC,
    },
    Difference {
        row: "netdev_add tap,id=t,queues=-1",
        qemu: &[r#"return "Error: Parameter 'queues' expects a uint64 value\r\n""#],
        ours: &[r#"return "Error: Parameter 'queues' expects uint32_t\r\n""#],
        reason: KEYVAL,
    },
    Difference {
        row: "netdev_add tap,id=t,sndbuf=1Q",
        qemu: &[r#"return "Error: Parameter 'sndbuf' expects a size value\r\n""#],
        ours: &[r#"return "Error: Parameter 'sndbuf' expects size\r\n""#],
        reason: KEYVAL,
    },
    Difference {
        row: "help set_link",
        qemu: &[r#"return "set_link name on|off -- change the link status of a network adapter\r\n""#],
        ours: &[r#"return "set_link NAME on|off -- change the link of a netdev or a nic\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help netdev_add",
        qemu: &[
            r#"return "netdev_add [user|tap|socket|stream|dgram|vde|bridge|hubport|netmap|vhost-user],id=str[,prop=value][,...] -- add host network device\r\n""#,
        ],
        ours: &[r#"return "netdev_add TYPE,id=ID[,MEMBER=VALUE...] -- add a netdev\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help netdev_del",
        qemu: &[r#"return "netdev_del id -- remove host network device\r\n""#],
        ours: &[r#"return "netdev_del ID -- remove a netdev\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help announce_self",
        qemu: &[r#"return "announce_self [interfaces] [id] -- Trigger GARP/RARP announcements\r\n""#],
        ours: &[r#"return "announce_self [INTERFACE,...] [ID] -- have nics announce their addresses\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help hostfwd_add",
        qemu: &[
            r#"return "hostfwd_add [netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport -- redirect TCP or UDP connections from host to guest (requires -net user)\r\n""#,
        ],
        ours: &[
            r#"return "hostfwd_add [ID] [tcp|udp]:[HOST]:PORT-[GUEST]:PORT -- forward connections to a guest of a user netdev\r\n""#,
        ],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help hostfwd_remove",
        qemu: &[
            r#"return "hostfwd_remove [netdev_id] [tcp|udp]:[hostaddr]:hostport -- remove host-to-guest TCP or UDP redirection\r\n""#,
        ],
        ours: &[r#"return "hostfwd_remove [ID] [tcp|udp]:[HOST]:PORT -- forward them no more\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help info network",
        qemu: &[r#"return "info network  -- show the network state\r\n""#],
        ours: &[r#"return "info network  -- show hubs, netdevs and nics\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "help help",
        qemu: &[r#"return "help|? [cmd] -- show the help\r\n""#],
        ours: &[r#"return "help [COMMAND] -- show what there is\r\n""#],
        reason: OWN_WORDS,
    },
    Difference {
        row: "? set_link",
        qemu: &[r#"return "set_link name on|off -- change the link status of a network adapter\r\n""#],
        ours: &[r#"return "set_link NAME on|off -- change the link of a netdev or a nic\r\n""#],
        reason: OWN_WORDS,
    },
];

/// Of [`machine`](crate::machine).
pub const MACHINE: &[Difference] = &[
    Difference {
        row: r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}}"#,
        qemu: &[
            r#"return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\n""#,
        ],
        ours: &[
            r#"return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\n""#,
        ],
        reason: "a nic of ours stands on no bus",
    },
    Difference {
        row: r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 2}"#,
        qemu: &[
            r#"id 2: return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\n""#,
        ],
        ours: &[
            r#"id 2: return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\n""#,
        ],
        reason: "a nic of ours stands on no bus",
    },
    Difference {
        row: r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info network"}, "id": 3}"#,
        qemu: &[
            r#"id 3: return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\nu0: index=0,type=socket,socket: udp=127.0.0.1:3\r\n""#,
        ],
        ours: &[
            r#"id 3: return "hub 0\r\n \\ h0\r\nnet0: index=0,type=nic,model=virtio,macaddr=52:54:00:aa:bb:cc\r\n \\ u0: index=0,type=socket,socket: udp=127.0.0.1:1\r\nu0: index=0,type=socket,socket: udp=127.0.0.1:3\r\n""#,
        ],
        reason: "a nic of ours stands on no bus",
    },
    Difference {
        row: r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "net0", "hubid": 1}}"#,
        qemu: &["return {}"],
        ours: &["GenericError: Duplicate ID 'net0'"],
        reason: NIC,
    },
];

/// Of [`schema`](crate::schema): what is found, and the reason.
pub const SCHEMA: &[(&str, &str)] = &[
    (
        "SHUTDOWN.reason: only QEMU's: guest-panic, guest-reset, guest-shutdown, host-error, host-qmp-system-reset, host-ui, none, snapshot-load, subsystem-reset",
        NO_MACHINE,
    ),
    ("chardev-add(): only QEMU's: pty", ONLY_UNIX),
    (
        "chardev-add.backend.type: only QEMU's: braille, console, dbus, file, memory, msmouse, mux, null, parallel, pipe, pty, qemu-vdagent, ringbuf, serial, spiceport, spicevmc, stdio, testdev, udp, vc, wctablet",
        ONLY_UNIX,
    ),
    ("chardev-add.backend<socket>.data.addr.type: only QEMU's: fd, inet, vsock", ONLY_UNIX),
    (
        "chardev-add.backend<socket>.data.addr<unix>.data: only QEMU's: abstract, tight",
        "nobody asked for a front end at an abstract name",
    ),
    (
        "chardev-add.backend<socket>.data: only QEMU's: logappend, logfile, nodelay, telnet, tls-authz, tls-creds, tn3270, websocket",
        ONLY_UNIX,
    ),
    ("chardev-add.backend<socket>.data: only ours: reconnect-ms", "QEMU 9.2 has it"),
    ("command query-netdev: only ours", "an earlier revision of the schema has it, and users ask for it"),
    ("event NETDEV_VHOST_USER_CONNECTED: only ours", "QEMU 10.0 has it"),
    ("event NETDEV_VHOST_USER_DISCONNECTED: only ours", "QEMU 10.0 has it"),
    (r#"human-monitor-command: features: QEMU's ["savevm-monitor-nodes"], ours none"#, NO_MACHINE),
    (
        "netdev_add.type: only ours: af-packet, af-xdp, vmnet-bridged, vmnet-host, vmnet-shared, x-vduse",
        "newer types, types of other systems, and our own",
    ),
    ("netdev_add<nic>: only ours: x-failover, x-follow, x-follow-nic", "our own, by their names"),
    ("netdev_add<stream>: only ours: reconnect, reconnect-ms", "QEMU 8.0 and 9.2 have them"),
    (
        "object-add.qom-type: only QEMU's: authz-list, authz-listfile, authz-pam, authz-simple, can-bus, can-host-socketcan, colo-compare, cryptodev-backend, cryptodev-backend-builtin, cryptodev-backend-lkcf, cryptodev-vhost-user, dbus-vmstate, filter-buffer, filter-mirror, filter-redirector, filter-replay, filter-rewriter, input-barrier, input-linux, iothread, main-loop, memory-backend-epc, memory-backend-file, memory-backend-memfd, memory-backend-ram, pef-guest, pr-manager-helper, qtest, rng-builtin, rng-egd, rng-random, s390-pv-guest, secret, secret_keyring, sev-guest, thread-context, throttle-group, tls-cipher-suites, tls-creds-anon, tls-creds-psk, tls-creds-x509, x-remote-object, x-vfio-user-server",
        "objects are there for netdevs, and these are not",
    ),
    ("query-qmp-schema()[]<enum>.members[]: only QEMU's: features", "no value of ours has any"),
    (
        "query-status().status: only QEMU's: colo, debug, finish-migrate, guest-panicked, inmigrate, internal-error, io-error, paused, postmigrate, prelaunch, restore-vm, save-vm, shutdown, suspended, watchdog",
        NO_MACHINE,
    ),
];

/// Of [`objects`](crate::objects).
pub const OBJECTS: &[Difference] = &[Difference {
    row: r#"85: qom-set {"path": "f0", "property": "file", "value": "y"}"#,
    qemu: &["return {}"],
    ours: &["GenericError: Property 'filter-dump.file' is not writable"],
    reason: "QEMU shows another file from then on, and writes to the same one",
}];

const STRAY_FF: &str = "GenericError: JSON parse error, stray '\u{fffd}'";
const TRY_NETDEV_ADD: &str = r#"return "Try \"help netdev_add\" for more information\r\n""#;

const INFINITE: &str =
    "JSON has no infinite numbers: QEMU takes it and echoes \"inf\", which no client can read";
const L2TPV3_ERRNO: &str = "QEMU 10.2 says it in words, too";
const NETMAP: &str = "it is compiled in; Debian's QEMU lacks it";
const NO_MACHINE: &str = "there is no machine that could be so";
const NIC: &str = "the schema lists it, and here a nic can come and go like any other netdev";
const KEYVAL: &str = "we read options as QEMU reads those of its newer types, and in the words of that";
const NO_SCRIPT: &str = "both words mean that there is none";
const OWN_WORDS: &str = "the form is QEMU's, the help is our own";
const ONLY_UNIX: &str = "only a unix socket can pass a guest's memory, and nothing else needs a chardev";
const TOLD_ON_STDERR: &str = "QEMU says why only on its standard error";
const VMNET: &str = "the types stay in the schema on every system";
