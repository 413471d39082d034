//! Tokens to values, without recursion: open arrays and objects lie on a stack of our own.
//!
//! A command is over when its braces balance, also when it was wrong long before; the first thing wrong is what is
//! reported then. A lexical error and an exceeded limit are reported at once and throw away what was begun; what follows
//! the limit is read as if it stood alone.

use serde_json::{Map, Number, Value};

use super::lexer::{Lexer, Token};
use super::string;

/// Bytes of all tokens of one command together; more are answered with QEMU's text for its own, larger limit.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Tokens of one command.
pub const TOKENS_MAX: usize = 1 << 17;
/// Arrays and objects open at the same time.
pub const DEPTH_MAX: i32 = 1024;

/// An incremental parser. Give it bytes with [`feed`](Self::feed), then pull results through its [`Iterator`] until it
/// has none; it parses only as far as it is pulled, so that a client cannot make us hold more than we asked for.
#[derive(Debug, Default)]
pub struct Parser {
    input: Vec<u8>,
    eaten: usize,
    lexer: Lexer,
    command: Command,
}

impl Parser {
    /// Adds bytes to what is still to be parsed.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.eaten);
        self.eaten = 0;
        self.input.extend_from_slice(bytes);
    }

    /// True when everything fed was parsed; an unfinished command may be under way.
    pub fn is_drained(&self) -> bool {
        self.eaten == self.input.len()
    }
}

impl Iterator for Parser {
    /// A value, or a text that fits into an error's `desc`.
    type Item = Result<Value, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut rest = &self.input[self.eaten..];
            let token = self.lexer.next(&mut rest, COMMAND_BYTES_MAX);
            self.eaten = self.input.len() - rest.len();
            let token = token?;
            let outcome = self.command.exceeded(&token).map(Err).or_else(|| self.command.take(token));
            if outcome.is_some() {
                self.command = Command::default();
                return outcome;
            }
        }
    }
}

/// Parses a text that holds one value and nothing else, such as an option's value on the command line.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser::default();
    parser.feed(text.as_bytes());
    parser.feed(b"\n");
    let value = parser.next().unwrap_or_else(|| Err(syntax("premature EOI")))?;
    match parser.next() {
        None if parser.command.tokens == 0 => Ok(value),
        _ => Err(syntax("characters after the value")),
    }
}

/// The command under way.
#[derive(Debug, Default)]
struct Command {
    braces: i32,
    brackets: i32,
    bytes: usize,
    tokens: usize,
    open: Vec<Open>,
    expect: Expect,
    failure: Option<String>,
}

/// An array or object that is not closed yet.
#[derive(Debug)]
enum Open {
    Array(Vec<Value>),
    Object { members: Map<String, Value>, name: String },
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Expect {
    #[default]
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    SeparatorOrEnd,
}

impl Command {
    /// Counts a token, and says which limit it breaks.
    fn exceeded(&mut self, token: &Token) -> Option<String> {
        self.tokens += 1;
        self.bytes += token.size_bytes();
        match token {
            Token::Mark(b'{') => self.braces += 1,
            Token::Mark(b'}') => self.braces -= 1,
            Token::Mark(b'[') => self.brackets += 1,
            Token::Mark(b']') => self.brackets -= 1,
            _ => {}
        }
        let what = if *token == Token::TooLong || self.bytes > COMMAND_BYTES_MAX {
            "token size"
        } else if self.tokens > TOKENS_MAX {
            "token count"
        } else if self.braces + self.brackets > DEPTH_MAX {
            "nesting depth"
        } else {
            return None;
        };
        Some(format!("JSON {what} limit exceeded"))
    }

    /// Takes a token; the command's outcome when it was the last one.
    fn take(&mut self, token: Token) -> Option<Result<Value, String>> {
        if let Token::Stray(text) = token {
            return Some(Err(stray(&text)));
        }
        let done = if self.failure.is_none() { self.build(token) } else { Ok(None) };
        let value = done.unwrap_or_else(|failure| {
            self.failure = Some(failure);
            None
        });
        let balanced = self.braces <= 0 && self.brackets <= 0;
        if !balanced && self.braces >= 0 && self.brackets >= 0 {
            return None;
        }
        match (self.failure.take(), value) {
            (None, Some(value)) => Some(Ok(value)),
            (failure, _) => Some(Err(syntax(failure.as_deref().unwrap_or("expecting value")))),
        }
    }

