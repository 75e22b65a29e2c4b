//! `[trunk.identity]`: how a carrier writes numbers and names callers.

use maskline_switch::IdentityRules;
use maskline_switch::identity::{
    BareNumbers, CalledSource, CallerId, CallerSource, NumberFormat, UriScheme,
};
use serde::Deserialize;

use super::{ConfigError, Resolver};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Block {
    caller_from: Option<Vec<CallerSource>>,
    called_from: Option<Vec<CalledSource>>,
    country_code: Option<String>,
    national_prefix: String,
    international_prefix: Option<Vec<String>>,
    bare_numbers: Option<BareNumbers>,
    strip: Vec<String>,
    reveal_withheld: bool,
    number_format: Option<NumberFormat>,
    add_prefix: String,
    uri: Option<UriScheme>,
    user_phone: bool,
    caller_id: Option<CallerId>,
    from_user: String,
    from_domain: String,
    pai_domain: String,
    privacy: String,
}

/// Longest prefix, in characters.
const MAX_PREFIX: usize = 15;

impl Resolver {
    /// `key` gives a key of this table its full name.
    pub(super) fn identity(
        &self,
        key: &dyn Fn(&str) -> String,
        block: Block,
    ) -> Result<IdentityRules, ConfigError> {
        let default = IdentityRules::default();
        let bad = |name: &str, reason: &str| Err(self.bad(&key(name), reason));
        let country_code = block.country_code.filter(|code| !code.is_empty());
        if let Some(code) = &country_code
            && (code.len() > 3 || !is_made_of(code, "") || code.starts_with('0'))
        {
            return bad(
                "country_code",
                "is a calling code of 1 to 3 digits, such as \"65\"",
            );
        }
        if !is_prefix(&block.national_prefix, "") {
            return bad("national_prefix", "is digits, such as \"0\", or empty");
        }
        if !block.national_prefix.is_empty() && country_code.is_none() {
            return bad("national_prefix", "needs country_code");
        }
        let international_prefixes = block
            .international_prefix
            .unwrap_or(default.international_prefixes);
        if international_prefixes.is_empty()
            || international_prefixes
                .iter()
                .any(|it| it.is_empty() || !is_prefix(it, "") || *it == block.national_prefix)
        {
            return bad(
                "international_prefix",
                "is at least one text of digits, such as [\"00\"], and none is the national_prefix",
            );
        }
        let bare_numbers = block.bare_numbers.unwrap_or(match country_code {
            Some(_) => BareNumbers::National,
            None => BareNumbers::E164,
        });
        if bare_numbers == BareNumbers::National && country_code.is_none() {
            return bad("bare_numbers", "\"national\" needs country_code");
        }
        if block
            .strip
            .iter()
            .any(|it| it.is_empty() || !is_prefix(it, "*#"))
        {
            return bad("strip", "holds digits, * and # only, such as [\"9\"]");
        }
        let rules = IdentityRules {
            caller_from: block.caller_from.unwrap_or(default.caller_from),
            called_from: block.called_from.unwrap_or(default.called_from),
            country_code,
            national_prefix: block.national_prefix,
            international_prefixes,
            bare_numbers,
            strip: block.strip,
            reveal_withheld: block.reveal_withheld,
            number_format: block.number_format.unwrap_or(default.number_format),
            add_prefix: block.add_prefix,
            uri: block.uri.unwrap_or(default.uri),
            user_phone: block.user_phone,
            caller_id: block.caller_id.unwrap_or(default.caller_id),
            from_user: some(block.from_user),
            from_domain: some(block.from_domain),
            pai_domain: some(block.pai_domain),
            privacy_none: block.privacy == "none",
        };
        if rules.caller_from.is_empty() || rules.called_from.is_empty() {
            let name = if rules.caller_from.is_empty() {
                "caller_from"
            } else {
                "called_from"
            };
            return bad(name, "needs at least one place to look at");
        }
        if !matches!(block.privacy.as_str(), "" | "none") {
            return bad(
                "privacy",
                "is \"none\" or empty: the virtual number is there to be shown",
            );
        }
        self.check_leaving(key, &rules)?;
        Ok(rules)
    }

