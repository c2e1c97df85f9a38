//! The kinds of events there are, and which of them an endpoint wants.

use std::fmt;

/// A kind of event: the four of the wire contract, and ours, which are sent only to who asks for them by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A patient's journey has ended, however it went.
    SessionCompleted,
    /// An active connection's refresh token stopped working; its tokens are gone.
    TokenRefreshFailed,
    /// A pull ended well and brought new records.
    SyncCompleted,
    /// A pull brought nothing.
    SyncFailed,
    /// A patient connected a source, or connected it anew.
    ConnectionActive,
    /// A patient connected a source, but not everything that was asked for was shared.
    ConnectionGaps,
    /// An attempt to connect a source did not succeed.
    ConnectionFailed,
    /// An active connection is over, for whatever reason.
    ConnectionEnded,
    /// A patient said that a place is missing.
    SourceRequested,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SessionCompleted,
        Self::TokenRefreshFailed,
        Self::SyncCompleted,
        Self::SyncFailed,
        Self::ConnectionActive,
        Self::ConnectionGaps,
        Self::ConnectionFailed,
        Self::ConnectionEnded,
        Self::SourceRequested,
    ];

    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionCompleted => "patient_session.completed",
            Self::TokenRefreshFailed => "connection.token_refresh_failed",
            Self::SyncCompleted => "records.sync.completed",
            Self::SyncFailed => "records.sync.failed",
            Self::ConnectionActive => "chartgate.connection.active",
            Self::ConnectionGaps => "chartgate.connection.gaps",
            Self::ConnectionFailed => "chartgate.connection.failed",
            Self::ConnectionEnded => "chartgate.connection.ended",
            Self::SourceRequested => "chartgate.source.requested",
        }
    }

    /// Whether the wire contract knows it: apps that were written for it must not meet another kind under `*`.
    pub const fn is_of_the_contract(self) -> bool {
        matches!(
            self,
            Self::SessionCompleted | Self::TokenRefreshFailed | Self::SyncCompleted | Self::SyncFailed
        )
    }

    /// Reads the spelling on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `*`: everything of the contract, and nothing else.
    Everything,
    /// This kind.
    Kind(EventKind),
}

impl Wanted {
    /// Reads the spelling on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" { Some(Self::Everything) } else { EventKind::parse(text).map(Self::Kind) }
    }

    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "*",
            Self::Kind(kind) => kind.as_str(),
        }
    }

    /// Whether the wire contract has this spelling, and counts it.
    pub const fn is_of_the_contract(self) -> bool {
        match self {
            Self::Everything => true,
            Self::Kind(kind) => kind.is_of_the_contract(),
        }
    }

    /// Whether an event of this kind is asked for.
    pub fn covers(self, kind: EventKind) -> bool {
        match self {
            Self::Everything => kind.is_of_the_contract(),
            Self::Kind(wanted) => wanted == kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_means_the_contracts_four_and_no_kind_of_our_own() {
        let covered: Vec<&str> = EventKind::ALL
            .into_iter()
            .filter(|kind| Wanted::Everything.covers(*kind))
            .map(EventKind::as_str)
            .collect();
        let contract = [
            "patient_session.completed",
            "connection.token_refresh_failed",
            "records.sync.completed",
            "records.sync.failed",
        ];
        assert_eq!(covered, contract);
        for kind in EventKind::ALL {
            assert_eq!(kind.is_of_the_contract(), !kind.as_str().starts_with("chartgate."), "{kind}");
        }
    }

    #[test]
    fn every_kind_reads_back_its_own_spelling() {
        for kind in EventKind::ALL {
            assert_eq!(Wanted::parse(kind.as_str()), Some(Wanted::Kind(kind)));
            assert!(Wanted::Kind(kind).covers(kind));
        }
        for unknown in ["", "**", "records.sync", "patient_session.*", "chartgate.*"] {
            assert_eq!(Wanted::parse(unknown), None, "{unknown}");
        }
    }
}
