//! Bytes to tokens, one byte at a time, so that a token may be split over any number of reads.
//!
//! After a byte that fits nowhere the lexer says so once and then skips to a place from which JSON can start again: a
//! structural character, a line end, or one of the bytes that clients send to force it (0xFF, control characters).

/// One token; the text is kept only where the kind does not say it all.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    /// One of `{ } [ ] : ,`.
    Mark(u8),
    /// A run of lower-case letters, not only the three that JSON knows.
    Keyword(Vec<u8>),
    /// A number without fraction and exponent.
    Integer(Vec<u8>),
    /// A number with either.
    Float(Vec<u8>),
    /// With its quotes, escapes untouched.
    String(Vec<u8>),
    /// What was read of a token up to and including the byte that spoiled it.
    Stray(Vec<u8>),
    /// A token of more than the allowed bytes; what was read of it is gone.
    TooLong,
}

impl Token {
    /// Bytes that this token adds to its command's size.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Token::Mark(_) | Token::TooLong => 1,
            Token::Keyword(text)
            | Token::Integer(text)
            | Token::Float(text)
            | Token::String(text)
            | Token::Stray(text) => text.len(),
        }
    }
}

/// Where in a token the last byte left us.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Start,
    Keyword,
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    ExponentMark,
    ExponentSign,
    Exponent,
    String(u8),
    Escape(u8),
    Recovery,
}

/// What to do with one byte.
enum Step {
    /// The byte belongs to the token; go on in this state.
    Take(State),
    /// The byte belongs to no token; go on in this state.
    Skip(State),
    /// The token ended before this byte.
    EndBefore,
    /// The token ends with this byte.
    EndWith,
    /// Look at the byte again from the start state.
    Restart,
    /// The byte fits nowhere.
    Stray,
}

#[derive(Debug, Default)]
pub(super) struct Lexer {
    state: State,
    text: Vec<u8>,
}

impl Lexer {
    /// Eats bytes from the front of `input` up to the end of one token; `None` when the input ends first.
    pub(super) fn next(&mut self, input: &mut &[u8], token_bytes_max: usize) -> Option<Token> {
        while let Some((&byte, rest)) = input.split_first() {
            let step = self.step(byte);
            if !matches!(step, Step::EndBefore | Step::Restart) {
                *input = rest;
            }
            match step {
                Step::Take(state) => {
                    self.state = state;
                    self.text.push(byte);
                    if self.text.len() > token_bytes_max {
                        self.recover();
                        return Some(Token::TooLong);
                    }
                }
                Step::Skip(state) => self.state = state,
                Step::EndBefore => return Some(self.end()),
                Step::EndWith => return Some(self.end_with(byte)),
                Step::Restart => self.state = State::Start,
                Step::Stray => {
                    self.text.push(byte);
                    let text = std::mem::take(&mut self.text);
                    self.state = State::Recovery;
                    return Some(Token::Stray(text));
                }
            }
        }
        None
    }

    /// Drops the token under way and skips to the next place where a value can start.
    fn recover(&mut self) {
        self.text = Vec::new();
        self.state = State::Recovery;
    }

    fn step(&self, byte: u8) -> Step {
        match (self.state, byte) {
            (State::Start, _) => start(byte),
            (State::Recovery, b'{' | b'}' | b'[' | b']' | b':' | b',' | 0xFE | 0xFF) => Step::Restart,
            (State::Recovery, b'\t' | 0x20..) => Step::Skip(State::Recovery),
            (State::Recovery, _) => Step::Restart,

            (State::String(quote), _) if byte == quote => Step::EndWith,
            (State::String(quote), b'\\') => Step::Take(State::Escape(quote)),
            (State::String(quote) | State::Escape(quote), 0x20..=0xFD) => Step::Take(State::String(quote)),
            (State::String(_) | State::Escape(_), _) => Step::Stray,

            (State::Keyword, b'a'..=b'z') => Step::Take(State::Keyword),
            (State::Minus, b'0') => Step::Take(State::Zero),
            (State::Minus, b'1'..=b'9') => Step::Take(State::Digits),
            (State::Digits, b'0'..=b'9') => Step::Take(State::Digits),
            (State::Zero, b'0'..=b'9') => Step::Stray,
            (State::Zero | State::Digits, b'.') => Step::Take(State::Point),
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => Step::Take(State::ExponentMark),
            (State::Point | State::Fraction, b'0'..=b'9') => Step::Take(State::Fraction),
            (State::ExponentMark, b'+' | b'-') => Step::Take(State::ExponentSign),
            (State::ExponentMark | State::ExponentSign | State::Exponent, b'0'..=b'9') => {
                Step::Take(State::Exponent)
            }
            (State::Minus | State::Point | State::ExponentMark | State::ExponentSign, _) => Step::Stray,
            (State::Keyword | State::Zero | State::Digits | State::Fraction | State::Exponent, _) => {
                Step::EndBefore
            }
        }
    }

    fn end(&mut self) -> Token {
        let text = std::mem::take(&mut self.text);
        match std::mem::take(&mut self.state) {
            State::Keyword => Token::Keyword(text),
            State::Zero | State::Digits => Token::Integer(text),
            State::Fraction | State::Exponent => Token::Float(text),
            _ => Token::String(text),
        }
    }

    fn end_with(&mut self, byte: u8) -> Token {
        if self.state == State::Start {
            return Token::Mark(byte);
        }
        self.text.push(byte);
        self.end()
    }
}

fn start(byte: u8) -> Step {
    match byte {
        b' ' | b'\t' | b'\r' | b'\n' => Step::Skip(State::Start),
        b'{' | b'}' | b'[' | b']' | b':' | b',' => Step::EndWith,
        b'"' | b'\'' => Step::Take(State::String(byte)),
        b'a'..=b'z' => Step::Take(State::Keyword),
        b'-' => Step::Take(State::Minus),
        b'0' => Step::Take(State::Zero),
        b'1'..=b'9' => Step::Take(State::Digits),
        _ => Step::Stray,
    }
}
