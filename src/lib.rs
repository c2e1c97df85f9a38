//! Chartgate: a SMART on FHIR gateway in one binary. `src/ARCHITECTURE.md` is the map.

pub mod api;
pub mod app;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod directory;
pub mod events;
pub mod exports;
pub mod fhir;
pub mod grants;
pub mod http;
pub mod id;
pub mod outbound;
pub mod records;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod smart;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod workspaces;
