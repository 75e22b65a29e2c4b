//! A SIP phone that does no IO: it dials or is dialled, speaks a tone, presses keys, misbehaves.
//!
//! The simulation drives it on a virtual network and `maskline demo` with real sockets. It is the
//! switch's counterpart, so its dialogs, descriptions and retransmissions are its own; of the
//! switch it uses only what both must agree on: messages, transactions and the reading of SDP.
//!
//! One call in a phone's life: make a new one for the next.

mod announcing;
pub mod audio;
mod called;
mod calling;
mod changing;
mod copies;
mod dialog;
mod digest;
mod early;
mod in_dialog;
pub mod io;
mod keys;
mod phone;
pub mod plan;
mod speech;
mod timer;

pub use announcing::{Announcement, Then};
pub use audio::Audio;
pub use changing::{Change, What};
pub use digest::Asks;
pub use io::{PhoneAction, PhoneEvent, PhoneInput, Report};
pub use keys::{KeyLine, Keys};
pub use phone::Phone;
pub use plan::{Callee, Caller, Identity, Manners, Outcome, Part, PhoneConfig, TimerPlan};
