//! A data directory with changed segments.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tickwheel_tests::fuzz::log(bytes));
