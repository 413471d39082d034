//! What a tap's options may be together, and what they resolve to.

use super::*;
use crate::qapi::{Flags, Form, Visitor, parse_keyval};

fn resolved(options: &str) -> Result<TapSpec, String> {
    let members = parse_keyval(options, "type", Flags::Refused).expect(options);
    let tap: Tap = Visitor::new(members, Form::Keyval).whole().expect(options);
    tap.spec().map_err(|error| error.desc)
}

fn source(options: &str) -> TapSource {
    resolved(options).expect(options).source
}

#[test]
fn a_tap_without_options_takes_the_defaults() {
    let source = TapSource::Name {
        ifname: None,
        script: Script::Default("/etc/qemu-ifup".into()),
        downscript: Script::Default("/etc/qemu-ifdown".into()),
        queues: 1,
        vnet_hdr: VnetHeader::IfSupported,
    };
    assert_eq!(resolved(""), Ok(TapSpec { source, sndbuf_bytes: i32::MAX }));
}

#[test]
fn a_named_tap_keeps_what_it_is_given() {
    let given = "ifname=tap%d,script=no,downscript=/bin/true,queues=256,vnet_hdr=off,vhost=off";
    let expected = TapSource::Name {
        ifname: Some("tap%d".into()),
        script: Script::Off,
        downscript: Script::Run("/bin/true".into()),
        queues: 256,
        vnet_hdr: VnetHeader::Off,
    };
    assert_eq!(source(given), expected);
}

#[test]
fn sndbuf_zero_means_no_limit() {
    let sndbuf = |options| resolved(options).map(|spec| spec.sndbuf_bytes);
    assert_eq!(sndbuf("sndbuf=0"), Ok(i32::MAX));
    assert_eq!(sndbuf("sndbuf=1M"), Ok(1 << 20));
    assert_eq!(sndbuf("sndbuf=1T"), Ok(i32::MAX));
}

#[test]
fn descriptors_are_numbers_or_names() {
    assert_eq!(source("fd=7"), TapSource::Fd(FdRef::Number(7)));
    assert_eq!(source("fds=7:a"), TapSource::Fds(vec![FdRef::Number(7), FdRef::Name("a".into())]));
    assert_eq!(resolved("fd=7x"), Err("Invalid file descriptor number '7x'".into()));
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    for with in ["ifname=x", "script=x", "downscript=x", "vnet_hdr=on", "queues=2", "helper=x"] {
        assert_eq!(resolved(&format!("fd=3,{with}")), Err(INVALID_WITH_FD.into()), "{with}");
        assert_eq!(resolved(&format!("fds=3:4,{with}")), Err(INVALID_WITH_FDS.into()), "{with}");
    }
    assert_eq!(resolved("fd=3,fds=3:4"), Err(INVALID_WITH_FD.into()));
    assert_eq!(resolved("fd=3,vhostfds=3:4"), Err(INVALID_WITH_FD.into()));
    assert_eq!(resolved("fds=3:4,vhostfd=5"), Err(INVALID_WITH_FDS.into()));
    for with in ["ifname=x", "script=x", "downscript=x", "vnet_hdr=on", "queues=2", "vhostfds=3"] {
        assert_eq!(resolved(&format!("helper=x,{with}")), Err(INVALID_WITH_HELPER.into()), "{with}");
    }
    assert_eq!(resolved("vhostfds=3"), Err("vhostfds= is invalid if fds= wasn't specified".into()));
    let mismatch = "The number of fds passed does not match the number of vhostfds passed";
    assert_eq!(resolved("fds=3:4,vhostfds=5"), Err(mismatch.into()));
}

#[test]
fn helper_opens_on_the_bridge_that_is_named_or_on_br0() {
    let helper =
        |helper: &str, bridge: &str| TapSource::Helper { helper: helper.into(), bridge: bridge.into() };
    assert_eq!(source("helper=/bin/h"), helper("/bin/h", "br0"));
    assert_eq!(source("helper=h --x,br=lan,sndbuf=1M,vhost=off"), helper("h --x", "lan"));
    let without = resolved("br=lan").expect("br= alone says nothing");
    assert_eq!(without.source, source(""));
}

#[test]
fn vhost_is_refused_with_a_reason() {
    for options in ["vhost=on", "vhostfd=3", "vhostforce=on", "fds=3:4,vhostfds=5:6"] {
        assert_eq!(resolved(options), Err(NO_VHOST.into()), "{options}");
    }
    let without = "vhostfd(s)= is not valid without vhost";
    assert_eq!(resolved("vhost=off,vhostfd=3"), Err(without.into()));
    assert!(resolved("vhost=off,vhostforce=on,poll-us=10").is_ok());
}

#[test]
fn queues_and_names_are_limited() {
    assert_eq!(resolved("queues=0"), Err("queues must be greater than zero".into()));
    assert_eq!(resolved("queues=257"), Err("queues must not be greater than 256".into()));
    for bad in ["sixteen-bytes-xx", "a/b", "a b", ".."] {
        assert!(resolved(&format!("ifname={bad}")).is_err(), "{bad}");
    }
    assert!(resolved("ifname=fifteen-bytes-x").is_ok());
}