    fn check_leaving(
        &self,
        key: &dyn Fn(&str) -> String,
        rules: &IdentityRules,
    ) -> Result<(), ConfigError> {
        let bad = |name: &str, reason: &str| Err(self.bad(&key(name), reason));
        if rules.number_format == NumberFormat::National && rules.country_code.is_none() {
            return bad("number_format", "\"national\" needs country_code");
        }
        if !is_prefix(&rules.add_prefix, "*") {
            return bad("add_prefix", "is digits and * only, such as \"9\"");
        }
        if !rules.add_prefix.is_empty() && rules.number_format == NumberFormat::E164 {
            return bad(
                "add_prefix",
                "can't stand before a +: set number_format to \"plain\", \"international\" or \"national\"",
            );
        }
        if rules.uri == UriScheme::Tel
            && (rules.number_format != NumberFormat::E164 || rules.user_phone)
        {
            return bad(
                "uri",
                "\"tel\" goes with number_format = \"e164\" and without user_phone",
            );
        }
        match (rules.caller_id, &rules.from_user) {
            (CallerId::Pai, None) => {
                return bad(
                    "from_user",
                    "is needed with caller_id = \"pai\": the account that From names",
                );
            }
            (CallerId::From | CallerId::FromAndPai, Some(_)) => {
                return bad(
                    "from_user",
                    "goes with caller_id = \"pai\" only: From holds the virtual number",
                );
            }
            (CallerId::Pai, Some(user)) if !is_user(user) => {
                return bad("from_user", "holds letters, digits and -_.!~*'+ only");
            }
            (CallerId::Pai, Some(_)) | (CallerId::From | CallerId::FromAndPai, None) => {}
        }
        if rules.pai_domain.is_some() && rules.caller_id == CallerId::From {
            return bad("pai_domain", "needs caller_id = \"from+pai\" or \"pai\"");
        }
        for (name, domain) in [
            ("from_domain", &rules.from_domain),
            ("pai_domain", &rules.pai_domain),
        ] {
            if domain.as_deref().is_some_and(|it| !is_domain(it)) {
                return bad(
                    name,
                    "is a host name or an IPv4 address, with a port if need be",
                );
            }
        }
        Ok(())
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn is_made_of(text: &str, more: &str) -> bool {
    text.chars()
        .all(|it| it.is_ascii_digit() || more.contains(it))
}

fn is_prefix(text: &str, more: &str) -> bool {
    text.len() <= MAX_PREFIX && is_made_of(text, more)
}

/// The unreserved characters of RFC 3261 §25.1, and the `+` of numbers.
fn is_user(text: &str) -> bool {
    text.len() <= 128
        && text
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "-_.!~*'+".contains(it))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use maskline_events::Msisdn;

    use super::super::Config;
    use super::*;

    fn load(keys: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let trunk = "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5060\"\nallow = []\n";
        std::fs::write(file.path(), format!("{trunk}[trunk.identity]\n{keys}")).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn a_trunk_without_rules_has_the_defaults() {
        let config = load("").unwrap();
        assert_eq!(config.trunks[0].identity, IdentityRules::default());
    }

    #[test]
    fn the_rules_of_a_national_carrier_are_read() {
        let keys = r#"
caller_from = ["p-asserted-identity", "remote-party-id", "p-preferred-identity", "from"]
called_from = ["request-uri", "p-called-party-id", "diversion", "history-info", "to"]
country_code = "49"
national_prefix = "0"
strip = ["9"]
number_format = "national"
add_prefix = "9"
caller_id = "from+pai"
privacy = "none"
"#;
        let rules = load(keys).unwrap().trunks[0].identity.clone();
        assert_eq!(rules.bare_numbers, BareNumbers::National);
        let number = Msisdn::parse("+4930123456").unwrap();
        assert_eq!(rules.read("9030123456"), Some(number.clone()));
        assert_eq!(rules.write(&number), "030123456");
        assert!(rules.privacy_none);
    }

    #[test]
    fn a_rule_that_can_not_work_is_named_with_its_reason() {
        for (keys, key, reason) in [
            ("caller_from = [\"x\"]", "caller_from", "unknown variant"),
            ("caller_from = []", "caller_from", "at least one"),
            ("called_from = []", "called_from", "at least one"),
            ("contry_code = \"65\"", "contry_code", "unknown field"),
            ("country_code = \"+65\"", "country_code", "calling code"),
            ("country_code = \"0065\"", "country_code", "calling code"),
            (
                "national_prefix = \"0\"",
                "national_prefix",
                "needs country_code",
            ),
            (
                "country_code = \"49\"\nnational_prefix = \"x\"",
                "national_prefix",
                "digits",
            ),
            (
                "international_prefix = []",
                "international_prefix",
                "at least one",
            ),
            (
                "international_prefix = [\"\"]",
                "international_prefix",
                "digits",
            ),
            (
                "country_code = \"49\"\nnational_prefix = \"00\"",
                "international_prefix",
                "none is the national_prefix",
            ),
            (
                "bare_numbers = \"national\"",
                "bare_numbers",
                "needs country_code",
            ),
            ("bare_numbers = \"x\"", "bare_numbers", "unknown variant"),
            ("strip = [\"\"]", "strip", "digits"),
            ("strip = [\"+\"]", "strip", "digits"),
            (
                "number_format = \"national\"",
                "number_format",
                "needs country_code",
            ),
            ("number_format = \"x\"", "number_format", "unknown variant"),
            ("add_prefix = \"9\"", "add_prefix", "before a +"),
            (
                "add_prefix = \"#\"\nnumber_format = \"plain\"",
                "add_prefix",
                "digits",
            ),
            ("uri = \"tel\"\nuser_phone = true", "uri", "user_phone"),
            ("uri = \"tel\"\nnumber_format = \"plain\"", "uri", "e164"),
            ("caller_id = \"pai\"", "from_user", "is needed"),
            ("from_user = \"a\"", "from_user", "only"),
            (
                "caller_id = \"pai\"\nfrom_user = \"a b\"",
                "from_user",
                "letters",
            ),
            (
                "pai_domain = \"c.example\"",
                "pai_domain",
                "needs caller_id",
            ),
            ("from_domain = \"c..example\"", "from_domain", "host name"),
            ("from_domain = \"c:0\"", "from_domain", "host name"),
            ("from_domain = \"c>\\r\\nX: y\"", "from_domain", "host name"),
            ("privacy = \"id\"", "privacy", "none"),
        ] {
            let error = load(keys).unwrap_err();
            assert!(error.key.contains(key), "{keys}: {error}");
            assert!(error.to_string().contains(reason), "{keys}: {error}");
        }
    }
}
