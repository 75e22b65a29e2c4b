//! Values of the headers that say who calls whom.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sim::fuzzed::headers(bytes);
});
