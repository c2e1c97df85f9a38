//! What each operation takes and answers, in words and schemas.

use serde_json::{Value as Json, json};

use crate::api::Operation;
use crate::api::openapi::reference;
use crate::http::ProblemKind;

/// One operation in the description.
pub(super) struct Described {
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: Vec<Json>,
    /// The schema of the body, and whether there must be one.
    pub(super) body: Option<(&'static str, bool)>,
    pub(super) answered: Answered,
    /// Besides what every operation may refuse with.
    pub(super) refused: Vec<ProblemKind>,
}

/// What a success looks like.
pub(super) enum Answered {
    /// JSON of this schema.
    Json(&'static str),
    /// A single object, with a tag.
    Object(&'static str),
    /// What was done once, perhaps for an earlier request with the same `Idempotency-Key`.
    Once(&'static str),
    /// Health says by its status, too, how it is.
    Health,
    /// Lines of JSON.
    Lines,
    /// What a FHIR server says.
    Fhir,
}

fn described(tag: &'static str, summary: &'static str, about: &'static str, answered: Answered) -> Described {
    let mut parameters = Vec::new();
    if matches!(answered, Answered::Object(_)) {
        parameters.push(reference("parameters", "IfNoneMatch"));
    }
    if matches!(answered, Answered::Once(_)) {
        parameters.push(reference("parameters", "IdempotencyKey"));
    }
    Described { tag, summary, about, parameters, body: None, answered, refused: Vec::new() }
}

impl Described {
    fn path(mut self, name: &str, about: &str) -> Self {
        let schema = json!({ "type": "string", "minLength": 1 });
        let parameter =
            json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema });
        self.parameters.push(parameter);
        self.refused.push(ProblemKind::NotFound);
        self
    }

    fn query(mut self, name: &str, schema: &Json, about: &str) -> Self {
        self.parameters.push(json!({ "name": name, "in": "query", "description": about, "schema": schema }));
        self
    }

    fn pages(mut self) -> Self {
        self.parameters.push(reference("parameters", "Limit"));
        self.parameters.push(reference("parameters", "StartingAfter"));
        self
    }

    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, true));
        self
    }

    fn optional_body(mut self, schema: &'static str) -> Self {
        self.body = Some((schema, false));
        self
    }

    fn refuses(mut self, kinds: &[ProblemKind]) -> Self {
        self.refused.extend(kinds);
        self
    }
}

