//! The header byte by byte, and what of a datagram makes it ours.

use super::*;
use std::net::Ipv6Addr;

const PLAIN: Format = Format {
    tx_session: 0x1122_3344,
    rx_session: 0x5566_7788,
    cookies: None,
    counter: Counter::Off,
    offset: 0,
};
const COOKIES: Cookies = Cookies { tx: 0x0102_0304_0506_0708, rx: 0xa1a2_a3a4_a5a6_a7a8, long: true };
const SHORT: Cookies = Cookies { tx: 0x0102_0304_0506_0708, rx: 0xa5a6_a7a8, long: false };
const FRAME: [u8; 60] = [0x5a; 60];

fn header(format: Format, carrier: Carrier) -> Arc<Header> {
    let refusals = Arc::new(Refusals::new(Alarm::new().expect("an eventfd can be made")));
    Arc::new(Header::new(format, carrier, IpAddr::from([10, 0, 0, 2]), refusals))
}

fn wrapped(header: &Arc<Header>) -> Vec<u8> {
    // What is there before is not sent.
    let mut prefix = [0xee; <Arc<Header>>::PREFIX_MAX];
    let len = header.wrap(&mut prefix);
    prefix[..len].to_vec()
}

/// The address of a socket, as the kernel writes it.
fn source(host: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[4..8].copy_from_slice(&host);
    address
}

fn unwrap(header: &Arc<Header>, prefix: &[u8], frame: &[u8]) -> Result<usize, Refusal> {
    header.unwrap(&[prefix, frame].concat(), Source(&source([10, 0, 0, 2])))
}

const STRANGER: Result<usize, Refusal> = Err(Refusal::Drop(DropReason::Stranger));
const CUT: Result<usize, Refusal> = Err(Refusal::Drop(DropReason::Malformed));

#[test]
fn every_field_stands_where_qemu_has_it() {
    let session = [0x11, 0x22, 0x33, 0x44];
    let long = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(wrapped(&header(PLAIN, Carrier::Ipv4)), session);
    assert_eq!(wrapped(&header(PLAIN, Carrier::Ipv6)), session);
    assert_eq!(wrapped(&header(PLAIN, Carrier::Udp)), [&[0, 3, 0, 0], &session[..]].concat());
    let whole = Format { cookies: Some(COOKIES), counter: Counter::Counts, offset: 3, ..PLAIN };
    let expected = [&[0, 3, 0, 0], &session[..], &long, &[0, 0, 0, 1], &[0, 0, 0]].concat();
    assert_eq!(wrapped(&header(whole, Carrier::Udp)), expected);
    let low = Format { cookies: Some(SHORT), counter: Counter::Pinned, ..PLAIN };
    let expected = [&session[..], &long[4..], &[0; 4]].concat();
    let low = header(low, Carrier::Ipv6);
    assert_eq!((wrapped(&low), wrapped(&low)), (expected.clone(), expected));
}

#[test]
fn counter_begins_at_1_goes_on_after_its_end_and_is_taken_back() {
    let counted = header(Format { counter: Counter::Counts, ..PLAIN }, Carrier::Ipv4);
    let count = |header| u32::from_be_bytes(*wrapped(header).last_chunk().expect("it is long enough"));
    assert_eq!((count(&counted), count(&counted), count(&counted)), (1, 2, 3));
    counted.take_back(2);
    assert_eq!(count(&counted), 2);
    counted.count.store(u32::MAX - 1, Ordering::Relaxed);
    assert_eq!((count(&counted), count(&counted), count(&counted)), (u32::MAX, 0, 1));
    counted.take_back(2);
    assert_eq!(count(&counted), 0);
}

#[test]
fn offset_is_zeros_and_limited() {
    for (offset, len) in [(0, 0), (1, 1), (256, 256), (257, 256), (u16::MAX, 256)] {
        let bytes = wrapped(&header(Format { offset, ..PLAIN }, Carrier::Ipv4));
        assert_eq!(bytes.len(), 4 + len);
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn datagram_of_the_session_is_taken_whatever_its_first_word_and_counter() {
    let session = [0x55, 0x66, 0x77, 0x88];
    let cookie = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    let format = Format { cookies: Some(COOKIES), counter: Counter::Counts, offset: 2, ..PLAIN };
    let udp = header(format, Carrier::Udp);
    for (word, count) in [([0, 3, 0, 0], [0, 0, 0, 1]), ([0xff; 4], [0xff; 4]), ([0; 4], [0x80, 0, 0, 0])] {
        let prefix = [&word, &session[..], &cookie, &count, &[9, 9]].concat();
        assert_eq!(unwrap(&udp, &prefix, &FRAME), Ok(22));
        assert_eq!(unwrap(&udp, &prefix, &[1]), Ok(22), "one byte is there, whatever it is");
    }
    let short = header(Format { cookies: Some(SHORT), ..PLAIN }, Carrier::Ipv6);
    assert_eq!(unwrap(&short, &[&session[..], &cookie[4..]].concat(), &FRAME), Ok(8));
}

#[test]
fn s04_a_cookie_or_session_that_differs_in_one_bit_is_a_stranger() {
    for (cookies, cookie) in
        [(COOKIES, &[0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8][..]), (SHORT, &[0xa5, 0xa6, 0xa7, 0xa8])]
    {
        let header = header(Format { cookies: Some(cookies), ..PLAIN }, Carrier::Ipv6);
        let right = [&[0x55, 0x66, 0x77, 0x88], cookie].concat();
        assert_eq!(unwrap(&header, &right, &FRAME), Ok(right.len()));
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(&header, &wrong, &FRAME), STRANGER, "bit {bit}");
        }
        let (words, counts) = header.refusals.since(Counts::default());
        let bits = 8 * cookie.len();
        assert_eq!(words, format!("{bits} with another cookie, 32 for another session"));
        assert!(header.refusals.alarm.is_raised());
        assert_eq!(header.refusals.since(counts), (String::new(), counts));
    }
}

