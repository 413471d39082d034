//! JSON as a QMP client may write it: a stream of tokens, not of lines.
//!
//! [`Parser`] takes bytes as they arrive and yields a value whenever the braces balance, or the text of what was wrong;
//! the lexer below it resynchronises after garbage. The dialect is that of the monitors people already drive: single
//! quotes are strings too, and 0xFF or a control character throws away what was begun. [`to_qmp_text`] writes the other
//! way, ASCII only.

mod lexer;
mod parser;
mod string;
mod writer;

pub use parser::{COMMAND_BYTES_MAX, DEPTH_MAX, Parser, TOKENS_MAX, parse};
pub use writer::{Layout, to_qmp_line, to_qmp_text};
