//! The Weir broker.
fn main() {}
