//! Cleans text: the order of the steps, and the removal of markup. Spelling is in `fold.rs`, addresses in `urls.rs`.
//!
//! `clean(clean(x)) == clean(x)`: a dataset may be cleaned twice (once by its maker, once here) and must give the same
//! tokens. Steps undo each other's fixed points (a decoded entity may be half a URL), so `clean` repeats the sequence
//! until nothing changes. It ends: nothing but decoding makes characters that an earlier step has work with, and each
//! decoding uses up an `&` or shortens the text. Each step reaches its own fixed point in one linear pass, so hostile
//! nesting (`&amp;amp;amp;...`, `<b <b <b >>>`) costs one round, not one per level.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::TextConfig;
use super::entities::decoded;
use super::fold::{normalized, without_control};
use super::urls::without_urls;

// Longer "tags" are text; it also bounds what one hostile `>` can cost.
const LONGEST_TAG: usize = 2048;
// The HTML attributes that stand without a value; any other word there means that `<` was meant as "less than".
const BOOLEAN_ATTRIBUTES: [&str; 15] = [
    "allowfullscreen",
    "async",
    "autofocus",
    "autoplay",
    "checked",
    "controls",
    "defer",
    "disabled",
    "hidden",
    "loop",
    "multiple",
    "muted",
    "readonly",
    "required",
    "selected",
];

/// Text without markup, addresses and invisible characters, in one spelling, with single spaces: as `config` asks.
///
/// Line breaks become spaces, so cut [`sentences`](super::sentences) first where they matter.
///
/// ```
/// use metaglot::text::{TextConfig, clean};
///
/// let config = TextConfig::default();
/// assert_eq!(clean("<p>STRA&szlig;E &amp;\n Ｔｏｋｙｏ: see https://a.example/x.</p>", &config), "strasse & tokyo: see .");
/// assert_eq!(clean("a < b and c > d", &config), "a < b and c > d");
/// ```
pub fn clean(text: &str, config: &TextConfig) -> String {
    let mut current = one_round(text, config);
    while !is_plain(&current) {
        let next = one_round(&current, config);
        if next == current {
            break;
        }
        current = next;
    }
    current
}

/// Whether it is plain to see that a second round would change nothing: only characters that no step touches, whatever
/// stands beside them, and no beginning of an address. True of most text, and saves that text the second round.
fn is_plain(text: &str) -> bool {
    let begins_address = |pair: &[u8]| matches!(pair, [b':', b'/'] | [b'w' | b'W', b'.']);
    text.chars().all(is_inert) && !text.as_bytes().windows(2).any(begins_address)
}

/// Characters that are their own folding and NFKC form and compose with none of the others: ASCII but for the marks of
/// markup and mail, small letters of Latin-1 and Russian, Arabic and Hindi letters, Kana, Han.
fn is_inert(c: char) -> bool {
    match c {
        '\0'..='\x7f' => !matches!(c, '&' | '<' | '>' | '@'),
        _ => matches!(c, 'à'..='ö' | 'ø'..='ÿ' | 'а'..='я' | 'ا'..='ي' | '\u{904}'..='\u{939}' | '\u{93e}'..='\u{94d}'
            | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '\u{3001}' | '\u{3002}' | '\u{4e00}'..='\u{9fff}'),
    }
}

fn one_round(text: &str, config: &TextConfig) -> String {
    let mut text = spelt(Cow::Borrowed(text), config);
    if config.strip_markup {
        // Before decoding: a `&quot;` inside an attribute must not end it.
        text = then(text, without_tags);
        if let Some(plain) = decoded(&text, config) {
            text = spelt(plain.into(), config);
        }
    }
    if config.strip_urls {
        text = then(text, without_urls);
    }
    if config.strip_markup {
        // After decoding: feeds escape their markup.
        text = then(text, without_tags);
    }
    single_spaced(&text)
}

fn spelt<'a>(text: Cow<'a, str>, config: &TextConfig) -> Cow<'a, str> {
    let text = if config.strip_control { then(text, without_control) } else { text };
    then(text, |text| normalized(text, config.normalize, config.casefold))
}

/// Applies a step that borrows what it leaves alone.
fn then<'a>(text: Cow<'a, str>, step: impl for<'b> FnOnce(&'b str) -> Cow<'b, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => step(text),
        Cow::Owned(text) => match step(&text) {
            Cow::Owned(changed) => changed.into(),
            Cow::Borrowed(_) => text.into(),
        },
    }
}

fn single_spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.push_str(word);
    }
    spaced
}

/// Replaces tags, comments, CDATA marks, declarations, and script and style elements with their bodies, by spaces.
/// Spaces, because `Hello<br>World` is two words; so `un<b>do</b>` is two as well.
fn without_tags(text: &str) -> Cow<'_, str> {
    if !text.contains('>') || !text.contains('<') {
        return text.into();
    }
    let mut stripper = TagStripper { kept: String::with_capacity(text.len()), comment: None, raw: None };
    text.chars().for_each(|c| stripper.push(c));
    stripper.kept.into()
}

