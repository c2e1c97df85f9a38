//! The life of a signing key: `next` is published and not yet used, `current` signs, `retiring` is published for those
//! who still check older signatures, `retired` is history. One key signs for each algorithm at any time.
//!
//! EHRs keep our JWKS for a while, so a key must have been published for the *overlap* before it signs, and must stay
//! published for as long after it signed last. SMART App Launch 2.2 gives no figure; some vendors keep a set for a day.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::crypto::{Algorithm, ImportError, KeyError, KeyPair, KeyType, base64url, from_base64url};
use crate::secret::Secret;
use crate::smart::assertion::LIFETIME;
use crate::smart::keys::SigningError;
use crate::store::{StoreError, Table, json_value};

/// Keys by the digest of their `kid`.
pub(super) const SIGNING_KEYS: Table<SigningKey> = Table::new("signing_keys.v1");

/// A JWKS is fetched often and by strangers, so it stays small: so many published keys an algorithm.
const MOST_PUBLISHED: usize = 4;
/// The longest `kid` that may be brought along.
const LONGEST_KID: usize = 128;

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStage {
    /// Published, not yet used.
    Next,
    /// Signs.
    Current,
    /// Published for those who still check older signatures, no longer used.
    Retiring,
    /// No longer published; its private half is gone.
    Retired,
}

impl KeyStage {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }
}

/// A signing key as it is kept, sealed like everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its name in the JWKS and in assertions: the thumbprint, unless it was brought along with another.
    pub kid: String,
    /// What it is.
    pub kind: KeyType,
    /// PKCS#8 DER in base64url; erased when the key is retired.
    #[serde(default)]
    private_key: Option<Secret>,
    /// Where it is in its life.
    pub stage: KeyStage,
    /// When it was made or brought, and published.
    pub created_at: Timestamp,
    /// Since when it has signed; keys of the first version did from the beginning.
    #[serde(default)]
    pub current_since: Option<Timestamp>,
    /// Since when it has not signed any more.
    #[serde(default)]
    pub retiring_since: Option<Timestamp>,
    /// Since when it has not been published any more.
    #[serde(default)]
    pub retired_at: Option<Timestamp>,
    /// RFC 7638 thumbprint of the public half; `None` when it is the `kid`.
    #[serde(default)]
    thumbprint: Option<String>,
    /// Whether it was made elsewhere.
    #[serde(default)]
    pub imported: bool,
}
json_value!(SigningKey);

/// Why a key was not made, brought, switched to or retired. Nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RotationError {
    /// One at a time.
    #[error(
        "`{0}` is published as the next {name} key already; switch to it with `chartgate keys activate`, or give it up \
         with `chartgate keys retire {0}`",
        name = .1.name()
    )]
    NextExists(String, Algorithm),
    /// Nothing to switch to.
    #[error("there is no next key; publish one with `chartgate keys rotate` first")]
    NoNext,
    /// Nothing to retire.
    #[error("no key is retiring; see `chartgate keys list`")]
    NoRetiring,
    /// No such key.
    #[error("there is no signing key `{0}`; see `chartgate keys list`")]
    Unknown(String),
    /// The key is somewhere else in its life.
    #[error("`{kid}` is {stage}, and only a key that is {wanted} can be {done}", stage = .stage.name())]
    WrongStage {
        /// The key.
        kid: String,
        /// Where it is.
        stage: KeyStage,
        /// Where it would have to be.
        wanted: &'static str,
        /// For what.
        done: &'static str,
    },
    /// Not before the overlap is over.
    #[error("not before {possible_at}")]
    TooEarly {
        /// The key.
        kid: String,
        /// Where it is.
        stage: KeyStage,
        /// Since when.
        since: Timestamp,
        /// From when on it may go further.
        possible_at: Timestamp,
    },
    /// The same key, or another with this name, is or was here.
    #[error("this key is here already, as `{kid}` ({stage})", stage = .stage.name())]
    Duplicate {
        /// Its name.
        kid: String,
        /// Where it is.
        stage: KeyStage,
    },
    /// A name that cannot stand in a JWKS.
    #[error("a key id is 1 to {LONGEST_KID} visible ASCII characters without quote and backslash")]
    BadKid,
    /// The JWKS would grow too long.
    #[error(
        "{most} {name} keys are published already; retire the old ones first with `chartgate keys retire`",
        most = MOST_PUBLISHED,
        name = .0.name()
    )]
    TooMany(Algorithm),
    /// The text holds no usable key.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Keys cannot be made or read.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeyError> for RotationError {
    fn from(error: KeyError) -> Self {
        Self::Signing(error.into())
    }
}

