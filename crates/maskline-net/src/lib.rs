//! The shell around the switch: SIP sockets, one task per shard, and what carries out the shards'
//! orders.
//!
//! Nothing here decides about a call. A message is read, given to the shard that owns its call, and
//! what the shard orders is done: sent, committed, asked. Every channel is bounded; what does not
//! fit is counted.
//!
//! What lives elsewhere: all decisions (`maskline-switch`), packets of media (`maskline-media`),
//! commits (`maskline-store`), asking customers (`maskline-webhook`, behind [`CallflowSource`]).

mod bind;
mod callflow;
mod commits;
mod dns;
mod error;
mod intake;
mod keepalive;
mod limits;
mod media_keys;
mod node;
mod queue;
mod shard;
mod supervise;
mod tcp;
mod tls;
mod traces;
mod trunks;
mod udp;

pub use bind::{ListenSpec, Sockets, bind};
pub use callflow::CallflowSource;
pub use error::NetError;
pub use limits::NetLimits;
pub use node::{NodeConfig, SipNode, TargetState};
pub use tls::{TlsConfig, TlsFault, TlsFile, TlsIdentity, TlsServer, TlsTrunk};
pub use traces::TraceSink;
pub use trunks::TrunkStatus;
