//! The `tickwheel-loadgen` binary.

fn main() -> std::process::ExitCode {
    tickwheel_loadgen::main()
}
