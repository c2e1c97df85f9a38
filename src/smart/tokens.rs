//! Calls to token endpoints: exchanging a code, refreshing, giving back. Each with fresh client authentication.

use std::time::Duration;

use hyper::StatusCode;
use url::form_urlencoded::byte_serialize;

use crate::clock::{Clock, Timestamp};
use crate::config::AuthMethod;
use crate::crypto::{KeyPair, Random, base64, base64url, sha256};
use crate::outbound::{Call, Outbound, OutboundError, Reach, Reply};
use crate::secret::Secret;
use crate::smart::assertion::{CLIENT_ASSERTION_TYPE, ClientAssertion, client_assertion};
use crate::smart::ehr_error::EhrError;
use crate::smart::keys::{SigningError, SigningKeys};
use crate::smart::pkce::CodeVerifier;
use crate::smart::server::{Registration, TokenServer};
use crate::smart::skew::ClockSkews;
use crate::smart::token_response::{
    AccessToken, AuthorizationCode, ErrorBody, RefreshToken, TokenResponse, TokenResponseError,
    parse_error_body, parse_token_response,
};

/// Why a token endpoint gave no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenFailure {
    /// The authorization server itself said no.
    #[error("the authorization server refused with `{}` (status {status})", error.known_code().unwrap_or("another code"))]
    Refused {
        /// What it said.
        error: Box<EhrError>,
        /// The status it said it with.
        status: u16,
    },
    /// Something in front of it answered; that says nothing about the grant.
    #[error("the token endpoint answered with status {status}, but not as an authorization server does")]
    NotOAuth {
        /// The status.
        status: u16,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Success, but without a usable token.
    #[error("the token endpoint's answer cannot be used: {0}")]
    Unusable(TokenResponseError),
    /// No answer.
    #[error("the token endpoint gave no answer: {0}")]
    NoAnswer(#[from] OutboundError),
    /// We could not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl TokenFailure {
    /// Whether the server itself is in trouble, so that other requests would fare no better.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Signing(_) => true,
            Self::NotOAuth { status, .. } => *status == 429 || *status >= 500,
            Self::Refused { .. } | Self::Unusable(_) => false,
        }
    }
}

/// A token to give back.
#[derive(Debug, Clone, Copy)]
pub enum Unwanted<'t> {
    /// With it the whole grant ends (RFC 7009 section 2.1).
    Refresh(&'t RefreshToken),
    /// The only token of its grant.
    Access(&'t AccessToken),
}

/// How a request is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    AtOnce,
    /// One of many, with those that are ready at about the same time.
    InBulk,
}

/// Talks to token endpoints.
#[derive(Debug, Clone)]
pub struct TokenClient {
    outbound: Outbound,
    keys: SigningKeys,
    clock: Clock,
    random: Random,
    skews: ClockSkews,
}

impl TokenClient {
    /// Signs with `keys`, calls through `outbound`, tells each host its own time by `skews`.
    pub fn new(
        outbound: Outbound,
        keys: SigningKeys,
        clock: Clock,
        random: Random,
        skews: ClockSkews,
    ) -> Self {
        Self { outbound, keys, clock, random, skews }
    }

