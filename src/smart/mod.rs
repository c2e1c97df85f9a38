//! The protocol: SMART App Launch as a client speaks it.
//!
//! Most files here are pure: they turn bytes and texts into checked types and back. `discoverer`, `tokens` and `launch`
//! talk to EHRs through `outbound`; `keys` keeps our signing keys. None knows pages or routes.

pub mod assertion;
pub mod discoverer;
pub mod discovery;
pub mod ehr_error;
pub mod id_token;
pub mod keys;
pub mod launch;
pub mod patient;
pub mod pkce;
pub mod scopes;
pub mod server;
pub mod skew;
pub mod token_response;
pub mod tokens;
pub mod url;
pub mod vendors;
mod whose_record;

pub use discoverer::{DiscoverFailure, Discoverer};
pub use ehr_error::FailureCode;
pub use keys::SigningKeys;
pub use launch::{
    CallbackQuery, Departure, EhrLaunch, Landing, LaunchAttempt, LaunchFailure, Launcher, Lifetimes, Origin,
    Returned, StaleReturn,
};
pub use patient::EhrPatientId;
pub use scopes::{RESOURCE_TYPES, patient_words};
pub use server::{EhrServer, Registration};
pub use skew::{ClockSkews, Skew};
pub use tokens::{TokenClient, TokenFailure, Unwanted, Urgency};
pub use url::FhirBaseUrl;
