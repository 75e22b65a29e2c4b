//! What a run saw, what was promised, and whether that was kept.

use std::fmt;

/// One row.
#[derive(Clone, Debug)]
struct Row {
    what: String,
    seen: String,
    /// `None`: only told.
    promise: Option<(String, bool)>,
}

/// The table of a run.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(title: String) -> Self {
        Self {
            title,
            rows: Vec::new(),
        }
    }

    /// Something that is only told.
    pub(crate) fn tell(&mut self, what: &str, seen: impl fmt::Display) {
        self.rows.push(Row {
            what: what.to_owned(),
            seen: seen.to_string(),
            promise: None,
        });
    }

    /// Something that was promised.
    pub(crate) fn promise(
        &mut self,
        what: &str,
        seen: impl fmt::Display,
        promise: &str,
        kept: bool,
    ) {
        self.rows.push(Row {
            what: what.to_owned(),
            seen: seen.to_string(),
            promise: Some((promise.to_owned(), kept)),
        });
    }

    /// Something of which there must be none.
    pub(crate) fn none_of(&mut self, what: &str, count: u64) {
        self.promise(what, count, "0", count == 0);
    }

    /// Promises that were broken: what, and what was seen. Empty: all were kept.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let broken = self.rows.iter().filter(|row| {
            let promise = row.promise.as_ref();
            promise.is_some_and(|(_, kept)| !kept)
        });
        broken
            .map(|row| format!("{}: {}", row.what, row.seen))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |of: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| of(row).chars().count());
            widths.max().unwrap_or_default()
        };
        let (what, seen) = (widest(|row| &row.what), widest(|row| &row.seen));
        writeln!(f, "{}", self.title)?;
        for row in &self.rows {
            write!(f, "  {:<what$}  {:<seen$}", row.what, row.seen)?;
            match &row.promise {
                None => writeln!(f)?,
                Some((promise, true)) => writeln!(f, "  promised {promise}: kept")?,
                Some((promise, false)) => writeln!(f, "  promised {promise}: BROKEN")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_told_and_one_that_was_kept_is_not() {
        let mut report = Report::new("a run".to_owned());
        report.tell("events", 7);
        report.none_of("lost", 0);
        report.none_of("orphans", 2);
        assert_eq!(report.broken(), ["orphans: 2"]);
        let text = report.to_string();
        assert!(text.contains("lost     0  promised 0: kept\n"), "{text}");
        assert!(text.contains("orphans  2  promised 0: BROKEN\n"), "{text}");
    }
}
