//! Explains a call: from the entries that the switch told of it to a ladder, the time that each stage
//! took, the reason of its end, and a packet capture.
//!
//! Pure: entries come in, texts and bytes go out. Where entries are kept is `maskline-store`'s part.
//! Unless everything is asked for, no phone number and no name comes out ([`redact`]).

pub mod codec;
mod digits;
pub mod ladder;
pub mod message;
pub mod pcap;
pub mod redact;
mod stages;
pub mod story;

pub use codec::{Entry, decode, encode};
pub use ladder::draw;
pub use pcap::pcap;
pub use story::{Story, tell};

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Phone numbers and names are hidden.
    Redacted,
    /// Everything but credentials.
    Full,
}
