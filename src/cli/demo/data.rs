//! The demo's data, inside the program; and what of it is never trained on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::rng::{Purpose, Rng};
use crate::{AtomicFile, Error, Result};

static EMOJI: &[u8] = include_bytes!("../../../data/demo/emoji.tsv.gz");
static APPS: &[u8] = include_bytes!("../../../data/demo/apps.tsv.gz");

/// Trained on.
pub(super) const TRAINED: [&str; 10] = ["eng", "deu", "fra", "spa", "por", "nld", "swe", "pol", "rus", "cmn"];
/// Never trained on: adapted to.
pub(super) const NEW: [&str; 4] = ["cat", "slk", "hun", "fin"];
/// Share of the items, in all languages, that is not trained on either.
const HELD_OUT: f64 = 0.25;

/// A name of an emoji in a language.
pub(super) struct Emoji {
    pub code: String,
    pub group: String,
    pub language: String,
    pub name: String,
    pub keywords: String,
}

/// An application's texts in a language.
pub(super) struct App {
    pub id: String,
    pub language: String,
    pub summary: String,
    pub description: String,
}

/// All emoji names.
pub(super) fn emoji() -> Vec<Emoji> {
    let row = |f: [String; 5]| {
        let [code, group, language, name, keywords] = f;
        Emoji { code, group, language, name, keywords: keywords.replace('|', " ") }
    };
    rows(EMOJI).map(row).collect()
}

/// All applications that have a description, in all their languages.
pub(super) fn apps() -> Vec<App> {
    let row = |f: [String; 6]| {
        let [id, _, language, _, summary, description] = f;
        App { id, language, summary, description }
    };
    rows(APPS).map(row).filter(|app| app.description != "-").collect()
}

/// The rows of a gzip TSV without its header. The bytes are the program's own, so they hold what they should.
fn rows<const N: usize>(gz: &[u8]) -> impl Iterator<Item = [String; N]> {
    let mut text = String::new();
    GzDecoder::new(gz).read_to_string(&mut text).expect("the embedded data is whole");
    let rows: Vec<[String; N]> = text
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<String> = line.split('\t').map(str::to_string).collect();
            fields.try_into().expect("the embedded data has its columns")
        })
        .collect();
    rows.into_iter()
}

/// Whether an item is kept from training, the same in every language. Follows from the seed and its name alone.
pub(super) fn held_out(item: &str, seed: u64) -> bool {
    Rng::new(seed, u64::from(crc32fast::hash(item.as_bytes())), 0, Purpose::Split).unit() < HELD_OUT
}

/// Items of the rows that are kept from training, or that are not, with their texts by language, in order of items.
pub(super) fn by_item<'a, R>(
    rows: &'a [R],
    kept: impl Fn(&str) -> bool,
    key: impl Fn(&'a R) -> (&'a str, &'a str),
) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a R>> {
    let mut items: BTreeMap<&str, BTreeMap<&str, &R>> = BTreeMap::new();
    for row in rows {
        let (item, language) = key(row);
        if kept(item) {
            items.entry(item).or_default().insert(language, row);
        }
    }
    items
}

/// Writes a file of lines.
pub(super) fn write_lines(path: &Path, lines: impl Iterator<Item = String>) -> Result<PathBuf> {
    let text: String = lines.map(|line| line + "\n").collect();
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(|e| Error::io("write", path, e))?;
    file.commit()?;
    Ok(path.to_path_buf())
}
