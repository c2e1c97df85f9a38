//! The directory: lists are read, kept and searched, and lead to sources.

mod activation;
mod choosing;
mod lists;
mod missing;
mod properties;
mod real;
mod schedule;
mod uploads;
