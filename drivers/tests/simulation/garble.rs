//! JSON that somebody has changed in one place, as a few numbers say.

use serde_json::{Value, json};

/// Makes one member or element, somewhere in `record`, another one. `below` gives a number below another.
pub fn change(record: &mut Value, below: &mut dyn FnMut(usize) -> usize) {
    let paths = paths(record);
    let mut path = || &paths[(below(256) << 8 | below(256)) % paths.len()];
    let (place, other) = (path(), path());
    let other = record.pointer(other).cloned().unwrap_or_default();
    let Some(value) = record.pointer_mut(place) else { return };
    let number = value.as_u64().unwrap_or_default();
    *value = match below(10) {
        0 => json!(number ^ 1 << below(64)),
        1 => json!(number.wrapping_add(1)),
        2 => json!(number.wrapping_sub(1)),
        3 | 4 => json!(NUMBERS[below(NUMBERS.len())]),
        5 => json!(!value.as_bool().unwrap_or_default()),
        6 => Value::Null,
        7 => json!([value.take(), other]),
        8 => json!(below(16)),
        _ => other,
    };
}

/// Where there is something.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(elements) => elements.iter().enumerate().map(|(at, it)| (at.to_string(), it)).collect(),
        _ => Vec::new(),
    };
    let below = children
        .into_iter()
        .flat_map(|(name, value)| paths(value).into_iter().map(move |path| format!("/{name}{path}")));
    [String::new()].into_iter().chain(below).collect()
}

/// At which things change.
const NUMBERS: [i128; 16] = [
    -1,
    0,
    1,
    2,
    15,
    16,
    255,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0xffff_ffff,
    1 << 32,
    i64::MAX as i128,
    1 << 63,
    u64::MAX as i128,
];
