//! The protocol: SMART App Launch as a client speaks it. The files here are pure: they turn bytes and texts into checked
//! types and back, and know neither network nor store, neither pages nor routes.

pub mod assertion;
pub mod discovery;
pub mod id_token;
pub mod patient;
pub mod pkce;
pub mod scopes;
pub mod token_response;
pub mod url;
pub mod vendors;
