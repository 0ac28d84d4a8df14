//! The `swarmseal` program.

fn main() {}
