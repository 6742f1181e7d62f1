//! The dataset file, version 1: this comment is its specification, the code below its names and limits.
//!
//! A dataset is one [safetensors](https://github.com/huggingface/safetensors) file, little-endian. It holds `n` rows;
//! a row is a bag of tokens (a sparse vector over a vocabulary of `V` tokens) with a label, a language and a text id.
//!
//! | tensor     | type | shape    | present            | meaning                                                    |
//! |------------|------|----------|--------------------|------------------------------------------------------------|
//! | `offsets`  | u64  | `[n+1]`  | always             | row `i` owns elements `offsets[i] .. offsets[i+1]`         |
//! | `groups`   | u64  | `[g+1]`  | kind `ranking`     | group `j` is the rows `groups[j] .. groups[j+1]`           |
//! | `tokens`   | u32  | `[nnz]`  | always             | token ids                                                  |
//! | `labels`   | u32  | `[n]`    | always             | index into `label_names`; `u32::MAX` = none                |
//! | `text_id`  | u32  | `[n]`    | always             | rows with the same number are translations of each other   |
//! | `signals`  | f32  | `[n, s]` | if `s > 0`         | dense features of a row, named by `signal_names`           |
//! | `idf`      | f32  | `[V]`    | if it was used     | inverse document frequencies, needed to weigh new text     |
//! | `language` | u16  | `[n]`    | always             | index into `language_names`                                |
//! | `weights`  | f16  | `[nnz]`  | if not all are 1   | the weight of each token                                   |
//!
//! Metadata (safetensors allows strings only; lists and objects are JSON in a string):
//!
//! | key               | value                                                                                       |
//! |-------------------|---------------------------------------------------------------------------------------------|
//! | `format`          | `metaglot-dataset`                                                                          |
//! | `version`         | `1`                                                                                         |
//! | `kind`            | `labelled`, `pairs` (rows of one text id are translations) or `ranking` (see below)         |
//! | `vocabulary`      | `V` as a decimal number, `1 ..= u32::MAX`                                                   |
//! | `label_names`, `language_names`, `signal_names` | arrays of distinct strings                                    |
//! | `text_config`     | object: how text became tokens, so that new text can be treated the same                    |
//! | `made_by`         | object: program version, inputs, columns, filters, counts; for people, never interpreted    |
//! | `crc32.<tensor>`  | CRC-32 (as in zlib) of the tensor's bytes, 8 hexadecimal digits; one for each tensor        |
//!
//! **Ranking.** The first row of a group is the query or the document, the others are its candidates. The first row
//! has no label, a candidate has label 0 (wrong) or 1 (right); the writer names them `wrong` and `right`.
//!
//! **Invariants**, each checked once when a file is opened, so that no later code checks again:
//! lengths agree as in the table; `offsets` begin with 0, never decrease and end with `nnz`; the tokens of a row
//! strictly increase and are `< V`; labels are none or `< label_names.len()`; languages are `< language_names.len()`;
//! weights and signals are finite, idf positive and finite; `groups` are there if and only if the kind is `ranking`,
//! begin with 0, increase by at least 2 and end with `n`, and labels are then as said above; there is no tensor the
//! table does not name; each tensor begins at a multiple of its element's size in the file (order them as in the
//! table, pad the header with spaces to a multiple of 8, and they do). Checksums take a pass over the whole file and
//! are checked on request.
//!
//! **Limits.** The header has at most 16 MiB, `n` is at most `u32::MAX`, languages at most 65 536.
//! Unknown metadata keys are ignored; another version is refused.
#![forbid(unsafe_code)]

use crate::tensor_file::crc_key;
use std::collections::{BTreeMap, HashMap, HashSet};

use safetensors::Dtype;
use serde_json::Value;

#[cfg(target_endian = "big")]
compile_error!(
    "datasets are little-endian and mapped as they are; a big-endian machine would need a converting reader"
);

/// The value of the metadata key `format`.
pub const FORMAT: &str = "metaglot-dataset";
/// The value of the metadata key `version`.
pub const VERSION: &str = "1";
/// The most rows: row numbers and text ids are u32.
pub const MAX_ROWS: u64 = u32::MAX as u64;
/// The most languages: their indices are u16.
pub const MAX_LANGUAGES: usize = 1 << 16;
/// The label of a row that has none.
pub const NO_LABEL: u32 = u32::MAX;

/// What the rows of a dataset are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts with a label each.
    Labelled,
    /// Texts and their translations, joined by text id.
    Pairs,
    /// Groups of one query or document and its candidates.
    Ranking,
}

impl Kind {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Labelled => "labelled",
            Kind::Pairs => "pairs",
            Kind::Ranking => "ranking",
        }
    }

    fn from_name(name: &str) -> Option<Kind> {
        [Kind::Labelled, Kind::Pairs, Kind::Ranking].into_iter().find(|k| k.name() == name)
    }
}

/// The tensors a dataset can have, in the order of the file: elements of 8 bytes first, then 4, then 2, so that each
/// is aligned without gaps (which safetensors forbids).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "the table at the head of this file documents them")]
pub enum Tensor {
    Offsets,
    Groups,
    Tokens,
    Labels,
    TextId,
    Signals,
    Idf,
    Language,
    Weights,
}

