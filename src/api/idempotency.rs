//! `Idempotency-Key`: a request that is sent twice is carried out once, and answered twice.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::api::{Api, ApiRequest};
use crate::http::{Answer, Problem, ProblemKind};
use crate::id::PatientKey;
use crate::store::{Change, StoreError};
use crate::workspaces::{OnceError, OnceOnly};

/// The request's header.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// On an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
/// The longest key.
const LONGEST: usize = 255;
/// Asks a caller with too many keys to come back in an hour, when some have ended.
const LATER: u32 = 3600;

impl From<OnceError> for Problem {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::OtherRequest => Self::new(
                ProblemKind::Conflict,
                "This `Idempotency-Key` was used for another request; use a new key for each new request.",
            )
            .about(IDEMPOTENCY_KEY),
            OnceError::Erased => Self::new(
                ProblemKind::Conflict,
                "What was made under this `Idempotency-Key` has been deleted since; use a new key to make it again.",
            )
            .about(IDEMPOTENCY_KEY),
            OnceError::TooMany => Self::new(
                ProblemKind::QuotaExceeded(LATER),
                "Too many `Idempotency-Key`s of the last 24 hours are kept for your workspace; wait, or leave it out.",
            )
            .about(IDEMPOTENCY_KEY),
            OnceError::Store(error) => error.into(),
        }
    }
}

/// What a request says about being carried out once: nothing, when it has no key.
#[derive(Debug)]
pub struct Once(Option<OnceOnly>);

impl Once {
    /// Reads the header. `place` is the operation, and what its path names.
    pub fn asked(api: &Api, request: &ApiRequest, place: &[&[u8]]) -> Result<Self, Problem> {
        asked(api, request, place).map(Self)
    }

    /// The answer given before, if this is a repetition: asked before anything is looked at that may have changed since.
    pub async fn answered(&self, api: &Api) -> Result<Option<Answer>, Problem> {
        let Some(once) = self.0.clone() else { return Ok(None) };
        let before = api.store.read(move |view| once.before(view)).await?;
        Ok(before.map(|answer| answer_of(answer, true)))
    }

    /// Carries out `work` and answers with what it made, in one transaction with the answer. Only what succeeded is kept:
    /// a refused request has changed nothing, and may be sent again.
    pub async fn carry_out<W, F>(self, api: &Api, work: F) -> Result<Answer, Problem>
    where
        W: Serialize,
        F: FnOnce(&mut Change<'_>) -> Result<(W, Option<PatientKey>), Problem> + Send + 'static,
    {
        let Self(once) = self;
        let (answer, replayed) = api
            .store
            .write(move |change| {
                // Of two at once the second comes here after the first is done.
                if let Some(answer) = once.as_ref().map(|once| once.before(change)).transpose()?.flatten() {
                    return Ok((answer, true));
                }
                let (made, patient) = work(change)?;
                let answer = text_of(&made);
                if let Some(once) = once {
                    once.keep(change, answer.clone(), patient)?;
                }
                Ok::<_, Problem>((answer, false))
            })
            .await?;
        Ok(answer_of(answer, replayed))
    }
}

impl Once {
    /// Keeps the answer to what has been done already and cannot be taken back, such as something that was sent. When too
    /// many keys are kept, this one is not: better than not to note what was done.
    pub fn keep_done(
        self,
        change: &mut Change<'_>,
        done: &impl Serialize,
        patient: PatientKey,
    ) -> Result<(), StoreError> {
        let Self(Some(once)) = self else { return Ok(()) };
        // Another request has used the key meanwhile: its answer stays.
        if matches!(once.before(change), Err(OnceError::OtherRequest)) {
            return Ok(());
        }
        match once.keep(change, text_of(done), Some(patient)) {
            Err(OnceError::Store(error)) => Err(error),
            Ok(()) | Err(OnceError::OtherRequest | OnceError::Erased | OnceError::TooMany) => Ok(()),
        }
    }
}

fn text_of(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("our own wire structs have string keys")
}

fn answer_of(text: String, replayed: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK, "application/json", text);
    if replayed {
        let name = HeaderName::from_static(IDEMPOTENCY_REPLAYED);
        answer.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    answer
}

fn asked(api: &Api, request: &ApiRequest, place: &[&[u8]]) -> Result<Option<OnceOnly>, Problem> {
    let Some(value) = request.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = |key: &&str| {
        (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    let key = value.to_str().ok().filter(visible).ok_or_else(|| {
        let message = format!("`{IDEMPOTENCY_KEY}` must have 1 to {LONGEST} visible ASCII characters.");
        Problem::invalid(IDEMPOTENCY_KEY, message)
    })?;
    let mut whole = place.to_vec();
    whole.push(&request.body);
    let workspace = request.caller.workspace;
    Ok(Some(OnceOnly::new(api.store.vault(), workspace, key, &whole, api.clock.now())))
}
