//! Everything the program logs while the tests run, so that a test can search it for what must not be there.

use std::io::{self, Write};
use std::sync::{Mutex, Once};

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();

struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().expect("no test panics while it logs").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts to record, at the finest level of our own code.
pub fn start() {
    STARTED.call_once(|| {
        let subscriber = chartgate::telemetry::subscriber(
            "debug,chartgate=trace",
            chartgate::telemetry::LogFormat::Text,
            || Sink,
        );
        tracing::subscriber::set_global_default(subscriber.expect("a filter")).expect("the first one");
    });
}

/// What was logged so far, by all tests.
pub fn logged() -> String {
    String::from_utf8_lossy(&LINES.lock().expect("no test panics while it logs")).into_owned()
}
