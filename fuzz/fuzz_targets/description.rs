//! A session description, and what we write of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sim::fuzzed::description(bytes);
});
