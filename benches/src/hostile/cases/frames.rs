//! What is in a frame: H12 to H20.

use etherparse::PacketBuilder;

use super::headers::{OFFLOADS, net_header, tcp};
use crate::error::Result;
use crate::hostile::attacker::{NET_HEADER, Setup, TX};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::innocents::{ATTACKER, Kind};
use crate::hostile::memory::LARGE;
use crate::hostile::ring::{Desc, NEXT};
use crate::traffic::guest_mac;

pub(super) fn too_long(bout: &mut Bout<'_>) -> Result<()> {
    let header = Kind::Attack.frame(14);
    for len in [1515, 9018, 9019, 65_535, 65_550, 65_551, 69_632, 500_000] {
        bout.sends(&format!("{len} bytes"), |attacker| {
            attacker.memory.write(LARGE + NET_HEADER as u64, &header);
            attacker.post(&[Desc::read(LARGE, len + NET_HEADER as u32)]);
        })?;
    }
    bout.sends("2^31 bytes in parts of 900,000", |attacker| {
        let mut chain = vec![Desc::read(LARGE, 900_000).with(NEXT); 200];
        chain.push(Desc::read(LARGE, 900_000));
        attacker.post(&chain);
    })
}

/// An Ethernet header from the attacker to the first innocent, and what follows.
fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let addresses = [guest_mac(0).0, guest_mac(ATTACKER).0].concat();
    [&addresses, &ether_type.to_be_bytes()[..], payload].concat()
}

/// Sends each frame by itself, behind no virtio-net header; and, where offloads are offered, asking for all of them.
fn send(bout: &mut Bout<'_>, name: &str, frame: &[u8]) -> Result<()> {
    bout.sends(name, |attacker| {
        let whole = attacker.frame(0, frame);
        attacker.post(&[whole]);
    })?;
    let setup = Setup { features: OFFLOADS, ..Setup::SPLIT };
    bout.sends_with(&format!("{name}, to be segmented"), setup, |attacker| {
        for kind in [1, 4, 5] {
            let whole = attacker.frame_behind(0, &net_header(1, kind, 54, 100, 34, 16), frame);
            attacker.post(&[whole]);
        }
    })
}

pub(super) fn tags(bout: &mut Bout<'_>) -> Result<()> {
    for count in [1, 2, 3, 100, 400] {
        let tags = [0, 5, 0x81, 0].repeat(count - 1);
        let frame = ethernet(0x8100, &[&tags, &[0, 5, 8, 0][..], &[0x45; 100]].concat());
        send(bout, &format!("{count} tags"), &frame)?;
    }
    for len in 0..4 {
        send(bout, &format!("{len} bytes of a tag"), &ethernet(0x8100, &vec![0xff; len]))?;
    }
    send(bout, "an outer tag of a provider", &ethernet(0x88a8, &[0x0f, 0xff, 0x81, 0, 0x0f, 0xff]))?;
    send(bout, "1,000 MPLS labels", &ethernet(0x8847, &[0; 4].repeat(370)))
}

pub(super) fn cut(bout: &mut Bout<'_>) -> Result<()> {
    let whole = tcp(200);
    for len in [15, 20, 33, 34, 35, 46, 53] {
        send(bout, &format!("cut to {len} bytes"), &whole[..len])?;
    }
    for (name, at, value) in [
        ("no header length", 14, 0x40),
        ("a header length of 60", 14, 0x4f),
        ("version 6 in IPv4", 14, 0x65),
        ("a total length of 65,535", 16, 0xff),
        ("a first fragment", 20, 0x20),
        ("a later fragment", 21, 0x10),
        ("no TCP header length", 46, 0),
        ("a TCP header length of 60", 46, 0xf0),
    ] {
        let mut frame = whole.clone();
        frame[at] = value;
        send(bout, name, &frame)?;
    }
    for count in [1, 64, 170] {
        // Destination options of 8 bytes, each leading to the next one.
        let mut packet = vec![0x60, 0, 0, 0, 5, 0xdc, 60, 64];
        packet.extend([0xfd; 32]);
        packet.extend([60, 0, 1, 4, 0, 0, 0, 0].repeat(count));
        send(bout, &format!("{count} extension headers"), &ethernet(0x86dd, &packet))?;
    }
    let mut jumbo = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    jumbo.extend([0xfd; 32]);
    jumbo.extend([6, 0, 0xc2, 4, 0xff, 0xff, 0xff, 0xff]);
    send(bout, "a jumbogram of 2^32 - 1", &ethernet(0x86dd, &jumbo))
}

pub(super) fn odd(bout: &mut Bout<'_>) -> Result<()> {
    let mut none = tcp(100);
    none[23] = 0;
    send(bout, "IP protocol 0", &none)?;
    let padded = [tcp(0), vec![0xee; 200]].concat();
    send(bout, "padding", &padded)?;
    for ether_type in [0, 1, 46, 0x5ff, 0x600, 0xffff] {
        send(bout, &format!("EtherType {ether_type:#x}"), &ethernet(ether_type, &[0x45; 60]))?;
    }
    Ok(())
}

