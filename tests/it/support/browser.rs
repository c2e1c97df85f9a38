//! A browser with cookies that follows redirects only when told, and a way to send one request.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

/// An answer.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The JSON of an answer that must be a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The code of an API error.
    pub fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The reference code on a page.
    pub fn reference(&self) -> String {
        let letters = |part: &str| {
            part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        };
        let words = self.text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
        let mut codes =
            words.filter(|word| word.split_once('-').is_some_and(|(a, b)| letters(a) && letters(b)));
        codes.next().unwrap_or_else(|| panic!("no reference code in {}", self.text)).to_owned()
    }
}

/// A browser: cookies by host and port.
#[derive(Default, Clone)]
pub struct Browser {
    cookies: Vec<(String, String, String)>,
    last: Option<Page>,
}

impl Browser {
    pub async fn get(&mut self, url: &str) -> Page {
        self.go("GET", url, "").await
    }

    pub async fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.go("POST", url, &form).await
    }

    async fn go(&mut self, method: &str, url: &str, body: &str) -> Page {
        let site = authority(url);
        let mine = self.cookies.iter().filter(|(host, _, _)| *host == site);
        let cookies = mine.map(|(_, name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let mut headers = vec![("accept", "text/html")];
        if method == "POST" {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        }
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let page = send(method, url, &headers, body).await;
        for set in page.headers.get_all("set-cookie") {
            let text = set.to_str().expect("text");
            let (name, value) =
                text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.cookies.retain(|(host, known, _)| !(*host == site && known == name));
            if !text.contains("Max-Age=0") {
                self.cookies.push((site.clone(), name.to_owned(), value.to_owned()));
            }
        }
        self.last = Some(page.clone());
        page
    }

    /// Where the last answer leads, if anywhere.
    pub fn location(&self) -> Option<String> {
        let page = self.last.as_ref()?;
        let location = page.header("location")?;
        Some(Url::parse(&page.url).expect("a url").join(location).expect("a url").to_string())
    }

    /// Follows redirects as long as they lead to this machine; the last answer.
    pub async fn follow(&mut self) -> Page {
        while let Some(location) =
            self.location().filter(|location| location.starts_with("http://127.0.0.1:"))
        {
            self.get(&location).await;
        }
        self.last.clone().expect("something was asked before")
    }

    /// Follows one redirect after the other until one leads to an address that holds `part`; that address, not visited.
    pub async fn until(&mut self, part: &str) -> String {
        loop {
            let location = self.location().unwrap_or_else(|| panic!("no redirect to {part}"));
            if location.contains(part) {
                return location;
            }
            self.get(&location).await;
        }
    }

    pub fn cookie_count(&self) -> usize {
        self.cookies.len()
    }
}

fn authority(url: &str) -> String {
    Url::parse(url).expect("a url").authority().to_owned()
}

/// Sends one request on a connection of its own.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Page {
    let (parts, bytes) = send_for_bytes(method, url, headers, body).await;
    Page {
        url: url.to_owned(),
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// [`send`] for an answer that is no text.
pub async fn send_for_bytes(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (Parts, Bytes) {
    let parsed = Url::parse(url).expect("a url");
    let stream = TcpStream::connect(authority(url)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let driver = async move {
        let _ = connection.await;
    };
    let target = &url[url.find(parsed.authority()).expect("inside") + parsed.authority().len()..];
    let target = target.split('#').next().filter(|target| !target.is_empty()).unwrap_or("/");
    let mut request = Request::builder().method(method).uri(target).header("host", parsed.authority());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let exchange = async move {
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts, bytes)
    };
    tokio::select! {
        exchanged = async { tokio::join!(exchange, driver).0 } => exchanged,
    }
}

/// The status of a HEAD request.
pub async fn head(url: &str) -> u16 {
    send("HEAD", url, &[("accept", "text/html")], "").await.status
}
