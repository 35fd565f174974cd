//! up, down, test, bench, images, code generation and repository checks.

fn main() {}
