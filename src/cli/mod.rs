//! The command line: arguments, what they start, and exit codes. Knows no HTTP.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 needs the server stopped or started.

mod arguments;
mod backup;
mod certificate;
mod demo;
mod directory;
mod export;
mod init;
mod keys;
mod manual;
mod output;
mod run;
mod service;
mod storage_keys;

use std::process::ExitCode;

use clap::Parser as _;

pub use arguments::Arguments;
pub use demo::{fetch_jwks, serve_sandbox};

/// How a command can fail.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something did not work.
    #[error("{0}")]
    Failed(String),
    /// The configuration or the arguments are wrong; the text has its own `error:` lines.
    #[error("{0}")]
    Configuration(String),
    /// The server must be stopped, or started, first.
    #[error("{0}")]
    Server(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Configuration(_) => 2,
            Self::Server(_) => 3,
        }
    }
}

/// Runs the program; `environment` is the process's, read once.
pub fn main(environment: Vec<(String, String)>) -> ExitCode {
    let arguments = Arguments::parse();
    match run::run(arguments, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
