//! Pages of a list, and the tokens that go from one to the next.
//!
//! A token says where the last page ended, not how many items came before: so it stays good
//! while items come and go, on every node and under every leader.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Items on a page unless the request says otherwise.
pub const PAGE_LIMIT_DEFAULT: usize = 50;

/// The most items on a page: what can be made and read in a moment.
pub const PAGE_LIMIT_MAX: usize = 1_000;

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// In the order of the list. May be fewer than asked for, or none, and still not the last.
    pub items: Vec<T>,
    /// Asks for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

impl<T> Page<T> {
    /// A list that fits on one page.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_page_token: None }
    }
}

/// Makes a token for a position in a list. The list is named by its path and its filters.
pub(crate) fn seal(list: &str, position: &[u8]) -> String {
    let check = checksum(list, position);
    position.iter().chain(&check).map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a token back; `None` unless it was made for this very list.
pub(crate) fn open(list: &str, token: &str) -> Option<Vec<u8>> {
    let digit = |at: u8| char::from(at).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = token.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect();
    let bytes = bytes?;
    let (position, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    (checksum(list, position) == check).then(|| position.to_vec())
}

const CHECK_BYTES: usize = size_of::<u64>();

fn checksum(list: &str, position: &[u8]) -> [u8; CHECK_BYTES] {
    let mut text = list.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(position);
    xxh3_64(&text).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_a_token_for_its_own_list_only() {
        let token = seal("/v1/runs?state=failed", b"here");
        assert_eq!(open("/v1/runs?state=failed", &token).as_deref(), Some(&b"here"[..]));
        assert_eq!(open("/v1/runs", &token), None);
        assert_eq!(open("/v1/runs?state=failed", &token[2..]), None);
        assert_eq!(open("/v1/runs?state=failed", "zz"), None);
        assert_eq!(open("/v1/runs?state=failed", "é"), None);
        assert_eq!(open("/v1/runs?state=failed", ""), None);
    }
}
