//! The integration tests: one program, one module a subject.

mod config;
mod custody;
mod isolation;
mod launch;
mod pulls;
mod smart;
mod support;
mod troubles;
