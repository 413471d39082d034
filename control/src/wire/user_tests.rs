use super::*;
use crate::qapi::Flags;
use crate::qapi::parse_keyval;
use ringyard_drivers::user::HostEnd;
use serde_json::json;

fn options(members: Value) -> Result<UserOptions, String> {
    let Value::Object(members) = members else { panic!("the test needs an object") };
    let user = Visitor::new(members, Form::Json).whole();
    user.and_then(|user: User| user.options()).map_err(|error| error.desc)
}

fn refused(members: Value) -> String {
    options(members.clone()).expect_err(&members.to_string())
}

/// Each of these was asked of QEMU 7.2.
#[test]
fn what_is_wrong_is_said_in_qemus_words() {
    let long = "a".repeat(256);
    for (members, error) in [
        (json!({"ipv4": false, "ipv6": false}), "IPv4 and IPv6 disabled"),
        (json!({"ipv6": true, "net": "10.0.0.0/24"}), "IPv4 disabled but netmask/host/dns provided"),
        (json!({"ipv4": false, "host": "x"}), "IPv4 disabled but netmask/host/dns provided"),
        (json!({"ipv4": true, "ipv6-prefix": "fe::"}), "IPv6 disabled but prefix/host6/dns6 provided"),
        (json!({"ipv6": false, "ipv6-host": "::1"}), "IPv6 disabled but prefix/host6/dns6 provided"),
        (json!({"net": "bogus"}), "Failed to parse netmask"),
        (json!({"net": "10.0.0.0.0/24"}), "Failed to parse netmask"),
        (json!({"ip": "x"}), "Failed to parse netmask"),
        (json!({"net": "10.0.0.0/3"}), "Invalid netmask provided (must be in range 4-32)"),
        (json!({"net": "10.0.0.0/33"}), "Invalid netmask provided (must be in range 4-32)"),
        (json!({"net": "10.0.0.0/"}), "Invalid netmask provided (must be in range 4-32)"),
        (json!({"net": "10.0.0.0/x"}), "Failed to parse netmask (trailing chars)"),
        (json!({"ip": "10.1.2.3/24"}), "Failed to parse netmask (trailing chars)"),
        (json!({"host": "x"}), "Failed to parse host"),
        (json!({"host": "1.2.3.4"}), "Host doesn't belong to network"),
        (json!({"dns": "x"}), "Failed to parse DNS"),
        (json!({"dns": "1.2.3.4", "restrict": true}), "DNS doesn't belong to network"),
        (json!({"dns": "10.0.2.2"}), "DNS must be different from host"),
        (json!({"net": "1.2.3.4/255.255.0.255"}), "DNS must be different from host"),
        (json!({"dhcpstart": "x"}), "Failed to parse DHCP start address"),
        (json!({"dhcpstart": "1.1.1.1"}), "DHCP doesn't belong to network"),
        (json!({"dhcpstart": "10.0.2.2"}), "DHCP must be different from host and DNS"),
        (json!({"dhcpstart": "10.0.2.3"}), "DHCP must be different from host and DNS"),
        (json!({"net": "1.2.3.4/30"}), "DHCP must be different from host and DNS"),
        (json!({"smbserver": "x"}), "Failed to parse SMB address"),
        (json!({"ipv6-prefix": ""}), "Failed to parse IPv6 prefix"),
        (json!({"ipv6-prefixlen": 127}), PREFIX_LEN_ERROR),
        (json!({"ipv6-prefixlen": -1}), PREFIX_LEN_ERROR),
        (json!({"ipv6-host": "x"}), "Failed to parse IPv6 host"),
        (json!({"ipv6-host": "1::"}), "IPv6 Host doesn't belong to network"),
        (json!({"ipv6-dns": "x"}), "Failed to parse IPv6 DNS"),
        (json!({"ipv6-dns": "1::", "restrict": true}), "IPv6 DNS doesn't belong to network"),
        (json!({"domainname": ""}), "'domainname' parameter cannot be empty"),
        (json!({"domainname": long}), "'domainname' parameter cannot exceed 255 bytes"),
        (json!({"hostname": long}), "'vhostname' parameter cannot exceed 255 bytes"),
        (json!({"tftp-server-name": long}), "'tftp-server-name' parameter cannot exceed 255 bytes"),
        (json!({"hostfwd": ["tcp::1-:1"]}), "Invalid parameter type for 'hostfwd[0]', expected: object"),
        (json!({"hostfwd": "x"}), "Invalid parameter type for 'hostfwd', expected: array"),
        (json!({"hostfwd": [{"x": 1}]}), "Parameter 'hostfwd[0].str' is missing"),
        (json!({"dnssearch": [{"str": "a", "x": 1}]}), "Parameter 'dnssearch[0].x' is unexpected"),
    ] {
        assert_eq!(refused(members.clone()), error, "{members}");
    }
}

const PREFIX_LEN_ERROR: &str = "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)";