    /// The network, for whoever completes a launch.
    pub(super) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Exchanges a code (RFC 6749 section 4.1.3, with PKCE). Never to be tried again with the same code.
    pub async fn exchange(
        &self,
        server: &TokenServer,
        registration: &Registration,
        reach: Reach,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Result<TokenResponse, TokenFailure> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ];
        let reply = self.post(server.endpoint.url(), server, registration, reach, &fields).await?;
        read(&reply, self.clock.now())
    }

    /// Refreshes (RFC 6749 section 6).
    pub async fn refresh(
        &self,
        server: &TokenServer,
        registration: &Registration,
        reach: Reach,
        refresh_token: &RefreshToken,
        urgency: Urgency,
    ) -> Result<TokenResponse, TokenFailure> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let url = server.endpoint.url();
        let reply = self.post_with(urgency, url, server, registration, reach, &fields).await?;
        read(&reply, self.clock.now())
    }

    /// Gives a grant back (RFC 7009) by its refresh token, or by its access token when it has no other; `false` when the
    /// server has no place for that.
    pub async fn revoke(
        &self,
        server: &TokenServer,
        registration: &Registration,
        reach: Reach,
        token: Unwanted<'_>,
    ) -> Result<bool, TokenFailure> {
        let Some(revocation) = &server.revocation else { return Ok(false) };
        let (token, hint) = match token {
            Unwanted::Refresh(token) => (token.expose(), "refresh_token"),
            Unwanted::Access(token) => (token.expose(), "access_token"),
        };
        let fields = [("token", token), ("token_type_hint", hint)];
        let reply = self.post(revocation.url(), server, registration, reach, &fields).await?;
        if reply.status.is_success() { Ok(true) } else { Err(refusal(&reply, self.clock.now())) }
    }

    /// What time it is at a server, as far as is known.
    pub fn time_at(&self, server: &TokenServer) -> Timestamp {
        self.skews.time_at(server.endpoint.url(), &self.clock)
    }

    /// A digest of what we prove ourselves with at a server: it changes when our registration, its secret or our signing
    /// key does.
    pub fn proof(&self, server: &TokenServer, registration: &Registration) -> String {
        let key = match registration.auth {
            AuthMethod::PrivateKeyJwt => {
                self.keys.current(registration.signing_algorithm.unwrap_or(server.algorithm)).ok()
            }
            AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost | AuthMethod::None => None,
        };
        let parts = [
            registration.client_id.as_str(),
            &registration.auth.to_string(),
            registration.client_secret.as_ref().map_or("", Secret::expose),
            key.as_ref().map_or("", |key| key.kid()),
        ];
        base64url(&sha256(parts.join("\n").as_bytes()))
    }

    async fn post(
        &self,
        url: &url::Url,
        server: &TokenServer,
        registration: &Registration,
        reach: Reach,
        fields: &[(&str, &str)],
    ) -> Result<Reply, TokenFailure> {
        self.post_with(Urgency::AtOnce, url, server, registration, reach, fields).await
    }

    async fn post_with(
        &self,
        urgency: Urgency,
        url: &url::Url,
        server: &TokenServer,
        registration: &Registration,
        reach: Reach,
        fields: &[(&str, &str)],
    ) -> Result<Reply, TokenFailure> {
        let mut fields = fields.to_vec();
        let client_id = client_id(server, registration);
        let assertion;
        let mut basic = None;
        match registration.auth {
            AuthMethod::PrivateKeyJwt => {
                assertion = self.assertion(urgency, url, server, registration).await?;
                if server.send_client_id {
                    fields.push(("client_id", client_id));
                }
                fields.push(("client_assertion_type", CLIENT_ASSERTION_TYPE));
                fields.push(("client_assertion", assertion.expose()));
            }
            AuthMethod::ClientSecretBasic => basic = Some(basic_credentials(client_id, registration)),
            AuthMethod::ClientSecretPost => {
                fields.push(("client_id", client_id));
                fields
                    .push(("client_secret", registration.client_secret.as_ref().map_or("", Secret::expose)));
            }
            AuthMethod::None => fields.push(("client_id", client_id)),
        }
        let mut call =
            Call::form(url.clone(), &fields).accept("application/json").at_most(TokenServer::MOST_BYTES);
        if let Some(credentials) = basic {
            call = call.authorization("Basic", credentials.expose());
        }
        let sent = self.clock.now();
        let reply = self.outbound.send(call, reach).await?;
        self.skews.measure(url, sent, &self.clock, &reply);
        Ok(reply)
    }

    /// A new assertion for this one request: servers refuse a `jti` they have seen.
    async fn assertion(
        &self,
        urgency: Urgency,
        url: &url::Url,
        server: &TokenServer,
        registration: &Registration,
    ) -> Result<ClientAssertion, SigningError> {
        let (client_id, audience) = (client_id(server, registration).to_owned(), server.audience.clone());
        // Which algorithms there are keys for is a matter of the registration, also for grants made before it changed.
        let algorithm = registration.signing_algorithm.unwrap_or(server.algorithm);
        let (clock, skews, url) = (self.clock.clone(), self.skews.clone(), url.clone());
        let random = self.random.clone();
        // The time of signing, not of asking: there may have been a queue.
        let sign = move |key: &KeyPair| {
            client_assertion(key, &client_id, &audience, skews.time_at(&url, &clock), &random)
        };
        match urgency {
            Urgency::AtOnce => self.keys.sign(algorithm, sign).await,
            Urgency::InBulk => self.keys.sign_in_bulk(algorithm, sign).await,
        }
    }
}

/// The client that the tokens belong to. A registration may get another id; what was granted to the old one stays its own.
fn client_id<'a>(server: &'a TokenServer, registration: &'a Registration) -> &'a str {
    server.client_id.as_deref().unwrap_or(&registration.client_id)
}

/// RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
fn basic_credentials(client_id: &str, registration: &Registration) -> Secret {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let secret = registration.client_secret.as_ref().map_or("", Secret::expose);
    Secret::new(base64(format!("{}:{}", encode(client_id), encode(secret)).as_bytes()))
}

fn read(reply: &Reply, now: Timestamp) -> Result<TokenResponse, TokenFailure> {
    if reply.status != StatusCode::OK {
        return Err(refusal(reply, now));
    }
    match parse_token_response(&reply.body) {
        Err(TokenResponseError::Refused(error)) => {
            Err(TokenFailure::Refused { error: Box::new(EhrError::from_oauth(&error)), status: 200 })
        }
        other => other.map_err(TokenFailure::Unusable),
    }
}

fn refusal(reply: &Reply, now: Timestamp) -> TokenFailure {
    let status = reply.status.as_u16();
    match parse_error_body(&reply.body) {
        // A gateway's 5xx may carry an OAuth-looking body; it still says nothing about the grant.
        body @ ErrorBody::OAuth(_) if status < 500 && status != 429 => {
            let error = EhrError::from_body(&body);
            let error = match reply.header("cerner-correlation-id") {
                Some(id) => error.with_correlation_id(id),
                None => error,
            };
            TokenFailure::Refused { error: Box::new(error), status }
        }
        ErrorBody::OAuth(_) | ErrorBody::NotOAuth(_) => {
            TokenFailure::NotOAuth { status, retry_after: reply.retry_after(now) }
        }
    }
}
