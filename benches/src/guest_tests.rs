//! A guest's queues against the device's ends of the same rings.

use ringyard_dataplane::frame::{BurstScratch, Taken};
use ringyard_dataplane::port::{Attachment, EgressScratch, IngressScratch};

use super::*;
use crate::bare;

const FORMS: [Features; 3] = [
    Features { in_order: false, ..Features::SPLIT },
    Features { in_order: false, ..Features::ALL },
    Features::ALL,
];

fn guest(features: Features) -> (Guest, Attachment) {
    let guest = Guest::new(&GuestConfig { ring_size: 8, ..GuestConfig::default() }, features).unwrap();
    let attachment = bare::attachment(&guest).unwrap();
    (guest, attachment)
}

/// Gives the guest a frame, as the switch does.
fn deliver(attachment: &Attachment, frame: &[u8]) -> usize {
    let mut scratch = BurstScratch::default();
    let mut builder = scratch.begin(0);
    builder.push_slice(frame).unwrap();
    attachment.egress[0].send(&mut EgressScratch::default(), &builder.burst(), &[0])
}

#[test]
fn sent_frame_is_lent_whole_and_its_buffer_comes_back() {
    for features in FORMS {
        let (mut guest, attachment) = guest(features);
        let sender = &mut guest.pair().send;
        assert!(sender.send(&[7; 100]));
        sender.flush();
        assert_eq!(sender.room(), 7);
        let mut lens = Vec::new();
        attachment.ingress[0].ingress.poll(&mut IngressScratch::default(), &mut |burst| {
            lens.extend(burst.frames().map(|frame| (frame.len(), frame.header()[0])));
            Taken::ALL
        });
        assert_eq!(lens, [(100, 7)]);
        assert_eq!(sender.reclaim(), Ok(1));
        assert_eq!(sender.room(), 8);
    }
}

#[test]
fn full_queue_sends_no_more_until_buffers_come_back() {
    for features in FORMS {
        let (mut guest, _attachment) = guest(features);
        let sender = &mut guest.pair().send;
        assert_eq!((0..10).filter(|_| sender.send(&[0; 60])).count(), 8);
        sender.flush();
        assert_eq!(sender.reclaim(), Ok(0));
    }
}

#[test]
fn frame_longer_than_a_buffer_is_merged() {
    for features in FORMS {
        let (mut guest, attachment) = guest(features);
        let frame: Vec<u8> = (0..9000u32).map(|i| (i * 7) as u8).collect();
        assert_eq!(deliver(&attachment, &frame), 1);
        let mut scratch = vec![0; 9000];
        let mut seen = Vec::new();
        let receiver = &mut guest.pair().receive;
        receiver.receive(8, |frame| seen.push((frame.len(), frame.copy_to(&mut scratch).to_vec()))).unwrap();
        assert_eq!(seen, [(9000, frame)]);
    }
}

#[test]
fn received_buffers_are_posted_again() {
    for features in FORMS {
        let (mut guest, attachment) = guest(features);
        for number in 0..100u8 {
            assert_eq!(deliver(&attachment, &[number; 60]), 1, "frame {number}");
            let mut scratch = [0; 60];
            let mut first = None;
            let count = guest.pair().receive.receive(8, |frame| first = Some(frame.copy_to(&mut scratch)[0]));
            assert_eq!((count.unwrap(), first), (1, Some(number)));
        }
    }
}

#[test]
fn waiting_guest_is_called() {
    for features in FORMS {
        for event_idx in [true, false] {
            let (mut guest, attachment) = guest(Features { event_idx, ..features });
            let receiver = &mut guest.pair().receive;
            assert!(!receiver.wait(Duration::from_millis(1)).unwrap(), "nothing is there");
            assert_eq!(deliver(&attachment, &[1; 60]), 1);
            assert!(receiver.wait(Duration::ZERO).unwrap(), "what is there already needs no call");
            assert_eq!(receiver.receive(8, |_| ()).unwrap(), 1);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| receiver.wait(Duration::from_secs(10)).unwrap());
                // The device calls only when asked, so this must go on until it was.
                while !waiting.is_finished() {
                    deliver(&attachment, &[2; 60]);
                    std::thread::yield_now();
                }
                assert!(waiting.join().unwrap(), "event_idx {event_idx}");
            });
        }
    }
}