pub(super) fn sources(bout: &mut Bout<'_>) -> Result<()> {
    for (name, source) in [
        ("a group", [0x01, 0, 0x5e, 0, 0, 1]),
        ("zero", [0; 6]),
        ("broadcast", [0xff; 6]),
        ("an innocent's", guest_mac(1).0),
    ] {
        bout.sends(name, |attacker| {
            let mut frame = Kind::Attack.frame(100);
            frame[6..12].copy_from_slice(&source);
            let whole = attacker.frame(0, &frame);
            attacker.post(&[whole]);
        })?;
    }
    bout.input("20,000 of them", Setup::SPLIT, |attacker, innocents| {
        let mut number = 0u32;
        for round in 0..100 {
            for slot in 0..200 {
                let mut frame = Kind::Probe.frame(60);
                frame[8..12].copy_from_slice(&number.to_be_bytes());
                number += 1;
                let whole = attacker.frame(slot, &frame);
                attacker.post(&[whole]);
            }
            attacker.show(TX);
            attacker.wait(TX, crate::hostile::attacker::PROBE_TIME_MAX);
            if round % 10 == 0 {
                innocents.turn();
            }
        }
        Ok(Tell::Posted)
    })
}

pub(super) fn protocols(bout: &mut Bout<'_>) -> Result<()> {
    let lldp = |lengths: &[u16]| {
        let tlv = |len: &u16| (1u16 << 9 | len).to_be_bytes().to_vec();
        ethernet(0x88cc, &lengths.iter().flat_map(tlv).collect::<Vec<u8>>())
    };
    send(bout, "LLDP of lengths that lie", &lldp(&[511, 7, 0, 300]))?;
    send(bout, "ARP that is cut", &ethernet(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2]))?;
    send(bout, "ARP with addresses of 255 bytes", &ethernet(0x0806, &[0, 1, 8, 0, 255, 255, 0, 1, 2, 3]))?;
    let mut discovery = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    discovery.extend([0xfe; 32]);
    discovery.extend([134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for option in [[3, 0], [3, 255], [1, 1]] {
        let packet = [&discovery, &option[..], &[0; 14]].concat();
        send(
            bout,
            &format!("router discovery with an option of length {}", option[1]),
            &ethernet(0x86dd, &packet),
        )?;
    }
    let dhcp = |options: &[u8]| {
        let payload = [&[1, 1, 6, 0][..], &[0; 232], &[0x63, 0x82, 0x53, 0x63], options].concat();
        let builder = PacketBuilder::ethernet2(guest_mac(ATTACKER).0, guest_mac(0).0)
            .ipv4([0; 4], [255; 4], 64)
            .udp(68, 67);
        let mut frame = Vec::new();
        let _ = builder.write(&mut frame, &payload);
        frame
    };
    send(bout, "DHCP with an option past its end", &dhcp(&[53, 255, 1]))?;
    send(bout, "DHCP without an end", &dhcp(&[53]))
}

fn tcp_lies(frame: &mut [u8], flags: u8, window: u16, urgent: u16) {
    frame[47] = flags;
    frame[48..50].copy_from_slice(&window.to_be_bytes());
    frame[52..54].copy_from_slice(&urgent.to_be_bytes());
}

pub(super) fn tcp_states(bout: &mut Bout<'_>) -> Result<()> {
    for (name, flags, window, urgent) in [
        ("an urgent pointer behind the end", 0x30, 1000, 0xffff),
        ("a window of none", 0x10, 0, 0),
        ("all flags", 0xff, 0xffff, 1),
        ("no flags", 0, 1, 0),
        ("a reset", 0x04, 0, 0),
    ] {
        let mut frame = tcp(200);
        tcp_lies(&mut frame, flags, window, urgent);
        send(bout, name, &frame)?;
    }
    bout.sends("200 connections half open", |attacker| {
        for slot in 0..200 {
            let mut frame = tcp(0);
            frame[34..36].copy_from_slice(&(slot as u16).to_be_bytes());
            tcp_lies(&mut frame, 0x02, 1000, 0);
            let whole = attacker.frame(slot, &frame);
            attacker.post(&[whole]);
        }
    })?;
    bout.sends("200 fragments that overlap", |attacker| {
        for slot in 0..200u64 {
            let mut frame = tcp(200);
            frame[20..22].copy_from_slice(&(0x2000u16 | (slot as u16 % 7)).to_be_bytes());
            let whole = attacker.frame(slot, &frame);
            attacker.post(&[whole]);
        }
    })
}

pub(super) fn helpers(bout: &mut Bout<'_>) -> Result<()> {
    for (name, port, text) in [
        ("FTP", 21, "PORT 10,0,0,1,999,999\r\n"),
        ("IRC", 6667, "PRIVMSG a :\u{1}DCC SEND f 999999999999 99999999\u{1}\r\n"),
        ("SIP", 5060, "INVITE sip:a@b SIP/2.0\r\nContent-Length: -1\r\n\r\n"),
    ] {
        let mut frame = [tcp(0), text.as_bytes().to_vec()].concat();
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[36..38].copy_from_slice(&u16::to_be_bytes(port));
        send(bout, name, &frame)?;
    }
    Ok(())
}

pub(super) fn own_port(bout: &mut Bout<'_>) -> Result<()> {
    for (name, to) in [
        ("to its own address", guest_mac(ATTACKER).0),
        ("to everybody, from itself", [0xff; 6]),
        ("to a group", [0x01, 0, 0x5e, 0, 0, 1]),
    ] {
        bout.sends(name, |attacker| {
            for slot in 0..64 {
                let mut frame = Kind::Attack.frame(100);
                frame[..6].copy_from_slice(&to);
                let whole = attacker.frame(slot, &frame);
                attacker.post(&[whole]);
            }
        })?;
    }
    Ok(())
}
