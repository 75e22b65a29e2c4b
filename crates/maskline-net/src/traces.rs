//! Where what the shards tell of their calls goes.

use std::fmt;

use maskline_switch::TraceEntry;

/// Takes what is told. Called on the shards' tasks: it must not block.
pub trait TraceSink: fmt::Debug + Send + Sync {
    /// Something happened in a session.
    fn take(&self, entry: Box<TraceEntry>);
}
