//! An EHR that answers FHIR requests as the test says, and a patient who has connected to it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chartgate::body::{Body, BodyError, full};
use chartgate::config::{AuthMethod, Environment, SmartVersion};
use chartgate::directory::{NewEhrClient, NewSource};
use chartgate::shutdown::Shutdown;
use chartgate::smart::FhirBaseUrl;
use chartgate::smart::server::Overrides;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::support::{Browser, Setup, TestApp};

/// A request as the EHR saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Answering = Box<dyn FnMut(&Asked) -> Response<Body> + Send>;

#[derive(Clone)]
pub struct Ehr {
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answering: Arc<Mutex<Answering>>,
    tokens: Arc<Mutex<usize>>,
}

impl Ehr {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let ehr = Self {
            base: format!("{origin}/fhir/r4"),
            asked: Arc::default(),
            answering: Arc::new(Mutex::new(Box::new(|_| json("{}")))),
            tokens: Arc::default(),
        };
        let (served, tasks) = (ehr.clone(), Shutdown::default());
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ehr, origin) = (served.clone(), origin.clone());
                let service = service_fn(move |request| ehr.clone().answer(origin.clone(), request));
                tasks.spawn(async move {
                    let io = TokioIo::new(stream);
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, service).await;
                });
            }
        });
        ehr
    }

    /// From now on FHIR requests are answered so.
    pub fn answers(&self, answering: impl FnMut(&Asked) -> Response<Body> + Send + 'static) {
        *self.answering.lock().expect("no panic") = Box::new(answering);
    }

    /// The FHIR requests so far; they are forgotten.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }

    async fn answer(self, origin: String, request: Request<Incoming>) -> Result<Response<Body>, BodyError> {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        let target = head.uri.to_string();
        if head.uri.path().ends_with("/.well-known/smart-configuration") {
            return Ok(json(&format!(
                r#"{{"authorization_endpoint":"{origin}/authorize","token_endpoint":"{origin}/token","capabilities":[]}}"#
            )));
        }
        if head.uri.path() == "/token" {
            let number = {
                let mut tokens = self.tokens.lock().expect("no panic");
                *tokens += 1;
                *tokens
            };
            return Ok(json(&format!(
                r#"{{"access_token":"at-{number}","token_type":"Bearer","expires_in":3600,"scope":"patient/Patient.read","refresh_token":"rt-{number}","patient":"p1"}}"#
            )));
        }
        let asked = Asked { method: head.method, target, headers: head.headers, body };
        self.asked.lock().expect("no panic").push(asked.clone());
        let answer = (self.answering.lock().expect("no panic"))(&asked);
        Ok(answer)
    }
}

/// An appliance, an EHR, and the id of a connection between them.
pub struct World {
    pub app: TestApp,
    pub ehr: Ehr,
    pub connection: String,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Vec::new()).await
    }

    pub async fn with(settings: Vec<(&'static str, &'static str)>) -> Self {
        let app = TestApp::with(Setup { settings, ..Setup::default() }).await;
        let ehr = Ehr::start().await;
        let directory = &app.app().parts().directory;
        let client = NewEhrClient {
            name: "other".to_owned(),
            vendor: "generic".to_owned(),
            environment: Environment::Sandbox,
            client_id: "other".to_owned(),
            auth: AuthMethod::None,
            client_secret: None,
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
            launch: None,
        };
        directory.ensure_client(client).await.expect("a registration");
        let source = NewSource {
            environment: Environment::Sandbox,
            name: "Other Hospital".to_owned(),
            base: FhirBaseUrl::parse(&ehr.base).expect("a base"),
            ehr_client: "other".to_owned(),
            city: None,
            state: None,
            logo_url: None,
            portal_url: None,
            overrides: Overrides::default(),
        };
        let source = directory.ensure_source(source).await.expect("a source").id.to_string();
        let (link, _) = app.session("amy-7").await;
        let mut browser = Browser::default();
        browser.post(&format!("{link}/launch"), &[("source", &source)]).await;
        let away = Url::parse(&browser.location().expect("a way to the hospital")).expect("a url");
        let state = away.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let back = format!("{}/api/auth/smart/callback?code=c&state={state}", app.origin);
        browser.get(&back).await;
        let page = browser.follow().await;
        assert_eq!(page.status, 200, "{}", page.text);
        app.pulls_done().await;
        let connection = app.connection("amy-7").await["id"].as_str().expect("an id").to_owned();
        ehr.asked();
        Self { app, ehr, connection }
    }

    /// The address of the connection's record at the proxy.
    pub fn proxy(&self) -> String {
        format!("{}/fhir/{}", self.app.origin, self.connection)
    }

    /// Reads live with the usual key.
    pub async fn read(&self, path: &str, headers: &[(&str, &str)]) -> Live {
        live(&self.app, "GET", &format!("{}{path}", self.proxy()), headers, "").await.whole().await
    }
}

/// JSON as FHIR.
pub fn json(text: &str) -> Response<Body> {
    typed("application/fhir+json", text.to_owned())
}

pub fn typed(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}

pub fn with_status(status: u16, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    response
}

/// A body of these pieces, which may never end.
pub fn pieces(kind: &'static str, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| Ok::<_, BodyError>(Frame::data(piece)));
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response
}

/// An answer of the proxy.
#[derive(Debug)]
pub struct Live {
    pub status: u16,
    pub headers: HeaderMap,
    /// What came; whether it came whole.
    pub body: Bytes,
    pub whole: bool,
}

impl Live {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an OperationOutcome of the proxy itself.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/fhir+json"));
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        let issue = &outcome["issue"][0];
        assert_eq!(issue["severity"], "error");
        assert!(issue["details"]["text"].as_str().is_some_and(|text| text.len() > 20), "{outcome}");
        assert!(issue["diagnostics"].as_str().is_some_and(|text| text.contains("(request ")), "{outcome}");
        let code = issue["details"]["coding"][0]["code"].as_str().unwrap_or_default().to_owned();
        (self.status, code)
    }
}

/// An answer whose body is still to be read.
pub struct Opening {
    pub response: Response<Incoming>,
}

impl Opening {
    pub async fn whole(self) -> Live {
        let (head, mut body) = self.response.into_parts();
        let (mut bytes, mut whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(_) => whole = false,
            }
        }
        Live { status: head.status.as_u16(), headers: head.headers, body: bytes.into(), whole }
    }
}

/// Sends a request to the proxy with the app's key, on a connection of its own.
pub async fn live(app: &TestApp, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Opening {
    let authorization = format!("Bearer {}", app.key);
    let mut all = vec![("authorization", authorization.as_str())];
    all.extend(headers);
    send(method, url, &all, body).await
}

/// The same without a key.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Opening {
    let rest = url.strip_prefix("http://").expect("http");
    let (authority, _) = rest.split_once('/').expect("a path");
    let stream = TcpStream::connect(authority).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    Shutdown::default().spawn(async move {
        let _ = connection.await;
    });
    // The target goes out as it is written, dots and slashes included.
    let mut request =
        Request::builder().method(method).uri(&rest[authority.len()..]).header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(full(body.to_owned())).expect("a request");
    Opening { response: sender.send_request(request).await.expect("an answer") }
}
