//! The shipped binary against independent programs: SIPp calls and is called through
//! `maskline serve`, and a real HTTP server answers the VCA request and records every webhook.
//! [`trace`] asks afterwards how a call went.
//!
//! [`calls`] is the table of calls and what must be told of each; [`crash`] kills the switch in the
//! middle of one, [`shutdown`] asks it to end; [`masking`] looks for anything of one party on the
//! other's wire; [`audio`] sends RTP through it, [`rtpengine`] has that carry it, [`presses`] keys in each form, [`codecs`] voices of baresip,
//! [`early_media`] comes before the answer; [`bad_input`] sends what no phone should;
//! [`hold`] is what a party on hold hears;
//! [`injection`] has a third address send too; [`impaired`] loses packets on the way, in a network namespace;
//! [`reports`] is another switch that reports its calls; [`settings`] is how webhooks are sent to, [`parameters`] are fields that events get in addition,
//! [`hiding`] is what they show of numbers and how they are signed;
//! [`identity`] is how carriers write numbers; [`scanners`] lets SIPVicious at it;
//! [`reliable`] is what comes before an answer and between them, [`timers`] what keeps a session;
//! [`auth`] asks for credentials and is asked; [`registration`] registers with SIPp and with Kamailio;
//! [`soak`] counts every event of a load;
//! [`in_dialog`] changes calls that are up; [`tls`] has Kamailio as a neighbour; [`neighbour`] has it
//! as a proxy on the way;
//! [`commands`] is the command line. What they stand on is in [`support`]. What a part does by itself is tested beside that part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "a test that cannot go on fails where it stands"
)]

mod adoption;
mod audio;
mod auth;
mod bad_input;
mod calls;
mod codecs;
mod commands;
mod crash;
mod early_media;
mod families;
mod hiding;
mod hold;
mod identity;
mod impaired;
mod in_dialog;
mod injection;
mod masking;
mod neighbour;
mod otlp;
mod parameters;
mod presses;
mod receiver;
mod registration;
mod reliable;
mod replay;
mod reports;
mod restarts;
mod routing;
mod rtpengine;
mod scanners;
mod settings;
mod shutdown;
mod soak;
mod srtp;
mod support;
mod timers;
mod tls;
mod trace;
