//! The `tickwheel` binary.

use std::process::ExitCode;
use tickwheel_server::{cli, runtime::allocations::CountingAllocator};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    cli::run()
}
