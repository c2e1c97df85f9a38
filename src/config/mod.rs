//! Checked settings that several rooms share.

use serde::{Deserialize, Serialize};

/// Which world something belongs to; the two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Real patients.
    Live,
    /// Synthetic patients.
    Sandbox,
}

/// How we prove to a token endpoint who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
    /// Id and secret in the `Authorization` header.
    ClientSecretBasic,
    /// Id and secret in the body.
    ClientSecretPost,
    /// A public client.
    None,
}

/// The scope syntax a registration was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmartVersion {
    /// `patient/Observation.read`
    V1,
    /// `patient/Observation.rs`
    V2,
}
