//! Messages that lie: P01 to P04, P18 to P22, P24.

use crate::error::Result;
use crate::hostile::attacker::{Attacker, PROTOCOL, RX, Setup, TX, event};
use crate::hostile::bout::{Bout, Tell};
use crate::hostile::memory::{END, USER};
use crate::hostile::wire::{Answer, NEED_REPLY, addresses as ring_addresses, of, request::*, state};

/// Connected and negotiated, with no ring started.
const STOPPED: Setup = Setup { rings: 0, ..Setup::SPLIT };

pub(super) fn sizes(bout: &mut Bout<'_>) -> Result<()> {
    for size in [0, 3, 100, 32_769, 65_535, 65_536, u32::MAX] {
        let ask =
            move |attacker: &mut Attacker| attacker.wire.ask(SET_VRING_NUM, &state(TX as u32, size), &[]);
        bout.input(&format!("{size}"), STOPPED, |attacker, _| Ok(Tell::Took(ask(attacker))))?;
        bout.input(&format!("{size} of a running ring"), Setup::SPLIT, |attacker, _| {
            Ok(Tell::Took(ask(attacker)))
        })?;
    }
    Ok(())
}

pub(super) fn numbers(bout: &mut Bout<'_>) -> Result<()> {
    let event = event()?;
    for index in
        [3u64, 7, 0x7f, 0xfe, 0x200, 300, 0xffff, 0x1_0000, 0x1_0001, u32::MAX.into(), 1 << 32, 1 << 40]
    {
        for (name, request) in [("kick", SET_VRING_KICK), ("call", SET_VRING_CALL), ("error", SET_VRING_ERR)]
        {
            bout.asks(&format!("{name} of {index:#x}"), request, &index.to_ne_bytes(), &of(&event))?;
        }
    }
    for index in [3u32, 0xff, 300, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        for (name, request) in
            [("size", SET_VRING_NUM), ("base", SET_VRING_BASE), ("enable", SET_VRING_ENABLE)]
        {
            bout.asks(&format!("{name} of {index:#x}"), request, &state(index, 1), &[])?;
        }
        bout.asks(
            &format!("addresses of {index:#x}"),
            SET_VRING_ADDR,
            &ring_addresses(index, USER, USER, USER),
            &[],
        )?;
        bout.input(&format!("stop of {index:#x}"), Setup::SPLIT, |attacker, _| {
            let stopped = attacker.wire.question(GET_VRING_BASE, &state(index, 0));
            Ok(Tell::Took(stopped.map_or(Answer::Closed, |_| Answer::Accepted)))
        })?;
    }
    Ok(())
}

pub(super) fn repeated(bout: &mut Bout<'_>) -> Result<()> {
    for (name, index) in [("of a receive ring", RX), ("of a transmit ring", TX)] {
        bout.input(name, STOPPED, |attacker, _| {
            let mut answer = Answer::Accepted;
            for round in 0..10_000u32 {
                let body = state(index as u32, 64 << (round % 3));
                // Every hundredth is waited for, so that the socket does not fill up.
                if round % 100 == 0 {
                    answer = attacker.wire.ask(SET_VRING_NUM, &body, &[]);
                } else {
                    attacker.wire.send(SET_VRING_NUM, 0, &body, &[]);
                }
            }
            Ok(Tell::Took(answer))
        })?;
    }
    Ok(())
}

pub(super) fn addresses(bout: &mut Bout<'_>) -> Result<()> {
    let end = END - crate::hostile::memory::GUEST + USER;
    let good = [USER + 0x4000, USER + 0x6000, USER + 0x5000];
    let with = |at: usize, value: u64| {
        let mut all = good;
        all[at] = value;
        all
    };
    let mut inputs: Vec<(String, [u64; 3])> = vec![
        ("all zero".into(), [0; 3]),
        ("all in one place".into(), [good[0]; 3]),
        ("all at the end of all addresses".into(), [u64::MAX - 15; 3]),
    ];
    for (at, part) in ["descriptors", "used", "available"].into_iter().enumerate() {
        inputs.push((format!("{part} outside"), with(at, 0x1000)));
        inputs.push((format!("{part} over the end"), with(at, end - 0x100)));
        inputs.push((format!("{part} behind the end"), with(at, end)));
        inputs.push((format!("{part} not aligned"), with(at, good[at] + 1)));
        inputs.push((format!("{part} that wrap"), with(at, !15)));
    }
    for (name, [desc, used, avail]) in inputs {
        let body = ring_addresses(TX as u32, desc, used, avail);
        bout.asks(&format!("{name}, of a running ring"), SET_VRING_ADDR, &body, &[])?;
        bout.input(&format!("{name}, of one to start"), STOPPED, |attacker, _| {
            attacker.wire.ask(SET_VRING_NUM, &state(TX as u32, 256), &[]);
            let answer = attacker.wire.ask(SET_VRING_ADDR, &body, &[]);
            if answer != Answer::Accepted {
                return Ok(Tell::Took(answer));
            }
            let kick = of(&attacker.events[TX].kick);
            let answer = attacker.wire.ask(SET_VRING_KICK, &(TX as u64).to_ne_bytes(), &kick);
            attacker.wire.ask(SET_VRING_ENABLE, &state(TX as u32, 1), &[]);
            Ok(Tell::Took(answer))
        })?;
    }
    Ok(())
}