impl SigningKey {
    /// A key that has just been made, or was brought along, with the name its owner wants.
    pub(super) fn new(
        (der, key_type): (&[u8], KeyType),
        name: Option<&str>,
        imported: bool,
        now: Timestamp,
    ) -> Result<Self, RotationError> {
        let thumbprint = KeyPair::from_pkcs8(der)?.thumbprint();
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if name.is_some_and(|name| name.is_empty() || name.len() > LONGEST_KID || !name.bytes().all(fits)) {
            return Err(RotationError::BadKid);
        }
        let kid = name.unwrap_or(&thumbprint).to_owned();
        Ok(Self {
            thumbprint: (kid != thumbprint).then_some(thumbprint),
            kid,
            kind: key_type,
            private_key: Some(Secret::new(base64url(der))),
            stage: KeyStage::Next,
            created_at: now,
            current_since: None,
            retiring_since: None,
            retired_at: None,
            imported,
        })
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.kind {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Algorithm::Rs384,
            KeyType::EcP384 => Algorithm::Es384,
            KeyType::EcP256 => Algorithm::Es256,
        }
    }

    /// RFC 7638 thumbprint of its public half.
    pub fn thumbprint(&self) -> &str {
        self.thumbprint.as_deref().unwrap_or(&self.kid)
    }

    /// Whether it stands in the JWKS.
    pub fn is_published(&self) -> bool {
        self.stage != KeyStage::Retired
    }

    /// Since when it is where it is.
    pub fn stage_since(&self) -> Timestamp {
        match self.stage {
            KeyStage::Next => None,
            KeyStage::Current => self.current_since,
            KeyStage::Retiring => self.retiring_since,
            KeyStage::Retired => self.retired_at,
        }
        .unwrap_or(self.created_at)
    }

    /// From when on it may go to its next stage: a next key after the overlap, a retiring key after its last assertion
    /// is over and the overlap. `None` for a key that waits for nothing.
    pub fn next_step_at(&self, overlap: Duration) -> Option<Timestamp> {
        match self.stage {
            KeyStage::Next => Some(self.created_at.after(overlap)),
            KeyStage::Retiring => Some(self.stage_since().after(LIFETIME).after(overlap)),
            KeyStage::Current | KeyStage::Retired => None,
        }
    }

    /// Ready to sign.
    pub(super) fn pair(&self) -> Result<KeyPair, SigningError> {
        let text = self.private_key.as_ref().map(Secret::expose);
        let der = text.and_then(from_base64url).map(zeroize::Zeroizing::new);
        let der = der.ok_or(StoreError::Damaged(SIGNING_KEYS.name()))?;
        Ok(KeyPair::from_pkcs8(&der)?.named(&self.kid))
    }

    /// The same without its private half, for everybody who wants to know about it.
    pub(super) fn described(&self) -> Self {
        Self { private_key: None, ..self.clone() }
    }

    fn retire(&mut self, now: Timestamp) {
        self.stage = KeyStage::Retired;
        self.retired_at = Some(now);
        self.private_key = None;
    }
}

/// All keys there are and were, as one change sees them. Says what may happen; writing is for the caller.
pub(super) struct Ring {
    pub(super) keys: Vec<SigningKey>,
    pub(super) now: Timestamp,
    pub(super) overlap: Duration,
}

