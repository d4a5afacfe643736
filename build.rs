//! Stamps the build for `--version`.
fn main() {}
