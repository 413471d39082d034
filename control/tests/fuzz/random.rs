//! Made inputs: pieces that mean something to a target, in random order, with random bytes among them.

use crate::harness::Random;

/// An input of [`protocol`](crate::protocol).
pub fn protocol(random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.byte(), random.byte()];
    for _ in 0..random.below(40) {
        match random.below(12) {
            0 => input.push(random.byte()),
            _ => input.extend(random.of(PIECES)),
        }
    }
    input
}

/// An input of [`commands`](crate::commands).
pub fn commands(random: &mut Random) -> Vec<u8> {
    (0..random.below(240)).map(|_| random.byte()).collect()
}

const PIECES: &[&[u8]] = &[
    b"{", b"}", b"[", b"]", b":", b",", b"\"", b"'", b"\\", b"\n", b" ", b"\t", b"\r\n", b"\xff", b"\xfe", b"\0",
    b"\x01", b"%", b"null", b"true", b"false", b"nul", b"0", b"-", b"01", b"-0", b"1", b"12", b"1.5", b"1e3", b"1E-7",
    b"1e999", b"18446744073709551615", b"18446744073709551616", b"-9223372036854775808", b".", b"e", b"\"a\"", b"'b'",
    b"\"\"", b"\"\\u00e9\"", b"\"\\ud83d\\ude00\"", b"\"\\ud83d\"", b"\\u", b"\\uffff", b"\"\\n\\/\\'\"", b"\xc3\xa9",
    b"\xc3", b"\xf0\x9f\x98\x80", b"\xef\xbf\xbf", b"{\"a\": 1}", b"{\"a\": [1, {\"b\": null}]}", b"{\"a\":1,\"a\":2}",
    b"[[[[[[[[", b"]]]]]]]]", b"{\"execute\": \"", b"\"execute\": ", b"\"exec-oob\": ", b"\"arguments\": {",
    b"\"id\": ", b"\"qmp_capabilities\"", b"\"query-name\"", b"\"stop\"", b"\"netdev_add\"", b"\"set_link\"",
    b"{\"execute\": \"query-version\", \"id\": 1}", b"{'execute': 'nope', 'id': [1.5, {}]}",
    b"{\"exec-oob\": \"query-name\", \"id\": null}", b"{\"execute\": \"netdev_del\", \"arguments\": {\"id\": \"x\"}}",
    b"{\"execute\": \"set_link\", \"arguments\": {\"name\": 1}}", b"\"enable\": [\"oob\"]", b"\"enable\": [\"x\"]",
    b"{\"execute\": \"netdev_add\", \"arguments\": {\"id\": \"a\", \"type\": \"stream\", \"addr\": {\"type\": \"x\"}}}",
];
