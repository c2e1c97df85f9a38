//! Pages. Pure functions from a view to HTML: no store, no network, no clock. The handlers that fill the views know
//! those, and the pages do not.

pub mod assets;
pub mod colour;
pub mod connect;
pub mod docs;
pub mod ehr_launch;
pub mod errors;
pub mod home;
pub mod look;
pub mod packet;
