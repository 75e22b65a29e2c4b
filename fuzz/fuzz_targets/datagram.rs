//! A datagram from a trunk, through the dispatcher and a shard, until nothing is left to do.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = sim::fuzzed::datagram(bytes);
});
