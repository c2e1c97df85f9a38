//! `init`: a configuration, a master key, a store with its first signing keys. Nothing that exists is overwritten.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::cli::arguments::Init;
use crate::cli::{Failure, output};
use crate::config::DEFAULTS;
use crate::crypto::Random;
use crate::store::MasterKey;

/// Writes what is missing, and returns the path of the configuration.
pub fn write_files(arguments: &Init, config: &Path, random: &Random) -> Result<(), Failure> {
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let key_file = match &arguments.master_key {
        Some(file) => file.clone(),
        None => absolute(folder)?.join("master.key"),
    };
    if config.exists() {
        output::note(&format!("kept  {} (it was there)", config.display()));
    } else {
        let text = config_text(arguments, &key_file);
        write_new(config, text.as_bytes(), 0o640)?;
        output::note(&format!("made  {}", config.display()));
    }
    if key_file.exists() {
        output::note(&format!("kept  {} (it was there)", key_file.display()));
    } else {
        let key = MasterKey::generate(random);
        write_new(&key_file, format!("{}\n", *key.to_text()).as_bytes(), 0o600)?;
        output::note(&format!(
            "made  {}: keep a copy apart from the backups; without it they cannot be read",
            key_file.display()
        ));
    }
    Ok(())
}

/// The shipped file with the answers of the command line in place of its examples.
fn config_text(arguments: &Init, key_file: &Path) -> String {
    let quote = |text: &str| format!("{text:?}");
    let mut text = DEFAULTS.replace(
        "#file = \"/etc/chartgate/master.key\"",
        &format!("file = {}", quote(&key_file.to_string_lossy())),
    );
    if let Some(url) = &arguments.public_url {
        text = text.replace(
            "#public_url = \"https://connect.clinic.example\"",
            &format!("public_url = {}", quote(url)),
        );
    }
    if let Some(folder) = &arguments.data_dir {
        text = text.replace(
            "data_dir = \"/var/lib/chartgate\"",
            &format!("data_dir = {}", quote(&folder.to_string_lossy())),
        );
    }
    text
}

/// Makes a folder that only its owner can look into, if it is not there.
pub fn make_folder(folder: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| {
        Failure::Failed(format!("the folder `{}` cannot be made: {cause}", folder.display()))
    })
}

/// Writes a file that was not there.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let failed = |cause| Failure::Failed(format!("`{}` cannot be written: {cause}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|cause| Failure::Failed(format!("`{}` is no usable path: {cause}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_still_has_the_lines_that_init_fills_in() {
        let arguments = Init {
            public_url: Some("https://a.example".to_owned()),
            data_dir: Some("/data".into()),
            master_key: None,
        };
        let text = config_text(&arguments, Path::new("/keys/master.key"));
        for line in
            ["public_url = \"https://a.example\"", "data_dir = \"/data\"", "file = \"/keys/master.key\""]
        {
            assert!(text.lines().any(|written| written == line), "{line}");
        }
    }
}
