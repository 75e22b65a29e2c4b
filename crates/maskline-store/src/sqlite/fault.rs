//! What SQLite says, told as a [`StoreError`].
//!
//! What lives elsewhere: which fault ends a whole group (`sqlite::writer`).

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// Why a piece of work on a connection failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database's own error.
    Sql(rusqlite::Error),
    /// What the work found out by itself.
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// The fault as the caller of the store sees it.
    pub(crate) fn into_store_error(self, place: &str) -> StoreError {
        match self {
            Self::Sql(error) => store_error(&error, place),
            Self::Store(error) => error,
        }
    }
}

/// A broken row.
pub(crate) fn broken(table: &'static str, reason: impl Into<String>) -> Fault {
    Fault::Store(StoreError::BrokenRow {
        table,
        reason: reason.into(),
    })
}

/// Whether there was no space for a write.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether the data is at fault and not the database: others can go on.
pub(crate) fn is_data(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => {
            code == ErrorCode::ConstraintViolation
                || code == ErrorCode::TooBig
                || code == ErrorCode::TypeMismatch
                || code == ErrorCode::ParameterOutOfRange
        }
        // Not from the database: a value that did not convert.
        None => true,
    }
}

/// The error of a query, for its caller. Carries no value of any row.
pub(crate) fn store_error(error: &rusqlite::Error, place: &str) -> StoreError {
    if is_full(error) {
        return StoreError::Full {
            place: place.to_owned(),
        };
    }
    if violated(error).is_some() {
        return StoreError::Conflict { what: "the row" };
    }
    if is_data(error) {
        return StoreError::BrokenRow {
            table: "a query",
            reason: error.to_string(),
        };
    }
    StoreError::Unavailable {
        place: place.to_owned(),
        reason: error.to_string(),
    }
}

/// Which kind of constraint stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violated {
    /// A row of that key exists.
    Unique,
    /// A row that this one refers to does not exist.
    Reference,
    /// Another rule of the schema.
    Other,
}

/// The constraint that an error is about, if it is about one.
pub(crate) fn violated(error: &rusqlite::Error) -> Option<Violated> {
    let failure = error.sqlite_error()?;
    if failure.code != ErrorCode::ConstraintViolation {
        return None;
    }
    Some(match failure.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => Violated::Unique,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Violated::Reference,
        _ => Violated::Other,
    })
}

/// Names the row that exists already, or the one that is missing.
pub(crate) fn named(
    error: rusqlite::Error,
    existing: &'static str,
    missing: &'static str,
) -> Fault {
    match violated(&error) {
        Some(Violated::Unique) => StoreError::Conflict { what: existing }.into(),
        Some(Violated::Reference) => StoreError::NotFound { what: missing }.into(),
        Some(Violated::Other) | None => error.into(),
    }
}
