//! What came of launches from inside an EHR.

use serde::Serialize;

use crate::api::etag::object;
use crate::api::{Api, ApiRequest};
use crate::grants::{LaunchContext, LaunchOutcome, Opened};
use crate::http::{Answer, Problem, Route};
use crate::id::LaunchContextId;

/// `launch_context`: who opened the app in an EHR, and on whose chart. The keys after `created_at` are ours.
#[derive(Debug, Serialize)]
struct WireLaunchContext {
    id: String,
    resource_type: &'static str,
    status: &'static str,
    patient: Option<String>,
    encounter: Option<String>,
    fhir_user: Option<String>,
    scope: Option<String>,
    fhir_source: Option<String>,
    fhir_base_url: String,
    created_at: String,
    expires_at: String,
    need_patient_banner: bool,
    intent: Option<String>,
    tenant: Option<String>,
    smart_style_url: Option<String>,
    /// Where the chart can be read live, with the same API key, for as long as the context lives.
    fhir_proxy_url: Option<String>,
}

impl WireLaunchContext {
    /// `source_there`: an operator has not removed the source.
    fn new(context: &LaunchContext, opened: &Opened, source_there: bool, origin: &str) -> Self {
        let reference = |name: &str, id: &str| format!("{name}/{id}");
        Self {
            id: context.id.to_string(),
            resource_type: "launch_context",
            // Nobody is sent to the app before the exchange is done, so `pending` does not happen.
            status: "ready",
            patient: opened.patient.as_ref().map(|id| reference("Patient", id.as_str())),
            encounter: opened.encounter.as_ref().map(|id| reference("Encounter", id.as_str())),
            fhir_user: opened
                .user
                .as_ref()
                .map(|user| reference(user.resource_type.name(), user.id.as_str())),
            scope: (!opened.scope.is_empty()).then(|| opened.scope.clone()),
            fhir_source: source_there.then(|| context.source.to_string()),
            fhir_base_url: opened.base.to_string(),
            created_at: context.created_at.to_string(),
            expires_at: context.expires_at.to_string(),
            need_patient_banner: opened.need_patient_banner,
            intent: opened.intent.clone(),
            tenant: opened.tenant.clone(),
            smart_style_url: opened.smart_style_url.clone(),
            fhir_proxy_url: opened.connection.map(|connection| {
                format!("{origin}{}", Route::Fhir(connection.to_string(), String::new()).path())
            }),
        }
    }
}

/// `GET /launch-contexts/{id}`: as often as the app likes, while the context lives.
pub async fn retrieve(api: &Api, request: &ApiRequest, id: &str) -> Result<Answer, Problem> {
    let missing = || Problem::not_found("This launch context");
    let id = LaunchContextId::parse(id).map_err(|_| missing())?;
    let context = api.grants.launch_context(request.caller.workspace, id).await?.ok_or_else(missing)?;
    // A launch that failed has no context: its user was told, and the app was not opened.
    let LaunchOutcome::Opened(opened) = &context.outcome else { return Err(missing()) };
    let there = api.directory.source_in(request.caller.environment, context.source).is_some();
    Ok(object(request, &WireLaunchContext::new(&context, opened, there, api.public_url.origin())))
}
