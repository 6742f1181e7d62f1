//! Takes URLs and e-mail addresses out of text: they name machines, and their letters would pass for English in every
//! language.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

/// Replaces every address by a space: `scheme://...`, `www....`, `name@host.tld`. Bare host names stay, for "end.Next"
/// looks the same. One pass reaches the fixed point: what is removed leaves a space, and no address spans a space.
pub(super) fn without_urls(text: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let (mut from, mut at) = (0, 0);
    while at < text.len() {
        match address_at(text, from, at) {
            Some(address) => {
                kept.push_str(&text[from..address.start]);
                kept.push(' ');
                (from, at) = (address.end, address.end);
            }
            None => at += 1,
        }
    }
    if from == 0 {
        return text.into();
    }
    kept.push_str(&text[from..]);
    kept.into()
}

/// The address recognised by the byte at `at`, which may reach back as far as `from`. Each byte is looked back over at
/// most once, because the byte that starts a look back (`:`, `@`) also ends it: the whole scan is linear.
fn address_at(text: &str, from: usize, at: usize) -> Option<Range<usize>> {
    match text.as_bytes()[at] {
        b':' => url(text, from, at),
        b'@' => email(text, from, at),
        b'w' | b'W' => www(text, from, at),
        _ => None,
    }
}

fn url(text: &str, from: usize, colon: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    if !bytes[colon..].starts_with(b"://") {
        return None;
    }
    let run = run_before(bytes, from, colon, |b| b.is_ascii_alphanumeric() || b"+.-".contains(&b));
    let start = run + bytes[run..colon].iter().position(u8::is_ascii_alphabetic)?;
    Some(start..url_end(text, colon + 3)?)
}

fn www(text: &str, from: usize, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let inside_a_word = at > from && bytes[at - 1].is_ascii_alphanumeric();
    if inside_a_word || !bytes.get(at..at + 4)?.eq_ignore_ascii_case(b"www.") {
        return None;
    }
    Some(at..url_end(text, at + 4)?)
}

fn email(text: &str, from: usize, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut start = run_before(bytes, from, at, |b| b.is_ascii_alphanumeric() || b"._%+-".contains(&b));
    let is_host = |b: &u8| b.is_ascii_alphanumeric() || b".-".contains(b);
    let run = bytes[at + 1..].iter().position(|b| !is_host(b)).unwrap_or(text.len() - at - 1);
    let host = text[at + 1..at + 1 + run].trim_end_matches(['.', '-']);
    let (_, domain) = host.rsplit_once('.')?;
    if start == at || domain.len() < 2 || !domain.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    if start >= from + 7 && bytes[start - 7..start].eq_ignore_ascii_case(b"mailto:") {
        start -= 7;
    }
    Some(start..at + 1 + host.len())
}

fn run_before(bytes: &[u8], from: usize, end: usize, belongs: impl Fn(u8) -> bool) -> usize {
    end - bytes[from..end].iter().rev().take_while(|&&b| belongs(b)).count()
}

/// Where the URL whose body begins at `start` ends, without the punctuation of the sentence around it; none if empty.
/// Quotes and angle brackets end it, so that taking it out of a tag leaves a tag.
fn url_end(text: &str, start: usize) -> Option<usize> {
    let body = &text[start..];
    let run = body.find(|c: char| !is_url_char(c)).unwrap_or(body.len());
    let url = body[..run].trim_end_matches(['.', ',', ';', ':', '!', '?', '(', ')', '[', ']', '*', '_', '~', '&', '$']);
    (!url.is_empty()).then_some(start + url.len())
}

fn is_url_char(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&()*+,;=%".contains(c);
    }
    c.is_alphanumeric() && !is_unspaced(c)
}

/// Scripts that go on without a space after a URL: Thai, Lao, Burmese, Khmer, Han, Kana, Hangul (particles).
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}
