//! `[trunk.auth]`: a trunk's digest credentials, in both directions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use maskline_switch::sip::digest::{Algorithm, Ha1};
use maskline_switch::{InboundAuth, OutboundAuth, Password, TrunkAuth};
use serde::Deserialize;

use super::{ConfigError, Resolver};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Block {
    username: String,
    password: Option<Hidden>,
    password_file: Option<String>,
    realm: Option<String>,
    inbound_username: String,
    inbound_password: Option<Hidden>,
    inbound_password_file: Option<String>,
    inbound_ha1_md5: Option<Hidden>,
    inbound_ha1_sha256: Option<Hidden>,
    inbound_realm: Option<String>,
}

/// A secret on its way; not even an error may show it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl Resolver {
    /// `key` names a key of the trunk; `host` is the realm of callers unless another is set.
    pub(super) fn auth(
        &self,
        block: Block,
        key: &dyn Fn(&str) -> String,
        host: &str,
    ) -> Result<TrunkAuth, ConfigError> {
        let key = |name: &str| key(&format!("auth.{name}"));
        let inbound = self.inbound(&block, &key, host)?;
        let password = self.secret(block.password, block.password_file, &key, "password")?;
        let outbound = match (block.username.as_str(), password) {
            ("", None) if block.realm.is_none() => None,
            ("", _) => return Err(self.bad(&key("username"), "must be set beside the others")),
            (_, None) => return Err(self.bad(&key("password"), "or password_file must be set")),
            (username, Some(password)) => Some(OutboundAuth {
                username: self.quotable(&key("username"), username)?,
                password: Password::new(password),
                realm: block
                    .realm
                    .map(|realm| self.quotable(&key("realm"), &realm))
                    .transpose()?,
            }),
        };
        Ok(TrunkAuth { inbound, outbound })
    }

    fn inbound(
        &self,
        block: &Block,
        key: &dyn Fn(&str) -> String,
        host: &str,
    ) -> Result<Option<InboundAuth>, ConfigError> {
        let hidden = |secret: &Option<Hidden>| secret.as_ref().map(|it| Hidden(it.0.clone()));
        let password = self.secret(
            hidden(&block.inbound_password),
            block.inbound_password_file.clone(),
            key,
            "inbound_password",
        )?;
        let ha1 = |name, algorithm, secret: &Option<Hidden>| match secret {
            None => Ok(None),
            Some(Hidden(digits)) => Ha1::parse(algorithm, digits)
                .map(Some)
                .ok_or_else(|| self.bad(&key(name), "is no hash of this kind in hexadecimal")),
        };
        let md5 = ha1("inbound_ha1_md5", Algorithm::Md5, &block.inbound_ha1_md5)?;
        let sha256 = ha1(
            "inbound_ha1_sha256",
            Algorithm::Sha256,
            &block.inbound_ha1_sha256,
        )?;
        let hashed = md5.is_some() || sha256.is_some();
        if block.inbound_username.is_empty() {
            if password.is_some() || hashed || block.inbound_realm.is_some() {
                let reason = "must be set beside the others";
                return Err(self.bad(&key("inbound_username"), reason));
            }
            return Ok(None);
        }
        let username = self.quotable(&key("inbound_username"), &block.inbound_username)?;
        let realm = block.inbound_realm.as_deref();
        match (password, hashed) {
            (Some(password), false) => {
                let realm = self.quotable(&key("inbound_realm"), realm.unwrap_or(host))?;
                Ok(Some(InboundAuth::with_password(
                    &username, &realm, &password,
                )))
            }
            (None, true) => {
                let Some(realm) = realm else {
                    let reason = "must be set: a hash holds for one realm";
                    return Err(self.bad(&key("inbound_realm"), reason));
                };
                Ok(Some(InboundAuth {
                    username,
                    realm: self.quotable(&key("inbound_realm"), realm)?,
                    md5,
                    sha256,
                }))
            }
            (Some(_), true) => {
                let reason = "stands beside its hash: set one of them";
                Err(self.bad(&key("inbound_password"), reason))
            }
            (None, false) => {
                let reason = "must be set, or inbound_password_file, or a hash";
                Err(self.bad(&key("inbound_password"), reason))
            }
        }
    }

    /// A secret of the file itself, or of the file that it names.
    fn secret(
        &self,
        secret: Option<Hidden>,
        file: Option<String>,
        key: &dyn Fn(&str) -> String,
        name: &str,
    ) -> Result<Option<String>, ConfigError> {
        let of_file = format!("{name}_file");
        let secret = match (secret, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(self.bad(&key(&of_file), format!("stands beside {name}: set one")));
            }
            (Some(Hidden(secret)), None) => secret,
            (None, Some(path)) => {
                // Beside the configuration, unless it is absolute.
                let folder = Path::new(&self.place).parent().unwrap_or(Path::new(""));
                let path = folder.join(path);
                let unreadable = |error| {
                    let reason = format!("{}: {error}", path.display());
                    self.bad(&key(&of_file), reason)
                };
                let mode = fs::metadata(&path)
                    .map_err(unreadable)?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    self.warn(format!(
                        "{}: {} is open to others (mode {:03o}): chmod 600 closes it",
                        key(&of_file),
                        path.display(),
                        mode & 0o777
                    ));
                }
                let text = fs::read_to_string(&path).map_err(unreadable)?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(self.bad(&key(name), "must be one line that is not empty"));
        }
        Ok(Some(secret))
    }

    /// A text that stands between quotes in a header, and before a colon in a hash.
    fn quotable(&self, key: &str, text: &str) -> Result<String, ConfigError> {
        let bad = |c: char| c.is_control() || matches!(c, '"' | '\\' | ':');
        // An IPv6 host has colons, and a realm's may stay: only the user name comes before one.
        let is_realm = key.ends_with("realm");
        if text.is_empty() || text.contains(|c| bad(c) && !(is_realm && c == ':')) {
            let reason = "must not be empty, nor hold quotes, backslashes or colons";
            return Err(self.bad(key, reason));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn auth(text: &str) -> Result<TrunkAuth, ConfigError> {
        let trunk = "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5060\"\nallow = []\n";
        let config = load(&format!("{trunk}[trunk.auth]\n{text}"))?;
        Ok(config.trunks[0].auth.clone())
    }

    #[test]
    fn both_directions_have_their_own_credentials() {
        assert_eq!(auth("").unwrap(), TrunkAuth::default());
        let both = auth(
            "username = \"us\"\npassword = \"ours\"\nrealm = \"sip.carrier.example\"\n\
             inbound_username = \"them\"\ninbound_password = \"theirs\"",
        )
        .unwrap();
        let outbound = both.outbound.unwrap();
        assert_eq!(outbound.password, Password::new("ours".to_owned()));
        assert_eq!(outbound.realm.as_deref(), Some("sip.carrier.example"));
        // The realm is the host that Via and Contact name.
        let inbound = InboundAuth::with_password("them", "127.0.0.1", "theirs");
        assert_eq!(both.inbound, Some(inbound));
    }

    #[test]
    fn a_hash_does_instead_of_a_password() {
        let ha1 = "939e7578ed9e3c518a452acee763bce9";
        let text = format!(
            "inbound_username = \"Mufasa\"\ninbound_realm = \"testrealm@host.com\"\n\
             inbound_ha1_md5 = \"{ha1}\""
        );
        let inbound = auth(&text).unwrap().inbound.unwrap();
        let expected = InboundAuth::with_password("Mufasa", "testrealm@host.com", "Circle Of Life");
        assert_eq!(inbound.md5, expected.md5);
        assert_eq!(inbound.sha256, None);
    }

    #[test]
    fn a_password_may_stand_in_a_file_which_should_be_closed_to_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from a file\n").unwrap();
        let trunk = "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5060\"\nallow = []\n";
        let text = format!(
            "{trunk}[trunk.auth]\nusername = \"us\"\npassword_file = {:?}",
            file.path()
        );
        for (mode, warnings) in [(0o600, 0), (0o644, 1)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let config = load(&text).unwrap();
            let outbound = config.trunks[0].auth.outbound.clone().unwrap();
            assert_eq!(outbound.password, Password::new("from a file".to_owned()));
            assert_eq!(config.warnings.len(), warnings, "{:?}", config.warnings);
        }
    }

    #[test]
    fn a_fault_names_its_key_and_never_the_secret() {
        for (text, key, reason) in [
            ("username = \"us\"", "auth.password", "must be set"),
            ("password = \"geheim\"", "auth.username", "must be set"),
            (
                "username = \"a:b\"\npassword = \"geheim\"",
                "auth.username",
                "colons",
            ),
            (
                "username = \"a\"\npassword = \"geheim\"\npassword_file = \"x\"",
                "auth.password_file",
                "set one",
            ),
            (
                "username = \"a\"\npassword_file = \"/nowhere\"",
                "auth.password_file",
                "/nowhere",
            ),
            (
                "username = \"a\"\npassword = \"geheim\\n2\"",
                "auth.password",
                "one line",
            ),
            (
                "inbound_username = \"a\"",
                "auth.inbound_password",
                "must be set",
            ),
            (
                "inbound_password = \"geheim\"",
                "auth.inbound_username",
                "must be set",
            ),
            (
                "inbound_username = \"a\"\ninbound_ha1_md5 = \"geheim\"",
                "auth.inbound_ha1_md5",
                "hexadecimal",
            ),
            (
                "inbound_username = \"a\"\ninbound_ha1_md5 = \"939e7578ed9e3c518a452acee763bce9\"",
                "auth.inbound_realm",
                "one realm",
            ),
        ] {
            let error = auth(text).unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains(reason),
                "{text}: {error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