/// The order in which QEMU comes to them: each error hides those behind it.
#[test]
fn checks_are_made_in_qemus_order() {
    let order = [
        (json!({"net": "x"}), "Failed to parse netmask"),
        (json!({"host": "x"}), "Failed to parse host"),
        (json!({"dns": "x"}), "Failed to parse DNS"),
        (json!({"dhcpstart": "x"}), "Failed to parse DHCP start address"),
        (json!({"smbserver": "x"}), "Failed to parse SMB address"),
        (json!({"ipv6-prefix": "x"}), "Failed to parse IPv6 prefix"),
        (json!({"ipv6-host": "x"}), "Failed to parse IPv6 host"),
        (json!({"ipv6-dns": "x"}), "Failed to parse IPv6 DNS"),
        (json!({"domainname": ""}), "'domainname' parameter cannot be empty"),
        (json!({"guestfwd": [{"str": "a"}, {"str": "b"}]}), "Invalid guest forwarding rule 'b'"),
        (
            json!({"hostfwd": [{"str": "c"}, {"str": "d"}]}),
            "Invalid host forwarding rule 'd' (No : separators)",
        ),
    ];
    for from in 0..order.len() {
        let mut all = Map::new();
        for (members, _) in &order[from..] {
            all.extend(members.as_object().expect("they are objects").clone());
        }
        assert_eq!(refused(all.into()), order[from].1);
    }
}

#[test]
fn what_is_not_said_follows_from_the_network() {
    let ipv4 = |members| options(members).expect("they are right").ipv4;
    let side = |enabled, network: &str, mask: &str, host: &str, dhcp_start: &str, dns: &str| {
        let address = |text: &str| text.parse().expect("an address");
        Ipv4Side {
            enabled,
            network: address(network),
            mask: address(mask),
            host: address(host),
            dhcp_start: address(dhcp_start),
            dns: address(dns),
        }
    };
    let usual = |enabled| side(enabled, "10.0.2.0", "255.255.255.0", "10.0.2.2", "10.0.2.15", "10.0.2.3");
    assert_eq!(ipv4(json!({})), usual(true));
    assert_eq!(ipv4(json!({"ipv6": true})), usual(false));
    let net = json!({"net": "192.168.76.9/24"});
    let expected = ["192.168.76.0", "255.255.255.0", "192.168.76.2", "192.168.76.15", "192.168.76.3"];
    let [network, mask, host, dhcp, dns] = expected;
    assert_eq!(ipv4(net), side(true, network, mask, host, dhcp, dns));
    let ip = json!({"ip": "192.168.76.9", "dns": "1.1.1.1", "host": "192.168.76.4"});
    assert_eq!(ipv4(ip), side(true, network, mask, "192.168.76.4", dhcp, "1.1.1.1"));
    for (net, mask) in [
        ("1.0", "255.0.0.0"),
        ("172.16.0.0", "255.240.0.0"),
        ("130.0.0.0", "255.255.0.0"),
        ("192.168.1.0", "255.255.0.0"),
        ("198.18.0.0", "255.254.0.0"),
        ("224.0.0.0", "255.255.255.0"),
        ("10.0.0.0/255.255.254.0", "255.255.254.0"),
        ("10.0.0.0/ 20", "255.255.240.0"),
    ] {
        assert_eq!(ipv4(json!({"net": net})).mask.to_string(), mask, "{net}");
    }

    let ipv6 = |members| options(members).expect("they are right").ipv6;
    let usual = ipv6(json!({"ipv6-prefixlen": 4_294_967_296_i64}));
    let [prefix, host, dns] = ["fec0::", "fec0::2", "fec0::3"].map(|text| text.parse().expect("an address"));
    assert_eq!(usual, Ipv6Side { enabled: true, prefix, prefix_len: 64, host, dns });
    let other = ipv6(json!({"ipv6-prefix": "fd00:1::", "ipv6-prefixlen": 48, "ipv6-host": "fd00:1:0:5::1"}));
    assert_eq!((other.prefix_len, other.dns), (48, "fd00:1::3".parse().expect("an address")));
}

#[test]
fn lists_are_repeated_on_a_command_line() {
    let line = "user,hostfwd=tcp::1-:2,hostfwd=udp:127.0.0.1:3-:4,dnssearch=a.b,dnssearch=c,restrict=on";
    let mut members = parse_keyval(line, "type", Flags::Refused).expect("it is well-formed");
    members.shift_remove("type");
    let user: User = Visitor::new(members, Form::Keyval).whole().expect("they are right");
    let options = user.options().expect("they are right");
    assert_eq!(options.dns_search, ["a.b", "c"]);
    assert!(options.restrict);
    let from: Vec<&HostEnd> = options.host_forwards.iter().map(|forward| &forward.from).collect();
    let expected = [HostEnd::Udp([127, 0, 0, 1].into(), 3), HostEnd::Tcp([0, 0, 0, 0].into(), 1)];
    assert_eq!(from, expected.iter().collect::<Vec<_>>());
}
