//! A fuzz target: datagrams that are nearly a peer's.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Carrier, Cookies, Counter, Format, Header, Reason, Refusals};
use crate::datagram::{Encapsulation, Source};
use crate::minder::Alarm;

/// Runs the target: three bytes say what was agreed on, two where a datagram of the peer is changed, and the others what it
/// carries. Unchanged it is taken; with another cookie or session it is not; and whatever is taken begins inside.
pub fn run(input: &[u8]) {
    let Some((&[agreed, offset, session, place, change], payload)) = input.split_first_chunk() else {
        return;
    };
    let cookie = 0x1122_3344_5566_7788 ^ u64::from(session);
    let long = agreed & 2 != 0;
    let cookies = (agreed & 1 != 0).then_some(Cookies {
        tx: cookie,
        rx: if long { cookie } else { cookie & 0xffff_ffff },
        long,
    });
    let counter = [Counter::Off, Counter::Counts, Counter::Pinned][usize::from(agreed >> 2) % 3];
    let carrier = [Carrier::Udp, Carrier::Ipv4, Carrier::Ipv6][usize::from(agreed >> 4) % 3];
    let number = u32::from(session) << 8 | 7;
    let format = Format { tx_session: number, rx_session: number, cookies, counter, offset: offset.into() };
    let refusals = Arc::new(Refusals::new(Alarm::new().expect("a descriptor")));
    let header = Arc::new(Header::new(format, carrier, IpAddr::from([127, 0, 0, 1]), refusals));
    let mut prefix = [0; <Arc<Header> as Encapsulation>::PREFIX_MAX];
    let len = header.wrap(&mut prefix);
    // Of raw IPv4 the kernel leaves the header.
    let options = if carrier == Carrier::Ipv4 { 5 + change as usize % 3 } else { 0 };
    let mut datagram = vec![0; 4 * options];
    if let Some(first) = datagram.first_mut() {
        *first = 0x40 | options as u8;
    }
    let start = datagram.len() + len;
    datagram.extend(&prefix[..len]);
    datagram.extend(payload);
    let source = [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0, 1, 127, 0, 0, 1], &[0; 8]].concat();
    let found = |datagram: &[u8]| header.find(datagram, Source(&source));
    let whole = if payload.is_empty() { Err(Reason::Short) } else { Ok(start) };
    assert_eq!(found(&datagram), whole, "{carrier:?} {format:?}");
    let at = usize::from(place) % datagram.len().max(1);
    if change == 0 || datagram.is_empty() {
        return;
    }
    datagram[at] ^= change;
    let session_at = 4 * options + if carrier == Carrier::Udp { 4 } else { 0 };
    let guarded = 4 + cookies.map_or(0, |cookies| if cookies.long { 8 } else { 4 });
    match found(&datagram) {
        Ok(begin) => assert!(begin < datagram.len() && !(session_at..session_at + guarded).contains(&at)),
        Err(_) => assert!(at < start, "what is carried is nobody's business"),
    }
    for cut in 0..datagram.len() {
        if let Ok(begin) = found(&datagram[..cut]) {
            assert!(begin < cut);
        }
    }
}
