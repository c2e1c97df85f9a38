//! How often somebody may call: a bucket of calls that fills up at a steady rate, for each key and for each address whose
//! keys were wrong. In memory, with a bound; a restart forgets it, which does no harm.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;

/// Callers that are remembered at a time. Who was not seen for as long as a bucket takes to fill is forgotten first.
const MOST: usize = 100_000;

/// A rate, and how many calls may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The name in the `RateLimit` fields.
    pub name: &'static str,
    /// How long one call's place takes to come back.
    pub every: Duration,
    /// Calls at once, at least one.
    pub burst: u32,
}

/// How much of an allowance is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    allowance: Allowance,
    /// Calls that may come now.
    pub remaining: u32,
    /// Until all of them may come again.
    full_in: Duration,
    /// Until one may come, when none may.
    pub wait: Duration,
}

impl Quota {
    /// Writes the fields of draft-ietf-httpapi-ratelimit-headers: what is promised, and what is left of it.
    pub fn write(&self, headers: &mut HeaderMap) {
        let Allowance { name, every, burst } = self.allowance;
        let window = whole_seconds(every.saturating_mul(burst)).max(1);
        let policy = format!("\"{name}\";q={burst};w={window}");
        let left = format!("\"{name}\";r={};t={}", self.remaining, whole_seconds(self.full_in));
        for (field, text) in [("ratelimit-policy", policy), ("ratelimit", left)] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(HeaderName::from_static(field), value);
            }
        }
    }

    /// For `Retry-After`: whole seconds, at least one.
    pub fn retry_after(&self) -> u32 {
        u32::try_from(whole_seconds(self.wait)).unwrap_or(u32::MAX).max(1)
    }
}

/// Rounded up, so that whoever waits that long is let in.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// One bucket for each caller. The generic cell rate algorithm: a caller is one number, the time at which its bucket
/// would be full again.
#[derive(Debug)]
pub struct Throttle<K> {
    allowance: Allowance,
    /// Microseconds since 1970.
    full_at: Mutex<HashMap<K, i64>>,
}

impl<K: Hash + Eq> Throttle<K> {
    /// The same allowance for everybody.
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, full_at: Mutex::default() }
    }

    /// What a caller has left, without taking anything.
    pub fn look(&self, caller: &K, now: Timestamp) -> Quota {
        let now = micros(now);
        let full_at = self.lock().get(caller).copied().unwrap_or(now);
        self.quota(self.within(full_at, now), now)
    }

    /// Takes one call from a caller's bucket. Refused calls take nothing.
    pub fn take(&self, caller: K, now: Timestamp) -> Result<Quota, Quota> {
        let now = micros(now);
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&caller) {
            known.retain(|_, full_at| *full_at > now);
            if known.len() >= MOST {
                // So many at once are one attack or one busy day; either is better served by starting afresh than by
                // refusing those who come later.
                known.clear();
            }
        }
        let entry = known.entry(caller).or_insert(now);
        let full_at = self.within(*entry, now);
        *entry = full_at;
        let taken = full_at + self.every();
        if taken - now > self.every() * i64::from(self.allowance.burst) {
            return Err(self.quota(full_at, now));
        }
        *entry = taken;
        Ok(self.quota(taken, now))
    }

    /// A clock that was set back must not keep anybody out for longer than an empty bucket takes to fill.
    fn within(&self, full_at: i64, now: i64) -> i64 {
        full_at.clamp(now, now + self.every() * i64::from(self.allowance.burst))
    }

    fn quota(&self, full_at: i64, now: i64) -> Quota {
        let (every, burst) = (self.every(), i64::from(self.allowance.burst));
        let room = every * burst - (full_at - now);
        Quota {
            allowance: self.allowance,
            remaining: u32::try_from(room / every).unwrap_or(0),
            full_in: span(full_at - now),
            wait: span(every - room),
        }
    }

    fn every(&self) -> i64 {
        i64::try_from(self.allowance.every.as_micros()).unwrap_or(i64::MAX / 1_000_000).max(1)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, i64>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(at: Timestamp) -> i64 {
    at.millis().saturating_mul(1000)
}

fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Who an address belongs to, as far as can be told: one IPv4 address, or one IPv6 network of 64 bits, which is the
/// least that one customer gets.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_seconds(1_793_607_165);

    fn ten_a_second() -> Throttle<u8> {
        Throttle::new(Allowance { name: "key", every: Duration::from_millis(100), burst: 20 })
    }

    #[test]
    fn a_burst_and_then_the_steady_rate_for_each_alone() {
        let throttle = ten_a_second();
        for left in (0..20).rev() {
            assert_eq!(throttle.take(1, NOON).map(|quota| quota.remaining), Ok(left));
        }
        let refused = throttle.take(1, NOON).expect_err("nothing is left");
        assert_eq!(
            (refused.remaining, refused.wait, refused.retry_after()),
            (0, Duration::from_millis(100), 1)
        );
        assert!(throttle.take(2, NOON).is_ok(), "another caller has a bucket of its own");
        let soon = NOON.after(Duration::from_millis(99));
        assert!(throttle.take(1, soon).is_err(), "refused calls cost nothing, but not yet");
        for tenth in 1..=30 {
            let later = NOON.after(Duration::from_millis(100) * tenth);
            assert!(throttle.take(1, later).is_ok(), "{tenth}");
            assert!(throttle.take(1, later).is_err(), "{tenth}");
        }
        let rested = NOON.after(Duration::from_hours(1));
        assert_eq!(throttle.look(&1, rested).remaining, 20);
        assert_eq!(throttle.look(&1, rested).remaining, 20, "looking takes nothing");
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_out_for_long() {
        let throttle = ten_a_second();
        let ahead = NOON.after(Duration::from_hours(1));
        assert!(throttle.take(1, ahead).is_ok());
        let refused = throttle.take(1, NOON).expect_err("an empty bucket at worst");
        assert!(refused.wait <= Duration::from_millis(100));
        assert!(throttle.take(1, NOON.after(Duration::from_millis(100))).is_ok());
    }

    #[test]
    fn the_fields_say_what_is_promised_and_what_is_left() {
        let throttle = ten_a_second();
        let quota = throttle.take(1, NOON).expect("taken");
        let mut headers = HeaderMap::new();
        quota.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"key\";q=20;w=2");
        assert_eq!(headers["ratelimit"], "\"key\";r=19;t=1");
    }

    #[test]
    fn the_number_of_callers_is_bounded() {
        let throttle = Throttle::new(Allowance { name: "x", every: Duration::from_secs(1), burst: 5 });
        for caller in 0..MOST + 10 {
            assert!(throttle.take(caller, NOON).is_ok());
        }
        assert!(throttle.lock().len() <= MOST);
    }

    #[test]
    fn an_ipv6_customer_is_one_caller() {
        let of = |text: &str| neighbourhood(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
