use ringyard_dataplane::frame::{BURST_FRAMES, BurstScratch};
use ringyard_dataplane::offload::Segments;

use super::*;

const DF: u8 = 0x40;

/// A UDP frame whose checksum is partial.
#[derive(Clone)]
struct Datagram {
    frame: Vec<u8>,
    start: usize,
}

impl Datagram {
    fn v4(flags: u8, identification: u16, payload: &[u8]) -> Datagram {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0];
        frame.extend(identification.to_be_bytes());
        frame.extend([flags, 0, 64, UDP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        Datagram { frame, start: START_V4 }.with_payload(payload)
    }

    fn v6(payload: &[u8]) -> Datagram {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 1, 2, 3, 0, 0, UDP, 64];
        frame.extend((0..32).map(|at| 0xa0 + at));
        Datagram { frame, start: START_V6 }.with_payload(payload)
    }

    fn with_payload(mut self, payload: &[u8]) -> Datagram {
        let udp_len = (UDP_LEN + payload.len()) as u16;
        self.frame.extend([0x23, 0x29, 0x23, 0x28, 0, 0, 0, 0]);
        self.frame.extend(payload);
        put(&mut self.frame, self.start + 4, udp_len);
        let addresses = if self.start == START_V4 {
            put(&mut self.frame, NETWORK + 2, udp_len + 20);
            26
        } else {
            put(&mut self.frame, NETWORK + 4, udp_len);
            22
        };
        let mut pseudo = Sum::of(&self.frame[addresses..self.start]);
        pseudo += Sum::of(&[0, UDP]);
        pseudo += Sum::of_word(udp_len);
        put(&mut self.frame, self.start + CHECKSUM, pseudo.folded());
        self.with_ip_checksum()
    }

    fn with_ip_checksum(mut self) -> Datagram {
        if self.start == START_V4 {
            put(&mut self.frame, NETWORK + 10, 0);
            let sum = Sum::of(&self.frame[NETWORK..START_V4]).folded();
            put(&mut self.frame, NETWORK + 10, !sum);
        }
        self
    }

    fn net(&self) -> [u8; NET_HEADER_LEN] {
        [1, 0, 0, 0, 0, 0, self.start as u8, 0, 6, 0]
    }
}

/// How many of `datagrams` are coupled, from the first on; and if they are, the frames that a receiver cuts the train
/// into.
fn coupled(datagrams: &[Datagram], receiver: Offloads) -> (usize, Vec<Vec<u8>>) {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    for datagram in datagrams {
        builder.push_asking(&datagram.net(), &datagram.frame, Offloads::ALL).unwrap();
    }
    let burst = builder.burst();
    let picks: Vec<u8> = (0..datagrams.len() as u8).collect();
    let Some(train) = Train::of(&burst, &picks, receiver) else { return (1, Vec::new()) };
    let mut whole = train.header().to_vec();
    let (mut lens, mut pieces) = (0, 0);
    for &pick in &picks[..train.count] {
        let frame = burst.frame(usize::from(pick));
        let payload = train.payload(&frame);
        let end = whole.len();
        whole.resize(end + payload.len(), 0);
        payload.copy_to(&mut whole[end..]).unwrap();
        lens += frame.len();
        pieces += payload.pieces().count();
    }
    assert_eq!(train.bytes, lens);
    assert!(pieces <= TRAIN_PIECES_MAX && whole.len() - NETWORK <= PACKET_LEN_MAX + 40);
    (train.count, finished(&train.net, &whole))
}

/// What a receiver without offloads gets of a frame.
fn finished(net: &[u8; NET_HEADER_LEN], frame: &[u8]) -> Vec<Vec<u8>> {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_asking(net, frame, Offloads::ALL).expect("a net header that is true");
    let burst = builder.burst();
    let mut segments = Segments::of(&burst.frame(0)).expect("it asks");
    let mut frames = Vec::new();
    while let Some(payload) = segments.next_payload() {
        let mut bytes = vec![0; payload.len()];
        let sum = payload.copy_to(&mut bytes).unwrap();
        frames.push([segments.header(sum), &bytes].concat());
    }
    frames
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at) as u8).collect()
}

fn assert_same(datagrams: &[Datagram], frames: &[Vec<u8>]) {
    assert_eq!(datagrams.len(), frames.len());
    for (datagram, frame) in datagrams.iter().zip(frames) {
        assert_eq!(&finished(&datagram.net(), &datagram.frame)[0], frame);
    }
}

#[test]
fn train_is_cut_into_what_it_was_made_of() {
    for len in [1, 22, 150, 151, 800, 1000] {
        for last in [1, len] {
            let lens = [len, len, len, last];
            let parts: Vec<Vec<u8>> = (0..).zip(lens).map(|(number, len)| payload(number, len)).collect();
            let consecutive = (0xfffe..).zip(&parts).map(|(id, part)| Datagram::v4(0, id as u16, part));
            let v6 = parts.iter().map(|part| Datagram::v6(part));
            for datagrams in [consecutive.collect::<Vec<_>>(), v6.collect()] {
                let (count, frames) = coupled(&datagrams, Offloads::ALL);
                assert_eq!(count, 4, "{len}, {last}");
                assert_same(&datagrams, &frames);
            }
        }
    }
}