    /// Moves on by one token; the value when this completes it.
    fn build(&mut self, token: Token) -> Result<Option<Value>, String> {
        match (self.expect, token) {
            (Expect::ValueOrEnd, Token::Mark(b']')) | (Expect::NameOrEnd, Token::Mark(b'}')) => self.close(),
            (Expect::Value | Expect::ValueOrEnd, token) => self.value(token),
            (Expect::Name | Expect::NameOrEnd, token) => self.name(token),
            (Expect::Colon, Token::Mark(b':')) => {
                self.expect = Expect::Value;
                Ok(None)
            }
            (Expect::Colon, _) => Err(String::from("missing : in object pair")),
            (Expect::SeparatorOrEnd, token) => self.separator(token),
        }
    }

    fn value(&mut self, token: Token) -> Result<Option<Value>, String> {
        match token {
            Token::Mark(b'{') => {
                let (members, name) = (Map::new(), String::new());
                self.open.push(Open::Object { members, name });
                self.expect = Expect::NameOrEnd;
                Ok(None)
            }
            Token::Mark(b'[') => {
                self.open.push(Open::Array(Vec::new()));
                self.expect = Expect::ValueOrEnd;
                Ok(None)
            }
            token => self.put(scalar(token)?),
        }
    }

    fn name(&mut self, token: Token) -> Result<Option<Value>, String> {
        let Token::String(text) = token else {
            return Err(match token {
                Token::Mark(b'{' | b'[') => String::from("key is not a string in object"),
                token => match scalar(token) {
                    Ok(_) => String::from("key is not a string in object"),
                    Err(why) => why,
                },
            });
        };
        let text = string::decode(&text)?;
        if let Some(Open::Object { name, .. }) = self.open.last_mut() {
            *name = text;
        }
        self.expect = Expect::Colon;
        Ok(None)
    }

    fn separator(&mut self, token: Token) -> Result<Option<Value>, String> {
        let (expect, end, what) = match self.open.last() {
            Some(Open::Object { .. }) => (Expect::Name, b'}', "dict"),
            _ => (Expect::Value, b']', "list"),
        };
        match token {
            Token::Mark(b',') => {
                self.expect = expect;
                Ok(None)
            }
            Token::Mark(mark) if mark == end => self.close(),
            _ => Err(format!("expected separator in {what}")),
        }
    }

    /// Closes the innermost array or object.
    fn close(&mut self) -> Result<Option<Value>, String> {
        match self.open.pop() {
            Some(Open::Array(items)) => self.put(Value::Array(items)),
            Some(Open::Object { members, .. }) => self.put(Value::Object(members)),
            None => Ok(None),
        }
    }

    /// Puts a value where it belongs; gives it back when that is nowhere, since it is the whole command.
    fn put(&mut self, value: Value) -> Result<Option<Value>, String> {
        self.expect = Expect::SeparatorOrEnd;
        match self.open.last_mut() {
            None => return Ok(Some(value)),
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Object { members, name }) => {
                if members.insert(std::mem::take(name), value).is_some() {
                    return Err(String::from("duplicate key"));
                }
            }
        }
        Ok(None)
    }
}

fn scalar(token: Token) -> Result<Value, String> {
    match token {
        Token::String(text) => string::decode(&text).map(Value::String),
        Token::Keyword(text) => match text.as_slice() {
            b"null" => Ok(Value::Null),
            b"true" => Ok(Value::Bool(true)),
            b"false" => Ok(Value::Bool(false)),
            _ => Err(format!("invalid keyword '{}'", String::from_utf8_lossy(&text))),
        },
        Token::Integer(text) => {
            let text = String::from_utf8_lossy(&text);
            let integer = text.parse::<i64>().map(Number::from);
            let integer = integer.or_else(|_| text.parse::<u64>().map(Number::from));
            integer.map(Value::Number).or_else(|_| double(&text))
        }
        Token::Float(text) => double(&String::from_utf8_lossy(&text)),
        Token::Mark(_) | Token::Stray(_) | Token::TooLong => Err(String::from("expecting value")),
    }
}

fn double(text: &str) -> Result<Value, String> {
    let double = text.parse().ok().and_then(Number::from_f64);
    double.map(Value::Number).ok_or_else(|| format!("number out of range '{text}'"))
}

fn syntax(what: &str) -> String {
    format!("JSON parse error, {what}")
}

/// What could not be read; up to a NUL, where QEMU's text ends.
fn stray(text: &[u8]) -> String {
    let shown = text.split(|byte| *byte == 0).next().unwrap_or_default();
    syntax(&format!("stray '{}'", String::from_utf8_lossy(shown)))
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
