//! The words of a command line without a shell: blanks part them, quotes and backslashes keep blanks, nothing is expanded.

/// The words; `None` when there are none or a quote has no end.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    // None between words.
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match character {
            '\\' => word.push(characters.next()?),
            '\'' => quoted(&mut characters, word)?,
            '"' => double_quoted(&mut characters, word)?,
            other => word.push(other),
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

/// Up to the next single quote all is as it stands.
fn quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match characters.next()? {
            '\'' => return Some(()),
            other => word.push(other),
        }
    }
}

/// Between double quotes a backslash keeps what would be special there, and is an ordinary one before the rest.
fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match characters.next()? {
            '"' => return Some(()),
            '\\' => match characters.next()? {
                special @ ('"' | '\\' | '$' | '`') => word.push(special),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_blanks() {
        for (line, expected) in [
            ("/bin/cat", &["/bin/cat"][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("a 'b c'd \"e f\"", &["a", "b cd", "e f"]),
            (r#"a\ b "\"\$\n" '\'"#, &["a b", "\"$\\n", "\\"]),
            ("a '' $HOME", &["a", "", "$HOME"]),
        ] {
            assert_eq!(words(line).expect(line), expected);
        }
        for wrong in ["", "  ", "'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }
}
