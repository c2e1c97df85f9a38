//! The names that addresses were called by, so that a caller from one of them can be named.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Far more than the EHRs of one clinic have.
const MOST: usize = 1024;

/// Names by address. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<IpAddr, String>>>);

impl Names {
    /// Notes what a name resolved to.
    pub(super) fn note(&self, name: &str, addresses: impl Iterator<Item = IpAddr>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            // Names in use are resolved again and again, so that what is dropped here comes back.
            if known.len() >= MOST && !known.contains_key(&address.to_canonical()) {
                known.clear();
            }
            known.insert(address.to_canonical(), name.to_owned());
        }
    }

    /// The name that resolved to this address last.
    pub(super) fn at(&self, address: IpAddr) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address.to_canonical()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_it_was_called_by_last_and_names_do_not_pile_up() {
        let names = Names::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        names.note("first.example", [address(1)].into_iter());
        names.note("second.example", [address(1), address(2)].into_iter());
        assert_eq!(names.at(address(1)).as_deref(), Some("second.example"));
        assert_eq!(
            names.at("::ffff:0.0.0.2".parse().expect("an address")).as_deref(),
            Some("second.example")
        );
        assert_eq!(names.at(address(3)), None);
        names.note("many.example", (10..5_000).map(address));
        assert!(names.0.lock().expect("no panic inside").len() <= MOST);
        assert_eq!(names.at(address(4_999)).as_deref(), Some("many.example"));
    }
}
