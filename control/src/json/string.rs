//! What a string token means: escapes undone, UTF-8 checked.

/// The text between a token's quotes, or what is wrong with it.
pub(super) fn decode(token: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(token).map_err(|_| String::from("invalid UTF-8 sequence in string"))?;
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        decoded.push_str(plain);
        rest = push_escape(&mut decoded, escape)?;
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// Undoes the escape whose backslash stood before `text`; returns what follows it.
fn push_escape<'a>(decoded: &mut String, text: &'a str) -> Result<&'a str, String> {
    let mut rest = text.chars();
    let plain = match rest.next() {
        Some(same @ ('"' | '\'' | '\\' | '/')) => same,
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return push_code_point(decoded, rest.as_str()),
        _ => return Err(String::from("invalid escape sequence in string")),
    };
    decoded.push(plain);
    Ok(rest.as_str())
}

/// Undoes a `\u` escape, or two that form a surrogate pair; `text` starts at the first hexadecimal digit.
fn push_code_point<'a>(decoded: &mut String, text: &'a str) -> Result<&'a str, String> {
    let (first, rest) = four_digits(text)?;
    if let Some(character) = char::from_u32(first) {
        decoded.push(character);
        return Ok(rest);
    }
    let lone = || format!("\\u{first:04X} is not a valid Unicode character");
    let low = rest.strip_prefix("\\u").ok_or_else(lone)?;
    let (second, rest) = four_digits(low)?;
    let pair = [first as u16, second as u16]; // Four digits each: nothing is cut off.
    let character = char::decode_utf16(pair).next().and_then(Result::ok);
    decoded.push(character.ok_or_else(lone)?);
    Ok(rest)
}

fn four_digits(text: &str) -> Result<(u32, &str), String> {
    let invalid = || String::from("invalid hex escape in string");
    let digits = text.get(..4).ok_or_else(invalid)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid());
    }
    let value = u32::from_str_radix(digits, 16).map_err(|_| invalid())?;
    Ok((value, &text[4..]))
}
