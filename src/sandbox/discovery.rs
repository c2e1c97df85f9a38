//! What the hospital says about itself: smart-configuration, CapabilityStatement, OpenID configuration, keys.

use hyper::StatusCode;
use hyper::header;
use serde_json::{Value, json};

use super::Sandbox;
use super::faults::{RevocationFault, RightOrWrong, SmartConfigurationFault};
use super::personality::{Document, IdTokenIssuer, MetadataIssuer, Persona};
use super::web::Reply;
use super::{query, scope};

impl Sandbox {
    /// `{base}/.well-known/smart-configuration`.
    pub(super) fn smart_configuration(&self) -> Reply {
        let faults = self.state().faults.clone();
        let mut document = self.smart_configuration_document();
        if faults.authorize_iss.is_some() {
            document["authorization_response_iss_parameter_supported"] = json!(true);
        }
        if faults.capability_statement_only {
            return super::fhir::not_found().faulty();
        }
        if !self.personality.traits().documents.contains(&Document::SmartConfiguration) {
            return super::fhir::not_found();
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
        let mut document = json!({
            "jwks_uri": self.urls.keys(),
            "authorization_endpoint": self.urls.authorize(traits.persona),
            "token_endpoint": self.urls.token(),
            "grant_types_supported": traits.grant_types,
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": traits.challenge_methods,
            "capabilities": self.capabilities(),
        });
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                document[name] = value;
            }
        };
        add("issuer", self.metadata_issuer().map(Value::from));
        let methods = traits.auth_methods.said();
        let methods = methods.map(|all| all.iter().map(|method| method.name()).collect());
        add("token_endpoint_auth_methods_supported", methods);
        let algorithms = traits.assertion_algorithms.said();
        let algorithms = algorithms.map(|all| all.iter().map(|algorithm| algorithm.name()).collect());
        add("token_endpoint_auth_signing_alg_values_supported", algorithms);
        add("scopes_supported", scope::listed(traits).map(|all| json!(all)));
        add("revocation_endpoint", self.revokes().then(|| json!(self.urls.revoke())));
        add("introspection_endpoint", traits.introspects.then(|| json!(self.urls.introspect())));
        add("management_endpoint", traits.names_management.then(|| json!(self.urls.manage(traits.persona))));
        document
    }

    fn capabilities(&self) -> Vec<&'static str> {
        let common = [
            "authorize-post",
            "launch-ehr",
            "launch-standalone",
            "client-public",
            "client-confidential-asymmetric",
            "client-confidential-symmetric",
            "sso-openid-connect",
            "context-ehr-patient",
            "context-ehr-encounter",
            "context-banner",
            "context-style",
            "permission-patient",
            "permission-user",
            "permission-offline",
            "permission-online",
            "permission-v1",
            "permission-v2",
            "health-cards",
        ];
        let standalone = match self.personality.traits().persona {
            Persona::Patient => Some("context-standalone-patient"),
            Persona::Provider => None,
        };
        common.into_iter().chain(standalone).collect()
    }

    /// There is a revocation endpoint: the personality has one, and no switch takes it away.
    pub(super) fn revokes(&self) -> bool {
        let hidden = self.state().faults.revocation_endpoint == Some(RevocationFault::Absent);
        self.personality.traits().revokes && !hidden
    }

    fn metadata_issuer(&self) -> Option<String> {
        match self.personality.traits().metadata_issuer {
            MetadataIssuer::Tenant => Some(self.urls.issuer()),
            MetadataIssuer::OriginWithSlash => Some(format!("{}/", self.urls.origin)),
            MetadataIssuer::Elsewhere(name) => Some(name.to_owned()),
            MetadataIssuer::Missing => None,
        }
    }

    /// An OpenID configuration at a place where some vendors have one: the same facts, as OpenID Connect names them.
    pub(super) fn openid_document(&self, place: Document) -> Reply {
        if !self.personality.traits().documents.contains(&place) {
            return super::fhir::not_found();
        }
        let mut document = self.smart_configuration_document();
        if let Some(members) = document.as_object_mut() {
            members.remove("capabilities");
            members.remove("code_challenge_methods_supported");
        }
        document["subject_types_supported"] = json!(["public"]);
        document["id_token_signing_alg_values_supported"] = json!(["RS256"]);
        Reply::json(StatusCode::OK, &document)
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
        let traits = self.personality.traits();
        if !hide && traits.statement_names_endpoints {
            let mut uris =
                vec![uri("authorize", self.urls.authorize(traits.persona)), uri("token", self.urls.token())];
            if traits.introspects {
                uris.push(uri("introspect", self.urls.introspect()));
            }
            if traits.names_management {
                uris.push(uri("manage", self.urls.manage(traits.persona)));
            }
            if self.revokes() {
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

    /// The `iss` of id tokens; at Oracle Health also where their configuration is found.
    pub(super) fn id_token_issuer(&self) -> String {
        match self.personality.traits().id_token_issuer {
            IdTokenIssuer::AsInMetadata => self.metadata_issuer().unwrap_or_else(|| self.urls.issuer()),
            IdTokenIssuer::TenantIdsp => self.urls.id_token_issuer(),
            IdTokenIssuer::Elsewhere(name) => name.to_owned(),
        }
    }

    pub(super) fn openid_configuration(&self) -> Reply {
        let document = json!({
            "issuer": self.id_token_issuer(),
            "authorization_endpoint": self.urls.authorize(self.personality.traits().persona),
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
            RightOrWrong::Right => self.metadata_issuer().unwrap_or_default(),
            RightOrWrong::Wrong => "https://authorization.elsewhere.invalid/tenants/other".to_owned(),
        }
    }
}
