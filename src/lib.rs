//! Chartgate: a SMART on FHIR gateway in one binary. `src/ARCHITECTURE.md` is the map.

pub mod api;
pub mod body;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod directory;
pub mod events;
pub mod grants;
pub mod http;
pub mod id;
pub mod outbound;
pub mod records;
pub mod secret;
pub mod shutdown;
pub mod smart;
pub mod store;
pub mod telemetry;
pub mod workspaces;
