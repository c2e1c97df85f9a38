//! Cursors of lists: where a page ended, in a form that callers pass back unread.

use crate::crypto::{base64url, from_base64url};
use crate::http::Problem;
use crate::id::Id;
use crate::store::Vault;

/// A cursor behind `id`, good for the list that `scope` names (workspace, operation, filters) and no other.
pub fn cursor_after(vault: &Vault, scope: &[&[u8]], id: impl Id) -> String {
    sealed_place(vault, scope, &id.to_bytes())
}

/// The inverse of [`cursor_after`].
pub fn read_cursor<T: Id>(vault: &Vault, scope: &[&[u8]], text: Option<&str>) -> Result<Option<T>, Problem> {
    Ok(read_place(vault, scope, text)?.map(T::from_bytes))
}

/// [`cursor_after`] for a list whose rows have no id of their own.
pub fn sealed_place(vault: &Vault, scope: &[&[u8]], place: &[u8]) -> String {
    base64url(&[place, &tag(vault, scope, place)].concat())
}

/// The inverse of [`sealed_place`].
pub fn read_place<const N: usize>(
    vault: &Vault,
    scope: &[&[u8]],
    text: Option<&str>,
) -> Result<Option<[u8; N]>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bad = || {
        let message = "`starting_after` must be the `next_cursor` of the page before, with the same filters.";
        Problem::invalid("starting_after", message)
    };
    let bytes = from_base64url(text).ok_or_else(bad)?;
    let (place, given) = bytes.split_at_checked(N).ok_or_else(bad)?;
    let place: [u8; N] = place.try_into().map_err(|_| bad())?;
    if given == tag(vault, scope, &place).as_slice() { Ok(Some(place)) } else { Err(bad()) }
}

fn tag(vault: &Vault, scope: &[&[u8]], place: &[u8]) -> [u8; 8] {
    let mut parts: Vec<&[u8]> = vec![b"list-cursor"];
    parts.extend_from_slice(scope);
    parts.push(place);
    let digest = vault.digest(&parts);
    let mut tag = [0; 8];
    tag.copy_from_slice(&digest[..8]);
    tag
}
