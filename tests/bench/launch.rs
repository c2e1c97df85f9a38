//! What the product costs, each as a ratio to a limit measured in the same run: absolute figures belong to one machine on
//! one day. `cargo bench` runs everything; `cargo bench -- commits pull` only these parts. On a machine that does other
//! work the rows about the disk mean little: there each durable commit also waits for what the others have written.

mod api;
mod commits;
mod custody;
mod directory;
mod launches;
mod micro;
mod proxy;
mod pull;
mod start;
mod support;
mod token_endpoint;
mod webhooks;

use support::{Stopwatch, Table, say};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == token_endpoint::ARGUMENT) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
        return runtime.block_on(token_endpoint::serve());
    }
    // `cargo test --all-targets` starts benches too, without this argument; nothing here is a test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let named: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let watch = Stopwatch::start();
    let mut table = Table::default();
    support::log_to_nowhere();
    if wanted("commits") {
        runtime.block_on(commits::measure(&mut table));
    }
    if wanted("directory") {
        runtime.block_on(directory::measure(&mut table));
    }
    if wanted("launches") {
        runtime.block_on(launches::measure(&mut table));
    }
    if wanted("custody") {
        runtime.block_on(custody::measure(&mut table));
    }
    if wanted("pull") {
        runtime.block_on(pull::measure(&mut table));
    }
    if wanted("proxy") {
        runtime.block_on(proxy::measure(&mut table, named.contains(&"brief")));
    }
    if wanted("api") {
        runtime.block_on(api::measure(&mut table));
    }
    if wanted("start") {
        runtime.block_on(start::measure(&mut table));
    }
    if wanted("webhooks") {
        runtime.block_on(webhooks::measure(&mut table));
    }
    if wanted("micro") {
        micro::measure();
    }
    table.print();
    say(&format!("{:.0} s in all", watch.seconds()));
}