#[test]
fn a_short_cookie_that_needs_more_bits_never_comes() {
    let beyond = Cookies { rx: SHORT.rx | 1 << 32, ..SHORT };
    let header = header(Format { cookies: Some(beyond), ..PLAIN }, Carrier::Ipv6);
    let prefix = [0x55, 0x66, 0x77, 0x88, 0xa5, 0xa6, 0xa7, 0xa8];
    assert_eq!(unwrap(&header, &prefix, &FRAME), STRANGER);
}

#[test]
fn s04_a_datagram_that_ends_before_its_frame_is_malformed() {
    let format = Format { cookies: Some(COOKIES), counter: Counter::Counts, offset: 5, ..PLAIN };
    for (carrier, len) in [(Carrier::Udp, 25), (Carrier::Ipv6, 21), (Carrier::Ipv4, 41)] {
        let header = header(format, carrier);
        let mut bytes = vec![0x45; len];
        for cut in 1..=len {
            assert_eq!(unwrap(&header, &bytes[..cut], &[]), CUT, "{carrier:?} {cut}");
        }
        bytes.push(0);
        assert_eq!(unwrap(&header, &bytes, &[]), STRANGER, "long enough to be looked at");
    }
}

#[test]
fn s04_ip_options_before_the_header_are_stepped_over() {
    let header = header(PLAIN, Carrier::Ipv4);
    for words in 0..=15u8 {
        let mut packet = vec![0; usize::from(words) * 4];
        if let Some(first) = packet.first_mut() {
            *first = 0x40 | words;
        }
        packet.extend([0x55, 0x66, 0x77, 0x88]);
        let expected = if words >= 5 { Ok(usize::from(words) * 4 + 4) } else { CUT };
        assert_eq!(unwrap(&header, &packet, &FRAME), expected, "{words} words");
        if let Some(first) = packet.first_mut() {
            *first = 0x60 | words;
            assert_eq!(unwrap(&header, &packet, &FRAME), CUT, "no IPv4 at all");
        }
    }
    assert_eq!(unwrap(&header, &[0x4f], &[0; 60]), CUT, "the options end where the packet does");
}

#[test]
fn s04_without_cookies_only_the_peers_address_is_heard() {
    let session = [0, 3, 0, 0, 0x55, 0x66, 0x77, 0x88];
    let datagram = [&session[..], &FRAME].concat();
    let open = header(PLAIN, Carrier::Udp);
    let from = |header: &Arc<Header>, host| header.unwrap(&datagram, Source(&source(host)));
    assert_eq!(from(&open, [10, 0, 0, 2]), Ok(8));
    assert_eq!(from(&open, [10, 0, 0, 3]), STRANGER);
    assert_eq!(open.unwrap(&datagram, Source(&[])), STRANGER);
    assert_eq!(open.refusals.since(Counts::default()).0, "2 from another address");
    // Whoever has the cookie is the peer, wherever it went.
    let closed = header(Format { cookies: Some(SHORT), ..PLAIN }, Carrier::Udp);
    let datagram = [&session[..], &[0xa5, 0xa6, 0xa7, 0xa8], &FRAME].concat();
    assert_eq!(closed.unwrap(&datagram, Source(&source([10, 0, 0, 3]))), Ok(12));
    // A group has no address of its own to send from.
    for group in [IpAddr::from([239, 0, 0, 1]), IpAddr::from([0; 4]), Ipv6Addr::UNSPECIFIED.into()] {
        let refusals = open.refusals.clone();
        let group = Arc::new(Header::new(PLAIN, Carrier::Udp, group, refusals));
        assert_eq!(group.unwrap(&[&session[..], &FRAME].concat(), Source(&source([1, 2, 3, 4]))), Ok(8));
    }
}

/// xorshift64*: the same datagrams at every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn s04_no_datagram_makes_it_panic_or_point_beyond_its_end() {
    let (mut state, mut taken) = (4, 0);
    let zero = |cookies: Cookies| Cookies { rx: 0, ..cookies };
    for carrier in [Carrier::Udp, Carrier::Ipv4, Carrier::Ipv6] {
        for cookies in [None, Some(zero(SHORT)), Some(zero(COOKIES))] {
            let format = Format { cookies, rx_session: 0, counter: Counter::Counts, offset: 9, ..PLAIN };
            let header = header(format, carrier);
            for _ in 0..10_000 {
                // Of zeros, what is long enough is taken.
                let len = random(&mut state) as usize % 120 + 1;
                let mask = if random(&mut state) & 1 == 0 { 0 } else { 0xff };
                let mut datagram: Vec<u8> = (0..len).map(|_| random(&mut state) as u8 & mask).collect();
                datagram[0] = random(&mut state) as u8 & 0x0f | 0x40;
                let source = &source([10, 0, 0, 2])[..random(&mut state) as usize % 17];
                if let Ok(start) = header.unwrap(&datagram, Source(source)) {
                    assert!(start < len, "{datagram:x?}");
                    taken += 1;
                }
            }
        }
    }
    assert!(taken > 10_000, "{taken}");
}
