//! Who owns which virtual number, where a sub-account may call, and what it adds to its events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maskline_events::{EarlyMedia, EventParameters, Msisdn};
use serde::{Deserialize, Serialize};

/// A virtual number and what its calls need to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberEntry {
    /// The number.
    pub msisdn: Msisdn,
    /// Its owner.
    pub sub_account_id: String,
    /// The owner's own name for it.
    pub reference_id: String,
    /// The trunk by which its calls go out; `None`: the first.
    pub trunk: Option<String>,
    /// What its callers hear before the answer.
    #[serde(default)]
    pub early_media: EarlyMedia,
}

/// A snapshot of the configured numbers. Another takes its place when something changes, which shares
/// with it what did not; calls in progress keep what they started with.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    numbers: Arc<BTreeMap<Msisdn, Arc<NumberEntry>>>,
    countries: Arc<BTreeMap<String, Arc<BTreeSet<String>>>>,
    parameters: BTreeMap<Arc<str>, Arc<EventParameters>>,
}

impl Directory {
    /// Builds a directory. `countries` are the explicitly allowed ones per sub-account; a
    /// sub-account without any may call the countries of its own numbers.
    #[must_use]
    pub fn new(
        numbers: impl IntoIterator<Item = NumberEntry>,
        countries: impl IntoIterator<Item = (String, BTreeSet<String>)>,
    ) -> Self {
        let numbers: BTreeMap<_, _> = numbers
            .into_iter()
            .map(|entry| (entry.msisdn.clone(), Arc::new(entry)))
            .collect();
        let mut own: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in numbers.values() {
            let countries = own.entry(entry.sub_account_id.clone()).or_default();
            if let Some(country) = crate::country::country_of(&entry.msisdn) {
                countries.insert(country.to_owned());
            }
        }
        for (sub_account_id, allowed) in countries {
            if !allowed.is_empty() {
                own.insert(sub_account_id, allowed);
            }
        }
        Self {
            numbers: Arc::new(numbers),
            countries: Arc::new(
                own.into_iter()
                    .map(|(sub_account_id, allowed)| (sub_account_id, Arc::new(allowed)))
                    .collect(),
            ),
            parameters: BTreeMap::new(),
        }
    }

    /// The same with the fields that sub-accounts add to their events.
    #[must_use]
    pub fn with_parameters(
        mut self,
        parameters: impl IntoIterator<Item = (String, EventParameters)>,
    ) -> Self {
        let given = parameters.into_iter();
        self.parameters = given
            .filter(|(_, it)| !it.is_empty())
            .map(|(sub_account_id, it)| (Arc::from(sub_account_id), Arc::new(it)))
            .collect();
        self
    }

    /// Replaces the fields that one sub-account adds to its events. What a clone has stays.
    pub fn set_parameters(&mut self, sub_account_id: &str, parameters: EventParameters) {
        if parameters.is_empty() {
            self.parameters.remove(sub_account_id);
        } else {
            let (owner, parameters) = (Arc::from(sub_account_id), Arc::new(parameters));
            self.parameters.insert(owner, parameters);
        }
    }

    /// What a sub-account adds to its events, if anything.
    #[must_use]
    pub fn parameters(&self, sub_account_id: &str) -> Option<&EventParameters> {
        self.parameters.get(sub_account_id).map(|it| &**it)
    }

    /// A virtual number.
    #[must_use]
    pub fn number(&self, msisdn: &Msisdn) -> Option<&Arc<NumberEntry>> {
        self.numbers.get(msisdn)
    }

    /// The countries that a sub-account may call; `None`: none at all.
    #[must_use]
    pub fn countries(&self, sub_account_id: &str) -> Option<&Arc<BTreeSet<String>>> {
        self.countries.get(sub_account_id)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is no number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_one_sub_account_change_alone_and_for_whoever_asks_the_new_directory() {
        let entry = |value: &str| {
            let json = format!(r#"[{{"name":"tenant","value":"{value}"}}]"#);
            EventParameters::new(&serde_json::from_str::<Vec<_>>(&json).unwrap(), |_| true).unwrap()
        };
        let owners = ["acme", "other"].map(|it| (it.to_owned(), entry("one")));
        let before = Directory::default().with_parameters(owners);
        let mut after = before.clone();
        after.set_parameters("acme", entry("two"));
        after.set_parameters("new", entry("three"));
        assert_eq!(after.parameters("acme"), Some(&entry("two")));
        assert_eq!(after.parameters("other"), Some(&entry("one")));
        assert_eq!(after.parameters("new"), Some(&entry("three")));
        assert!(Arc::ptr_eq(&before.numbers, &after.numbers));
        after.set_parameters("acme", EventParameters::default());
        assert_eq!(after.parameters("acme"), None);
        assert_eq!(before.parameters("acme"), Some(&entry("one")));
    }

    #[test]
    fn a_number_in_a_snapshot_of_before_has_the_policy_of_before() {
        let before = r#"{"msisdn":"+6531580001","sub_account_id":"acme","reference_id":"desk",
            "trunk":"carrier"}"#;
        let mut number: NumberEntry = serde_json::from_str(before).unwrap();
        assert_eq!(number.early_media, EarlyMedia::Ringback);
        number.early_media = EarlyMedia::PassThrough;
        let kept = serde_json::to_string(&number).unwrap();
        assert_eq!(serde_json::from_str::<NumberEntry>(&kept).unwrap(), number);
    }
}
