//! `[sip.tls]` and `[trunk.tls]`: certificates of ours, whom to trust, and carriers that are known
//! by theirs.

use maskline_net::{TlsConfig, TlsFile, TlsIdentity, TlsServer, TlsTrunk};
use maskline_switch::sip::Transport;
use maskline_switch::{Trunk, TrunkTls};
use serde::Deserialize;

use super::{Config, ConfigError, ListenSpec, Resolver};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listeners {
    certificate: String,
    key: String,
    client_ca: String,
    #[serde(default)]
    host: Vec<Host>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    certificate: String,
    key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfTrunk {
    server_name: String,
    ca: String,
    certificate: String,
    key: String,
    sips: bool,
    client_names: Vec<String>,
    client_fingerprints: Vec<String>,
}

impl Config {
    /// Reads certificates and keys, as [`crate::node::Node::start`] will.
    ///
    /// # Errors
    /// The first fault, with key, file and reason.
    pub(crate) fn check_certificates(&self) -> Result<(), ConfigError> {
        self.tls
            .check(&self.trunks)
            .map_err(|fault| self.fault(&fault.key, &fault))
    }
}

impl Resolver {
    /// What the listeners show.
    pub(super) fn tls_server(
        &self,
        tls: Listeners,
        listen: &[ListenSpec],
    ) -> Result<Option<TlsServer>, ConfigError> {
        let identity = self.key_pair("[sip.tls]", &tls.certificate, &tls.key)?;
        let hosts = tls
            .host
            .iter()
            .map(|host| {
                let section = format!("[[sip.tls.host]] {:?}", host.name);
                if host.name.is_empty() {
                    return Err(self.bad(&format!("{section} name"), "must be there"));
                }
                let identity = self.key_pair(&section, &host.certificate, &host.key)?;
                let identity = identity
                    .ok_or_else(|| self.bad(&format!("{section} certificate"), "must be there"))?;
                Ok((host.name.clone(), identity))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let Some(identity) = identity else {
            let speaks = |spec: &ListenSpec| spec.transport == Transport::Tls;
            if listen.iter().any(speaks) || !hosts.is_empty() || !tls.client_ca.is_empty() {
                return Err(self.bad(
                    "[sip.tls] certificate",
                    "must be set, with its key, for [sip] listen = [\"tls:…\"]",
                ));
            }
            return Ok(None);
        };
        Ok(Some(TlsServer {
            identity,
            hosts,
            client_ca: file("[sip.tls] client_ca", &tls.client_ca),
        }))
    }

    /// What is decided by a trunk's TLS, and the files that its connections need.
    pub(super) fn tls_trunk(
        &self,
        name: &str,
        tls: OfTrunk,
    ) -> Result<(TrunkTls, TlsTrunk), ConfigError> {
        let section = format!("[[trunk]] {name:?} tls");
        let client_fingerprints = tls
            .client_fingerprints
            .iter()
            .map(|text| {
                let key = format!("{section}.client_fingerprints");
                self.parse(&key, text, "a SHA-256 in hexadecimal: 64 digits")
            })
            .collect::<Result<_, _>>()?;
        if let Some(wildcard) = tls.client_names.iter().find(|name| name.contains('*')) {
            return Err(self.bad(
                &format!("{section}.client_names"),
                format!("{wildcard:?}: a name is compared whole, a wildcard matches nothing"),
            ));
        }
        let decided = TrunkTls {
            sips: tls.sips,
            client_names: tls.client_names,
            client_fingerprints,
        };
        let needed = TlsTrunk {
            server_name: Some(tls.server_name).filter(|name| !name.is_empty()),
            ca: file(&format!("{section}.ca"), &tls.ca),
            identity: self.key_pair(&format!("{section}."), &tls.certificate, &tls.key)?,
        };
        Ok((decided, needed))
    }

    /// The whole, with what only shows when its parts are seen together.
    pub(super) fn tls(
        &self,
        server: Option<TlsServer>,
        of_trunks: Vec<TlsTrunk>,
        trunks: &[Trunk],
    ) -> Result<TlsConfig, ConfigError> {
        let client_ca = server.as_ref().and_then(|server| server.client_ca.as_ref());
        for (at, trunk) in trunks.iter().enumerate() {
            let key = |key: &str| format!("[[trunk]] {:?} tls.{key}", trunk.name);
            if !trunk.tls.client_names.is_empty() && client_ca.is_none() {
                return Err(self.bad(
                    &key("client_names"),
                    "needs [sip.tls] client_ca: a name means nothing without its authority",
                ));
            }
            if trunk.tls.has_clients() && server.is_none() {
                return Err(self.bad(
                    &key("client_fingerprints"),
                    "needs a TLS listener: [sip.tls] certificate and [sip] listen",
                ));
            }
            if trunk.tls.sips && trunk.transport != Transport::Tls {
                return Err(self.bad(&key("sips"), "needs transport = \"tls\""));
            }
            let same = |(other, earlier): (&TlsTrunk, &Trunk)| {
                earlier.transport == Transport::Tls
                    && earlier.address == trunk.address
                    && Some(other) != of_trunks.get(at)
            };
            if trunk.transport == Transport::Tls && of_trunks.iter().zip(trunks).take(at).any(same)
            {
                return Err(self.bad(
                    &key("server_name, ca, certificate"),
                    "must be as those of the earlier trunk of the same address: they share \
                     connections",
                ));
            }
        }
        Ok(TlsConfig {
            server,
            trunks: of_trunks,
        })
    }

    /// Certificate and key: both or neither.
    fn key_pair(
        &self,
        section: &str,
        certificate: &str,
        key: &str,
    ) -> Result<Option<TlsIdentity>, ConfigError> {
        let name = |key: &str| match section.strip_suffix('.') {
            Some(_) => format!("{section}{key}"),
            None => format!("{section} {key}"),
        };
        match (
            file(&name("certificate"), certificate),
            file(&name("key"), key),
        ) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(TlsIdentity { certificate, key })),
            (Some(_), None) => Err(self.bad(&name("key"), "must be set with the certificate")),
            (None, Some(_)) => Err(self.bad(&name("certificate"), "must be set with the key")),
        }
    }
}

fn file(key: &str, path: &str) -> Option<TlsFile> {
    (!path.is_empty()).then(|| TlsFile {
        key: key.to_owned(),
        path: path.into(),
    })
}
