//! Names to addresses, less every address the guard forbids, so that a name cannot lead inside.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::names::Names;
use super::{AddressGuard, Reach};

/// Marks a refusal by the guard inside an error chain.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves to private addresses only")]
pub(super) struct PrivateOnly;

/// Marks a name that does not resolve inside an error chain.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
pub(super) struct NotFound;

/// Why a name leads nowhere.
#[derive(Debug)]
pub(super) enum ResolveError {
    NotFound,
    PrivateOnly,
}

/// Resolves for both clients.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    pub(super) guard: AddressGuard,
    pub(super) names: Names,
    pub(super) reach: Reach,
}

impl GuardedResolver {
    /// The addresses of a name that may be called. A literal address passes through and is judged like any other.
    pub(super) async fn addresses(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = tokio::net::lookup_host((name, port)).await.map_err(|_| ResolveError::NotFound)?;
        let found: Vec<SocketAddr> = found.collect();
        let allows = |address: &SocketAddr| self.guard.allows(address.ip(), self.reach);
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(allows).collect();
        match (allowed.is_empty(), found.is_empty()) {
            (false, _) => {
                if name.parse::<IpAddr>().is_err() {
                    self.names.note(name, allowed.iter().map(SocketAddr::ip));
                }
                Ok(allowed)
            }
            (true, true) => Err(ResolveError::NotFound),
            (true, false) => Err(ResolveError::PrivateOnly),
        }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        let lookup = async move {
            let found = resolver.addresses(name.as_str(), 0).await;
            let allowed = found.map_err(|error| -> Box<dyn std::error::Error + Send + Sync> {
                match error {
                    ResolveError::NotFound => NotFound.into(),
                    ResolveError::PrivateOnly => PrivateOnly.into(),
                }
            })?;
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        };
        let lookup: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(lookup);
        lookup
    }
}
