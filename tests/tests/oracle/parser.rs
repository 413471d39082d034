//! Bytes that are no requests: what is wrong with them, how often that is said, and where things go on.

use ringyard_tests::Result;

use crate::answer::View;
use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

/// Inputs, each followed by 0xFF, which ends whatever was begun.
const INPUTS: &[&[u8]] = &[
    b"",
    b"\n",
    b"\xff",
    b"\xff\xff",
    b"\xfe",
    b"\x80",
    b"\xc3\xa9",
    b"\x00",
    b"\x01",
    b"\x1b[A",
    b"\x7f",
    b"\x0b{}",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"{]",
    b"[}",
    b"{}}",
    b"[]]",
    b"{\"a\"",
    b"{\"a\":",
    b"{\"a\":1",
    b"{\"a\":1,",
    b"{\"a\":}",
    b"{\"a\":1,}",
    b"{,}",
    b"{:}",
    b"{\"a\"}",
    b"{\"a\",1}",
    b"{\"a\" 1}",
    b"{\"a\" \"b\"}",
    b"{\"a\":1 \"b\":2}",
    b"{\"a\":1:2}",
    b"{1:2}",
    b"{null:2}",
    b"{[]:2}",
    b"{{}:2}",
    b"{nul:2}",
    b"{\"a\":1,1:2}",
    b"{\"a\":1,\"a\":2}",
    b"{\"a\":1,\"a\"}",
    b"{\"a\":{\"b\":1,\"b\":2}}",
    b"[1,]",
    b"[,]",
    b"[1 2]",
    b"[1:2]",
    b"[1,,2]",
    b"[1",
    b"nul\n",
    b"nulls\n",
    b"True\n",
    b"tRue\n",
    b"true false\n",
    b"truefalse\n",
    b"{\"a\":nul}",
    b"{\"a\":none}",
    b"01\n",
    b"{\"a\":01}",
    b"{\"a\":00}",
    b"{\"a\":-01}",
    b"{\"a\":-}",
    b"{\"a\":+1}",
    b"{\"a\":.5}",
    b"{\"a\":1.}",
    b"{\"a\":1.e3}",
    b"{\"a\":1e}",
    b"{\"a\":1e+}",
    b"{\"a\":1ee3}",
    b"{\"a\":0x10}",
    b"{\"a\":1a}",
    b"{\"a\":1e999}",
    b"{\"a\":-1e999}",
    b"{\"a\":1e-999}",
    b"{\"a\":NaN}",
    b"{\"a\":Infinity}",
    b"{\"a\":-Infinity}",
    b"{\"a\":%s}",
    b"{\"a\":%d}",
    b"%p\n",
    b"{\"a\":~}",
    b"{\"a\":X}",
    b"{\"a\":x}",
    b"{\"a\":(1)}",
    b"{\"a\":1;}",
    b"// comment\n",
    b"/* comment */",
    b"# comment\n",
    b"{\"a\":1 /* comment */}",
    b"[\"abc",
    b"[\"abc\n\"]",
    b"[\"a\tb\"]",
    b"[\"a\x01b\"]",
    b"[\"a\x7fb\"]",
    b"[\"a\xffb\"]",
    b"[\"a\xfeb\"]",
    b"[\"a\x00b\"]",
    b"[\"\x80\"]",
    b"[\"\xc3\"]",
    b"[\"\xc3\xa9\"]",
    b"[\"\xc0\x80\"]",
    b"[\"\xc1\xbf\"]",
    b"[\"\xe0\x80\x80\"]",
    b"[\"\xed\xa0\x80\"]",
    b"[\"\xed\xa0\xbd\xed\xb8\x80\"]",
    b"[\"\xf4\x90\x80\x80\"]",
    b"[\"\xf8\x88\x80\x80\x80\"]",
    b"[\"\xef\xbf\xbf\"]",
    b"[\"\xef\xbf\xbe\"]",
    b"[\"\xef\xb7\x90\"]",
    b"[\"\xf0\x9f\xbf\xbf\"]",
    b"[\"\\x\"]",
    b"[\"\\0\"]",
    b"[\"\\a\"]",
    b"[\"\\U00e9\"]",
    b"[\"\\",
    b"[\"\\\n\"]",
    b"[\"\\\xc3\xa9\"]",
    b"[\"\\u\"]",
    b"[\"\\u12\"]",
    b"[\"\\u12g4\"]",
    b"[\"\\u 123\"]",
    b"[\"\\u1\xc3\xa9\xe2\x82\xac\"]",
    b"[\"\\u123\xc3\xa9\"]",
    b"[\"\\x\xc3\"]",
    b"[\"\xc3\\x\"]",
    b"{\"a\":1,\"a\":nul}",
    b"{\"a\":1,\"a\":{\"b\":]}}",
    b"{\"a\":1,\"a\":2,3}",
    b"[\"\\u+123\"]",
    b"[\"\\u00E9\\u00e9\"]",
    b"[\"\\ud83d\"]",
    b"[\"\\ud83dx\"]",
    b"[\"\\ud83d\\n\"]",
    b"[\"\\ud83d\\u0041\"]",
    b"[\"\\ud83d\\ud83d\"]",
    b"[\"\\ud83d\\u12\"]",
    b"[\"\\ude00\"]",
    b"[\"\\uffff\"]",
    b"[\"\\ufffe\"]",
    b"[\"\\ufdd0\"]",
    b"[\"\\ud83f\\udfff\"]",
    b"[\"\\u0000\"]",
    b"'abc\n'",
    b"['it\\'s']",
    b"[\"it\\'s\"]",
    b"['say \"x\"']",
    b"['abc\"]",
    b"[\"abc']",
    b"{'a':1,\"a\":2}",
    b"{\"execute\": \"query-name\", \"id\": 1, \"id\": 2}",
    b"{\"execute\": \"query-name\", \"execute\": \"query-name\"}",
    b"{\"execute\": \"query-name\", \"id\": 01}",
    b"{\"execute\": \"query-name\", \"id\": 1}}",
    b"}{\"execute\": \"query-name\", \"id\": 1}",
    b"]{\"execute\": \"query-name\", \"id\": 1}",
    b"{]}{\"execute\": \"query-name\", \"id\": 1}",
    b"[}{\"execute\": \"query-name\", \"id\": 1}",
    b"[{]{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": [1}{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": %{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": %\n{\"execute\": \"query-name\", \"id\": 1}",
    b"%{\"execute\": \"query-name\", \"id\": 1}",
    b"% {\"execute\": \"query-name\", \"id\": 1}",
    b"%x\"y{\"execute\": \"query-name\", \"id\": 1}",
    b"\"abc\n{\"execute\": \"query-name\", \"id\": 1}",
    b"\"abc\ndef\"{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": \x01{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": \xff{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": \"\xff{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": \"\\\xff{\"execute\": \"query-name\", \"id\": 1}",
    b"nul{\"execute\": \"query-name\", \"id\": 1}",
    b"1{\"execute\": \"query-name\", \"id\": 1}",
    b"1,2{\"execute\": \"query-name\", \"id\": 1}",
    b"\"a\"\"b\"{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\" 1, \"b\": {\"c\": [}]}}{\"execute\": \"query-name\", \"id\": 1}",
    b"{\"a\": 1 \xc3\xa9}{\"execute\": \"query-name\", \"id\": 1}",
    b"\xef\xbb\xbf{\"execute\": \"query-name\", \"id\": 1}",
    b"01{\"execute\": \"query-name\", \"id\": 1}",
    b"01,{\"execute\": \"query-name\", \"id\": 1}",
    b"-x{\"execute\": \"query-name\", \"id\": 1}",
    b"1.x{\"execute\": \"query-name\", \"id\": 1}",
    b"hello world\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

#[test]
fn q02_what_is_no_request_is_refused_and_recovered_from_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::PARSER);
    for input in INPUTS {
        let whole = [*input, b"\xff"].concat();
        comparison.ask(&mut pair, &input.escape_ascii().to_string(), |side| {
            let answers = side.ask(&whole, &[])?;
            Ok(answers.iter().map(|answer| answer.text(View::Values)).collect())
        })?;
    }
    comparison.finish()
}

#[test]
fn q01_depth_is_limited_as_in_qemu() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(&[]);
    for depth in [1, 511, 512, 513, 1022, 1023, 1024, 1025, 1100] {
        for (open, inside, close) in [("[", "", "]"), ("{\"a\": ", "1", "}"), ("[{\"a\": ", "1", "}]")] {
            let nested = format!("{}{inside}{}", open.repeat(depth), close.repeat(depth));
            for (row, input) in [
                (format!("{depth} of {open}"), nested.clone()),
                (format!("{depth} of {open} that end nowhere"), open.repeat(depth)),
                (format!("an id of {depth} {open}"), format!("{{\"execute\": \"nope\", \"id\": {nested}}}")),
            ] {
                comparison.ask(&mut pair, &row, |side| {
                    // Such an id is too deep for the test's own parser.
                    side.shorten(&nested);
                    let answers = side.ask(&[input.as_bytes(), b"\xff"].concat(), &[])?;
                    Ok(answers.iter().map(|answer| answer.text(View::Values)).collect())
                })?;
            }
        }
    }
    comparison.finish()
}

#[test]
fn requests_come_out_the_same_however_they_are_cut() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(&[]);
    let input =
        "{\"execute\": \"query-name\", \"id\": [1.5e2, \"\u{e9}\\u00e9\", null]}{}01 {'execute':'nope'}\n";
    for cut in 0..input.len() {
        let (first, second) = input.as_bytes().split_at(cut);
        comparison.ask(&mut pair, &format!("cut at {cut}"), |side| {
            side.send(first)?;
            let answers = side.ask(second, &[])?;
            Ok(answers.iter().map(|answer| answer.text(View::Values)).collect())
        })?;
    }
    comparison.finish()
}