impl Tensor {
    /// All of them, in the order of the file; `ALL[t as usize] == t`.
    pub const ALL: [Tensor; 9] = [
        Tensor::Offsets,
        Tensor::Groups,
        Tensor::Tokens,
        Tensor::Labels,
        Tensor::TextId,
        Tensor::Signals,
        Tensor::Idf,
        Tensor::Language,
        Tensor::Weights,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Tensor::Offsets => "offsets",
            Tensor::Groups => "groups",
            Tensor::Tokens => "tokens",
            Tensor::Labels => "labels",
            Tensor::TextId => "text_id",
            Tensor::Signals => "signals",
            Tensor::Idf => "idf",
            Tensor::Language => "language",
            Tensor::Weights => "weights",
        }
    }

    /// The type of its elements.
    pub fn dtype(self) -> Dtype {
        match self {
            Tensor::Offsets | Tensor::Groups => Dtype::U64,
            Tensor::Tokens | Tensor::Labels | Tensor::TextId => Dtype::U32,
            Tensor::Signals | Tensor::Idf => Dtype::F32,
            Tensor::Language => Dtype::U16,
            Tensor::Weights => Dtype::F16,
        }
    }

    /// The bytes of one element.
    pub fn element_bytes(self) -> usize {
        self.dtype().bitsize() / 8
    }

    /// The number of its dimensions.
    pub fn rank(self) -> usize {
        if self == Tensor::Signals { 2 } else { 1 }
    }

    /// Whether every dataset has it.
    pub fn required(self) -> bool {
        !matches!(self, Tensor::Groups | Tensor::Signals | Tensor::Idf | Tensor::Weights)
    }

    /// The metadata key of its checksum.
    pub fn crc_key(self) -> String {
        crc_key(self.name())
    }
}

/// The metadata of a dataset, checksums aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// What the rows are.
    pub kind: Kind,
    /// `V`: every token is below it.
    pub vocabulary: u32,
    /// What the labels stand for.
    pub label_names: Vec<String>,
    /// What the language numbers stand for.
    pub language_names: Vec<String>,
    /// What the columns of `signals` are.
    pub signal_names: Vec<String>,
    /// How text became tokens, as JSON.
    pub text_config: String,
    /// Where the file came from, as JSON.
    pub made_by: String,
}

impl Meta {
    /// As safetensors stores it; sorted, so that equal datasets have equal bytes.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let list = |names: &[String]| Value::from(names).to_string();
        [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("kind", self.kind.name().to_owned()),
            ("vocabulary", self.vocabulary.to_string()),
            ("label_names", list(&self.label_names)),
            ("language_names", list(&self.language_names)),
            ("signal_names", list(&self.signal_names)),
            ("text_config", self.text_config.clone()),
            ("made_by", self.made_by.clone()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Reads and checks what [`Meta::to_map`] made; the error says which key is wrong and how.
    pub fn from_map(map: &HashMap<String, String>) -> Result<Meta, String> {
        match map.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(format!("metadata `format` is `{other}`, not `{FORMAT}`")),
            None => return Err(format!("not a metaglot dataset: its metadata has no `format` = `{FORMAT}`")),
        }
        let version = text(map, "version")?;
        if version != VERSION {
            return Err(format!("dataset version {version}; this program reads version {VERSION}"));
        }
        let kind = text(map, "kind")?;
        let vocabulary = text(map, "vocabulary")?;
        let meta = Meta {
            kind: Kind::from_name(kind).ok_or_else(|| format!("metadata `kind` is unknown: `{kind}`"))?,
            vocabulary: (vocabulary.parse().ok().filter(|v| *v > 0))
                .ok_or_else(|| format!("metadata `vocabulary` is `{vocabulary}`, not a number from 1 to u32::MAX"))?,
            label_names: names(map, "label_names")?,
            language_names: names(map, "language_names")?,
            signal_names: names(map, "signal_names")?,
            text_config: object(map, "text_config")?,
            made_by: object(map, "made_by")?,
        };
        if meta.language_names.len() > MAX_LANGUAGES {
            return Err(format!("{} languages; at most {MAX_LANGUAGES} fit", meta.language_names.len()));
        }
        Ok(meta)
    }
}

/// Reads a checksum written as 8 hexadecimal digits.
pub fn crc_from(map: &HashMap<String, String>, tensor: Tensor) -> Result<u32, String> {
    let key = tensor.crc_key();
    let digits = text(map, &key)?;
    let well_formed = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = if well_formed { u32::from_str_radix(digits, 16).ok() } else { None };
    value.ok_or_else(|| format!("metadata `{key}` is `{digits}`, not 8 hexadecimal digits"))
}

fn text<'a>(map: &'a HashMap<String, String>, key: &str) -> Result<&'a str, String> {
    map.get(key).map(String::as_str).ok_or_else(|| format!("metadata `{key}` is missing"))
}

fn names(map: &HashMap<String, String>, key: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = serde_json::from_str(text(map, key)?)
        .map_err(|e| format!("metadata `{key}` is not a JSON list of strings: {e}"))?;
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(format!("metadata `{key}` has `{twice}` twice")),
        None => Ok(names),
    }
}

fn object(map: &HashMap<String, String>, key: &str) -> Result<String, String> {
    let json = text(map, key)?;
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Object(_)) => Ok(json.to_owned()),
        _ => Err(format!("metadata `{key}` is not a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_tensors_aligns_them() {
        for (at, pair) in Tensor::ALL.windows(2).enumerate() {
            assert_eq!(pair[0] as usize, at);
            assert!(pair[0].element_bytes() >= pair[1].element_bytes(), "{pair:?}");
        }
    }

    #[test]
    fn metadata_survives_the_round_trip() {
        let meta = Meta {
            kind: Kind::Ranking,
            vocabulary: u32::MAX,
            label_names: vec!["wrong".into(), "\"right\"\n".into()],
            language_names: vec!["de".into(), "日本語".into()],
            signal_names: vec![],
            text_config: r#"{"a":1}"#.into(),
            made_by: "{}".into(),
        };
        let map: HashMap<_, _> = meta.to_map().into_iter().collect();
        assert_eq!(Meta::from_map(&map).unwrap(), meta);
    }
}
