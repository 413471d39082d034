//! The protocol around the commands: greeting, negotiation, the shape of requests, ids, and bytes of replies.

use ringyard_tests::error::{Doing, Error, Result};

use crate::answer::{View, shape, sorted};
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::{Pair, Side};

/// What a client may say first, each in a connection of its own.
const SESSIONS: &[&str] = &[
    r#"{"execute": "query-version"}"#,
    r#"{"execute": "query-version", "id": 1}"#,
    r#"{"execute": "nope"}"#,
    r#"{"execute": 1}"#,
    r#"{"exec-oob": "qmp_capabilities"}"#,
    r#"{"exec-oob": "query-version"}"#,
    r#"{"exec-oob": "nope"}"#,
    r#"{"execute": "netdev_add", "arguments": {}}"#,
    r#"{"execute": "query-version", "arguments": {"x": 1}}"#,
    r#"{"foo": 1}"#,
    r#"[]"#,
    r#"{}"#,
    r#"}"#,
    r#"{"execute": "qmp_capabilities"}"#,
    r#"{"execute": "qmp_capabilities", "id": "x"}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": []}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob", "oob"]}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob", "foo"]}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": "oob"}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": [1]}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": null}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"x": 1}}"#,
    r#"{"execute": "qmp_capabilities", "arguments": []}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}{"execute": "qmp_capabilities"}"#,
    r#"{"execute": "qmp_capabilities"}{"execute": "qmp_capabilities"}"#,
    r#"{"execute": "qmp_capabilities"}{"execute": "qmp_capabilities", "arguments": {"x": 1}}"#,
    r#"{"execute": "qmp_capabilities"}{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}"#,
    r#"{"execute": "qmp_capabilities"}{"exec-oob": "query-version", "id": 3}"#,
    r#"{"execute": "qmp_capabilities"}{"exec-oob": "qmp_capabilities", "id": 3}"#,
    r#"{"execute": "qmp_capabilities"}{"execute": "query-version", "exec-oob": "query-version"}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "query-version", "id": 3}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "query-version"}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "nope", "id": 4}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": 1, "id": 4}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "qmp_capabilities", "id": 4}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "query-version", "arguments": [], "id": 4}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"execute": "stop", "exec-oob": "stop", "id": 5}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "stop", "execute": "stop", "id": 5}"#,
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"execute": "query-name", "id": 5}{"execute": "query-name", "id": 6}"#,
];

/// What a client may say after that.
const REQUESTS: &[&str] = &[
    "[]",
    "[1, {}]",
    r#""x""#,
    "1\n",
    "-0.5\n",
    "null\n",
    "true\n",
    "{}",
    r#"{"id": "err-2"}"#,
    r#"{"id": null}"#,
    r#"{"arguments": {}}"#,
    r#"{"execute": 1}"#,
    r#"{"execute": 1, "id": 7}"#,
    r#"{"execute": null}"#,
    r#"{"execute": {}}"#,
    r#"{"execute": ""}"#,
    r#"{"execute": "query-name", "foo": 1}"#,
    r#"{"execute": "query-name", "foo": 1, "id": {}}"#,
    r#"{"foo": 1}"#,
    r#"{"Execute": "query-name"}"#,
    r#"{"execute": "query-name", "arguments": []}"#,
    r#"{"execute": "query-name", "arguments": null, "id": 2}"#,
    r#"{"execute": "query-name", "arguments": "x", "id": 2}"#,
    r#"{"exec-oob": "query-name", "id": 2}"#,
    r#"{"execute": "nope"}"#,
    r#"{"execute": "nope", "id": [1]}"#,
    r#"{"execute": "nope", "arguments": {"x": 1}}"#,
    r#"{"execute": "Query-Name"}"#,
    r#"{"execute": "query_name"}"#,
    r#"{"execute": "set-link"}"#,
    r#"{"execute": "netdev-add"}"#,
    r#"{"execute": "query-events"}"#,
    r#"{"execute": "n\u00f6pe\ud83d\ude00"}"#,
    r#"{"execute": "a'b\"c\\d\u0001"}"#,
    r#"{"execute": "qmp_capabilities"}"#,
    r#"{"execute": "qmp_capabilities", "id": 1, "arguments": {"enable": ["oob"]}}"#,
    r#"{"execute": "query-name", "id": 1}{"execute": "query-name", "id": 2}{"execute": "nope", "id": 3}"#,
    r#"{"execute": "query-name", "id": 1}[]{"execute": "query-name", "id": 3}"#,
    "{\"execute\"\r\n:\t\"query-name\"\n,\r\"id\" : 1 }",
    "{'execute': 'query-name', 'id': 'it\\'s \"so\"'}",
];

/// Ids, which come back as they are.
const IDS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "-9223372036854775809",
    "1e3",
    "1E3",
    "1.0",
    "0.5",
    "-0.0",
    "0.1",
    "1.5e300",
    "1e22",
    "1e17",
    "123456789.125",
    "3.141592653589793",
    "1e-7",
    "2.5e-300",
    "true",
    "false",
    "null",
    "[]",
    "{}",
    "[[], {}, \"\"]",
    r#"{"a": {"b": [1, null]}, "": 2}"#,
    r#""""#,
    r#""abc""#,
    r#""\" \\ \/ \b \f \n \r \t \u0020""#,
    r#""\u0000\u0001\u001f\u007f""#,
    r#""\u00e9\u20ac\ud83d\ude00""#,
    "\"\u{e9}\u{20ac}\u{1f600}\u{7f}\u{80}\"",
    r#""\ufffd\ufeff\u2028""#,
    "\"<>&'\"",
    "'single \"quoted\"'",
];

#[test]
fn sessions_begin_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::SESSIONS);
    comparison.ask(&mut pair, "the greeting", |side| {
        let greeting = side.greeting();
        Ok(vec![shape(greeting), greeting["QMP"]["capabilities"].to_string()])
    })?;
    for row in SESSIONS {
        comparison.ask(&mut pair, row, |side| {
            side.reconnect()?;
            let answers = side.ask(row.as_bytes(), &[])?;
            Ok(answers.iter().map(|answer| answer.text(View::Shape)).collect())
        })?;
    }
    comparison.finish()
}

#[test]
fn requests_are_answered_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::REQUESTS);
    comparison.say_all(&mut pair, View::Values, REQUESTS)?;
    comparison.finish()
}

#[test]
fn ids_come_back_byte_by_byte_as_from_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::IDS);
    for row in IDS {
        comparison.ask(&mut pair, row, |side| echoed(side, row).map(|id| vec![id]))?;
    }
    comparison.finish()
}

/// An id as it comes back: strings byte by byte, doubles by their values, which have many spellings.
fn echoed(side: &mut Side, id: &str) -> Result<String> {
    side.send(format!("{{\"execute\": \"query-name\", \"id\": {id}}}").as_bytes())?;
    let line = String::from_utf8_lossy(&side.receive_line()?).into_owned();
    // The order of members is nobody's promise.
    let first = || line.strip_prefix("{\"id\": ")?.strip_suffix(", \"return\": {}}\r\n");
    let last = || line.strip_prefix("{\"return\": {}, \"id\": ")?.strip_suffix("}\r\n");
    let echo = last().or_else(first).ok_or_else(|| Error::new(format!("another reply: {line}")))?;
    if echo.starts_with('"') {
        return Ok(echo.to_owned());
    }
    Ok(sorted(&serde_json::from_str(echo).doing(format!("parsing {echo}"))?))
}
