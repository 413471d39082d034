//! Any bytes at all, to the parser and to a whole session.
//!
//! Whatever comes: nothing panics, every reply is a line of JSON that is no longer than what was said can explain, and it
//! does not matter how the bytes are cut. What is JSON to serde_json means the same to us.

use std::time::Duration;

use ringyard_control::json::{DEPTH_MAX, Layout, Parser, parse};
use ringyard_control::monitor::{Output, Session};
use serde_json::{Value, json};

/// Runs the target: the first two bytes choose how the others are cut, and whether the session has begun.
pub fn run(input: &[u8]) {
    let [chunks, start, bytes @ ..] = input else { return };
    let begun = if start % 2 == 0 { NEGOTIATION } else { b"" };
    let whole = converse(&[begun, bytes].concat(), usize::MAX);
    let cut = converse(&[begun, bytes].concat(), usize::from(*chunks) % 64 + 1);
    assert!(whole == cut, "cut into pieces it is answered differently:\n{whole:#?}\n{cut:#?}");
    compare_with_serde(bytes);
}

/// What a session says and asks for when it is fed pieces of that length.
fn converse(input: &[u8], piece: usize) -> Vec<String> {
    let mut session = Session::new(Layout::Line);
    let mut heard = Vec::new();
    for bytes in input.chunks(piece.min(input.len().max(1))) {
        session.feed(bytes);
        while let Some(output) = session.next_output() {
            let line = match output {
                Output::Reply(line) => line,
                Output::Request(command) => {
                    heard.push(format!("{command:?}"));
                    session.reply(Ok(json!({"text": "\u{e9}"})))
                }
            };
            assert!(line.len() <= LINE_BYTES + EXPANSION * input.len(), "{} bytes are too many", line.len());
            heard.push(checked(line));
        }
        assert!(session.wants_input(), "everything that was fed is dealt with");
    }
    // Events come between replies and touch nothing.
    let _ = session.event("EVENT", Some(json!({})), Duration::ZERO);
    heard
}

/// A line, which must be one JSON object in ASCII.
fn checked(line: Vec<u8>) -> String {
    let text = String::from_utf8(line).expect("a line is ASCII");
    let body = text.strip_suffix("\r\n").expect("a line ends with CR LF");
    assert!(body.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{body}");
    match depth(body.as_bytes()) < SERDE_DEPTH {
        true => assert!(serde_json::from_str::<Value>(body).is_ok_and(|value| value.is_object()), "{body}"),
        // Too deep for serde_json: an id may be as deep as a request.
        false => assert!(matches!(parsed(body.as_bytes()).as_slice(), [Ok(Value::Object(_))]), "{body}"),
    }
    text
}

/// What the parser makes of whole lines.
fn parsed(bytes: &[u8]) -> Vec<Result<Value, String>> {
    let mut parser = Parser::default();
    parser.feed(bytes);
    parser.feed(b"\n");
    let results: Vec<_> = parser.by_ref().collect();
    assert!(parser.is_drained());
    results
}

/// Where serde_json reads one value, we read the same; where we read one value, it is one to serde_json.
fn compare_with_serde(bytes: &[u8]) {
    if depth(bytes) >= SERDE_DEPTH {
        return;
    }
    // What is no UTF-8 is no JSON either.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match (serde_json::from_str::<Value>(text), parse(text)) {
        (Ok(theirs), Ok(ours)) => assert!(same(&theirs, &ours), "{ours} is {theirs}"),
        (Ok(theirs), Err(why)) => {
            assert!(STRICTER.iter().any(|strict| why.contains(strict)), "{theirs} is none: {why}");
        }
        // A quote that JSON lacks, which is also an escape that it lacks.
        (Err(why), Ok(ours)) => assert!(text.contains('\''), "{ours} is none: {why}"),
        (Err(_), Err(_)) => {}
    }
}

/// Equal, but for the ways to write a number.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same_in = |(name, value): (&String, _)| other.get(name).is_some_and(|it| same(value, it));
            one.len() == other.len() && one.iter().all(same_in)
        }
        (one, other) => one == other,
    }
}

/// How deep brackets could be nested at most.
fn depth(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

/// What is refused though it is JSON.
const STRICTER: [&str; 4] =
    ["duplicate key", "is not a valid Unicode character", "invalid UTF-8 sequence", "limit exceeded"];
const NEGOTIATION: &[u8] = br#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;
/// As deep as serde_json goes.
const SERDE_DEPTH: usize = 100;
/// A reply without anything that was said; and how much longer a byte that was said may become: a character of two bytes
/// is an escape of six, and a number of four, 1e16, has 17 digits.
const LINE_BYTES: usize = 500;
const EXPANSION: usize = 6;

const _: () = assert!(DEPTH_MAX as usize > SERDE_DEPTH);
