//! The patient's journey: start and search, leaving, the way back, done.

pub mod handlers;
pub mod not_listed;
pub mod pages;
pub mod results;
pub mod words;

#[cfg(test)]
mod samples;
