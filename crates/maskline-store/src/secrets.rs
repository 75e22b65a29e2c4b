//! What is secret in the store: the master key, values sealed under it, signing secrets, API keys.
//!
//! Sealing is XChaCha20-Poly1305 with a random nonce; the associated data names the place of the
//! value (table, row, column), so that a sealed value moved to another row does not open.
//!
//! What lives elsewhere: which columns are sealed (`sqlite::config`), signing requests
//! (`maskline-events`). Nothing here reads the environment.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::store::StoreError;

/// Bytes of a master key, a signing secret and an API key's random part.
const KEY_BYTES: usize = 32;
/// Bytes of an XChaCha20 nonce.
const NONCE_BYTES: usize = 24;
/// Bytes of a key id: enough to tell keys apart, says nothing about the key.
const KEY_ID_BYTES: usize = 8;
/// The layout of a sealed value: version, key id, nonce, ciphertext with tag.
const SEAL_VERSION: u8 = 1;
/// The longest API key that is looked at, in bytes; ours are shorter.
const API_KEY_MAX_BYTES: usize = 256;

/// Why there is no master key. Met at start only.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The configured text is not 32 bytes of base64.
    #[error(
        "MASKLINE_MASTER_KEY is not 32 bytes of base64: make one with `openssl rand -base64 32`"
    )]
    Malformed,
    /// The key file does not hold a key.
    #[error(
        "the master key file {path} does not hold 32 bytes of base64: restore it from a backup"
    )]
    MalformedFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner can read or write the key file.
    #[error("the master key file {path} has mode {mode:04o}: others can read it; `chmod 600` it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A database is there, its key is not.
    #[error(
        "the database {database} exists but its master key file {path} does not: restore the file, or set MASKLINE_MASTER_KEY"
    )]
    Missing {
        /// The database.
        database: PathBuf,
        /// The key file.
        path: PathBuf,
    },
    /// The key file could not be read or made.
    #[error("the master key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a master key")]
    NoRandomness,
}

/// The 32 bytes under which the store's secrets are sealed. Wiped when dropped; never printed.
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Reads the value of `MASKLINE_MASTER_KEY`: base64 (standard alphabet) of 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode_key(text).map(Self).ok_or(KeyError::Malformed)
    }

    /// A key that exists nowhere else: what it seals is lost with the process.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn random() -> Result<Self, KeyError> {
        random_bytes().map(Self).map_err(|_| KeyError::NoRandomness)
    }

    /// Where the key of a database is kept: the same name with `.key` after it.
    #[must_use]
    pub fn file_beside(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push(".key");
        PathBuf::from(name)
    }

    /// Reads the key file beside the database, or makes it (mode 0600, whole or not at all, on disk
    /// before this returns) when there is no database yet.
    ///
    /// # Errors
    /// See [`KeyError`]. A database without its key file is an error and not a new key: a new key
    /// would open nothing.
    pub fn from_file_beside(database: &Path) -> Result<Self, KeyError> {
        let path = Self::file_beside(database);
        match File::open(&path) {
            Ok(file) => Self::read(&path, file),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                if fs::metadata(database).is_ok_and(|found| found.len() > 0) {
                    return Err(KeyError::Missing {
                        database: database.to_owned(),
                        path,
                    });
                }
                Self::create(&path)
            }
            Err(source) => Err(KeyError::Io { path, source }),
        }
    }

    fn read(path: &Path, file: File) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(1024).read_to_string(&mut text).map_err(io)?;
        decode_key(&text)
            .map(Self)
            .ok_or_else(|| KeyError::MalformedFile {
                path: path.to_owned(),
            })
    }

    fn create(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let key = Self::random()?;
        let directory = directory_of(path);
        // A temporary file has mode 0600 from its first byte, and takes its name only when whole.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(io)?;
        let mut text = Zeroizing::new(STANDARD.encode(key.0.as_slice()));
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        match file.persist_noclobber(path) {
            Ok(_) => {
                sync_directory(directory).map_err(io)?;
                Ok(key)
            }
            // Another process was first: its key counts.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path, File::open(path).map_err(io)?)
            }
            Err(error) => Err(io(error.error)),
        }
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(••••)")
    }
}

