//! All records of a patient in one answer that streams: a reader that is slow slows the reading of the store down, and
//! nothing piles up.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{ACCEPT_ENCODING, CONTENT_DISPOSITION, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};

use crate::api::{Api, ApiRequest, patients, records};
use crate::body::BodyError;
use crate::events::Interaction;
use crate::http::{Answer, Problem};
use crate::records::{Export, ExportQuery};

/// Lines of JSON.
const NDJSON: &str = "application/x-ndjson";

/// How the answer's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    /// The transfer is packed, and the client unpacks it: `Accept-Encoding: gzip`.
    Transfer,
    /// What is wanted is a packed file: `?gzip`.
    File,
}

/// `GET /patients/{id}/records/export`
pub async fn export(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let query = &request.query;
    let wanted = ExportQuery {
        types: records::allowed(&request.caller, records::types(query.get("type"))?)?,
        since: records::since(query.get("since"))?,
    };
    let packing = match query.get("gzip") {
        None if accepts_gzip(&request.headers) => Packing::Transfer,
        None | Some("false") => Packing::Plain,
        Some("" | "true") => Packing::File,
        Some(_) => return Err(Problem::invalid("gzip", "`gzip` must be true or false.")),
    };
    let patient = patients::known(api, request, id).await?;
    let place = api.accesses.place().await?;
    records::note(api, request, &patient, Interaction::Export, records::kind(&wanted.types), place);
    let export = api.records.export(patient, wanted);
    let mut answer = match packing {
        Packing::Plain => Answer::stream(NDJSON, body(plain(export))),
        Packing::Transfer => Answer::stream(NDJSON, body(packed(export))),
        Packing::File => Answer::stream("application/gzip", body(packed(export))),
    };
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    match packing {
        Packing::Plain => {}
        Packing::Transfer => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Packing::File => {
            let name = HeaderValue::from_static("attachment; filename=\"records.ndjson.gz\"");
            headers.insert(CONTENT_DISPOSITION, name);
        }
    }
    Ok(answer)
}

fn body(pieces: impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static) -> crate::body::Body {
    StreamBody::new(pieces).boxed_unsync()
}

/// An error cuts the connection: the reader must not take what came so far for everything.
fn plain(export: Export) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> {
    stream::try_unfold(export, |mut export| async move {
        let piece =
            export.next().await.inspect_err(|error| tracing::warn!(%error, "an export was cut short"))?;
        Ok(piece.map(|piece| (Frame::data(Bytes::from(piece)), export)))
    })
}

fn packed(export: Export) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> {
    let packer = GzEncoder::new(Vec::new(), Compression::fast());
    stream::try_unfold(Some((export, packer)), |state| async move {
        let Some((mut export, packer)) = state else { return Ok(None) };
        let mut packer = packer;
        loop {
            let piece =
                export.next().await.inspect_err(|error| tracing::warn!(%error, "an export was cut short"))?;
            let last = piece.is_none();
            // Packing is work for a processor, not for the threads that carry everybody's requests.
            let (bytes, rest) = tokio::task::spawn_blocking(move || pack(packer, piece)).await??;
            match rest {
                Some(rest) if bytes.is_empty() => packer = rest,
                rest => {
                    let next = if last { None } else { rest.map(|packer| (export, packer)) };
                    return Ok(Some((Frame::data(bytes), next)));
                }
            }
        }
    })
}

/// What comes out when a piece goes in; without a piece, the end.
fn pack(
    mut packer: GzEncoder<Vec<u8>>,
    piece: Option<Vec<u8>>,
) -> io::Result<(Bytes, Option<GzEncoder<Vec<u8>>>)> {
    let Some(piece) = piece else { return Ok((Bytes::from(packer.finish()?), None)) };
    packer.write_all(&piece)?;
    Ok((Bytes::from(std::mem::take(packer.get_mut())), Some(packer)))
}

/// Whether a client says that it unpacks gzip. RFC 9110 section 12.5.3.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING);
    let mut codings = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_when_it_is_named_and_not_refused() {
        let check = |value: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().expect("a value"));
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        };
        for value in ["gzip", "br, gzip;q=0.5", "GZIP"] {
            check(value, true);
        }
        for value in ["", "br", "gzip;q=0", "gzip; q=0.000", "identity"] {
            check(value, false);
        }
    }
}
