//! The two sides of a launch: the EHR's server, and our registration at it.

use serde::{Deserialize, Serialize};

use crate::config::{AuthMethod, SmartVersion};
use crate::crypto::Algorithm;
use crate::outbound::Reach;
use crate::secret::Secret;
use crate::smart::discovery::SmartConfiguration;
use crate::smart::token_response::MAX_TOKEN_BODY;
use crate::smart::url::{AuthorizationEndpoint, BadUrl, FhirBaseUrl, RevocationEndpoint, TokenEndpoint};
use crate::smart::vendors::VendorProfile;

/// The server of one source.
#[derive(Debug, Clone)]
pub struct EhrServer {
    /// Where its records are; `aud` of a launch.
    pub base: FhirBaseUrl,
    /// What its vendor's documents do not say.
    pub profile: &'static VendorProfile,
    /// Where this one departs from discovery and profile.
    pub overrides: Overrides,
    /// Whether it may be on this machine, which only a sandbox source may.
    pub reach: Reach,
}

/// Where one source departs from discovery and from its vendor's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Instead of the discovered authorization endpoint.
    pub authorize_url: Option<String>,
    /// Instead of the discovered token endpoint.
    pub token_url: Option<String>,
    /// Instead of the token endpoint as `aud` of our assertion.
    pub assertion_audience: Option<String>,
    /// Whether `client_id` goes beside an assertion.
    pub send_client_id: Option<bool>,
    /// Whether `aud` is sent in the authorization request.
    pub send_aud: Option<bool>,
    /// Use the registration's way of authentication although the server's list does not have it.
    pub unlisted_auth: Option<bool>,
}

impl Overrides {
    /// Finds what no request could be made with: its name as a setting, and why.
    pub fn check(&self) -> Result<(), (&'static str, BadUrl)> {
        if let Some(url) = &self.authorize_url {
            AuthorizationEndpoint::parse(url).map_err(|reason| ("authorize-url", reason))?;
        }
        if let Some(url) = &self.token_url {
            TokenEndpoint::parse(url).map_err(|reason| ("token-url", reason))?;
        }
        Ok(())
    }
}

/// Our registration at a vendor.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The vendor's id for us.
    pub client_id: String,
    /// How we prove who we are.
    pub auth: AuthMethod,
    /// For the two methods that need one.
    pub client_secret: Option<Secret>,
    /// Instead of choosing from discovery.
    pub signing_algorithm: Option<Algorithm>,
    /// Which scope syntax the registration honours.
    pub smart_version: SmartVersion,
    /// Instead of choosing from discovery.
    pub scopes: Option<Vec<String>>,
}

/// What later calls to a token endpoint need to know; kept with the launch attempt and then with the grant, so that a
/// code or a refresh token goes only to the server that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenServer {
    /// Where codes and refresh tokens go.
    pub endpoint: TokenEndpoint,
    /// Whom the tokens were given to; they are good for no other client id.
    #[serde(default)]
    pub client_id: Option<String>,
    /// `aud` of our assertion there.
    pub audience: String,
    /// What our assertion is signed with, unless the registration names another algorithm.
    pub algorithm: Algorithm,
    /// Whether `client_id` goes beside the assertion.
    pub send_client_id: bool,
    /// Where a token is given back, if anywhere.
    pub revocation: Option<RevocationEndpoint>,
}

/// Why a server and a registration do not fit together. The text is for staff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The source's own token endpoint is no URL for one.
    #[error("the token endpoint of this source is not usable: {0}. Correct the source's `token_url`")]
    TokenUrl(#[from] BadUrl),
    /// The server lists how clients may authenticate, and the registration does it otherwise.
    #[error(
        "the EHR client authenticates with `{method}`, but the server takes {listed} only. Register the app for one of \
         these and write it as `auth` of the EHR client; or, if the vendor says that the list is incomplete, set \
         `unlisted_auth = true` on the source"
    )]
    AuthNotListed {
        /// That of the registration.
        method: AuthMethod,
        /// Those of the server.
        listed: String,
    },
    /// The vendor's assertions are for another address than the token endpoint, and the source does not name it.
    #[error(
        "signed assertions for {vendor} name another audience than the token endpoint. Ask the vendor for it and set \
         `assertion_audience` on the source, or register for `{usual}`"
    )]
    AudienceUnknown {
        /// The vendor.
        vendor: &'static str,
        /// What its registrations usually have.
        usual: AuthMethod,
    },
}

