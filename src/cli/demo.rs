//! x
use crate::cli::Failure;
use crate::cli::arguments::{Demo, SandboxArguments};
/// x
pub async fn demo(_: Demo, _: bool, _: Vec<(String, String)>) -> Result<(), Failure> {
    Ok(())
}
/// x
pub async fn sandbox(_: SandboxArguments, _: bool) -> Result<(), Failure> {
    Ok(())
}
