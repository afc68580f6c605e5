//! The `memprof` command.

fn main() {}
