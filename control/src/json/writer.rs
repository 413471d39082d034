//! Values to bytes, in the form that QMP clients expect: one line, ASCII only, closed by CR LF.

use serde_json::{Number, Value};

/// `value` on one line. Everything outside printable ASCII is written as `\uXXXX` with upper-case digits, beyond the
/// basic plane as a surrogate pair; a double without fraction is written as an integer. The line ends with CR LF.
pub fn to_qmp_line(value: &Value) -> Vec<u8> {
    let mut line = String::new();
    write_value(&mut line, value);
    line.push_str("\r\n");
    line.into_bytes()
}

// Recursion is bounded: a value comes from our own parser, which limits depth, or from our own code.
fn write_value(line: &mut String, value: &Value) {
    match value {
        Value::Null => line.push_str("null"),
        Value::Bool(bool) => line.push_str(if *bool { "true" } else { "false" }),
        Value::Number(number) => write_number(line, number),
        Value::String(text) => write_string(line, text),
        Value::Array(items) => {
            line.push('[');
            for (index, item) in items.iter().enumerate() {
                line.push_str(if index > 0 { ", " } else { "" });
                write_value(line, item);
            }
            line.push(']');
        }
        Value::Object(members) => {
            line.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                line.push_str(if index > 0 { ", " } else { "" });
                write_string(line, name);
                line.push_str(": ");
                write_value(line, member);
            }
            line.push('}');
        }
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
