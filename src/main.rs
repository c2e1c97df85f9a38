//! The `chartgate` program.
fn main() {}
