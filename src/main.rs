//! The `mirage` command.
fn main() {}
