//! stand-in until the room lands
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// x
    Live,
    /// x
    Sandbox,
}
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// x
    PrivateKeyJwt,
    /// x
    ClientSecretBasic,
    /// x
    ClientSecretPost,
    /// x
    None,
}
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmartVersion {
    /// x
    V1,
    /// x
    V2,
}
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpAddr, u8);
impl Network {
    /// x
    pub fn contains(&self, a: IpAddr) -> bool {
        match (self.0, a) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                let m = u32::MAX.checked_shl(32 - u32::from(self.1)).unwrap_or(0);
                u32::from(n) & m == u32::from(a) & m
            }
            _ => false,
        }
    }
}
impl std::str::FromStr for Network {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (a, b) = s.split_once('/').ok_or(())?;
        Ok(Self(a.parse().map_err(|_| ())?, b.parse().map_err(|_| ())?))
    }
}
