//! Values to bytes, in the form that QMP clients expect: one line, ASCII only, closed by CR LF.

use serde_json::{Number, Value};

/// How a message lies on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// On one line, as programs expect it.
    #[default]
    Line,
    /// A line for every member, for people.
    Pretty,
}

/// `value` on one line. Everything outside printable ASCII is written as `\uXXXX` with upper-case digits, beyond the
/// basic plane as a surrogate pair; a double without fraction is written as an integer. The line ends with CR LF.
pub fn to_qmp_line(value: &Value) -> Vec<u8> {
    to_qmp_text(value, Layout::Line)
}

/// The same in the given layout. Each line ends with CR LF.
pub fn to_qmp_text(value: &Value, layout: Layout) -> Vec<u8> {
    let mut text = String::new();
    let depth = (layout == Layout::Pretty).then_some(0);
    write_value(&mut text, value, depth);
    text.push_str("\r\n");
    text.into_bytes()
}

/// Writes a value that is `depth` deep where each has a line of its own. Recursion is bounded: a value comes from our own
/// parser, which limits depth, or from our own code.
fn write_value(text: &mut String, value: &Value, depth: Option<usize>) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(bool) => text.push_str(if *bool { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                begin_item(text, index, depth);
                write_value(text, item, depth.map(|depth| depth + 1));
            }
            break_line(text, depth);
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                begin_item(text, index, depth);
                write_string(text, name);
                text.push_str(": ");
                write_value(text, member, depth.map(|depth| depth + 1));
            }
            break_line(text, depth);
            text.push('}');
        }
    }
}

/// What stands before an item of what is `depth` deep.
fn begin_item(text: &mut String, index: usize, depth: Option<usize>) {
    match (index, depth) {
        (0, _) => {}
        (_, None) => text.push_str(", "),
        (_, Some(_)) => text.push(','),
    }
    break_line(text, depth.map(|depth| depth + 1));
}

fn break_line(text: &mut String, depth: Option<usize>) {
    if let Some(depth) = depth {
        text.push_str("\r\n");
        text.extend(std::iter::repeat_n("    ", depth));
    }
}

fn write_number(line: &mut String, number: &Number) {
    match number.as_f64() {
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < 1e17 => {
            line.push_str(&format!("{double:.0}"));
        }
        _ => line.push_str(&number.to_string()),
    }
}

fn write_string(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\u{8}' => line.push_str("\\b"),
            '\u{c}' => line.push_str("\\f"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            ' '..='~' => line.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(value: Value) -> String {
        String::from_utf8(to_qmp_line(&value)).expect("the writer emits ASCII only")
    }

    #[test]
    fn a_reply_is_one_line_that_ends_with_carriage_return_and_line_feed() {
        let value = json!({"return": {}, "id": [1, null, true, "x"]});
        let expected = "{\"return\": {}, \"id\": [1, null, true, \"x\"]}\r\n";
        assert_eq!(line(value), expected);
    }

    #[test]
    fn pretty_gives_every_member_a_line() {
        let text = to_qmp_text(&json!({"return": {}, "id": [1, "x"]}), Layout::Pretty);
        let expected = [
            "{",
            "    \"return\": {",
            "    },",
            "    \"id\": [",
            "        1,",
            "        \"x\"",
            "    ]",
            "}",
            "",
        ];
        assert_eq!(String::from_utf8_lossy(&text), expected.join("\r\n"));
    }

    #[test]
    fn what_is_not_ascii_is_escaped_in_upper_case_hex() {
        assert_eq!(line(json!("é\u{1}\u{7f}")), "\"\\u00E9\\u0001\\u007F\"\r\n");
        assert_eq!(line(json!("😀")), "\"\\uD83D\\uDE00\"\r\n");
        assert_eq!(line(json!("\"\\\n\t\r/")), "\"\\\"\\\\\\n\\t\\r/\"\r\n");
    }

    #[test]
    fn a_double_without_fraction_is_written_as_an_integer() {
        assert_eq!(line(json!(1e3)), "1000\r\n");
        assert_eq!(line(json!(0.5)), "0.5\r\n");
        assert_eq!(line(json!(1e300)), "1e+300\r\n");
        assert_eq!(line(json!(u64::MAX)), "18446744073709551615\r\n");
    }
}
