//! The `tickwheel` binary.

use std::process::ExitCode;
use tickwheel_server::{cli, quarantine, runtime::allocations::CountingAllocator};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    quarantine::abort_on_panic();
    cli::run()
}
