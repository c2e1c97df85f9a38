//! The file of a run: written under a name of its own beside its place, brought there whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// For us to write, for the folder's group to read.
const MODE: u32 = 0o640;

/// An unfinished file.
#[derive(Debug)]
pub(super) struct Unfinished {
    file: File,
    path: PathBuf,
    place: PathBuf,
    /// Bytes that count: of whole patients.
    length: u64,
    packer: Option<GzEncoder<Vec<u8>>>,
    gzip: bool,
    /// Bytes of the patient under way.
    begun: u64,
}

/// What there is of a run's file.
#[derive(Debug)]
pub(super) enum Found {
    /// It can go on.
    Unfinished(Box<Unfinished>),
    /// It stands in its place.
    InPlace,
    /// What was written is not there any more.
    Gone,
}

impl Unfinished {
    /// Opens a run's file, of which `length` bytes count. With none, it begins. `tag` tells exports of one name apart, so
    /// that what one has left is not another's.
    pub(super) fn open(folder: &Path, name: &str, tag: &str, length: u64, gzip: bool) -> io::Result<Found> {
        let (path, place) = (folder.join(format!(".{name}.{tag}.partial")), folder.join(name));
        let opened = if length == 0 { begin(&path) } else { go_on(&path) };
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                let whole = fs::metadata(&place).is_ok_and(|about| about.len() == length);
                return Ok(if whole { Found::InPlace } else { Found::Gone });
            }
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < length {
            return Ok(Found::Gone);
        }
        // What was written after the last time that counted is written again.
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        let unfinished = Self { file, path, place, length, packer: None, gzip, begun: 0 };
        Ok(Found::Unfinished(Box::new(unfinished)))
    }

    /// Adds lines of the patient under way.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.gzip {
            self.begun += lines.len() as u64;
            return self.file.write_all(lines);
        }
        let packer = self.packer.get_or_insert_with(|| GzEncoder::new(Vec::new(), Compression::fast()));
        packer.write_all(lines)?;
        let out = std::mem::take(packer.get_mut());
        self.begun += out.len() as u64;
        self.file.write_all(&out)
    }

    /// The patient's records are all here. Each patient is a stream of its own in a packed file, which readers of gzip
    /// take for one.
    pub(super) fn end_patient(&mut self) -> io::Result<u64> {
        if let Some(packer) = self.packer.take() {
            let rest = packer.finish()?;
            self.begun += rest.len() as u64;
            self.file.write_all(&rest)?;
        }
        self.length += std::mem::take(&mut self.begun);
        Ok(self.length)
    }

    /// The patient is no longer there: nothing of it stays.
    pub(super) fn leave_patient_out(&mut self) -> io::Result<()> {
        self.packer = None;
        self.begun = 0;
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Brings to disk what is written so far.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Brings the whole file to its place. Nothing that stands there is replaced: somebody may be about to read it.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.place.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, &self.place)?;
        let folder = self.place.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// A new file, whatever stands there: another's, or a link that leads elsewhere.
fn begin(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    // A service's own mask would take the group's right away.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    Ok(file)
}

fn go_on(path: &Path) -> io::Result<File> {
    if !path.symlink_metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    OpenOptions::new().write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;
    use std::io::Read as _;

    fn open(folder: &Path, length: u64, gzip: bool) -> Unfinished {
        match Unfinished::open(folder, "x.ndjson", "t", length, gzip).expect("opened") {
            Found::Unfinished(file) => *file,
            found @ (Found::InPlace | Found::Gone) => panic!("{found:?}"),
        }
    }

    #[test]
    fn only_what_counted_is_there_and_only_under_its_name_when_it_is_whole() {
        for gzip in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let place = folder.path().join("x.ndjson");
            let mut file = open(folder.path(), 0, gzip);
            file.write(b"amy 1\n").expect("written");
            file.write(b"amy 2\n").expect("written");
            let length = file.end_patient().expect("written");
            file.write(b"bob 1\n").expect("written");
            file.sync().expect("on disk");
            assert!(!place.exists());
            drop(file);
            let mut file = open(folder.path(), length, gzip);
            file.write(b"bob 1\n").expect("written");
            file.leave_patient_out().expect("cut");
            file.write(b"cid 1\n").expect("written");
            let length = file.end_patient().expect("written");
            file.finish().expect("in its place");
            let bytes = fs::read(&place).expect("a file");
            assert_eq!(bytes.len() as u64, length);
            let mut text = String::new();
            if gzip {
                MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
            } else {
                text = String::from_utf8(bytes).expect("text");
            }
            assert_eq!(text, "amy 1\namy 2\ncid 1\n");
            let found = Unfinished::open(folder.path(), "x.ndjson", "t", length, gzip).expect("looked");
            assert!(matches!(found, Found::InPlace), "a crash after the renaming");
            let found = Unfinished::open(folder.path(), "x.ndjson", "t", length + 1, gzip).expect("looked");
            assert!(matches!(found, Found::Gone));
            assert!(Unfinished::open(&folder.path().join("none"), "x", "t", 0, gzip).is_err());
        }
    }

    #[test]
    fn what_stands_in_the_folder_is_neither_followed_nor_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let precious = folder.path().join("precious");
        fs::write(&precious, "keep me").expect("written");
        let partial = folder.path().join(".x.ndjson.t.partial");
        std::os::unix::fs::symlink(&precious, &partial).expect("a link");
        let mut file = open(folder.path(), 0, false);
        file.write(b"amy 1\n").expect("written");
        let length = file.end_patient().expect("written");
        drop(file);
        assert_eq!(fs::read_to_string(&precious).expect("a file"), "keep me");
        let mode = fs::metadata(&partial).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, MODE, "also where the mask says otherwise");
        fs::write(folder.path().join("x.ndjson"), "delivered").expect("written");
        let error = open(folder.path(), length, false).finish().expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&partial).expect("removed");
        std::os::unix::fs::symlink(&precious, &partial).expect("a link");
        fs::remove_file(folder.path().join("x.ndjson")).expect("removed");
        let found = Unfinished::open(folder.path(), "x.ndjson", "t", length, false).expect("looked");
        assert!(matches!(found, Found::Gone), "a link is nothing of ours");
    }
}