pub(super) fn lengths(bout: &mut Bout<'_>) -> Result<()> {
    for size in [4097, 1 << 20, 1 << 31, u32::MAX] {
        bout.input(&format!("a header that announces {size}"), Setup::SPLIT, |attacker, _| {
            attacker.wire.bytes(&[SET_FEATURES, 1, size].map(u32::to_ne_bytes).concat(), &[]);
            attacker.wire.bytes(&[0; 64], &[]);
            Ok(Tell::Took(attacker.wire.state()))
        })?;
    }
    for (name, request) in [
        ("SET_FEATURES", SET_FEATURES),
        ("SET_MEM_TABLE", SET_MEM_TABLE),
        ("SET_VRING_NUM", SET_VRING_NUM),
        ("SET_VRING_ADDR", SET_VRING_ADDR),
        ("SET_VRING_ENABLE", SET_VRING_ENABLE),
        ("SET_VRING_KICK", SET_VRING_KICK),
        ("ADD_MEM_REG", ADD_MEM_REG),
    ] {
        for size in [0, 1, 7, 9, 64, 4096] {
            bout.asks(&format!("{name} of {size} bytes"), request, &vec![0; size], &[])?;
        }
    }
    bout.input("a question with a body", Setup::SPLIT, |attacker, _| {
        attacker.wire.send(GET_FEATURES, 0, &[0; 8], &[]);
        Ok(Tell::Took(attacker.wire.state()))
    })
}

pub(super) fn unknown(bout: &mut Bout<'_>) -> Result<()> {
    for request in [0, 26, 27, 35, 41, 45, 99, 0x7fff_ffff, u32::MAX] {
        bout.asks(&format!("request {request}"), request, &[0xaa; 100], &[])?;
    }
    for flags in [0, 2, 3, 1 | 4, 1 | 16, u32::MAX] {
        bout.input(&format!("flags {flags:#x}"), Setup::SPLIT, |attacker, _| {
            attacker.wire.bytes(&[GET_FEATURES, flags, 0].map(u32::to_ne_bytes).concat(), &[]);
            Ok(Tell::Took(attacker.wire.state()))
        })?;
    }
    bout.input("an acknowledgement wanted of everything", Setup::SPLIT, |attacker, _| {
        for request in [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM] {
            attacker.wire.send(request, NEED_REPLY, &[], &[]);
        }
        Ok(Tell::Took(attacker.wire.state()))
    })
}

/// The body of GET_INFLIGHT_FD and SET_INFLIGHT_FD.
fn inflight_body(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    let mut body = [size, offset].map(u64::to_ne_bytes).concat();
    body.extend([queues, queue_size, 0, 0].map(u16::to_ne_bytes).concat());
    body
}

pub(super) fn inflight(bout: &mut Bout<'_>) -> Result<()> {
    const INFLIGHT_SHMFD: u64 = 1 << 12;
    let offered = bout.arena.protocol & INFLIGHT_SHMFD != 0;
    for protocol in [PROTOCOL, PROTOCOL | INFLIGHT_SHMFD] {
        if protocol != PROTOCOL && !offered {
            continue;
        }
        let setup = Setup { protocol, ..Setup::SPLIT };
        let how = if protocol == PROTOCOL { "not negotiated" } else { "negotiated" };
        for (queues, size) in [(0, 0), (0xffff, 0xffff), (2, 0), (2, 0xffff), (300, 256)] {
            bout.input(&format!("{queues} queues of {size} wanted, {how}"), setup, |attacker, _| {
                let body = inflight_body(0, 0, queues, size);
                Ok(Tell::Took(attacker.wire.ask(GET_INFLIGHT_FD, &body, &[])))
            })?;
        }
        bout.input(&format!("wanted 500 times, {how}"), setup, |attacker, _| {
            let body = inflight_body(0, 0, 2, 256);
            let answers = (0..500).map(|_| attacker.wire.ask(GET_INFLIGHT_FD, &body, &[]));
            Ok(Tell::Took(answers.last().unwrap_or(Answer::Closed)))
        })?;
        for (size, offset, queues) in [
            (0, 0, 2),
            (u64::MAX, 0, 2),
            (0x1000, u64::MAX - 0xfff, 2),
            (0x10_0000_0000, 0, 0xffff),
            (64, 0, 2),
        ] {
            let name = format!("{size:#x} bytes at {offset:#x} for {queues} queues, {how}");
            bout.input(&name, setup, |attacker, _| {
                let (body, memory) = (inflight_body(size, offset, queues, 256), attacker.memory.clone());
                Ok(Tell::Took(attacker.wire.ask(SET_INFLIGHT_FD, &body, &[memory.file()])))
            })?;
        }
    }
    Ok(())
}

