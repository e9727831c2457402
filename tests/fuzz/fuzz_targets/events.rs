//! Events as the log holds them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tickwheel_tests::fuzz::events(bytes));