#[test]
fn identification_matters_only_where_a_router_may_fragment() {
    let datagrams = |flags| [7, 7, 3].map(|id| Datagram::v4(flags, id, &[1; 22]));
    assert_eq!(coupled(&datagrams(0), Offloads::ALL).0, 1);
    let (count, frames) = coupled(&datagrams(DF), Offloads::ALL);
    assert_eq!(count, 3);
    assert_same(&[7, 8, 9].map(|id| Datagram::v4(DF, id, &[1; 22])), &frames);
}

#[test]
fn datagrams_that_differ_in_any_field_are_not_coupled() {
    for datagram in [Datagram::v4(0, 7, &[1; 22]), Datagram::v6(&[1; 22])] {
        let mut next = datagram.clone();
        if datagram.start == START_V4 {
            next = Datagram::v4(0, 8, &[1; 22]);
        }
        assert_eq!(coupled(&[datagram.clone(), next.clone()], Offloads::ALL).0, 2);
        for bit in 0..(datagram.start + 6) * 8 {
            let mut other = next.clone();
            other.frame[bit / 8] ^= 1 << (bit % 8);
            let checksum_at = NETWORK + 10..NETWORK + 12;
            if !checksum_at.contains(&(bit / 8)) || datagram.start == START_V6 {
                other = other.with_ip_checksum();
            }
            for pair in [[datagram.clone(), other.clone()], [other, next.clone()]] {
                assert_eq!(coupled(&pair, Offloads::ALL).0, 1, "bit {bit}");
            }
        }
    }
}

#[test]
fn shorter_datagram_is_the_last_and_a_longer_one_waits() {
    let train = |lens: &[usize]| {
        let datagrams: Vec<Datagram> = lens.iter().map(|&len| Datagram::v6(&payload(0, len))).collect();
        let (count, frames) = coupled(&datagrams, Offloads::ALL);
        assert!(frames.is_empty() || frames.len() == count);
        count
    };
    assert_eq!(train(&[100, 100, 99, 99]), 3);
    assert_eq!(train(&[100, 100, 101]), 2);
    assert_eq!(train(&[100, 101]), 1);
    assert_eq!(train(&[0, 0]), 1);
    assert_eq!(train(&[100, 0, 100]), 1);
    assert_eq!(train(&[100]), 1);
}

#[test]
fn train_is_as_long_as_a_packet_can_be_or_in_as_many_pieces() {
    let count = |len: usize| coupled(&vec![Datagram::v6(&payload(0, len)); BURST_FRAMES], Offloads::ALL).0;
    assert_eq!(count(22), BURST_FRAMES);
    assert_eq!(count(1472), 44);
    // Longer than the header copy: two pieces each.
    assert_eq!(count(300), TRAIN_PIECES_MAX / 2);
    let whole = |len: usize| {
        coupled(&[Datagram::v4(DF, 0, &payload(0, len)), Datagram::v4(DF, 0, &[1])], Offloads::ALL).0
    };
    assert_eq!((whole(PACKET_LEN_MAX - 29), whole(PACKET_LEN_MAX - 28)), (2, 1));
}

#[test]
fn only_what_the_receiver_takes_is_coupled() {
    let (v4, v6) = (vec![Datagram::v4(DF, 0, &[1; 22]); 2], vec![Datagram::v6(&[1; 22]); 2]);
    let count = |datagrams: &[Datagram], receiver| coupled(datagrams, receiver).0;
    let without = |missing| Offloads::ALL.without(missing);
    assert_eq!((count(&v4, without(Offloads::USO4)), count(&v6, without(Offloads::USO4))), (1, 2));
    assert_eq!((count(&v4, without(Offloads::USO6)), count(&v6, without(Offloads::USO6))), (2, 1));
    assert_eq!((count(&v4, Offloads::NONE), count(&v6, Offloads::NONE)), (1, 1));
}

#[test]
fn frames_whose_checksum_is_there_or_is_another_are_not_coupled() {
    let datagram = Datagram::v6(&[1; 22]);
    let mut other_field = datagram.net();
    other_field[8] = 8;
    for net in [[0; NET_HEADER_LEN], other_field] {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        for _ in 0..2 {
            builder.push_asking(&net, &datagram.frame, Offloads::ALL).unwrap();
        }
        assert!(Train::of(&builder.burst(), &[0, 1], Offloads::ALL).is_none());
    }
}

#[test]
fn frames_that_are_to_be_cut_or_have_a_tail_are_not_coupled() {
    let datagram = Datagram::v6(&[1; 22]);
    let padded = [&datagram.frame[..], &[0]].concat();
    let mut cut = datagram.net();
    (cut[1], cut[4]) = (VIRTIO_NET_HDR_GSO_UDP_L4 as u8, 11);
    for (net, frame) in [(datagram.net(), &padded), (cut, &datagram.frame)] {
        let mut scratch = BurstScratch::default();
        let mut builder = scratch.begin(0);
        for _ in 0..2 {
            builder.push_asking(&net, frame, Offloads::ALL).unwrap();
        }
        assert!(Train::of(&builder.burst(), &[0, 1], Offloads::ALL).is_none());
    }
}
