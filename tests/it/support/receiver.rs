//! An app's receiver of webhooks: notes what comes, and answers as it is told.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chartgate::shutdown::Shutdown;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// One delivery as it came.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers));
        value.to_str().expect("text")
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().expect("a type").to_owned()
    }

    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// How the receiver answers.
#[derive(Debug, Clone)]
pub enum Reaction {
    Status(u16),
    Says(u16, String),
    Redirects(String),
    Hangs,
}

pub struct Receiver {
    pub url: String,
    reaction: Arc<Mutex<Reaction>>,
    came: tokio::sync::Mutex<mpsc::UnboundedReceiver<Delivery>>,
    at_once: Arc<AtOnce>,
    shutdown: Shutdown,
}

/// Deliveries that are being answered, and the most there were.
#[derive(Default)]
struct AtOnce {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Counts one delivery until it is answered, or its sender has given up.
struct Counted(Arc<AtOnce>);

impl Counted {
    fn new(at_once: &Arc<AtOnce>) -> Self {
        let now = at_once.now.fetch_add(1, Ordering::AcqRel) + 1;
        at_once.most.fetch_max(now, Ordering::AcqRel);
        Self(Arc::clone(at_once))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://127.0.0.1:{}/hooks", listener.local_addr().expect("an address").port());
        let reaction = Arc::new(Mutex::new(Reaction::Status(200)));
        let (tell, came) = mpsc::unbounded_channel();
        let shutdown = Shutdown::default();
        let at_once = Arc::<AtOnce>::default();
        let (reacts, stop, counts) = (Arc::clone(&reaction), shutdown.clone(), Arc::clone(&at_once));
        shutdown.spawn(async move {
            let answering = async {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let (tell, reaction, counts) = (tell.clone(), Arc::clone(&reacts), Arc::clone(&counts));
                    stop.spawn(async move {
                        let service = service_fn(|request| {
                            let counted = Counted::new(&counts);
                            answer(request, tell.clone(), Arc::clone(&reaction), counted)
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
        Self { url, reaction, came: tokio::sync::Mutex::new(came), at_once, shutdown }
    }

    /// From now on it answers like this.
    pub fn reacts(&self, reaction: Reaction) {
        *self.reaction.lock().expect("no panic inside") = reaction;
    }

    /// The next delivery.
    pub async fn next(&self) -> Delivery {
        let mut came = self.came.lock().await;
        let next = tokio::time::timeout(Duration::from_mins(1), came.recv()).await;
        next.expect("a delivery comes").expect("the receiver runs")
    }

    /// The next deliveries, by kind and without an order.
    pub async fn next_kinds(&self, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(self.next().await.kind());
        }
        kinds.sort_unstable();
        kinds
    }

    /// The most deliveries there were at the same time.
    pub fn most_at_once(&self) -> usize {
        self.at_once.most.load(Ordering::Acquire)
    }

    /// A delivery that has come and was not taken.
    pub async fn came(&self) -> Option<Delivery> {
        self.came.lock().await.try_recv().ok()
    }

    /// Whether nothing has come that was not taken.
    pub async fn is_quiet(&self) -> bool {
        self.came.lock().await.try_recv().is_err()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

async fn answer(
    request: Request<Incoming>,
    tell: mpsc::UnboundedSender<Delivery>,
    reaction: Arc<Mutex<Reaction>>,
    _counted: Counted,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let reaction = reaction.lock().expect("no panic inside").clone();
    let _ = tell.send(Delivery {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let response = |status: u16| Response::builder().status(status);
    let response = match reaction {
        Reaction::Status(status) => response(status).body(Full::default()),
        Reaction::Says(status, text) => response(status).body(Full::new(Bytes::from(text))),
        Reaction::Redirects(to) => response(307).header("location", to).body(Full::default()),
        Reaction::Hangs => std::future::pending().await,
    };
    Ok(response.expect("an answer"))
}
