//! The words a setting may take. Each enum knows the spelling of its variants once, for the file, the store and the log.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::telemetry::LogFormat;

/// A closed set of words, as the configuration spells them.
pub trait Keyword: Copy + 'static {
    /// Every word with its meaning.
    const WORDS: &'static [(&'static str, Self)];
}

/// Declares an enum whose variants are single words outside the program.
macro_rules! keywords {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$meaning])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word as the configuration, the store and the API spell it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl Keyword for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }
    };
}

keywords! {
    /// Which world something belongs to; the two never meet.
    Environment {
        /// Real patients.
        Live = "live",
        /// Synthetic patients.
        Sandbox = "sandbox",
    }
}

keywords! {
    /// How the program proves to a token endpoint who it is.
    AuthMethod {
        /// A signed assertion (RFC 7523; SMART App Launch 2.2, "asymmetric client authentication").
        PrivateKeyJwt = "private_key_jwt",
        /// Id and secret in the `Authorization` header (RFC 6749 2.3.1).
        ClientSecretBasic = "client_secret_basic",
        /// Id and secret in the request body (RFC 6749 2.3.1).
        ClientSecretPost = "client_secret_post",
        /// A public client: id only.
        None = "none",
    }
}

impl AuthMethod {
    /// Whether this method needs a client secret.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }
}

keywords! {
    /// The scope syntax a registration was made for; some vendors drop scopes written in the other one.
    SmartVersion {
        /// `patient/Observation.read`
        V1 = "v1",
        /// `patient/Observation.rs`
        V2 = "v2",
    }
}

keywords! {
    /// The signature of client assertions; SMART App Launch 2.2 names these two.
    SigningAlgorithm {
        /// RSA with SHA-384.
        Rs384 = "RS384",
        /// ECDSA on P-384 with SHA-384.
        Es384 = "ES384",
    }
}

keywords! {
    /// Whose server it is; chooses the profile with the vendor's peculiarities.
    Vendor {
        /// Oracle Health (Cerner) Millennium, patient access.
        Cerner = "cerner",
        /// Oracle Health (Cerner) Millennium, provider access.
        CernerProvider = "cerner-provider",
        /// Epic.
        Epic = "epic",
        /// athenahealth.
        Athenahealth = "athenahealth",
        /// eClinicalWorks and healow.
        Eclinicalworks = "eclinicalworks",
        /// MEDITECH.
        Meditech = "meditech",
        /// NextGen.
        Nextgen = "nextgen",
        /// Veradigm, formerly Allscripts.
        Veradigm = "veradigm",
        /// US Department of Veterans Affairs.
        Va = "va",
        /// CMS Blue Button 2.0.
        Bluebutton = "bluebutton",
        /// The public SMART Health IT launcher, for tests.
        SmartHealthIt = "smart-health-it",
        /// Any other server that follows the specification.
        Generic = "generic",
    }
}

keywords! {
    /// Where a listener's TLS comes from.
    TlsMode {
        /// A certificate chain and a key in two PEM files.
        Files = "files",
        /// Plain HTTP.
        Off = "off",
    }
}

impl Keyword for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: Keyword + Serialize>() {
        for (word, value) in K::WORDS {
            let stored = serde_json::to_string(value).expect("a word");
            assert_eq!(stored, format!("\"{word}\""));
        }
    }

    #[test]
    fn the_store_spells_each_word_as_the_file_does() {
        check::<Environment>();
        check::<AuthMethod>();
        check::<SmartVersion>();
        check::<SigningAlgorithm>();
        check::<Vendor>();
        check::<TlsMode>();
        check::<LogFormat>();
    }

    #[test]
    fn only_the_two_secret_methods_need_a_secret() {
        let needing: Vec<_> = AuthMethod::WORDS
            .iter()
            .filter(|(_, method)| method.needs_secret())
            .map(|(word, _)| *word)
            .collect();
        assert_eq!(needing, ["client_secret_basic", "client_secret_post"]);
    }
}
