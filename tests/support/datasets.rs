//! Small datasets made in memory, row by row.
#![allow(dead_code, reason = "each test binary uses its part")]

use metaglot::dataset::{Dataset, DatasetSpec, DatasetWriter, Kind, Row, Weighing};
use serde_json::json;

/// A row to be written; all weights are 1.
#[derive(Clone, Debug)]
pub struct Made {
    pub language: String,
    pub label: Option<String>,
    pub text: u32,
    pub tokens: Vec<u32>,
    pub signals: Vec<f32>,
}

fn write(kind: Kind, vocabulary: u32, groups: &[&[Made]]) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let signals = groups.iter().find_map(|g| g.first()).map_or(0, |row| row.signals.len());
    let spec = DatasetSpec {
        kind,
        vocabulary,
        text_config: "{}".into(),
        signal_names: (0..signals).map(|i| format!("signal {i}")).collect(),
        weighing: Weighing::Ones,
    };
    let mut writer = DatasetWriter::create(&path, spec).unwrap();
    for group in groups {
        if kind == Kind::Ranking {
            writer.begin_group().unwrap();
        }
        for row in *group {
            let text_id = &row.text.to_string();
            let (label, language) = (row.label.as_deref(), &row.language);
            let row = Row { tokens: &row.tokens, values: &[], label, language, text_id, signals: &row.signals };
            writer.push(row).unwrap();
        }
    }
    writer.finish(&json!({})).unwrap();
    // The mapping outlives the folder only where the system allows it; a copy always does.
    Dataset::from_bytes(&std::fs::read(&path).unwrap()).unwrap()
}

/// Labelled texts, or with `Kind::Pairs` translations.
pub fn texts(kind: Kind, vocabulary: u32, rows: &[Made]) -> Dataset {
    write(kind, vocabulary, &[rows])
}

/// Candidate lists: the first row of each group is the question.
pub fn lists(groups: &[Vec<Made>]) -> Dataset {
    write(Kind::Ranking, 1, &groups.iter().map(Vec::as_slice).collect::<Vec<_>>())
}
