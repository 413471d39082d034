//! The binary `ringyard`.

fn main() {}
