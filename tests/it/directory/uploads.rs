//! A list that somebody sends: read while it comes, watched, and never taken by half.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use chartgate::config::Environment;
use chartgate::directory::import::ImportLimits;
use chartgate::directory::{
    Directory, ImportProgress, ImportRefused, ImportReport, ImportRequest, ImportStage, Upload,
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;

use super::lists::directory;

fn request(list: &str) -> ImportRequest {
    ImportRequest { list: list.to_owned(), environment: Environment::Live, url: None, etag: None, yes: false }
}

fn rows(count: usize) -> Vec<u8> {
    let rows: Vec<String> = (0..count)
        .map(|number| format!(r#"{{"name":"Practice {number}","url":"https://h{number}.example/r4"}}"#))
        .collect();
    format!("[{}]", rows.join(",")).into_bytes()
}

/// As a request's body comes: in pieces of any size, empty ones too.
fn pieces(bytes: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
    let mut pieces: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    pieces.insert(pieces.len() / 2, Bytes::new());
    stream::iter(pieces.into_iter().map(Ok))
}

fn upload<P>(pieces: P, announced: Option<u64>) -> Upload<P> {
    Upload { pieces, announced, progress: ImportProgress::default() }
}

async fn send(
    directory: &Directory,
    bytes: &[u8],
    announced: Option<u64>,
    limits: ImportLimits,
) -> Result<ImportReport, ImportRefused> {
    directory.import_upload(request("sent"), upload(pieces(bytes, 1_000), announced), limits).await
}

#[tokio::test]
async fn a_list_is_imported_as_it_comes_and_its_progress_can_be_watched() {
    let (directory, _folder) = directory();
    let bytes = rows(2_000);
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let progress = ImportProgress::default();
    let body =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let sent =
        Upload { pieces: body.boxed(), announced: Some(bytes.len() as u64), progress: progress.clone() };
    let importing = directory.import_upload(request("sent"), sent, ImportLimits::default());
    let browser = async {
        let half = bytes.len() / 2;
        sender.send(Ok(Bytes::copy_from_slice(&bytes[..half]))).await.expect("read on");
        // The channel has one place: when there is room again, the first half was taken.
        let permit = sender.reserve().await.expect("read on");
        while progress.bytes() < half as u64 {
            tokio::task::yield_now().await;
        }
        assert_eq!((progress.bytes(), progress.stage()), (half as u64, ImportStage::Reading));
        assert!(directory.find(Environment::Live, "practice", 5).places.is_empty(), "not by half");
        permit.send(Ok(Bytes::copy_from_slice(&bytes[half..])));
        drop(sender);
    };
    let (report, ()) = tokio::join!(importing, browser);
    assert_eq!(report.expect("imported").entries, 2_000);
    assert_eq!((progress.bytes(), progress.stage()), (bytes.len() as u64, ImportStage::Done));
    assert_eq!(directory.find(Environment::Live, "practice 1999", 5).places[0].name, "Practice 1999");
    let again = send(&directory, &bytes, None, ImportLimits::default()).await.expect("imported");
    assert!(again.unchanged);
}

#[tokio::test]
async fn a_list_that_does_not_come_whole_changes_nothing() {
    let (directory, _folder) = directory();
    let whole = rows(100);
    let limits = ImportLimits::default();
    send(&directory, &whole, Some(whole.len() as u64), limits).await.expect("imported");
    let before = directory.lists().await.expect("lists");
    let more = rows(120);
    let length = more.len() as u64;
    // Valid up to its end, but shorter or longer than was said.
    for announced in [length + 1, length - 1] {
        assert!(send(&directory, &more, Some(announced), limits).await.is_err(), "{announced}");
    }
    let broken = pieces(&more, 500).map(|piece| piece.map_err(|never| never.to_string()));
    let broken = broken.take(4).chain(stream::iter([Err("the sender went away".to_owned())]));
    let refused = directory.import_upload(request("sent"), upload(broken, None), limits).await;
    assert!(refused.expect_err("refused").to_string().contains("the sender went away"));
    let small = ImportLimits { bytes: 1_000, ..limits };
    assert!(send(&directory, &more, None, small).await.is_err());
    assert_eq!(directory.lists().await.expect("lists"), before);
    assert!(
        directory
            .find(Environment::Live, "practice 110", 30)
            .places
            .iter()
            .all(|place| place.name != "Practice 110")
    );
}

/// Packed members with nothing in them, for ever.
fn nothing_for_ever() -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
    let empty: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let piece = Bytes::from(empty.repeat(1_000));
    stream::repeat(Ok(piece))
}

#[tokio::test]
async fn what_never_ends_is_cut_off_and_what_falls_silent_too() {
    let (directory, _folder) = directory();
    let limits = ImportLimits { bytes: 1 << 20, ..ImportLimits::default() };
    let endless = directory.import_upload(request("endless"), upload(nothing_for_ever(), None), limits).await;
    assert!(endless.is_err());
    tokio::time::pause();
    let silent = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"[{\"name\""))]);
    let silent = silent.chain(stream::pending()).boxed();
    let importing = directory.import_upload(request("silent"), upload(silent, None), limits);
    // Time that stands still moves by hand only while a thread reads.
    let (refused, ()) = tokio::join!(importing, tokio::time::advance(Duration::from_mins(2)));
    assert!(refused.expect_err("refused").to_string().contains("cut short"));
    assert!(directory.lists().await.expect("lists").is_empty());
}
