//! From a request to its route, and from an answer to its headers. Knows every URL of ours and no handler.

mod answer;
mod forwarded;
mod problem;
mod route;

pub use answer::{Answer, HeaderPolicy, RequestId};
pub use forwarded::client_address;
pub use problem::{Problem, ProblemKind};
pub use route::{ConnectPage, Guard, Method405, Miss, Route};
