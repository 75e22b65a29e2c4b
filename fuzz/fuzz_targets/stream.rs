//! Bytes of a stream from a trunk, in small chunks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = sim::fuzzed::stream(bytes);
});
