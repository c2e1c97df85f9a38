//! The sandbox hospital does what a strict SMART server does, refuses what one refuses, and fails when told to.

mod authorize;
mod client_auth;
mod codes;
mod control;
mod faults;
mod fhir;
mod flow;
mod personalities;
mod refresh;
mod refresh_faults;
mod scopes;
mod support;
