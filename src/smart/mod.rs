//! The protocol.
pub mod assertion;
pub mod pkce;
pub mod url;
