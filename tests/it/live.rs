//! The live FHIR proxy: what a standard FHIR client gets through it, from the sandbox hospital and from a server that
//! answers whatever a test says.

mod ehr;
mod hospital;
mod hostile;
mod passing;