impl TokenServer {
    /// The most bytes of an answer to read.
    pub const MOST_BYTES: usize = MAX_TOKEN_BODY;

    /// From discovery, the vendor's profile and this source's own departures.
    pub fn choose(
        server: &EhrServer,
        found: &SmartConfiguration,
        registration: &Registration,
    ) -> Result<Self, Misfit> {
        let endpoint = match &server.overrides.token_url {
            Some(url) => TokenEndpoint::parse(url)?,
            None => found.token_endpoint.clone(),
        };
        check_auth(server, found, registration)?;
        let signs = registration.auth == AuthMethod::PrivateKeyJwt;
        let audience = match &server.overrides.assertion_audience {
            Some(audience) => audience.clone(),
            None if signs && server.profile.audience_is_elsewhere => {
                return Err(Misfit::AudienceUnknown {
                    vendor: server.profile.label,
                    usual: server.profile.auth,
                });
            }
            None => endpoint.as_str().to_owned(),
        };
        Ok(Self {
            client_id: Some(registration.client_id.clone()),
            audience,
            algorithm: registration.signing_algorithm.unwrap_or_else(|| algorithm(server.profile, found)),
            send_client_id: server.overrides.send_client_id.unwrap_or(server.profile.send_client_id),
            revocation: found.revocation_endpoint.clone(),
            endpoint,
        })
    }
}

/// What staff should know before a patient is sent there, in words; empty when everything fits.
pub fn doubts(server: &EhrServer, found: &SmartConfiguration, registration: &Registration) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Err(misfit) = TokenServer::choose(server, found, registration) {
        doubts.push(misfit.to_string());
    } else if found.accepts_auth(registration.auth) == Some(false) && needs_listing(registration.auth) {
        doubts.push(format!("`{}` is used although the server does not list it", registration.auth));
    }
    if let Some(algorithm) = registration.signing_algorithm
        && found.accepts_assertion_algorithm(algorithm) == Some(false)
    {
        let listed = words(found.assertion_algorithms.as_deref().unwrap_or_default());
        doubts.push(format!(
            "assertions are signed with `{}`, but the server takes {listed}",
            algorithm.name()
        ));
    }
    doubts
}

fn check_auth(
    server: &EhrServer,
    found: &SmartConfiguration,
    registration: &Registration,
) -> Result<(), Misfit> {
    let method = registration.auth;
    let wanted = server.overrides.unlisted_auth == Some(true);
    if wanted || !needs_listing(method) || found.accepts_auth(method) != Some(false) {
        return Ok(());
    }
    Err(Misfit::AuthNotListed { method, listed: words(found.auth_methods.as_deref().unwrap_or_default()) })
}

/// Servers with public clients seldom list `none`, because it is no way to authenticate.
fn needs_listing(method: AuthMethod) -> bool {
    method != AuthMethod::None
}

