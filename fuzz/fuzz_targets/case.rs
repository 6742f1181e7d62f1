//! Hostile bytes as a case: a format error, or a case that can be saved and opened again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaglot::Error;
use metaglot::case::Case;

fuzz_target!(|bytes: &[u8]| match Case::from_bytes(bytes, "here") {
    Err(error) => assert!(matches!(error, Error::Format { .. }), "{error:?}"),
    Ok(case) => {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let path = folder.path().join("again");
        case.save(&path).expect("what was opened can be saved");
        assert_eq!(Case::open(&path).expect("what was saved can be opened"), case);
    }
});
