//! What the parser makes of good, bad and hostile bytes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn results(input: impl AsRef<[u8]>) -> Vec<Result<Value, String>> {
    let mut parser = Parser::default();
    parser.feed(input.as_ref());
    parser.by_ref().collect()
}

fn errors(input: impl AsRef<[u8]>) -> Vec<String> {
    results(input).into_iter().filter_map(Result::err).collect()
}

fn value(input: impl AsRef<[u8]>) -> Value {
    let mut results = results(input);
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0).expect("the input is valid")
}

#[test]
fn an_object_is_complete_when_its_braces_balance() {
    assert_eq!(value(r#"{"execute": "quit"}"#), json!({"execute": "quit"}));
    assert_eq!(value(r#"[{"a": [1, 2]}, {}, []]"#), json!([{"a": [1, 2]}, {}, []]));
}

#[test]
fn several_commands_in_one_write_come_out_in_order() {
    assert_eq!(results("{}[]{\"a\":1}"), [Ok(json!({})), Ok(json!([])), Ok(json!({"a": 1}))]);
}

#[test]
fn a_command_may_be_split_anywhere() {
    let text = r#"{"a": ["xé\u00e9\n", -12.5e1, true], 'b': null}"#.as_bytes();
    let whole = value(text);
    for at in 0..text.len() {
        let mut parser = Parser::default();
        parser.feed(&text[..at]);
        assert_eq!(parser.next(), None);
        assert!(parser.is_drained());
        parser.feed(&text[at..]);
        assert_eq!(parser.next(), Some(Ok(whole.clone())));
    }
}

#[test]
fn a_top_level_scalar_ends_at_a_delimiter() {
    assert_eq!(results("12"), []);
    assert_eq!(results("12 true\n\"x\""), [Ok(json!(12)), Ok(json!(true)), Ok(json!("x"))]);
}

#[test]
fn nothing_is_said_of_nothing() {
    assert_eq!(results("\r\n \t\n\r"), []);
}

#[test]
fn single_quotes_make_strings_too() {
    assert_eq!(value(r#"{'a"': 'it\'s'}"#), json!({"a\"": "it's"}));
}

#[test]
fn q02_integers_are_exact_up_to_u64_and_doubles_beyond() {
    let numbers = value("[18446744073709551615, -9223372036854775808, 18446744073709551616, 1e3, -0]");
    assert_eq!(numbers, json!([u64::MAX, i64::MIN, 18446744073709551616.0, 1000.0, 0]));
}

#[test]
fn a_syntax_error_is_reported_once_its_braces_balance() {
    for (input, what) in [
        ("{\"a\":}", "expecting value"),
        ("{\"a\":1,}", "expecting value"),
        ("[1,]", "expecting value"),
        ("}", "expecting value"),
        ("{]", "expecting value"),
        ("{\"a\" 1}", "missing : in object pair"),
        ("{\"a\":1 \"b\":2}", "expected separator in dict"),
        ("[1 2]", "expected separator in list"),
        ("{1:2}", "key is not a string in object"),
        ("{\"a\":nul}", "invalid keyword 'nul'"),
        ("nul\n", "invalid keyword 'nul'"),
        ("{\"a\":1,\"a\":2}", "duplicate key"),
        ("[\"\\x\"]", "invalid escape sequence in string"),
        ("[\"\\u12g4\"]", "\\u12g4 is not a valid Unicode character"),
        ("[\"\\u12\"]", "\\u12\" is not a valid Unicode character"),
        ("[\"\\u+123\"]", "\\u+123 is not a valid Unicode character"),
        ("[\"\\uffff\"]", "\\uffff is not a valid Unicode character"),
        ("[\"\u{ffff}\"]", "invalid UTF-8 sequence in string"),
        ("{\"a\":1,\"a\"}", "missing : in object pair"),
        ("{\"a\":1,\"a\":nul}", "invalid keyword 'nul'"),
        ("['\\u1']", "\\u1' is not a valid Unicode character"),
        ("[\"\\ud800x\"]", "\\ud800 is not a valid Unicode character"),
        ("[\"\\uFFFE\"]", "\\uFFFE is not a valid Unicode character"),
        ("[1e999]", "number out of range '1e999'"),
        ("[0x10]", "expected separator in list"),
    ] {
        assert_eq!(errors(input), [format!("JSON parse error, {what}")], "{input}");
    }
}

#[test]
fn q02_a_lexical_error_resets_the_parser() {
    let stray = |text: &str| format!("JSON parse error, stray '{text}'");
    for (input, text) in [
        ("{\"a\": %s\n", "%"),
        ("{\"a\": ~\n", "~"),
        ("{\"a\": X\n", "X"),
        ("{\"a\": -x\n", "-x"),
        ("{\"a\": \u{1}", "\u{1}"),
        ("{\"a\": \"x\ny\n", "\"x\n"),
        ("{\"a\": 'x\ty\n", "'x\t"),
        ("{\"a\": \"x\0y\n", "\"x"),
        ("{\"a\": \"\\\u{1}\n", "\"\\\u{1}"),
        ("{/* no comment */", "/"),
        ("{\"a\": +1\n", "+"),
        ("{\"a\": .5\n", "."),
        ("{\"a\": 1.\n", "1.\n"),
        ("{\"a\": 1e\n", "1e\n"),
    ] {
        assert_eq!(errors(input), [stray(text)], "{input:?}");
        let recovered = results([input, "\n{}"].concat());
        assert_eq!(recovered.last(), Some(&Ok(json!({}))), "{input:?}");
    }
    assert_eq!(results(b"{\"a\": [\xFF{}"), [Err(stray("\u{fffd}")), Ok(json!({}))]);
    assert_eq!(results(b"{\"a\": \"b\xFF{}"), [Err(stray("\"b\u{fffd}")), Ok(json!({}))]);
    assert_eq!(results(b"\0{}"), [Err(stray("")), Ok(json!({}))], "the text ends at a zero");
}

#[test]
fn a_leading_zero_is_stray_and_the_rest_of_the_line_fails_too() {
    let stray = String::from("JSON parse error, stray '01'");
    assert_eq!(errors("{\"a\": 01}"), [stray, String::from("JSON parse error, expecting value")]);
}

#[test]
fn q02_surrogates_pair_up_or_are_refused() {
    assert_eq!(value(r#"["\ud83d\ude00\u00e9\u0000"]"#), json!(["😀é\0"]));
    for lone in [r#"["\ud83d"]"#, r#"["\ude00"]"#, r#"["\ud83dx"]"#, r#"["\ud83d\u0041"]"#] {
        assert!(errors(lone)[0].ends_with("is not a valid Unicode character"), "{lone}");
    }
}

#[test]
fn q02_invalid_utf8_is_refused_without_losing_the_stream() {
    for bytes in [b"\xC3\x28", &b"\xED\xA0\x80"[..], b"\xF4\x90\x80\x80", b"\xC1\xBF", b"\xEF\xBF\xBF"] {
        let results = results([b"[\"", bytes, b"\"]{}"].concat());
        assert_eq!(results[0], Err(String::from("JSON parse error, invalid UTF-8 sequence in string")));
        assert_eq!(results[1], Ok(json!({})));
    }
}

#[test]
fn q01_nesting_is_limited() {
    let depth = DEPTH_MAX as usize;
    assert!(results("[".repeat(depth) + &"]".repeat(depth))[0].is_ok());
    let limit = "JSON nesting depth limit exceeded";
    assert_eq!(errors("[".repeat(depth + 1)), [limit]);
    let more = [limit, "JSON parse error, expecting value"];
    assert_eq!(errors("{\"a\":".repeat(depth + 1)), more, "what follows is read as if nothing had been");
}

#[test]
fn q01_a_million_brackets_do_no_harm() {
    let mut results = results("[".repeat(1_000_000) + "\u{1}{}");
    assert_eq!(results.pop(), Some(Ok(json!({}))));
    assert!(results.iter().all(Result::is_err));
}

#[test]
fn q01_a_command_is_limited_in_bytes_and_tokens() {
    let string = "x".repeat(COMMAND_BYTES_MAX - 2);
    assert!(results(format!("\"{string}\""))[0].is_ok());
    let size = ["JSON token size limit exceeded"];
    assert_eq!(errors(format!("\"{string}xx")), size);
    assert_eq!(errors(format!("[\"{}\",\"{0}\"", &string[..COMMAND_BYTES_MAX / 2])), size);
    let count = ["JSON token count limit exceeded"];
    assert_eq!(errors("[".to_owned() + &"1,".repeat(TOKENS_MAX / 2)), count);
}

#[test]
fn an_options_value_is_one_value_and_nothing_else() {
    assert_eq!(parse("{\"a\": 1}"), Ok(json!({"a": 1})));
    for text in ["", "{", "{} {}", "{} [", "{} x"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(chunks in prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[\\[\\]{}:,\"'\\\\u0-9a-f.eE+ -]{0,32}".prop_map(String::into_bytes),
        ],
        0..16,
    )) {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.feed(&chunk);
            parser.by_ref().for_each(drop);
            prop_assert!(parser.is_drained());
        }
    }

    #[test]
    fn what_we_write_we_read_back(text in any::<String>(), number in any::<i64>()) {
        let value = json!({"text": text, "list": [number, null, {"flag": true}]});
        let line = super::super::to_qmp_line(&value);
        prop_assert!(line.is_ascii());
        let mut parser = Parser::default();
        parser.feed(&line);
        prop_assert_eq!(parser.next(), Some(Ok(value)));
        prop_assert_eq!(parser.next(), None);
    }
}
