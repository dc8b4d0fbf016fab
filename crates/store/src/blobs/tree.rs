//! The BLAKE3 tree beside an artifact, which proves each of its ranges.

use std::ops::Range;

use bao_tree::{
    BaoTree, BlockSize, ByteRanges, ChunkRanges,
    io::{outboard::PreOrderOutboard, round_up_to_chunks, round_up_to_chunks_groups},
};
use realm_manifest::identity::Artifact;

/// 16 KiB groups: the proof costs 0.4 % of the bytes.
const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
pub(super) const GROUP_BYTES: u64 = 16 * 1024;

pub(super) fn geometry(artifact: &Artifact) -> BaoTree {
    BaoTree::new(artifact.size, BLOCK)
}

/// The tree of `artifact`, kept in `data`.
pub(super) fn board<D>(artifact: &Artifact, data: D) -> PreOrderOutboard<D> {
    PreOrderOutboard {
        root: blake3::Hash::from_bytes(*artifact.blake3.as_bytes()),
        tree: geometry(artifact),
        data,
    }
}

/// Groups of an artifact of this many bytes; an empty one has none.
pub(super) fn groups(size: u64) -> usize {
    size.div_ceil(GROUP_BYTES) as usize
}

/// The chunks of the whole groups that `range` touches.
pub(super) fn chunks(range: Range<u64>) -> ChunkRanges {
    round_up_to_chunks_groups(round_up_to_chunks(&ByteRanges::from(range)), BLOCK)
}
