//! The `chartgate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Names and values that are no text cannot be settings of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    chartgate::cli::main(environment.collect())
}