pub(super) fn describe(operation: Operation) -> Described {
    const ENDPOINT: &str = "`wh_…`";
    const PATIENT: &str = "Your id of the patient, percent-encoded as one segment: `a/b` is `a%2Fb`.";
    let text = json!({ "type": "string" });
    match operation {
        Operation::Health => described(
            "Service",
            "Whether it works",
            "For probes and SDKs: the process answers, and its store takes writes.",
            Answered::Health,
        ),
        Operation::CreatePatient => described(
            "Patients",
            "Create a patient",
            "Adds a patient under your own id. Starting a patient session makes its patient, too.",
            Answered::Once("Patient"),
        )
        .body("NewPatient")
        .refuses(&[ProblemKind::ExternalIdExists]),
        Operation::ListPatients => {
            described("Patients", "List patients", "Patients, newest first.", Answered::Json("PatientList"))
                .pages()
                .query("patient_id", &text, "Only the patient with exactly this id.")
                .query("email", &text, "Only patients with exactly this e-mail address.")
        }
        Operation::GetPatient => described(
            "Patients",
            "Retrieve a patient",
            "A patient with all connections, most recent first, failed attempts included.",
            Answered::Object("PatientDetail"),
        )
        .path("id", PATIENT),
        Operation::UpdatePatient => described(
            "Patients",
            "Replace a patient",
            "A full replacement: what is left out is cleared. Connections and the time of creation stay.",
            Answered::Json("Patient"),
        )
        .path("id", PATIENT)
        .body("PatientReplacement"),
        Operation::DeletePatient => described(
            "Patients",
            "Erase a patient",
            "Permanent: sessions, connections and records go, and tokens are given back at the hospital where it can.",
            Answered::Json("DeletedPatient"),
        )
        .path("id", PATIENT),
        Operation::DisconnectPatientConnection => described(
            "Patients",
            "Disconnect a source",
            "Ends access: tokens are wiped, and revoked where the hospital can. Records stay. There is no undo; the \
             patient must sign in again.",
            Answered::Json("DisconnectedConnection"),
        )
        .path("id", PATIENT)
        .path("connection_id", "The connection, `conn_…`: the one place that takes this id."),
        Operation::ListPatientSessionsForPatient => described(
            "Patient sessions",
            "List a patient's sessions",
            "Sessions, newest first.",
            Answered::Json("PatientSessionList"),
        )
        .path("id", PATIENT)
        .pages()
        .query(
            "status",
            &json!({ "type": "string", "enum": ["open", "complete", "expired"] }),
            "Only sessions in this state.",
        ),
        Operation::GetPatientRecords => records(
            "Read a patient's records",
            "The newest version of each resource, in the order in which changes were noticed. Go on from the last \
             `next_cursor` to read what has changed since. Cursors are good for seven days.",
            Answered::Json("PatientRecords"),
        )
        .query(
            "count",
            &json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 100 }),
            "Records of a page.",
        )
        .query("starting_after", &text, "`next_cursor` of the page before, with the same filters.")
        .query("ending_before", &text, "`previous_cursor` of the page after; not together with `starting_after`."),
        Operation::ExportPatientRecords => records(
            "Export a patient's records",
            "All records as lines of JSON, one `Record` each, streamed. What is there at the start is in it; a record \
             that changes meanwhile may come twice, the newer one later. A connection that is cut before its end means \
             that the export is not complete. With `Accept-Encoding: gzip` the transfer is packed.",
            Answered::Lines,
        )
        .query(
            "gzip",
            &json!({ "type": "boolean" }),
            "Answer with a packed file, `application/gzip`; `?gzip` alone means true.",
        ),
        Operation::ListFhirSources => described(
            "Connections",
            "List FHIR sources",
            "The places that patients can connect, newest first; only those of the key's environment.",
            Answered::Json("FhirSourceList"),
        )
        .pages()
        .query("q", &text, "Words of the name or the place; the beginning of each is enough.")
        .query("type", &text, "Only this vendor, such as `cerner` or `epic`."),
        Operation::GetFhirSource => described(
            "Connections",
            "Retrieve a FHIR source",
            "One source, by its id or by its FHIR base URL.",
            Answered::Object("FhirSource"),
        )
        .path("id", "`fhirsrc_…`, or the FHIR base URL percent-encoded as one segment."),
        Operation::InitPatientSession => described(
            "Patient sessions",
            "Start a patient session",
            "Makes the link for one browser journey, and the patient when there is none. With `connection_id` the \
             browser goes straight to that source; without it the patient searches. Unknown fields are refused.",
            Answered::Once("PatientSession"),
        )
        .body("NewPatientSession")
        .refuses(&[ProblemKind::NotFound, ProblemKind::Conflict]),
        Operation::RetrievePatientSession => described(
            "Patient sessions",
            "Retrieve a patient session",
            "Where the journey is. Its success is a connection with the status `active`.",
            Answered::Object("PatientSession"),
        )
        .path("id", "`ps_…`"),
        Operation::RetrieveLaunchContext => described(
            "EHR launch",
            "Retrieve a launch context",
            "What an EHR said when it opened your app: `mb_launch` in your launch URL names it. No token is in it.",
            Answered::Object("LaunchContext"),
        )
        .path("id", "The value of `mb_launch`, a UUID."),
        Operation::CreateWebhook => described(
            "Webhooks",
            "Create a webhook endpoint",
            "Events are POSTed to `url`, signed with the `secret`, which is shown here and never again.",
            Answered::Once("WebhookEndpointWithSecret"),
        )
        .body("NewWebhookEndpoint")
        .refuses(&[ProblemKind::Conflict]),
        Operation::ListWebhooks => {
            let states = json!({ "type": "string", "enum": ["active", "disabled"] });
            let about = "Webhook endpoints, newest first.";
            described("Webhooks", "List webhook endpoints", about, Answered::Json("WebhookEndpointList"))
                .pages()
                .query("status", &states, "Only endpoints in this state.")
        }
        Operation::GetWebhook => described(
            "Webhooks",
            "Retrieve a webhook endpoint",
            "An endpoint, without its secret.",
            Answered::Object("WebhookEndpoint"),
        )
        .path("id", ENDPOINT),
        Operation::UpdateWebhook => described(
            "Webhooks",
            "Change a webhook endpoint",
            "What is left out stays as it is; `metadata` is replaced as a whole. `status` pauses and resumes.",
            Answered::Json("WebhookEndpoint"),
        )
        .path("id", ENDPOINT)
        .optional_body("WebhookEndpointChange"),
        Operation::DeleteWebhook => described(
            "Webhooks",
            "Delete a webhook endpoint",
            "The endpoint and its events go.",
            Answered::Json("DeletedWebhookEndpoint"),
        )
        .path("id", ENDPOINT),
        Operation::RotateWebhookSecret => described(
            "Webhooks",
            "Make a new signing secret",
            "The new secret is shown here and never again.",
            Answered::Once("WebhookEndpointWithSecret"),
        )
        .path("id", ENDPOINT)
        .refuses(&[ProblemKind::Conflict]),
        Operation::ListWebhookEvents => {
            let about = "What was and will be delivered to an endpoint, newest first.";
            described("Webhooks", "List an endpoint's events", about, Answered::Json("EventList"))
                .path("id", ENDPOINT)
                .pages()
                .query(
                    "delivered",
                    &json!({ "type": "string", "enum": ["true", "false"] }),
                    "Only delivered events, or only those pending and failed.",
                )
        }
        Operation::RedeliverWebhookEvent => described(
            "Webhooks",
            "Deliver an event again",
            "The same event id with a new signature, at most once a minute for each event. The answer is the state after \
             the attempt.",
            Answered::Once("Event"),
        )
        .path("id", "`evt_…`")
        .refuses(&[ProblemKind::Conflict]),
        Operation::ListAuthEvents => described(
            "Patients",
            "List what happened to a patient's connections",
            "Attempts, consents, exchanges, refreshes and endings, newest first, as staff see them.",
            Answered::Json("AuthEventList"),
        )
        .path("id", PATIENT)
        .pages()
        .query("connection", &text, "Only this connection, `conn_…`."),
        Operation::ReadLive => live(
            "Read live",
            "Reads at the hospital as it is there now: `Patient/12`, or a search such as `Observation` with its query. \
             Links and references lead back here. Errors are OperationOutcomes.",
        ),
        Operation::SearchLive => live(
            "Search live",
            "A search whose parameters are in the body, as `application/x-www-form-urlencoded`: the path is \
             `{type}/_search`.",
        ),
    }
}

fn live(summary: &'static str, about: &'static str) -> Described {
    described("Records", summary, about, Answered::Fhir)
        .path("connection_id", "The connection, `conn_…`.")
        .path("path", "What is read, as FHIR R4 has it; it may hold slashes.")
}

fn records(summary: &'static str, about: &'static str, answered: Answered) -> Described {
    const TYPES: &str = "^ *[A-Z][A-Za-z0-9]{0,63} *(, *[A-Z][A-Za-z0-9]{0,63} *)*$";
    let since = json!({ "anyOf": [
        { "type": "string", "format": "date-time" },
        { "type": "string", "format": "date" },
    ] });
    described("Records", summary, about, answered)
        .path("id", "Your id of the patient, percent-encoded as one segment.")
        .query(
            "type",
            &json!({ "type": "string", "pattern": TYPES }),
            "FHIR resource types, comma-separated: `Observation,Condition`.",
        )
        .query("since", &since, "Only what changed after this instant, as noticed here.")
}
