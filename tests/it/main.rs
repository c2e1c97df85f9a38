//! The integration tests: one program, one module a subject.

mod config;
mod launch;
mod smart;
mod support;
mod troubles;
