//! Mint the id of a new node.

use serde::{Deserialize, Serialize};

use super::{Rejection, Reply};
use crate::state::State;

/// Mints an id for a node that joins. None is ever given out twice: a node that comes back
/// with an empty disk has forgotten its votes, so under its old id it could elect a second
/// leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintNodeId {}

impl MintNodeId {
    pub(super) fn apply(self, state: &mut State) -> Result<Reply, Rejection> {
        let Self {} = self;
        Ok(Reply::Minted { id: state.mint() })
    }
}
