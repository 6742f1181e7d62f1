//! Spelling made one: invisible characters out, NFKC, full case folding. What [`clean`](super::clean()) does per
//! character; stop words go through it as well.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::sync::LazyLock;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';
const VIRAMA_CLASS: u8 = 9;

/// NFKC and case folding, each if asked for.
pub(super) fn normalized(text: &str, nfkc: bool, casefold: bool) -> Cow<'_, str> {
    if text.is_ascii() {
        let changes = casefold && text.bytes().any(|b| b.is_ascii_uppercase());
        return if changes { text.to_ascii_lowercase().into() } else { text.into() };
    }
    let text = if nfkc { to_nfkc(text.into()) } else { text.into() };
    if !casefold {
        return text;
    }
    let mut folded = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| fold_char(c, &mut folded));
    // Folding decomposes (U+0390 becomes three characters), so compose once more.
    if nfkc { to_nfkc(folded.into()) } else { folded.into() }
}

fn to_nfkc(text: Cow<'_, str>) -> Cow<'_, str> {
    match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => text.nfkc().collect::<String>().into(),
    }
}

/// Appends the case folding of `c`: lower(upper(lower(c))), each with its full one-to-many mapping.
///
/// `to_lowercase` alone keeps what differs only in case apart: "ß" and "SS", "ς" and "Σ", "ﬁ" and "FI". Upper-casing
/// merges those, lower-casing the result (character by character, so sigma never becomes final) gives one spelling; the
/// first lower-casing is for "ẞ", which is its own upper case. That is Unicode's CaseFolding.txt (status C and F) with
/// two deliberate differences: Cherokee folds to small letters, like every other script; and all four of I, İ, i, ı fold
/// to plain i, because which pairs belong together depends on the language, which is often unknown here, and Turkish
/// spelt in capitals must meet Turkish in small letters either way.
fn fold_char(c: char, folded: &mut String) {
    match c {
        _ if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
        'İ' | 'ı' => folded.push('i'),
        // The dot that lower-casing a decomposed İ leaves behind, and that Lithuanian writes below accents.
        '\u{307}' if folded.ends_with('i') => {}
        _ if is_caseless(c) => folded.push(c),
        _ => match ONE_TO_ONE.get(c as usize) {
            Some(Some(small)) => folded.push(*small),
            _ => folded.extend(full_folding(c)),
        },
    }
}

fn full_folding(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

/// The foldings of Latin, Greek, Cyrillic and Armenian that are one character: the three look-ups done once. Without it
/// Russian is folded at a fraction of the speed.
static ONE_TO_ONE: LazyLock<Vec<Option<char>>> = LazyLock::new(|| {
    let only = |c: char| {
        let mut folding = full_folding(c);
        folding.next().filter(|_| folding.next().is_none())
    };
    ('\0'..'\u{590}').map(only).collect()
});

/// Large blocks without case: skipping the three look-ups there makes folding Asian text several times faster.
fn is_caseless(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{109f}' | '\u{1100}'..='\u{139f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7ff}' | '\u{20000}'..='\u{3ffff}')
}

/// Drops what is invisible and says nothing about the spelling: control characters, direction marks, soft hyphens, byte
/// order marks, variation selectors. A zero-width space becomes a space, for that is its meaning in Khmer, Thai and
/// Burmese: a word boundary. White space stays, line breaks among it.
pub(super) fn without_control(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_invisible(c) || matches!(c, ZWNJ | ZWJ | '\u{200b}')) {
        return text.into();
    }
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().filter(|&c| !is_invisible(c)).peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match c {
            '\u{200b}' => kept.push(' '),
            ZWNJ | ZWJ if !joins(kept.chars().next_back(), next) => {}
            _ => kept.push(c),
        }
    }
    kept.into()
}

/// Whether a zero-width joiner or non-joiner between these two is part of the spelling: beside a virama (Indic conjuncts)
/// or after a letter of a joining script (Persian plurals, Kurdish heh). Elsewhere, emoji included, it is noise.
fn joins(before: Option<char>, after: Option<char>) -> bool {
    let is_virama = |c: Option<char>| c.is_some_and(|c| canonical_combining_class(c) == VIRAMA_CLASS);
    is_virama(before) || is_virama(after) || before.is_some_and(is_joining_script)
}

/// Arabic, Syriac, N'Ko, Mandaic, Mongolian, Phags-pa, Arabic presentation forms, Adlam.
fn is_joining_script(c: char) -> bool {
    matches!(c, '\u{620}'..='\u{74a}' | '\u{74d}'..='\u{77f}' | '\u{7ca}'..='\u{7f5}' | '\u{840}'..='\u{85b}'
        | '\u{860}'..='\u{8e1}' | '\u{8e3}'..='\u{8ff}' | '\u{1807}'..='\u{18aa}' | '\u{a840}'..='\u{a873}'
        | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{1e900}'..='\u{1e94b}')
}

/// Control and format characters that go whatever stands beside them. Not among them: white space, the visible Arabic
/// and Kaithi number signs (U+0600 to 0605, ...), and Mongolian's vowel separator and variation selectors.
pub(super) fn is_invisible(c: char) -> bool {
    match c {
        ' '..='~' => false,
        _ if c.is_control() => !c.is_whitespace(),
        _ => matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{17b4}' | '\u{17b5}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'),
    }
}
