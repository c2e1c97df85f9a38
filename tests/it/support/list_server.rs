//! A vendor's web server with one list on it, with or without a mark (`ETag`) for its state.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chartgate::shutdown::Shutdown;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[derive(Default)]
struct Shelf {
    list: Mutex<(String, Option<String>)>,
    asked: AtomicUsize,
    sent: AtomicUsize,
}

pub struct ListServer {
    pub url: String,
    shelf: Arc<Shelf>,
    shutdown: Shutdown,
}

impl ListServer {
    pub async fn start(list: &str, mark: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url =
            format!("http://127.0.0.1:{}/vendor.json", listener.local_addr().expect("an address").port());
        let shelf = Arc::<Shelf>::default();
        let shutdown = Shutdown::default();
        let (serves, stop) = (Arc::clone(&shelf), shutdown.clone());
        shutdown.spawn(async move {
            let answering = async {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let shelf = Arc::clone(&serves);
                    stop.spawn(async move {
                        let service = service_fn(|request| {
                            let answer = answer(&shelf, &request);
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let connection = hyper::server::conn::http1::Builder::new();
                        let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            };
            tokio::select! {
                () = stop.triggered() => {}
                () = answering => {}
            }
        });
        let started = Self { url, shelf, shutdown };
        started.serve(list, mark);
        started
    }

    /// From now on it has this list.
    pub fn serve(&self, list: &str, mark: Option<&str>) {
        *self.shelf.list.lock().expect("no panic inside") = (list.to_owned(), mark.map(str::to_owned));
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shelf.asked.load(Ordering::Acquire)
    }

    /// How often it sent the list.
    pub fn sent(&self) -> usize {
        self.shelf.sent.load(Ordering::Acquire)
    }
}

impl Drop for ListServer {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn answer(shelf: &Shelf, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    shelf.asked.fetch_add(1, Ordering::AcqRel);
    let (list, mark) = shelf.list.lock().expect("no panic inside").clone();
    let known = request.headers().get("if-none-match").and_then(|value| value.to_str().ok());
    let mut response = Response::builder();
    if let Some(mark) = &mark {
        response = response.header("etag", mark);
    }
    let response = if mark.is_some() && known == mark.as_deref() {
        response.status(304).body(Full::default())
    } else {
        shelf.sent.fetch_add(1, Ordering::AcqRel);
        response.status(200).body(Full::new(Bytes::from(list)))
    };
    response.expect("an answer")
}
