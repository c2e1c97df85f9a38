//! Cursors of lists: where a page ended, in a form that callers pass back unread.

use crate::crypto::{base64url, from_base64url};
use crate::http::Problem;
use crate::id::Id;
use crate::store::Vault;

/// A cursor behind `id`, good for the list that `scope` names (workspace, operation, filters) and no other.
pub fn cursor_after(vault: &Vault, scope: &[&[u8]], id: impl Id) -> String {
    let id = id.to_bytes();
    base64url(&[id.as_slice(), &tag(vault, scope, &id)].concat())
}

/// The inverse of [`cursor_after`].
pub fn read_cursor<T: Id>(vault: &Vault, scope: &[&[u8]], text: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bad = || {
        let message = "`starting_after` must be the `next_cursor` of the page before, with the same filters.";
        Problem::invalid("starting_after", message)
    };
    let bytes = from_base64url(text).ok_or_else(bad)?;
    let (id, given) = bytes.split_at_checked(16).ok_or_else(bad)?;
    let id: [u8; 16] = id.try_into().map_err(|_| bad())?;
    if given == tag(vault, scope, &id).as_slice() { Ok(Some(T::from_bytes(id))) } else { Err(bad()) }
}

fn tag(vault: &Vault, scope: &[&[u8]], id: &[u8; 16]) -> [u8; 8] {
    let mut parts: Vec<&[u8]> = vec![b"list-cursor"];
    parts.extend_from_slice(scope);
    parts.push(id);
    let digest = vault.digest(&parts);
    let mut tag = [0; 8];
    tag.copy_from_slice(&digest[..8]);
    tag
}