/// Names out of a server's document, for a sentence.
fn words(names: &[String]) -> String {
    const MOST: usize = 8;
    let word = |name: &String| {
        let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        format!("`{}`", name.chars().filter(plain).take(40).collect::<String>())
    };
    let mut all: Vec<String> = names.iter().take(MOST).map(word).collect();
    if names.len() > MOST {
        all.push("…".to_owned());
    }
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// The first algorithm of the profile that the server lists, else any that it lists and SMART knows; RS384 when it says
/// nothing.
fn algorithm(profile: &VendorProfile, found: &SmartConfiguration) -> Algorithm {
    let listed = |algorithm: &&Algorithm| found.accepts_assertion_algorithm(**algorithm) == Some(true);
    let known = [Algorithm::Rs384, Algorithm::Es384];
    profile.assertion_algorithms.iter().chain(&known).find(listed).copied().unwrap_or(Algorithm::Rs384)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn server(vendor: &str, overrides: Overrides) -> EhrServer {
        EhrServer {
            base: FhirBaseUrl::parse("https://h.example/r4").expect("a base"),
            profile: VendorProfile::named(vendor).expect("a profile"),
            overrides,
            reach: Reach::Public,
        }
    }

    fn registration(auth: AuthMethod) -> Registration {
        Registration {
            client_id: "c".to_owned(),
            auth,
            client_secret: None,
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
        }
    }

    fn found(more: Value) -> SmartConfiguration {
        let mut document = more;
        document["authorization_endpoint"] = json!("https://as.example/authorize");
        document["token_endpoint"] = json!("https://as.example/token");
        let base = FhirBaseUrl::parse("https://h.example/r4").expect("a base");
        SmartConfiguration::parse(document.to_string().as_bytes(), &base).expect("usable")
    }

    #[test]
    fn a_method_that_the_server_does_not_list_is_refused_before_anybody_signs_in() {
        let lists = found(json!({"token_endpoint_auth_methods_supported": ["private_key_jwt", "<b>evil"]}));
        let silent = found(json!({}));
        let post = registration(AuthMethod::ClientSecretPost);
        let plain = server("generic", Overrides::default());
        let refused = TokenServer::choose(&plain, &lists, &post).expect_err("not listed").to_string();
        for part in ["`client_secret_post`", "`private_key_jwt`, `bevil`", "`auth`", "unlisted_auth"] {
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(doubts(&plain, &lists, &post), [refused]);
        let insists = server("generic", Overrides { unlisted_auth: Some(true), ..Overrides::default() });
        assert!(TokenServer::choose(&insists, &lists, &post).is_ok());
        assert_eq!(doubts(&insists, &lists, &post).len(), 1, "but staff are told");
        assert!(TokenServer::choose(&plain, &silent, &post).is_ok(), "no list says nothing");
        let public = registration(AuthMethod::None);
        assert!(TokenServer::choose(&plain, &lists, &public).is_ok(), "`none` is seldom listed");
        assert!(doubts(&plain, &lists, &public).is_empty());
    }

    #[test]
    fn the_server_decides_the_algorithm_and_the_profile_when_it_lists_several() {
        let check = |vendor: &str, listed: Option<&[&str]>, expected: Algorithm| {
            let document = listed.map_or(
                json!({}),
                |names| json!({"token_endpoint_auth_signing_alg_values_supported": names}),
            );
            let (server, jwt) =
                (server(vendor, Overrides::default()), registration(AuthMethod::PrivateKeyJwt));
            let chosen = TokenServer::choose(&server, &found(document), &jwt).expect("chosen").algorithm;
            assert_eq!(chosen, expected, "{vendor} {listed:?}");
        };
        check("generic", Some(&["ES384", "RS384"]), Algorithm::Rs384);
        check("generic", Some(&["RS256", "ES384"]), Algorithm::Es384);
        check("epic", Some(&["RS384", "ES384"]), Algorithm::Rs384);
        check("epic", Some(&["ES384"]), Algorithm::Es384);
        check("generic", Some(&["RS256"]), Algorithm::Rs384);
        check("generic", None, Algorithm::Rs384);
        let mut wants = registration(AuthMethod::PrivateKeyJwt);
        wants.signing_algorithm = Some(Algorithm::Es384);
        let only = found(json!({"token_endpoint_auth_signing_alg_values_supported": ["RS384"]}));
        let plain = server("generic", Overrides::default());
        assert_eq!(TokenServer::choose(&plain, &only, &wants).map(|one| one.algorithm), Ok(Algorithm::Es384));
        assert!(doubts(&plain, &only, &wants)[0].contains("`ES384`, but the server takes `RS384`"));
    }

    #[test]
    fn an_audience_that_is_elsewhere_must_be_named_before_assertions_are_signed() {
        let silent = found(json!({}));
        let plain = server("va", Overrides::default());
        let jwt = registration(AuthMethod::PrivateKeyJwt);
        let refused = TokenServer::choose(&plain, &silent, &jwt).expect_err("unknown").to_string();
        assert!(refused.contains("`assertion_audience`") && refused.contains("VA Lighthouse"), "{refused}");
        let basic = registration(AuthMethod::ClientSecretBasic);
        assert!(TokenServer::choose(&plain, &silent, &basic).is_ok(), "a secret has no audience");
        let named =
            Overrides { assertion_audience: Some("https://okta.example/t".into()), ..Overrides::default() };
        let chosen = TokenServer::choose(&server("va", named), &silent, &jwt).expect("chosen");
        assert_eq!(
            (chosen.audience.as_str(), chosen.endpoint.as_str()),
            ("https://okta.example/t", "https://as.example/token")
        );
    }

    #[test]
    fn a_grant_of_an_older_program_is_still_read() {
        let old = r#"{"endpoint":"https://a.example/t","audience":"x","algorithm":"RS384","send_client_id":true,
            "revocation":null}"#;
        assert_eq!(serde_json::from_str::<TokenServer>(old).expect("readable").client_id, None);
    }
}
