//! Who calls and whether they may, before anything of the body is looked at: key, rate, version, scope, in this order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::api::throttle::{Allowance, Quota, Throttle, neighbourhood};
use crate::api::{API_VERSION, Api, Operation};
use crate::config::ApiSettings;
use crate::http::{Problem, ProblemKind};
use crate::id::ApiKeyId;
use crate::workspaces::{Caller, KeyRefusal};

/// How often keys may call, and how often an address may be wrong. Clones share both.
#[derive(Debug, Clone)]
pub struct ApiLimits {
    keys: Arc<Throttle<ApiKeyId>>,
    wrong_keys: Arc<Throttle<IpAddr>>,
}

impl ApiLimits {
    /// As configured.
    pub fn new(settings: &ApiSettings) -> Self {
        let keys = Allowance {
            name: "key",
            every: Duration::from_secs(1) / settings.rate.max(1),
            burst: settings.burst.max(1),
        };
        let wrong_keys = Allowance {
            name: "wrong-keys",
            every: Duration::from_mins(1) / settings.wrong_keys.max(1),
            burst: settings.wrong_keys.max(1),
        };
        Self { keys: Arc::new(Throttle::new(keys)), wrong_keys: Arc::new(Throttle::new(wrong_keys)) }
    }
}

/// What the guard found.
#[derive(Debug)]
pub struct Guarded {
    /// Who calls, or the answer instead.
    pub caller: Result<Caller, Problem>,
    /// For the answer's headers.
    pub allowance: Left,
}

/// What is left of the allowance that a request used, if it used one.
#[derive(Debug, Clone, Copy)]
pub struct Left(Option<Quota>);

impl Left {
    /// Writes it into an answer's headers.
    pub fn write(self, headers: &mut HeaderMap) {
        if let Some(quota) = self.0 {
            quota.write(headers);
        }
    }
}

impl Api {
    /// Lets a caller in, or says why not. `address` is the caller's own, not that of a proxy in front.
    pub async fn guard(&self, operation: Operation, headers: &HeaderMap, address: IpAddr) -> Guarded {
        let address = neighbourhood(address);
        let caller = match self.caller(headers, address).await {
            Ok(caller) => caller,
            Err(refused) => return refused,
        };
        match self.limits.keys.take(caller.key, self.clock.now()) {
            Ok(quota) => {
                let may = version(headers).and_then(|()| scope(operation, &caller));
                Guarded { caller: may.map(|()| caller), allowance: Left(Some(quota)) }
            }
            Err(quota) => Guarded {
                caller: Err(Problem::new(
                    ProblemKind::Throttled(quota.retry_after()),
                    "This API key has made too many requests; wait as long as Retry-After says.",
                )),
                allowance: Left(Some(quota)),
            },
        }
    }

    async fn caller(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Guarded> {
        let refuse = |kind: ProblemKind, message: &str, quota: Option<Quota>| Guarded {
            caller: Err(Problem::new(kind, message)),
            allowance: Left(quota),
        };
        let Some(header) = headers.get(AUTHORIZATION) else {
            let advice = "Send your API key as `Authorization: Bearer mb_sk_…`.";
            return Err(refuse(ProblemKind::MissingApiKey, advice, None));
        };
        let presented = header.to_str().ok().and_then(bearer);
        let now = self.clock.now();
        // A key in use is let in whatever else comes from its address: one program with an old key must not shut out the
        // others behind the same proxy. Everybody else is not looked up while the address has to wait, so that guessing
        // is bounded, and so is what it costs.
        let known = presented.and_then(|key| self.api_keys.recognise(key));
        let answered = match (known, presented) {
            (Some(answered), _) => answered,
            (None, presented) => {
                let left = self.limits.wrong_keys.look(&address, now);
                if left.remaining == 0 {
                    let message = "Too many requests with unknown API keys came from your address; wait as long as \
                                   Retry-After says.";
                    return Err(refuse(ProblemKind::Throttled(left.retry_after()), message, Some(left)));
                }
                match presented {
                    Some(key) => self.api_keys.authenticate(key).await,
                    None => Err(KeyRefusal::Unknown),
                }
            }
        };
        answered.map_err(|refusal| match refusal {
            KeyRefusal::Unknown => {
                let left = self.limits.wrong_keys.take(address, now).unwrap_or_else(|left| left);
                let message = "The API key is not known here, or it was revoked.";
                refuse(ProblemKind::InvalidApiKey, message, Some(left))
            }
            KeyRefusal::Expired => {
                refuse(ProblemKind::ExpiredApiKey, "The API key has expired; make a new one.", None)
            }
            KeyRefusal::Store(error) => Guarded { caller: Err(error.into()), allowance: Left(None) },
        })
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Without the header, the version pinned on the key counts; there is one version so far.
fn version(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get("version").map(HeaderValue::as_bytes) {
        Some(version) if version != API_VERSION.as_bytes() => Err(Problem::new(
            ProblemKind::UnsupportedApiVersion,
            format!("This server speaks version {API_VERSION}."),
        )
        .about("Version")),
        _ => Ok(()),
    }
}

fn scope(operation: Operation, caller: &Caller) -> Result<(), Problem> {
    match operation.row().scope {
        Some(needed) if !caller.scopes.include(needed) => Err(Problem::new(
            ProblemKind::InsufficientScope,
            format!("This API key lacks the scope `{needed}`; use another key, or make one that has it."),
        )),
        _ => Ok(()),
    }
}
