//! `l2tpv3`: one end of an Ethernet tunnel over UDP or IP.

use std::sync::Arc;

use ringyard_drivers::l2tpv3::{Cookies, Counter, Format, L2tpv3Options, OFFSET_MAX};
use serde_json::{Map, Value};

use super::netdev::{Members, NetdevKind};
use crate::ports::L2tpv3Spec;
use crate::qapi::{QapiError, options, written};

options! {
    /// The members of an `l2tpv3` netdev, as given.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct L2tpv3 as "NetdevL2TPv3Options" {
        /// Our host.
        pub src: String,
        /// The peer's host.
        pub dst: String,
        /// Our port; for UDP only.
        pub srcport: Option<String>,
        /// The peer's port; for UDP only.
        pub dstport: Option<String>,
        /// Whether the hosts have IPv6 addresses.
        pub ipv6: Option<bool>,
        /// Whether the tunnel goes over UDP, not over IP itself.
        pub udp: Option<bool>,
        /// Whether cookies have 8 bytes, not 4. The value counts, where QEMU takes `false` for `true`.
        pub cookie64: Option<bool>,
        /// Whether datagrams are numbered.
        pub counter: Option<bool>,
        /// Whether their number is always 0; nothing without `counter`.
        pub pincounter: Option<bool>,
        /// The cookie that we send.
        pub txcookie: Option<u64>,
        /// The cookie that we expect.
        pub rxcookie: Option<u64>,
        /// The session that we send to.
        pub txsession: u32,
        /// Our session; the same if not given.
        pub rxsession: Option<u32>,
        /// Bytes between the header and the frame.
        pub offset: Option<u32>,
    }
}

impl Members for L2tpv3 {
    fn type_name(&self) -> &'static str {
        "l2tpv3"
    }

    fn resolve(&self) -> Result<NetdevKind, QapiError> {
        Ok(NetdevKind::Port(Arc::new(L2tpv3Spec(self.options()?))))
    }

    fn shown(&self) -> Map<String, Value> {
        written(self)
    }
}

impl L2tpv3 {
    fn options(&self) -> Result<L2tpv3Options, QapiError> {
        let offset = u16::try_from(self.offset.unwrap_or(0)).ok().filter(|offset| *offset <= OFFSET_MAX);
        // QEMU's words, though 256 itself is taken.
        let offset = offset.ok_or_else(|| QapiError::generic("offset must be less than 256 bytes"))?;
        let long = self.cookie64.unwrap_or(false);
        let cookies = match (self.txcookie, self.rxcookie) {
            (Some(tx), Some(rx)) => Some(Cookies { tx, rx, long }),
            (None, None) => None,
            _ => return Err(QapiError::generic("require both 'rxcookie' and 'txcookie' or neither")),
        };
        let counter = match (self.counter.unwrap_or(false), self.pincounter.unwrap_or(false)) {
            (true, true) => Counter::Pinned,
            (true, false) => Counter::Counts,
            (false, _) => Counter::Off,
        };
        let rx_session = self.rxsession.unwrap_or(self.txsession);
        let format = Format { tx_session: self.txsession, rx_session, cookies, counter, offset };
        let ports = self.ports()?;
        let (src, dst) = (self.src.clone(), self.dst.clone());
        Ok(L2tpv3Options { src, dst, ports, ipv6: self.ipv6.unwrap_or(false), format })
    }

    fn ports(&self) -> Result<Option<(String, String)>, QapiError> {
        if !self.udp.unwrap_or(false) {
            return Ok(None);
        }
        match (&self.srcport, &self.dstport) {
            (Some(src), Some(dst)) => Ok(Some((src.clone(), dst.clone()))),
            _ => Err(QapiError::generic("need both src and dst port for udp")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qapi::{Flags, Form, Visitor, parse_keyval};

    fn options(text: &str) -> Result<L2tpv3Options, String> {
        let members = parse_keyval(text, "type", Flags::Refused).expect(text);
        let members = Visitor::new(members, Form::Keyval).whole::<L2tpv3>();
        members.and_then(|members| members.options()).map_err(|error| error.desc)
    }

    fn format(text: &str) -> Format {
        options(&format!("src=a,dst=b,txsession=1,{text}")).expect(text).format
    }

    #[test]
    fn a_tunnel_without_options_is_bare_and_goes_over_ipv4() {
        let format = Format { tx_session: 7, rx_session: 7, cookies: None, counter: Counter::Off, offset: 0 };
        let bare = L2tpv3Options { src: "a".into(), dst: "b".into(), ports: None, ipv6: false, format };
        assert_eq!(options("src=a,dst=b,txsession=7"), Ok(bare.clone()));
        // Ports are nothing without UDP.
        assert_eq!(options("src=a,dst=b,txsession=7,srcport=1,udp=off,ipv6=off"), Ok(bare));
    }

    #[test]
    fn what_is_missing_is_named_in_the_order_of_the_schema() {
        assert_eq!(options("txsession=1"), Err("Parameter 'src' is missing".into()));
        assert_eq!(options("src=a,txsession=1"), Err("Parameter 'dst' is missing".into()));
        assert_eq!(options("src=a,dst=b,udp=on"), Err("Parameter 'txsession' is missing".into()));
    }

    #[test]
    fn options_are_checked_in_qemus_order() {
        let with = |text: &str| options(&format!("src=a,dst=b,txsession=1{text}"));
        let refused = |text: &str| with(text).expect_err(text);
        let everything = ",udp=on,rxcookie=1,offset=257";
        assert_eq!(refused(everything), "offset must be less than 256 bytes");
        assert_eq!(refused(",offset=65792"), "offset must be less than 256 bytes");
        let one = "require both 'rxcookie' and 'txcookie' or neither";
        assert_eq!(refused(",udp=on,rxcookie=1,offset=256"), one);
        assert_eq!(refused(",txcookie=0"), one);
        for ports in ["", ",srcport=1", ",dstport=1"] {
            assert_eq!(refused(&format!(",udp=on{ports}")), "need both src and dst port for udp");
        }
        let ports = with(",udp=on,srcport=l2tp,dstport=").map(|options| options.ports);
        assert_eq!(ports, Ok(Some(("l2tp".into(), String::new()))));
    }

    #[test]
    fn the_value_of_cookie64_counts() {
        let max = u64::MAX;
        for (cookie64, long) in [("", false), ("cookie64=off,", false), ("cookie64=on,", true)] {
            let text = format!("{cookie64}txcookie={max},rxcookie=2");
            assert_eq!(format(&text).cookies, Some(Cookies { tx: max, rx: 2, long }));
        }
        assert_eq!(format("cookie64=on").cookies, None);
    }

    #[test]
    fn a_pinned_counter_needs_a_counter() {
        assert_eq!(format("counter=on").counter, Counter::Counts);
        assert_eq!(format("counter=on,pincounter=on").counter, Counter::Pinned);
        assert_eq!(format("pincounter=on").counter, Counter::Off);
        assert_eq!(format("counter=off,pincounter=on").counter, Counter::Off);
    }

    #[test]
    fn sessions_are_equal_unless_the_other_one_is_given() {
        assert_eq!((format("offset=256").rx_session, format("rxsession=0").rx_session), (1, 0));
        let largest = format("rxsession=4294967295,offset=256");
        assert_eq!((largest.rx_session, largest.offset), (u32::MAX, 256));
    }
}
