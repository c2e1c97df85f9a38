//! The real program, as an administrator starts it: arguments, files, signals, exit codes, and what it says.

mod backups;
mod commands;
mod directory;
mod exports;
mod keys;
mod refusals;
mod running;
mod service;
mod storage_keys;
mod support;
mod webhooks;