/// The directory that holds `path`; `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Makes new names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, StoreError> {
    let mut bytes = Zeroizing::new([0; N]);
    OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|error| StoreError::Unavailable {
            place: "the system's random source".to_owned(),
            reason: error.to_string(),
        })?;
    Ok(bytes)
}

/// A random (version 4) UUID.
pub(crate) fn random_uuid() -> Result<uuid::Uuid, StoreError> {
    Ok(uuid::Builder::from_random_bytes(*random_bytes()?).into_uuid())
}

/// Seals and opens the store's secret values, and derives keys that are kept nowhere.
pub(crate) struct Vault {
    cipher: XChaCha20Poly1305,
    /// What keys are derived from: itself derived from the master key.
    root: Zeroizing<[u8; KEY_BYTES]>,
    key_id: [u8; KEY_ID_BYTES],
}

impl Vault {
    /// A vault under this key.
    pub(crate) fn new(key: &MasterKey) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"maskline master key id\0");
        digest.update(key.0.as_slice());
        let mut hash = digest.finalize();
        let mut key_id = [0; KEY_ID_BYTES];
        for (to, from) in key_id.iter_mut().zip(hash.iter()) {
            *to = *from;
        }
        hash.as_mut_slice().zeroize();
        Self {
            cipher: XChaCha20Poly1305::new((&*key.0).into()),
            root: mac(&key.0, &[b"maskline derived keys"]),
            key_id,
        }
    }

    /// The key for a purpose, always the same under this master key; `purpose` is what [`place`] made.
    /// Where there is a secret, another one gives another key.
    pub(crate) fn derive(&self, purpose: &[u8], secret: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        mac(&self.root, &[purpose, secret])
    }

    /// Seals a value for its place; `place` is what [`place`] made.
    pub(crate) fn seal(&self, place: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce = *random_bytes::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: value,
            aad: place,
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreError::Secret)?;
        let mut out = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_BYTES + sealed.len());
        out.push(SEAL_VERSION);
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`Vault::seal`] sealed for the same place under the same key.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (version, rest) = sealed.split_first().ok_or(StoreError::Secret)?;
        let (key_id, rest) = rest
            .split_first_chunk::<KEY_ID_BYTES>()
            .ok_or(StoreError::Secret)?;
        let (nonce, sealed) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(StoreError::Secret)?;
        if *version != SEAL_VERSION || *key_id != self.key_id {
            return Err(StoreError::Secret);
        }
        let payload = Payload {
            msg: sealed,
            aad: place,
        };
        self.cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| StoreError::Secret)
    }
}

/// HMAC-SHA256 of the parts in a row.
fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    // RFC 2104 §2: a key shorter than a block is padded with zeros.
    let mut block = Zeroizing::new([0_u8; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        Mac::update(&mut mac, part);
    }
    let mut hash = mac.finalize().into_bytes();
    let mut made = Zeroizing::new([0; KEY_BYTES]);
    for (to, from) in made.iter_mut().zip(&hash) {
        *to = *from;
    }
    hash.as_mut_slice().zeroize();
    made
}

