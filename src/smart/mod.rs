//! The protocol.
pub mod assertion;
pub mod keys;
pub mod pkce;
pub mod url;
pub use self::url::FhirBaseUrl;
