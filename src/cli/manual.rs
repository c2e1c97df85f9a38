//! What packages carry besides the program, made from the command line itself so that it is always true: the manual pages
//! and completions for shells.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Arguments, Failure};

/// What the manual says that the arguments do not.
const MORE: &str = include_str!("manual.roff");

/// Prints the page of the program itself, or writes all pages into a folder: one for each command.
pub fn pages(folder: Option<&Path>) -> Result<(), Failure> {
    let Some(folder) = folder else {
        return print(&page(&Arguments::command()).map_err(|cause| unwritten(&cause))?);
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| write_pages(folder, Arguments::command(), "chartgate"))
        .map_err(|cause| {
            Failure::Failed(format!("the pages cannot be written to `{}`: {cause}", folder.display()))
        })
}

/// Prints the completions for a shell.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "chartgate", &mut script);
    print(&script)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let program = command.get_name() == "chartgate";
    clap_mangen::Man::new(command.clone()).manual("Chartgate").render(&mut out)?;
    if program {
        out.extend_from_slice(MORE.as_bytes());
    }
    Ok(out)
}

fn write_pages(folder: &Path, command: clap::Command, name: &str) -> io::Result<()> {
    let command = command.disable_help_subcommand(true);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let full = format!("{name}-{}", below.get_name());
        write_pages(folder, below.clone(), &full)?;
    }
    // clap wants names for ever; a handful of pages is written once.
    let named = command.name(&*name.to_owned().leak());
    std::fs::write(folder.join(format!("{name}.1")), page(&named)?)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(|cause| unwritten(&cause))
}

fn unwritten(cause: &io::Error) -> Failure {
    Failure::Failed(format!("it cannot be printed: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_and_the_first_says_where_things_are() {
        let folder = tempfile::tempdir().expect("a folder");
        pages(Some(folder.path())).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        for command in Arguments::command().get_subcommands() {
            let page = read(&format!("chartgate-{}.1", command.get_name()));
            assert!(page.contains(".SH SYNOPSIS"), "{}", command.get_name());
        }
        assert!(read("chartgate-keys-rotate.1").contains("algorithm"));
        let first = read("chartgate.1");
        for part in [".SH FILES", ".SH \"EXIT STATUS\"", "/etc/chartgate/config.toml", ".SH SIGNALS"] {
            assert!(first.contains(part), "{part}");
        }
    }
}
