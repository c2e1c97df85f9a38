//! Log lines: one line an event, fields, no secret. Logs go to standard error, so that standard output is for answers.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people and for journald.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log filter that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("not a log filter; write one such as `info` or `info,chartgate=debug`")]
pub struct BadFilter;

/// Makes the subscriber; `directives` are those of `RUST_LOG`, such as `info,chartgate=debug`.
pub fn subscriber<W>(
    directives: &str,
    format: LogFormat,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, BadFilter>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(directives).map_err(|_| BadFilter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match format {
        LogFormat::Text => Box::new(builder.with_target(false).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}
