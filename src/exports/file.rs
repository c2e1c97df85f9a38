//! The file of a run: written under a name of its own beside its place, brought there whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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
    /// Opens a run's file, of which `length` bytes count. With none, it begins.
    pub(super) fn open(folder: &Path, name: &str, length: u64, gzip: bool) -> io::Result<Found> {
        let (path, place) = (folder.join(format!(".{name}.partial")), folder.join(name));
        let opened =
            OpenOptions::new().write(true).create(length == 0).truncate(false).mode(MODE).open(&path);
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

    /// Brings the whole file to its place.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.place)?;
        let folder = self.place.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;
    use std::io::Read as _;

    fn open(folder: &Path, length: u64, gzip: bool) -> Unfinished {
        match Unfinished::open(folder, "x.ndjson", length, gzip).expect("opened") {
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
            let found = Unfinished::open(folder.path(), "x.ndjson", length, gzip).expect("looked");
            assert!(matches!(found, Found::InPlace), "a crash after the renaming");
            let found = Unfinished::open(folder.path(), "x.ndjson", length + 1, gzip).expect("looked");
            assert!(matches!(found, Found::Gone));
            assert!(Unfinished::open(&folder.path().join("none"), "x", 0, gzip).is_err());
        }
    }
}