pub(super) fn logs(bout: &mut Bout<'_>) -> Result<()> {
    const LOG_SHMFD: u64 = 1 << 1;
    let offered = bout.arena.protocol & LOG_SHMFD != 0;
    for protocol in [PROTOCOL, PROTOCOL | LOG_SHMFD] {
        if protocol != PROTOCOL && !offered {
            continue;
        }
        let setup = Setup { protocol, ..Setup::SPLIT };
        let how = if protocol == PROTOCOL { "not negotiated" } else { "negotiated" };
        for (size, offset) in [
            (0, 0),
            (u64::MAX, 0),
            (0x1000, u64::MAX - 0xfff),
            (1 << 40, 0),
            (0x1000, 1 << 40),
            (8, 0),
            (1, 1),
        ] {
            bout.input(&format!("{size:#x} bytes at {offset:#x}, {how}"), setup, |attacker, _| {
                let body = [size, offset].map(u64::to_ne_bytes).concat();
                let memory = attacker.memory.clone();
                let answer = attacker.wire.ask(SET_LOG_BASE, &body, &[memory.file()]);
                // Logging begins with this feature, in a log that is too small for anything.
                let features = attacker.features | 1 << 26;
                attacker.wire.ask(SET_FEATURES, &features.to_ne_bytes(), &[]);
                Ok(Tell::Took(answer))
            })?;
        }
        bout.input(&format!("no descriptor, {how}"), setup, |attacker, _| {
            let body = [0x1000, 0].map(u64::to_ne_bytes).concat();
            Ok(Tell::Took(attacker.wire.ask(SET_LOG_BASE, &body, &[])))
        })?;
    }
    Ok(())
}

pub(super) fn features(bout: &mut Bout<'_>) -> Result<()> {
    for (name, features) in
        [("all", u64::MAX), ("the reserved ones", 0xff << 42), ("none", 0), ("the highest", 1 << 63)]
    {
        bout.asks(&format!("{name}, of running rings"), SET_FEATURES, &features.to_ne_bytes(), &[])?;
        bout.input(&format!("{name}, before there are rings"), STOPPED, |attacker, _| {
            Ok(Tell::Took(attacker.wire.ask(SET_FEATURES, &features.to_ne_bytes(), &[])))
        })?;
        bout.input(&format!("{name}, of the protocol"), Setup::SPLIT, |attacker, _| {
            // None of them, and nothing is acknowledged any more.
            attacker.wire.set_acknowledges(features != 0);
            Ok(Tell::Took(attacker.wire.ask(SET_PROTOCOL_FEATURES, &features.to_ne_bytes(), &[])))
        })?;
    }
    bout.input("twice the same", Setup::SPLIT, |attacker, _| {
        let features = attacker.features;
        Ok(Tell::Took(attacker.wire.ask(SET_FEATURES, &features.to_ne_bytes(), &[])))
    })?;
    for (name, bit) in [("the rings' form", 34), ("merging", 15), ("indirect tables", 28), ("events", 29)] {
        bout.on_both(&format!("{name} changed while rings run"), |attacker, _| {
            let features = attacker.features ^ 1u64 << bit;
            Ok(Tell::Took(attacker.wire.ask(SET_FEATURES, &features.to_ne_bytes(), &[])))
        })?;
    }
    Ok(())
}

pub(super) fn not_negotiated(bout: &mut Bout<'_>) -> Result<()> {
    let (event, nothing) = (event()?, [0; 8]);
    for (name, request) in [
        ("IOTLB_MSG", IOTLB_MSG),
        ("SEND_RARP", SEND_RARP),
        ("NET_SET_MTU", NET_SET_MTU),
        ("GET_CONFIG", GET_CONFIG),
        ("SET_CONFIG", SET_CONFIG),
        ("POSTCOPY_ADVISE", POSTCOPY_ADVISE),
        ("POSTCOPY_LISTEN", POSTCOPY_LISTEN),
        ("POSTCOPY_END", POSTCOPY_END),
        ("RESET_DEVICE", RESET_DEVICE),
        ("SET_STATUS", SET_STATUS),
        ("GET_STATUS", GET_STATUS),
        ("SET_LOG_FD", SET_LOG_FD),
    ] {
        bout.asks(name, request, &nothing, &[])?;
        bout.asks(&format!("{name}, empty"), request, &[], &[])?;
    }
    bout.asks("SET_BACKEND_REQ_FD", SET_BACKEND_REQ_FD, &nothing, &of(&event))?;
    bout.input("RESET_OWNER", Setup::SPLIT, |attacker, _| {
        attacker.wire.ask(RESET_OWNER, &[], &[]);
        Ok(Tell::Stopped)
    })
}
