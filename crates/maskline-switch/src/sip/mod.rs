//! SIP messages and transactions: the only place that uses the SIP library.
//!
//! Everything else in the switch speaks of [`Message`]s, peers and transaction ids, so that another
//! parser could take the library's place. Dialogs and the back-to-back logic are not here: they are
//! the product.

pub mod compose;
pub mod digest;
pub mod extensions;
pub mod framing;
pub mod large;
pub mod tag;
pub mod transactions;
pub mod view;
pub mod wire;

pub use sipx_sip::{Address, HeaderName, Headers, Message, Method, Request, Response, Uri};
pub use tag::{LocalTag, Side};
pub use transactions::{Challenged, SipTimers, Transactions, TxId, Upcall};
pub use wire::{Peer, Transport, Unreadable};
