//! Chartgate: a SMART on FHIR gateway in one binary. `src/ARCHITECTURE.md` is the map.

pub mod body;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod id;
pub mod secret;
pub mod shutdown;
pub mod smart;
pub mod telemetry;
