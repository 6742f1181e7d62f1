//! Hostile bytes as a dataset: a format error, or a dataset of which every accessor keeps its promise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaglot::Error;
use metaglot::dataset::{Dataset, Kind, NO_LABEL};

fuzz_target!(|bytes: &[u8]| {
    match Dataset::from_bytes(bytes) {
        Ok(data) => walk(&data),
        Err(error) => assert!(matches!(error, Error::Format { .. }), "{error:?}"),
    }
});

fn walk(data: &Dataset) {
    let rows = data.len();
    assert_eq!((data.is_empty(), data.offsets().len()), (rows == 0, rows + 1));
    assert_eq!((data.languages().len(), data.text_ids().len()), (rows, rows));
    for i in 0..rows {
        let bag = data.row(i);
        assert!(bag.tokens.windows(2).all(|t| t[0] < t[1]) && bag.tokens.iter().all(|&t| t < data.vocabulary()));
        assert!(bag.weights.is_none_or(|w| w.len() == bag.tokens.len() && w.iter().all(|w| w.is_finite())));
        assert!(data.labels()[i] == NO_LABEL || (data.labels()[i] as usize) < data.label_names().len());
        assert!(usize::from(data.languages()[i]) < data.language_names().len());
    }
    assert!(data.signals().is_none_or(|s| s.len() == rows * data.signal_names().len()));
    assert!(data.idf().is_none_or(|idf| idf.len() == data.vocabulary() as usize && idf.iter().all(|&w| w > 0.0)));
    assert_eq!(data.groups().is_some(), data.kind() == Kind::Ranking);
    for group in data.groups().unwrap_or(&[0]).windows(2) {
        assert!(group[0] + 2 <= group[1] && group[1] <= rows as u64);
    }
    let _ = (data.text_config_json(), data.made_by_json(), data.file_bytes(), data.verify_checksums());
}
