//! Stop words of 40 languages, from the lists of stopwords-iso (MIT; see `data/stopwords/NOTICE`).
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;

use super::fold::normalized;

static LISTS: LazyLock<BTreeMap<String, StopWords>> = LazyLock::new(|| {
    let mut table = String::new();
    let compressed: &[u8] = include_bytes!("../../data/stopwords/stopwords.tsv.gz");
    GzDecoder::new(compressed).read_to_string(&mut table).expect("the lists are part of the binary and well-formed");
    parse(&table)
});

/// Other names of the languages that have a list: ISO 639-1, macrolanguages, and members of one.
const ALIASES: [(&str, &str); 51] = [
    ("af", "afr"),
    ("ar", "arb"),
    ("ara", "arb"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("de", "deu"),
    ("ekk", "est"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("eu", "eus"),
    ("fa", "pes"),
    ("fas", "pes"),
    ("fi", "fin"),
    ("fil", "tgl"),
    ("fr", "fra"),
    ("ga", "gle"),
    ("gl", "glg"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("ja", "jpn"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("lvs", "lav"),
    ("mr", "mar"),
    ("ms", "zsm"),
    ("msa", "zsm"),
    ("nb", "nob"),
    ("nl", "nld"),
    ("no", "nob"),
    ("nor", "nob"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ru", "rus"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sv", "swe"),
    ("tl", "tgl"),
    ("ur", "urd"),
    ("zh", "cmn"),
    ("zho", "cmn"),
    ("zlm", "zsm"),
    ("zu", "zul"),
    ("iw", "heb"),
];

/// The stop words of one language: articles, pronouns and the like, which are frequent whatever a text is about.
///
/// ```
/// use metaglot::text::StopWords;
///
/// let german = StopWords::for_language("de-AT").unwrap();
/// assert!(german.contains("und") && !german.contains("haus"));
/// assert!(StopWords::for_language("deu_Latn").is_some() && StopWords::for_language("tlh").is_none());
/// ```
#[derive(Debug)]
pub struct StopWords {
    words: HashSet<Box<str>>,
}

impl StopWords {
    /// The list of a language, if there is one, by ISO 639-3 or 639-1 code; what follows a `-` or `_` (region, script) is
    /// not looked at.
    pub fn for_language(code: &str) -> Option<&'static StopWords> {
        let language = code.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        let alias = ALIASES.iter().find(|alias| alias.0 == language);
        LISTS.get(alias.map_or(language.as_str(), |alias| alias.1))
    }

    /// The ISO 639-3 codes of the languages that have a list, sorted.
    pub fn languages() -> impl Iterator<Item = &'static str> {
        LISTS.keys().map(String::as_str)
    }

    /// Whether a word is in the list, in whatever case or Unicode form, and with either apostrophe.
    pub fn contains(&self, word: &str) -> bool {
        self.words.contains(word) || self.words.contains(&*key(word))
    }
}

/// The form in which words are stored: as cleaned text has them, and typewriter apostrophes.
fn key(word: &str) -> Cow<'_, str> {
    let folded = normalized(word, true, true);
    if folded.contains('’') { folded.replace('’', "'").into() } else { folded }
}

fn parse(table: &str) -> BTreeMap<String, StopWords> {
    let mut lists = BTreeMap::new();
    for (language, word) in table.lines().skip(1).filter_map(|line| line.split_once('\t')) {
        let list = lists.entry(language.to_owned()).or_insert_with(|| StopWords { words: HashSet::new() });
        list.words.insert(key(word.trim()).into());
    }
    lists
}
