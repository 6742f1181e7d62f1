//! The `metaglot` program.
#![forbid(unsafe_code)]

fn main() {}
