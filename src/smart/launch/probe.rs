//! Asking an authorization server, without a patient, what it makes of our registration: the request of a launch is made
//! and its answer looked at. Nobody signs in, and nothing is kept.

use url::Url;

use super::{LaunchFailure, Launcher, Origin};
use crate::id::{EhrClientId, Id as _, PatientSessionId, SourceId};
use crate::outbound::{Call, Reply};
use crate::smart::ehr_error::{EhrError, Stage};
use crate::smart::server::{EhrServer, Registration};
use crate::smart::token_response::{ErrorBody, OAuthError, parse_error_body};

/// How much of a page is looked at.
const MOST_PAGE: usize = 256 << 10;

/// What an authorization server makes of our registration, as far as that shows without a patient.
#[derive(Debug, Clone)]
pub enum Probe {
    /// It let the request pass: a browser comes to a sign-in page at this host.
    LetIn(String),
    /// It refused, and said why.
    Refused(Box<LaunchFailure>),
    /// Its answer says neither; how it looked.
    Unclear(String),
}

impl Launcher {
    /// Makes the request of a launch and looks at the answer. Fails where not even the request can be made.
    pub async fn probe(
        &self,
        source: (SourceId, &EhrServer),
        client: (EhrClientId, &Registration),
    ) -> Result<Probe, LaunchFailure> {
        let reach = source.1.reach;
        // The attempt is thrown away, so it belongs to nobody.
        let nobody = Origin::ConnectPage { session: PatientSessionId::from_bytes([0; 16]) };
        let departure = self.begin(nobody, None, source, client).await?;
        let Ok(asked) = Url::parse(&departure.location) else {
            return Ok(Probe::Unclear("the address of the request is not a URL".to_owned()));
        };
        let call = Call::get(asked.clone()).accept("text/html").first(MOST_PAGE);
        Ok(match self.tokens.outbound().send(call, reach).await {
            Ok(reply) => judge(&self.redirect_uri, &asked, &reply),
            Err(cause) => Probe::Unclear(format!("the authorization endpoint did not answer: {cause}")),
        })
    }
}

fn judge(redirect_uri: &str, asked: &Url, reply: &Reply) -> Probe {
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status.is_redirection() {
        let target = reply.header("location").and_then(|location| asked.join(location).ok());
        return match target {
            Some(target) => judge_redirect(redirect_uri, &target),
            None => Probe::Unclear("the server redirects to nowhere".to_owned()),
        };
    }
    if let Some(error) = EhrError::from_page(asked, &text) {
        return refused(&error);
    }
    if reply.status.is_success() {
        return if has_sign_in(&text) {
            Probe::LetIn(asked.host_str().unwrap_or_default().to_owned())
        } else {
            Probe::Unclear(
                "the server showed a page on which no sign-in was recognised; look at it in a browser"
                    .to_owned(),
            )
        };
    }
    if let ErrorBody::OAuth(error) = parse_error_body(&reply.body) {
        return refused(&EhrError::from_oauth(&error));
    }
    Probe::Unclear(format!("the server answered with status {}", reply.status.as_u16()))
}

fn judge_redirect(redirect_uri: &str, target: &Url) -> Probe {
    let field = |name: &str| {
        target.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    };
    let uri = field("error_uri");
    let error = field("error")
        .and_then(|code| OAuthError::new(&code, field("error_description").as_deref(), uri.as_deref()));
    if let Some(error) = error {
        return refused(&EhrError::from_oauth(&error));
    }
    if let Some(error) = EhrError::from_page(target, "") {
        return refused(&error);
    }
    let back = target.as_str().split('?').next() == Some(redirect_uri);
    if back && field("code").is_none() {
        return Probe::Unclear(
            "the server sent the browser back with neither a code nor an error".to_owned(),
        );
    }
    Probe::LetIn(target.host_str().unwrap_or_default().to_owned())
}

fn refused(error: &EhrError) -> Probe {
    Probe::Refused(Box::new(LaunchFailure::from_ehr(error, Stage::Authorize)))
}

/// Whether a page asks for a password or for a user name.
fn has_sign_in(page: &str) -> bool {
    let page: String =
        page.chars().filter(|letter| !matches!(letter, '"' | '\'' | ' ')).collect::<String>().to_lowercase();
    ["type=password", "autocomplete=username", "autocomplete=current-password"]
        .iter()
        .any(|mark| page.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::StatusCode;
    use hyper::header::{HeaderMap, HeaderValue, LOCATION};

    const OURS: &str = "https://box.example/api/auth/smart/callback";
    const URN: &str =
        "urn%3Acerner%3Aerror%3Aauthorization-server%3Aoauth2%3Agrant%3Aunauthorized-client-for-tenant";

    fn judged(status: u16, location: Option<&str>, body: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, HeaderValue::from_str(location).expect("a header"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let reply = Reply { status, headers, body: Bytes::from(body.to_owned()) };
        let asked = Url::parse("https://as.example/authorize?client_id=x").expect("a URL");
        match judge(OURS, &asked, &reply) {
            Probe::LetIn(host) => format!("in at {host}"),
            Probe::Refused(failure) => format!("refused: {}", failure.staff),
            Probe::Unclear(why) => format!("unclear: {why}"),
        }
    }

    #[test]
    fn a_sign_in_page_or_the_way_to_one_is_a_yes() {
        assert_eq!(judged(302, Some("https://portal.example/login?x=1"), ""), "in at portal.example");
        assert_eq!(judged(303, Some("/login"), ""), "in at as.example");
        assert_eq!(judged(200, None, "<form><input type='password'></form>"), "in at as.example");
        assert_eq!(judged(302, Some(&format!("{OURS}?code=1&state=2")), ""), "in at box.example");
    }

    #[test]
    fn an_error_is_a_no_wherever_it_is_said() {
        for location in [
            format!("{OURS}?error=unauthorized_client&state=1"),
            format!("https://as.example/errors/{URN}/instances/1f-2"),
            "https://as.example/oops?error=unauthorized_client".to_owned(),
        ] {
            assert!(judged(302, Some(&location), "").starts_with("refused: The EHR answered"), "{location}");
        }
        let page = "<p>urn:cerner:error:authorization-server:oauth2:grant:unknown-client</p>";
        for status in [200, 400] {
            assert!(judged(status, None, page).contains("oauth2:grant:unknown-client"), "{status}");
        }
        assert!(judged(400, None, r#"{"error":"invalid_client"}"#).contains("invalid_client"));
    }

    #[test]
    fn what_says_neither_is_called_so() {
        for (status, location, body) in [
            (200, None, "<h1>Something went wrong</h1>"),
            (500, None, "<input type=password>"),
            (302, None, ""),
            (302, Some(OURS), ""),
            (404, None, "not here"),
        ] {
            assert!(judged(status, location, body).starts_with("unclear"), "{status} {body}");
        }
    }
}
