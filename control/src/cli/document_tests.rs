//! Lines, columns and carets.

use super::*;
use proptest::prelude::*;

fn document(text: &str) -> Document {
    Document::parse("f".into(), text.into()).map(|(document, _)| document).expect(text)
}

fn shown(text: &str, path: &str) -> String {
    document(text).locate(path, &QapiError::generic("wrong")).to_string()
}

#[test]
fn a_caret_is_below_what_is_wrong() {
    assert_eq!(shown("a = 1\nbc = 'x'\n", "bc"), "f:2:6: wrong\n  2 | bc = 'x'\n    |      ^^^");
    assert_eq!(shown("[[a]]\n[[a]]", "a[1]"), "f:2:1: wrong\n  2 | [[a]]\n    | ^^^^^");
    assert_eq!(shown("a = [\n 1,\n\t2]", "a[1]"), "f:3:2: wrong\n  3 | \t2]\n    | \t^");
    assert_eq!(shown("a = [ # open\n1]", "a"), "f:1:5: wrong\n  1 | a = [ # open\n    |     ^^^^^^^^");
}

#[test]
fn columns_are_characters() {
    assert_eq!(
        shown("a = { 'é' = 'ü', b = 1 }", "a.b"),
        "f:1:22: wrong\n  1 | a = { 'é' = 'ü', b = 1 }\n    |                      ^"
    );
}

#[test]
fn what_is_not_there_is_shown_at_what_it_would_be_in() {
    for missing in ["a.b.c.d", "a.b[3].x", "a.b.c"] {
        assert!(shown("[a]\nb = {}", missing).starts_with("f:2:5: wrong"), "{missing}");
    }
    assert!(shown("[a]\nb = {}", "nowhere").starts_with("f:1:1: wrong"));
}

#[test]
fn a_text_that_names_a_member_or_quotes_its_value_is_about_it() {
    let document = document("[n]\nfd = '3'\nqueues = 2\nkind = 'odd'");
    for (text, place) in [
        ("queues= is invalid with fd=", "f:3:10: "),
        ("no fd: 'odd'", "f:2:6: "),
        ("there is no 'odd' here", "f:4:8: "),
        ("it's all ''wrong", "f:1:1: "),
    ] {
        let found = document.locate("n", &QapiError::generic(text)).line;
        assert!(found.starts_with(place), "{found}");
    }
}

#[test]
fn a_line_that_is_long_or_odd_harms_nobody() {
    let long = format!("a = '{}'\nb = 1", "x".repeat(QUOTED_MAX));
    assert_eq!(shown(&long, "a"), "f:1:5: wrong");
    let found = Document::parse("f".into(), "a = '\u{1b}[2J'".into()).expect_err("it has an escape");
    assert!(found.iter().all(|finding| !finding.to_string().contains('\u{1b}')), "{found:?}");
    for text in ["", "\n\n", "=", "\u{feff}", "a", "é", "[[", "a='\r'", "a.é.b = ["] {
        if let Ok((document, _)) = Document::parse("f".into(), text.into()) {
            drop(document.locate("a[0].b", &QapiError::generic("x")));
        }
    }
}

#[test]
fn integers_of_the_schema_fit_and_others_are_of_a_wrong_type() {
    let text =
        "a = 18446744073709551615\nb = -0\nc = 0xff\nd = 18446744073709551616\ne = 1.5\nf = inf\ng = +7";
    let (_, members) = Document::parse("f".into(), text.into()).expect("it is well-formed");
    let expected =
        serde_json::json!({"a": u64::MAX, "b": 0, "c": 255, "d": null, "e": 1.5, "f": null, "g": 7});
    assert_eq!(Value::Object(members), expected);
}

#[test]
fn a_file_that_is_no_text_or_endless_is_refused() {
    let path = std::env::temp_dir().join(format!("ringyard-{}-latin1.toml", std::process::id()));
    std::fs::write(&path, b"# x\na = 'f\xfcr'\n").expect("the temporary directory is writable");
    let found = Document::read(&path).expect_err("it is not UTF-8");
    std::fs::remove_file(&path).expect("it was just written");
    assert!(found[0].line.ends_with("latin1.toml:2:7: this is not UTF-8"), "{found:?}");
    let found = Document::read(Path::new("/dev/zero")).expect_err("it has no end");
    assert_eq!(found[0].to_string(), "/dev/zero: the file has more than 4194304 bytes");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\PC|[\\[\\]\\{\\}='\"\n\r\t.,#a-c0-9é]){0,60}", path in "[a-c.\\[\\]0-9é]{0,8}") {
        let findings = match Document::parse("f".into(), text) {
            Ok((document, _)) => vec![
                document.locate(&path, &QapiError::generic("a 'b' c")),
                document.locate("", &QapiError::generic("x").about(&path)),
            ],
            Err(findings) => findings,
        };
        prop_assert!(findings.iter().all(|finding| finding.line.starts_with("f:")));
    }
}
