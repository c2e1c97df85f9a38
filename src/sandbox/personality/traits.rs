//! What a personality is made of.

use crate::crypto::Algorithm;

/// The habits of one personality.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states")]
pub(in crate::sandbox) struct Traits {
    /// Whom the authorization endpoint serves; part of its address.
    pub persona: Persona,
    /// The documents about the authorization server, beside the CapabilityStatement, which all have.
    pub documents: &'static [Document],
    /// The CapabilityStatement names the endpoints too.
    pub statement_names_endpoints: bool,
    /// `issuer` of those documents.
    pub metadata_issuer: MetadataIssuer,
    /// `iss` of id tokens.
    pub id_token_issuer: IdTokenIssuer,
    /// How clients may authenticate, and whether the documents say so.
    pub auth_methods: Listed<AuthMethod>,
    /// How assertions may be signed, and whether the documents say so.
    pub assertion_algorithms: Listed<Algorithm>,
    /// `code_challenge_methods_supported`.
    pub challenge_methods: &'static [&'static str],
    /// `grant_types_supported`.
    pub grant_types: &'static [&'static str],
    /// `scopes_supported`.
    pub scope_list: ScopeList,
    /// There is a place to revoke tokens.
    pub revokes: bool,
    /// There is a place to ask about tokens.
    pub introspects: bool,
    /// There is a page where people withdraw what they agreed to, and the documents name it.
    pub names_management: bool,
    /// What becomes of `aud`.
    pub audience: Audience,
    /// `patient/*.rs` is understood.
    pub wildcards: bool,
    /// Scopes in the syntax that was not registered vanish.
    pub one_syntax_only: bool,
    /// The only types there are.
    pub only_types: Option<&'static [&'static str]>,
    /// Scopes that name no type, and are unknown here.
    pub unknown_scopes: &'static [&'static str],
    /// How the granted scopes are written back.
    pub scope_echo: ScopeEcho,
    /// Announced life of an access token, in seconds.
    pub expires_in: f64,
    /// The token response names the patient.
    pub names_patient: bool,
    /// How `fhirUser` is written.
    pub fhir_user: FhirUser,
    /// A refresh token is given by the registration, whether or not `offline_access` was asked for.
    pub offline_by_registration: bool,
    /// Refresh tokens are replaced at each use unless the fault switch says otherwise.
    pub rotates: bool,
    /// More members of a token response, as the text of a JSON object.
    pub more_members: &'static str,
    /// How refusals are explained.
    pub error_style: ErrorStyle,
    /// Status and code for a refresh token that is over; 400 and `invalid_grant` by the book.
    pub dead_refresh_token: (u16, &'static str),
    /// Status and code for a code that is over.
    pub dead_code: (u16, &'static str),
    /// The FHIR server's answer to a token that is not good.
    pub refused_token: RefusedToken,
    /// `GET Patient` without parameters answers with the one record the token opens.
    pub finds_own_patient: bool,
    /// Searches follow Oracle Health's rules; else those of US Core, and what is not known is let pass.
    pub strict_searches: bool,
    /// A search for Observations that names neither a category nor a code is refused.
    pub observations_by_category: bool,
    /// Searches by POST to `{type}/_search` are known. Oracle Health documents none.
    pub searches_by_post: bool,
}

/// Whom an authorization endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Persona {
    Patient,
    Provider,
}

impl Persona {
    /// The word in addresses.
    pub(in crate::sandbox) const fn word(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Provider => "provider",
        }
    }
}

/// A document about the authorization server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Document {
    /// `{base}/.well-known/smart-configuration`
    SmartConfiguration,
    /// `{base}/.well-known/openid-configuration`
    OpenIdAtBase,
    /// `{origin}/.well-known/openid-configuration`
    OpenIdAtOrigin,
}

/// `issuer` of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum MetadataIssuer {
    /// The address of the tenant.
    Tenant,
    /// The origin with a final slash.
    OriginWithSlash,
    /// A name on another host.
    Elsewhere(&'static str),
    /// Not there.
    Missing,
}

/// `iss` of id tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum IdTokenIssuer {
    /// That of the documents.
    AsInMetadata,
    /// The identity provider below the tenant.
    TenantIdsp,
    /// A name on another host.
    Elsewhere(&'static str),
}

/// What is possible, and whether it is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Listed<T: 'static> {
    /// As the documents say.
    Said(&'static [T]),
    /// The documents do not say.
    Unsaid(&'static [T]),
}

impl<T> Listed<T> {
    /// All that is possible.
    pub(in crate::sandbox) const fn all(self) -> &'static [T] {
        match self {
            Self::Said(all) | Self::Unsaid(all) => all,
        }
    }

    /// What the documents say.
    pub(in crate::sandbox) const fn said(self) -> Option<&'static [T]> {
        match self {
            Self::Said(all) => Some(all),
            Self::Unsaid(_) => None,
        }
    }
}

/// Ways for a client to authenticate at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum AuthMethod {
    PrivateKeyJwt,
    SecretBasic,
    SecretPost,
    /// Announced by some; public clients are served by all.
    None,
}

impl AuthMethod {
    /// The name in `token_endpoint_auth_methods_supported`.
    pub(in crate::sandbox) const fn name(self) -> &'static str {
        match self {
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
            Self::None => "none",
        }
    }
}

/// `scopes_supported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum ScopeList {
    /// Every scope, in both syntaxes.
    Everything,
    /// Only these.
    Only(&'static [&'static str]),
    /// Not there.
    Missing,
}

/// What becomes of `aud` in an authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Audience {
    /// It must be this FHIR base.
    Required,
    /// It may be left out; another one is refused.
    Optional,
    /// A request that has it is refused.
    Refused,
}

/// How the granted scopes are written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum ScopeEcho {
    /// As they were asked.
    AsAsked,
    /// v2 letters one by one, without `offline_access` (Epic), whatever syntax was asked.
    OneLetterEach,
    /// `patient/*.read` stays a wildcard.
    Wildcard,
}

/// How `fhirUser` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum FhirUser {
    /// `https://…/Patient/x`
    Absolute,
    /// `Patient/x`
    Relative,
    /// Not at all.
    Missing,
}

/// How a refusal is explained beside its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum ErrorStyle {
    /// `error_uri` with a urn, and no `error_description`.
    Uri,
    /// `error_description`.
    Description,
    /// `"error_description": null`.
    NullDescription,
}

/// The FHIR server's answer to a token that is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum RefusedToken {
    /// An OperationOutcome and a challenge.
    Outcome,
    /// The body `""` and a challenge.
    EmptyText,
    /// Plain text, and no challenge.
    PlainText,
    /// An object of the vendor's own, and no challenge.
    Own(&'static str),
}
