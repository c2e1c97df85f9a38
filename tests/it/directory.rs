//! The directory: lists are read, kept and searched, and lead to sources.

mod choosing;
mod lists;
mod properties;
mod real;
