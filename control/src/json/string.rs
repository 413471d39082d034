//! What a string token means: escapes undone, UTF-8 checked. Noncharacters of Unicode are refused, as in QEMU.

/// The text of a token that begins and ends with its quote, or what is wrong with it.
pub(super) fn decode(token: &[u8]) -> Result<String, String> {
    let end = token.len().saturating_sub(1);
    let mut decoded = String::with_capacity(token.len());
    let mut at = 1;
    while at < end {
        let (character, len) = match token[at] {
            b'\\' => unescaped(&token[at..])?,
            ascii @ ..=0x7F => (char::from(ascii), 1),
            _ => {
                let character = first_character(&token[at..end]).filter(|found| !is_noncharacter(*found));
                let invalid = || String::from("invalid UTF-8 sequence in string");
                character.map(|found| (found, found.len_utf8())).ok_or_else(invalid)?
            }
        };
        decoded.push(character);
        at += len;
    }
    Ok(decoded)
}

/// The character that an escape stands for, and how long it is. `text` begins with the backslash and goes on to the end of
/// the token, the quote included: the lexer lets no token end behind a backslash.
fn unescaped(text: &[u8]) -> Result<(char, usize), String> {
    let plain = match text.get(1) {
        Some(same @ (b'"' | b'\'' | b'\\' | b'/')) => char::from(*same),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return code_point(text),
        _ => return Err(String::from("invalid escape sequence in string")),
    };
    Ok((plain, 2))
}

/// The character of a `\u` escape, or of two that form a surrogate pair.
fn code_point(text: &[u8]) -> Result<(char, usize), String> {
    let one = four_digits(text).map(u32::from);
    let pair = || {
        let pair = [four_digits(text)?, four_digits(text.get(6..)?)?];
        char::decode_utf16(pair).next()?.ok()
    };
    let (found, len) = match one.and_then(char::from_u32) {
        Some(character) => (Some(character), 6),
        None => pair().map_or((None, 6), |character| (Some(character), 12)),
    };
    let invalid = || {
        let shown = String::from_utf8_lossy(&text[..len.min(text.len())]);
        format!("{shown} is not a valid Unicode character")
    };
    found.filter(|found| !is_noncharacter(*found)).map(|found| (found, len)).ok_or_else(invalid)
}

/// The number of an escape `\uXXXX`.
fn four_digits(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

fn first_character(text: &[u8]) -> Option<char> {
    text[..text.len().min(4)].utf8_chunks().next()?.valid().chars().next()
}

/// Whether Unicode promises that it will never be a character.
fn is_noncharacter(character: char) -> bool {
    let number = u32::from(character);
    (0xFDD0..=0xFDEF).contains(&number) || number & 0xFFFE == 0xFFFE
}