impl Ring {
    /// Takes a new key in, as the next one.
    pub(super) fn add(&mut self, key: SigningKey) -> Result<(), RotationError> {
        let same = |known: &&SigningKey| known.kid == key.kid || known.thumbprint() == key.thumbprint();
        if let Some(known) = self.keys.iter().find(same) {
            return Err(RotationError::Duplicate { kid: known.kid.clone(), stage: known.stage });
        }
        let algorithm = key.algorithm();
        if let Some(next) = self.at(algorithm, KeyStage::Next).next() {
            return Err(RotationError::NextExists(next.kid.clone(), algorithm));
        }
        let published =
            self.keys.iter().filter(|known| known.is_published() && known.algorithm() == algorithm).count();
        if published >= MOST_PUBLISHED {
            return Err(RotationError::TooMany(algorithm));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Lets next keys sign from now on: the named one, or all. All or none.
    pub(super) fn activate(&mut self, kid: Option<&str>, force: bool) -> Result<Vec<String>, RotationError> {
        let chosen: Vec<usize> = match kid {
            None => self.places(KeyStage::Next),
            Some(kid) => {
                let place = self.place_of(kid)?;
                let stage = self.keys[place].stage;
                if stage != KeyStage::Next {
                    let (wanted, done) = ("next", "switched to");
                    return Err(RotationError::WrongStage { kid: kid.to_owned(), stage, wanted, done });
                }
                vec![place]
            }
        };
        if chosen.is_empty() {
            return Err(RotationError::NoNext);
        }
        for place in &chosen {
            self.wait_is_over(*place, force)?;
        }
        for place in &chosen {
            let algorithm = self.keys[*place].algorithm();
            for old in &mut self.keys {
                if old.algorithm() == algorithm && old.stage == KeyStage::Current {
                    old.stage = KeyStage::Retiring;
                    old.retiring_since = Some(self.now);
                }
            }
            self.keys[*place].stage = KeyStage::Current;
            self.keys[*place].current_since = Some(self.now);
        }
        Ok(chosen.into_iter().map(|place| self.keys[place].kid.clone()).collect())
    }

    /// Ends keys: the named one, or every retiring one whose time has come.
    pub(super) fn retire(&mut self, kid: Option<&str>, force: bool) -> Result<Vec<String>, RotationError> {
        let chosen = if let Some(kid) = kid {
            let place = self.place_of(kid)?;
            match self.keys[place].stage {
                // It never signed, so nobody can miss it.
                KeyStage::Next => {}
                KeyStage::Retiring => self.wait_is_over(place, force)?,
                stage @ (KeyStage::Current | KeyStage::Retired) => {
                    let (wanted, done) = ("next or retiring", "retired");
                    return Err(RotationError::WrongStage { kid: kid.to_owned(), stage, wanted, done });
                }
            }
            vec![place]
        } else {
            let retiring = self.places(KeyStage::Retiring);
            let first = *retiring.first().ok_or(RotationError::NoRetiring)?;
            let due: Vec<usize> =
                retiring.into_iter().filter(|place| self.wait_is_over(*place, force).is_ok()).collect();
            if due.is_empty() {
                self.wait_is_over(first, force)?;
            }
            due
        };
        let now = self.now;
        Ok(chosen
            .into_iter()
            .map(|place| {
                self.keys[place].retire(now);
                self.keys[place].kid.clone()
            })
            .collect())
    }

    fn at(&self, algorithm: Algorithm, stage: KeyStage) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| key.algorithm() == algorithm && key.stage == stage)
    }

    fn places(&self, stage: KeyStage) -> Vec<usize> {
        (0..self.keys.len()).filter(|place| self.keys[*place].stage == stage).collect()
    }

    fn place_of(&self, kid: &str) -> Result<usize, RotationError> {
        let found = self.keys.iter().position(|key| key.kid == kid);
        found.ok_or_else(|| RotationError::Unknown(kid.to_owned()))
    }

    fn wait_is_over(&self, place: usize, force: bool) -> Result<(), RotationError> {
        let key = &self.keys[place];
        match key.next_step_at(self.overlap) {
            Some(possible_at) if possible_at > self.now && !force => Err(RotationError::TooEarly {
                kid: key.kid.clone(),
                stage: key.stage,
                since: key.stage_since(),
                possible_at,
            }),
            _ => Ok(()),
        }
    }
}
