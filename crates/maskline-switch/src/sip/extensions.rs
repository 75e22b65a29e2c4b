//! What a peer says of SIP's extensions: reliable provisionals (RFC 3262).
//!
//! Reading only; what is done about it is decided in [`crate::shard`].

use sipx_sip::rel::{self, Offered, RAck, RSeq};
use sipx_sip::{Headers, Request, Response};

use super::view;

pub use sipx_sip::rel::{Numbering, Received, Sequence};

/// The extensions that we understand in a `Require`.
const UNDERSTOOD: [&str; 1] = [rel::OPTION_TAG];

/// The option tags that we put into `Supported`.
pub const SUPPORTED: &str = rel::OPTION_TAG;

/// The option tag of reliable provisionals.
pub const RELIABLE: &str = rel::OPTION_TAG;

/// The option tags that a request requires and we don't understand.
#[must_use]
pub fn not_understood(headers: &Headers) -> Vec<String> {
    view::required_extensions(headers)
        .into_iter()
        .filter(|tag| {
            !UNDERSTOOD
                .iter()
                .any(|known| tag.eq_ignore_ascii_case(known))
        })
        .collect()
}

/// Whether an INVITE lets its provisional answers be sent reliably: it supports that, or requires
/// it (RFC 3262 §3).
#[must_use]
pub fn takes_reliable(invite: &Request) -> bool {
    let offered = Offered::in_request(invite);
    offered.supported || offered.required
}

/// The `RSeq` of a provisional answer that is sent reliably; `None`: it is an ordinary one.
#[must_use]
pub fn reliable_number(response: &Response) -> Option<u32> {
    let required = view::required_extensions(&response.headers)
        .iter()
        .any(|tag| tag.eq_ignore_ascii_case(rel::OPTION_TAG));
    if !required {
        return None;
    }
    let RSeq(number) = response.headers.typed::<RSeq>()?.ok()?;
    (number > 0).then_some(number)
}

/// Whether a PRACK is for the provisional answer that waits for one, to the INVITE of this `CSeq`
/// number; if so, none waits any more.
pub fn acknowledges(numbering: &mut Numbering, prack: &Request, invite_cseq: u32) -> bool {
    match prack.headers.typed::<RAck>() {
        Some(Ok(ack)) => numbering.acknowledge(&ack, invite_cseq, b"INVITE"),
        Some(Err(_)) | None => false,
    }
}

/// The `RAck` of a PRACK.
#[must_use]
pub fn rack(rseq: u32, invite_cseq: u32) -> String {
    let ack = RAck {
        rseq,
        cseq: invite_cseq,
        method: b"INVITE".to_vec(),
    };
    ack.to_string()
}
