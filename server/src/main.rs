//! The `tickwheel` binary.
fn main() {}
