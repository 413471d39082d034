//! `key=value,key=value`: the syntax of options on the command line.
//!
//! A comma within a value is doubled; dots in a key nest objects; the first item may leave out its key. All values stay
//! strings, for a visitor in keyval form to read.

use serde_json::{Map, Value, json};

use super::QapiError;

/// What an item without `=` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// It is an error.
    Refused,
    /// `server` means `server=on`, `nowait` means `wait=off`: the older way to write chardevs.
    Accepted,
}

/// Keys that are given once for each item of a list, as QEMU's `user` netdev has them.
const REPEATED: [&str; 3] = ["dnssearch", "guestfwd", "hostfwd"];

/// Parses `text`; a first item without `=` is the value of `implied_key`. A key that is given again replaces the earlier,
/// but for those of lists.
pub fn parse_keyval(text: &str, implied_key: &str, flags: Flags) -> Result<Map<String, Value>, QapiError> {
    let mut members = Map::new();
    for (index, item) in items(text).into_iter().enumerate() {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key, value),
            None if index == 0 => (implied_key, item.as_str()),
            None if flags == Flags::Refused => {
                return Err(QapiError::generic(format!("Expected '=' after parameter '{item}'")));
            }
            None => match item.strip_prefix("no") {
                Some(key) if !key.is_empty() => (key, "off"),
                _ => (item.as_str(), "on"),
            },
        };
        insert(&mut members, key, value)?;
    }
    Ok(members)
}

/// The items between single commas, with doubled commas made single.
fn items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, items.last_mut()) {
            (',', Some(item)) if characters.next_if_eq(&',').is_some() => item.push(','),
            (',', _) => items.push(String::new()),
            (_, Some(item)) => item.push(character),
            (_, None) => {}
        }
    }
    if items.last().is_some_and(String::is_empty) {
        items.pop(); // A comma at the end is harmless.
    }
    items
}

fn insert(members: &mut Map<String, Value>, key: &str, value: &str) -> Result<(), QapiError> {
    let mut parts: Vec<&str> = key.split('.').collect();
    let valid = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if !parts.iter().all(valid) || parts.len() > KEY_PARTS_MAX {
        return Err(QapiError::generic(format!("Invalid parameter '{key}'")));
    }
    let inconsistent = || QapiError::generic(format!("Parameters '{key}' used inconsistently"));
    let last = parts.pop().unwrap_or_default();
    let mut object = members;
    for part in parts {
        let entry = object.entry(part).or_insert_with(|| Value::Object(Map::new()));
        object = entry.as_object_mut().ok_or_else(inconsistent)?;
    }
    if object.get(last).is_some_and(Value::is_object) {
        return Err(inconsistent());
    }
    match object.get_mut(last) {
        Some(Value::Array(items)) => items.push(value.into()),
        _ if REPEATED.contains(&last) => drop(object.insert(last.to_owned(), json!([value]))),
        _ => drop(object.insert(last.to_owned(), value.into())),
    }
    Ok(())
}

/// Nesting in one key; no option of the schema comes near.
const KEY_PARTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        parse_keyval(text, "type", Flags::Refused).expect(text).into()
    }

    fn refused(text: &str) -> String {
        parse_keyval(text, "type", Flags::Refused).expect_err(text).desc
    }

    #[test]
    fn the_first_item_may_leave_out_its_key() {
        assert_eq!(parsed("tap,id=t0"), json!({"type": "tap", "id": "t0"}));
        assert_eq!(parsed("id=t0,type=tap"), json!({"id": "t0", "type": "tap"}));
    }

    #[test]
    fn a_doubled_comma_is_a_comma() {
        assert_eq!(parsed("x,path=a,,b=c,,,d=e"), json!({"type": "x", "path": "a,b=c,", "d": "e"}));
    }

    #[test]
    fn a_key_that_is_given_again_replaces_the_earlier_unless_it_is_a_list() {
        assert_eq!(parsed("x,a=1,a=2"), json!({"type": "x", "a": "2"}));
        let value = json!({"type": "x", "hostfwd": ["b", "c"], "dnssearch": ["d"]});
        assert_eq!(parsed("x,hostfwd=b,hostfwd=c,dnssearch=d"), value);
        assert_eq!(refused("x,hostfwd=b,hostfwd.0=c"), "Parameters 'hostfwd.0' used inconsistently");
    }

    #[test]
    fn dotted_keys_nest() {
        let value = json!({"type": "x", "addr": {"type": "unix", "path": "p"}});
        assert_eq!(parsed("x,addr.type=unix,addr.path=p"), value);
    }

    #[test]
    fn bad_items_are_refused() {
        assert_eq!(refused("tap,vhost"), "Expected '=' after parameter 'vhost'");
        assert_eq!(refused("tap,=x"), "Invalid parameter ''");
        assert_eq!(refused("tap,a..b=x"), "Invalid parameter 'a..b'");
        assert_eq!(refused("tap,a=x,a.b=y"), "Parameters 'a.b' used inconsistently");
        assert_eq!(refused("tap,a.b=x,a=y"), "Parameters 'a' used inconsistently");
        assert_eq!(
            refused(&format!("tap,{}=x", ["a"; 17].join("."))),
            format!("Invalid parameter '{}'", ["a"; 17].join("."))
        );
    }

    #[test]
    fn flags_switch_on_and_with_no_before_them_off() {
        let members = parse_keyval("unix:x,server,nowait", "addr", Flags::Accepted);
        let expected = json!({"addr": "unix:x", "server": "on", "wait": "off"});
        assert_eq!(members.map(Value::from), Ok(expected));
    }
}
