//! Answers that come compressed, unpacked a little at a time, so that a few bytes cannot become much memory at once.

use std::io::{self, Write as _};

use bytes::{Buf as _, Bytes};
use flate2::write::MultiGzDecoder;

/// What is fed to the decoder at once: at most a thousand times as much comes out.
const MORSEL: usize = 256;
/// When this much has come out, it is passed on first.
const ENOUGH: usize = 64 * 1024;

/// One gzip stream.
#[derive(Debug)]
pub struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    waiting: Bytes,
}

impl Gunzip {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), waiting: Bytes::new() }
    }

    /// Gives it more; to be called when [`Gunzip::pull`] has nothing left.
    pub fn push(&mut self, packed: Bytes) {
        self.waiting = packed;
    }

    /// The next part; `None` when it wants more.
    pub fn pull(&mut self) -> io::Result<Option<Bytes>> {
        while self.waiting.has_remaining() && self.decoder.get_ref().len() < ENOUGH {
            let morsel = &self.waiting[..self.waiting.len().min(MORSEL)];
            let taken = self.decoder.write(morsel)?;
            if taken == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.waiting.advance(taken);
        }
        let unpacked = std::mem::take(self.decoder.get_mut());
        Ok((!unpacked.is_empty()).then(|| unpacked.into()))
    }

    /// The rest; an error when the stream is not whole.
    pub fn finish(&mut self) -> io::Result<Bytes> {
        self.decoder.try_finish()?;
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn unpack(pieces: &[&[u8]]) -> io::Result<(Vec<u8>, usize)> {
        let (mut gunzip, mut out, mut largest) = (Gunzip::new(), Vec::new(), 0);
        for piece in pieces {
            gunzip.push(Bytes::copy_from_slice(piece));
            while let Some(part) = gunzip.pull()? {
                largest = largest.max(part.len());
                out.extend_from_slice(&part);
            }
        }
        out.extend_from_slice(&gunzip.finish()?);
        Ok((out, largest))
    }

    #[test]
    fn what_was_packed_comes_out_wherever_it_is_cut() {
        let text: Vec<u8> = (0..3000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let bytes = packed(&text);
        for cut in 0..=bytes.len() {
            assert_eq!(unpack(&[&bytes[..cut], &bytes[cut..]]).expect("whole").0, text, "cut at {cut}");
        }
    }

    #[test]
    fn a_bomb_comes_out_in_small_parts_and_a_torn_stream_is_an_error() {
        let bytes = packed(&vec![0; 50 << 20]);
        let (out, largest) = unpack(&[&bytes]).expect("whole");
        assert_eq!(out.len(), 50 << 20);
        assert!(largest < ENOUGH + MORSEL * 1100, "{largest}");
        assert!(unpack(&[&bytes[..bytes.len() - 9]]).is_err());
        assert!(unpack(&[b"no gzip at all"]).is_err());
    }
}
