//! The integration tests: one program, one module a subject.

mod config;
mod custody;
mod isolation;
mod launch;
mod population;
mod program;
mod pulls;
mod sandbox;
mod server;
mod smart;
mod support;
mod troubles;
