//! What the hospital says about itself: smart-configuration, CapabilityStatement, OpenID configuration, keys.

use hyper::StatusCode;
use hyper::header;
use serde_json::{Value, json};

use super::Sandbox;
use super::faults::{RevocationFault, RightOrWrong, SmartConfigurationFault};
use super::personality::Personality;
use super::web::Reply;
use super::{query, scope};

impl Sandbox {
    /// `{base}/.well-known/smart-configuration`, with the shape of Oracle Health's patient host.
    pub(super) fn smart_configuration(&self) -> Reply {
        let faults = self.state().faults.clone();
        let mut document = self.smart_configuration_document();
        if faults.authorize_iss.is_some() {
            document["authorization_response_iss_parameter_supported"] = json!(true);
        }
        if faults.revocation_endpoint == Some(RevocationFault::Absent)
            && let Some(members) = document.as_object_mut()
        {
            members.remove("revocation_endpoint");
        }
        if faults.capability_statement_only {
            return super::fhir::not_found().faulty();
        }
        let Some(fault) = faults.smart_configuration else {
            return Reply::json(StatusCode::OK, &document);
        };
        let reply = match fault {
            SmartConfigurationFault::Missing => super::fhir::not_found(),
            SmartConfigurationFault::Html => {
                Reply::bytes(StatusCode::OK, "text/html", "<!doctype html><title>Portal</title><p>Welcome")
            }
            SmartConfigurationFault::Huge => Reply::endless("application/json", r#"{"issuer":""#),
            SmartConfigurationFault::Hang => Reply::hanging("held back"),
            SmartConfigurationFault::HalfJson => {
                let whole = document.to_string();
                Reply::bytes(StatusCode::OK, "application/json", whole[..whole.len() / 2].to_owned())
            }
            SmartConfigurationFault::RelativeUrls => {
                // An issuer is a name, not an address to resolve.
                let members = document.as_object_mut().into_iter().flatten();
                for (_, value) in members.filter(|(name, _)| *name != "issuer") {
                    let path = value.as_str().and_then(|url| url.strip_prefix(&self.urls.origin));
                    if let Some(path) = path {
                        *value = json!(path);
                    }
                }
                Reply::json(StatusCode::OK, &document)
            }
            SmartConfigurationFault::NoPkce => {
                if let Some(members) = document.as_object_mut() {
                    members.remove("code_challenge_methods_supported");
                }
                Reply::json(StatusCode::OK, &document)
            }
        };
        reply.faulty()
    }

    fn smart_configuration_document(&self) -> Value {
        let traits = self.personality.traits();
        let methods: Vec<&str> = traits.auth_methods.iter().map(|method| method.name()).collect();
        json!({
            "issuer": self.urls.issuer(),
            "jwks_uri": self.urls.keys(),
            "authorization_endpoint": self.urls.authorize(),
            "token_endpoint": self.urls.token(),
            "revocation_endpoint": self.urls.revoke(),
            "introspection_endpoint": self.urls.introspect(),
            "management_endpoint": self.urls.manage(),
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
            // `refresh_token` is not listed, though it works: so it is at Oracle Health.
            "grant_types_supported": match self.personality {
                Personality::CernerPatient => json!(["authorization_code"]),
                Personality::Epic | Personality::SmartHealthIt | Personality::Generic => {
                    json!(["authorization_code", "refresh_token"])
                }
            },
            "scopes_supported": scope::supported(),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "capabilities": [
                "authorize-post", "launch-ehr", "launch-standalone", "client-public",
                "client-confidential-asymmetric", "client-confidential-symmetric", "sso-openid-connect",
                "context-standalone-patient", "context-ehr-patient", "context-ehr-encounter", "context-banner",
                "context-style", "permission-patient", "permission-user",
                "permission-offline", "permission-online", "permission-v1", "permission-v2", "health-cards",
            ],
        })
    }

    /// `{base}/metadata`, with the endpoints in the extension of SMART 1.0.
    pub(super) fn capability_statement(&self) -> Reply {
        let faults = self.state().faults.clone();
        let hide = faults.smart_configuration == Some(SmartConfigurationFault::Missing);
        let uri = |name: &str, value: String| json!({"url": name, "valueUri": value});
        let mut security = json!({
            "cors": true,
            "service": [{"coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                "code": "SMART-on-FHIR"}]}],
        });
        if !hide {
            let mut uris = vec![
                uri("authorize", self.urls.authorize()),
                uri("token", self.urls.token()),
                uri("introspect", self.urls.introspect()),
                uri("manage", self.urls.manage()),
            ];
            if faults.revocation_endpoint != Some(RevocationFault::Absent) {
                uris.push(uri("revoke", self.urls.revoke()));
            }
            security["extension"] = json!([{
                "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": uris,
            }]);
        }
        let mut resources = query::capability_resources();
        resources.push(json!({"type": "Binary", "interaction": [{"code": "read"}]}));
        let statement = json!({
            "resourceType": "CapabilityStatement",
            "url": format!("{}/metadata", self.urls.fhir_base()),
            "name": "SandboxHospital",
            "title": "Sandbox hospital (synthetic data)",
            "status": "active",
            "date": "2026-01-01",
            "kind": "instance",
            "implementation": {"description": "Sandbox hospital", "url": self.urls.fhir_base()},
            "fhirVersion": "4.0.1",
            "format": ["json", "application/fhir+json"],
            "rest": [{"mode": "server", "security": security, "resource": resources}],
        });
        Reply::fhir(StatusCode::OK, statement.to_string()).faulty_if(hide)
    }

    /// The `iss` of id tokens, which is also where their configuration is found.
    pub(super) fn id_token_issuer(&self) -> String {
        if self.personality.traits().own_id_token_issuer {
            self.urls.id_token_issuer()
        } else {
            self.urls.issuer()
        }
    }

    pub(super) fn openid_configuration(&self) -> Reply {
        let document = json!({
            "issuer": self.id_token_issuer(),
            "authorization_endpoint": self.urls.authorize(),
            "token_endpoint": self.urls.token(),
            "jwks_uri": self.urls.keys(),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "name", "fhirUser", "profile"],
        });
        Reply::json(StatusCode::OK, &document)
    }

    /// `/jwk`. A late `kid` is left out for as many fetches as its switch said.
    pub(super) fn published_keys(&self) -> Reply {
        let mut state = self.state();
        let mut held_back = false;
        let late = match &mut state.late_kid {
            Some((_, fetches)) if *fetches > 0 => {
                *fetches -= 1;
                held_back = true;
                None
            }
            Some((kid, _)) => Some(kid.clone()),
            None => None,
        };
        drop(state);
        Reply::json(StatusCode::OK, &self.keys.published(late.as_deref()))
            .with(header::CACHE_CONTROL, "max-age=300")
            .because(if held_back { "a key was held back" } else { "ok" })
    }

    /// What the response says the authorization server is, when the switch for RFC 9207 is on.
    pub(super) fn response_issuer(&self, which: RightOrWrong) -> String {
        match which {
            RightOrWrong::Right => self.urls.issuer(),
            RightOrWrong::Wrong => "https://authorization.elsewhere.invalid/tenants/other".to_owned(),
        }
    }
}