/// The associated data of a sealed value: table, row key and column, each with its length before
/// it, so that two places never read the same.
pub(crate) fn place(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// A new signing secret: 32 random bytes.
pub(crate) fn new_signing_secret() -> Result<Zeroizing<Vec<u8>>, StoreError> {
    Ok(Zeroizing::new(random_bytes::<KEY_BYTES>()?.to_vec()))
}

/// A signing secret as its owner is shown it: `whsec_` and base64.
#[must_use]
pub fn signing_secret_text(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// A new API key: `prefix` (`mk_` or `mka_`) and base64url of 32 random bytes.
pub(crate) fn new_api_key(prefix: &str) -> Result<String, StoreError> {
    let bytes = random_bytes::<KEY_BYTES>()?;
    Ok(format!(
        "{prefix}{}",
        URL_SAFE_NO_PAD.encode(bytes.as_slice())
    ))
}

/// The SHA-256 of an API key: what is kept of it. A key has 256 random bits, so that a slow hash
/// would add nothing.
#[derive(Clone, Copy)]
pub struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// The hash of a presented key; `None` for a text too long to be one of ours.
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        (!key.is_empty() && key.len() <= API_KEY_MAX_BYTES)
            .then(|| Self(Sha256::digest(key.as_bytes()).into()))
    }

    /// The bytes, as they are stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether a stored hash is this one; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0.as_slice().ct_eq(stored).into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_under_its_key_and_in_its_place() {
        let vault = Vault::new(&MasterKey::random().unwrap());
        let here = place(&["webhooks", "acme", "VCS", "auth_header"]);
        let sealed = vault.seal(&here, b"Bearer sentinel").unwrap();
        assert_eq!(vault.open(&here, &sealed).unwrap(), b"Bearer sentinel");
        assert!(!sealed.windows(8).any(|part| part == b"sentinel"));
        assert_ne!(sealed, vault.seal(&here, b"Bearer sentinel").unwrap());

        let elsewhere = place(&["webhooks", "acm", "eVCS", "auth_header"]);
        assert!(matches!(
            vault.open(&elsewhere, &sealed),
            Err(StoreError::Secret)
        ));
        let other = Vault::new(&MasterKey::random().unwrap());
        assert!(matches!(
            other.open(&here, &sealed),
            Err(StoreError::Secret)
        ));
    }

    #[test]
    fn a_sealed_value_with_any_byte_changed_or_cut_off_does_not_open() {
        let vault = Vault::new(&MasterKey::random().unwrap());
        let here = place(&["t"]);
        let sealed = vault.seal(&here, b"value").unwrap();
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(vault.open(&here, &broken).is_err(), "byte {at}");
            assert!(vault.open(&here, &sealed[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_with_mode_0600_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("maskline.db");
        let first = MasterKey::from_file_beside(&database).unwrap();
        let path = MasterKey::file_beside(&database);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let second = MasterKey::from_file_beside(&database).unwrap();
        assert_eq!(*first.0, *second.0);
        // Nothing else is left in the directory.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_by_name_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("maskline.db");
        MasterKey::from_file_beside(&database).unwrap();
        let path = MasterKey::file_beside(&database);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = MasterKey::from_file_beside(&database).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("maskline.db.key has mode 0640"));
    }

    #[test]
    fn a_damaged_key_file_is_an_error_and_not_a_new_key() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("maskline.db");
        MasterKey::from_file_beside(&database).unwrap();
        fs::write(MasterKey::file_beside(&database), "AAAA\n").unwrap();
        assert!(matches!(
            MasterKey::from_file_beside(&database),
            Err(KeyError::MalformedFile { .. })
        ));
    }

    #[test]
    fn a_database_whose_key_file_is_gone_gets_no_new_key() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("maskline.db");
        fs::write(&database, "a database").unwrap();
        assert!(matches!(
            MasterKey::from_file_beside(&database),
            Err(KeyError::Missing { .. })
        ));
        assert!(!MasterKey::file_beside(&database).exists());
    }

    #[test]
    fn a_configured_key_is_32_bytes_of_base64() {
        assert!(MasterKey::from_base64(&STANDARD.encode([7; 32])).is_ok());
        for text in ["", "AAAA", "not base64!", &STANDARD.encode([7; 33])] {
            assert!(matches!(
                MasterKey::from_base64(text),
                Err(KeyError::Malformed)
            ));
        }
        let key = MasterKey::from_base64(&STANDARD.encode([7; 32])).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(••••)");
    }

    #[test]
    fn an_api_key_matches_its_own_hash_only() {
        let key = new_api_key("mk_").unwrap();
        assert_eq!(key.len(), 3 + 43);
        let hash = ApiKeyHash::of(&key).unwrap();
        assert!(hash.matches(ApiKeyHash::of(&key).unwrap().as_bytes()));
        let other = new_api_key("mk_").unwrap();
        assert!(!hash.matches(ApiKeyHash::of(&other).unwrap().as_bytes()));
        assert!(!hash.matches(b"short"));
        assert!(ApiKeyHash::of(&"k".repeat(257)).is_none());
        assert!(ApiKeyHash::of("").is_none());
    }
}
