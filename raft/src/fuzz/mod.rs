//! Broken input for what reads the bytes of other nodes, and of this one after a crash.

mod frames;
mod snapshot;

use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target)
}

/// Gives every frame in `bytes` the checksum that it should have, so that what is wrong inside is
/// read. Frames that are cut off stay as they are.
fn seal_frames(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<8>() {
        let [l0, l1, l2, l3, ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some((payload, behind)) = behind.split_at_mut_checked(length) else { return };
        header[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        rest = behind;
    }
}
