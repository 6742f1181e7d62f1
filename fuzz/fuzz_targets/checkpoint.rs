//! Hostile bytes as a checkpoint: a format error, or a checkpoint that can be saved and opened again as the same.
//!
//! A checksum over the metadata would stop nearly every input, so it is made to fit first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaglot::Error;
use metaglot::checkpoint::Checkpoint;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = with_fitting_checksums(bytes) {
        check(&bytes);
    }
});

fn check(bytes: &[u8]) {
    match Checkpoint::from_bytes(bytes, "here") {
        Err(error) => assert!(matches!(error, Error::Format { .. }), "{error:?}"),
        Ok(checkpoint) => {
            let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
            let path = folder.path().join("again");
            checkpoint.save(&path).expect("what was opened can be saved");
            assert_eq!(Checkpoint::open(&path).expect("what was saved can be opened"), checkpoint);
        }
    }
}

/// The file with each checksum replaced by the right one; none where it is not a file with metadata at all.
fn with_fitting_checksums(bytes: &[u8]) -> Option<Vec<u8>> {
    let len = u64::from_le_bytes(bytes.first_chunk::<8>().copied()?);
    let (header, body) = bytes[8..].split_at_checked(usize::try_from(len).ok()?)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let tensors = header.as_object()?.clone();
    let metadata = header.get_mut("__metadata__")?.as_object_mut()?;
    for (name, info) in tensors.iter().filter(|(name, _)| *name != "__metadata__") {
        let at = |i: usize| usize::try_from(info.get("data_offsets")?.get(i)?.as_u64()?).ok();
        let crc = crc32fast::hash(body.get(at(0)?..at(1)?)?);
        metadata.insert(format!("crc32.{name}"), format!("{crc:08x}").into());
    }
    let mut hasher = crc32fast::Hasher::new();
    for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with("crc32")) {
        [key, "\0", value.as_str()?, "\0"].into_iter().for_each(|piece| hasher.update(piece.as_bytes()));
    }
    metadata.insert("crc32".into(), format!("{:08x}", hasher.finalize()).into());
    let header = header.to_string();
    Some([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), body].concat())
}