/// Removes markup at its end: each `>` looks back in what was kept. What survives depends on nothing but the kept text
/// before it, hence a second pass finds nothing, however the input was nested.
struct TagStripper {
    kept: String,
    /// Where the first `<!--` in `kept` stands.
    comment: Option<usize>,
    /// Where the body of an open script or style element begins, and which of the two.
    raw: Option<(usize, &'static str)>,
}

impl TagStripper {
    fn push(&mut self, c: char) {
        self.kept.push(c);
        match c {
            '>' => self.close(),
            '-' if self.comment.is_none() && self.kept.ends_with("<!--") => self.comment = Some(self.kept.len() - 4),
            '[' if ends_with_ignoring_case(&self.kept, b"<![cdata[") => self.blank_from(self.kept.len() - 9),
            _ => {}
        }
    }

    fn close(&mut self) {
        let length = self.kept.len();
        if let (Some(start), true) = (self.comment, self.kept.ends_with("-->")) {
            return self.blank_from(start);
        }
        if self.kept.ends_with("]]>") {
            return self.blank_from(length - 3);
        }
        let window = length.saturating_sub(LONGEST_TAG);
        let Some(open) = self.kept.as_bytes()[window..].iter().rposition(|&b| b == b'<') else { return };
        let start = window + open;
        match Tag::parse(&self.kept.as_bytes()[start + 1..length - 1]) {
            None => {}
            Some(Tag::Closes(name)) if self.raw.is_some_and(|raw| raw.1 == name) => {
                let (body, _) = self.raw.unwrap_or_default();
                self.blank_from(body);
            }
            Some(Tag::Opens(name)) if self.raw.is_none() => {
                self.blank_from(start);
                self.raw = Some((start, name));
            }
            Some(_) => self.blank_from(start),
        }
    }

    fn blank_from(&mut self, start: usize) {
        self.kept.truncate(start);
        self.kept.push(' ');
        self.comment = self.comment.filter(|&at| at < start);
        self.raw = self.raw.filter(|raw| raw.0 < start);
    }
}

fn ends_with_ignoring_case(text: &str, end: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= end.len() && bytes[bytes.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// What stands between `<` and `>`, if it is markup.
enum Tag {
    /// `<script ...>` or `<style ...>`.
    Opens(&'static str),
    /// `</script>` or `</style>`.
    Closes(&'static str),
    Other,
}

impl Tag {
    fn parse(inner: &[u8]) -> Option<Tag> {
        match inner.first()? {
            b'!' => inner.get(1)?.is_ascii_alphabetic().then_some(Tag::Other),
            b'?' => (inner.len() > 2 && inner.ends_with(b"?")).then_some(Tag::Other),
            b'/' => {
                let (name, rest) = tag_name(&inner[1..])?;
                rest.trim_ascii().is_empty().then(|| raw_element(name).map_or(Tag::Other, Tag::Closes))
            }
            _ => {
                let (name, rest) = tag_name(inner)?;
                let empty = rest.ends_with(b"/");
                let raw = raw_element(name).filter(|_| !empty);
                are_attributes(rest).then(|| raw.map_or(Tag::Other, Tag::Opens))
            }
        }
    }
}

fn raw_element(name: &[u8]) -> Option<&'static str> {
    ["script", "style"].into_iter().find(|raw| name.eq_ignore_ascii_case(raw.as_bytes()))
}

fn tag_name(inner: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = run(inner, |b| b.is_ascii_alphanumeric() || b":._-".contains(&b));
    inner.first()?.is_ascii_alphabetic().then(|| inner.split_at(length))
}

/// Whether all of `rest` is attributes: `name=value`, `name="value"`, `name='value'`, or a boolean one's bare name.
fn are_attributes(mut rest: &[u8]) -> bool {
    let between = |b: u8| b.is_ascii_whitespace() || b == b'/';
    if rest.first().is_some_and(|&b| !between(b)) {
        return false;
    }
    loop {
        rest = &rest[run(rest, between)..];
        if rest.is_empty() {
            return true;
        }
        let (name, after) = rest.split_at(run(rest, |b| !between(b) && !b"\"'<>=".contains(&b)));
        rest = after.trim_ascii_start();
        if rest.first() == Some(&b'=') && !name.is_empty() {
            let Some(after) = after_value(rest[1..].trim_ascii_start()) else { return false };
            rest = after;
        } else if !BOOLEAN_ATTRIBUTES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            return false;
        }
    }
}

fn after_value(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let closing = rest[1..].iter().position(|b| b == quote)?;
            Some(&rest[closing + 2..])
        }
        _ => Some(&rest[run(rest, |b| !b.is_ascii_whitespace() && !b"\"'<>".contains(&b))..]),
    }
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| !belongs(b)).unwrap_or(bytes.len())
}
