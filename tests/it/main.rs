//! The integration tests: one program, one module a subject.

mod api;
mod client_auth;
mod config;
mod custody;
mod directory;
mod ehr_launch;
mod history;
mod hostile;
mod isolation;
mod launch;
mod live;
mod population;
mod program;
mod pulls;
mod retention;
mod sandbox;
mod server;
mod signing_keys;
mod smart;
mod storage_keys;
mod support;
mod tidy;
mod troubles;
mod vendors;
mod webhooks;
