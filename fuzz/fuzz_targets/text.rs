//! Any text under any configuration: cleaning ends and changes nothing the second time, words and sentences are parts
//! of the text, tokens rise below the vocabulary, weights are finite.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaglot::text::{Featurizer, Romanize, TextConfig, clean, sentences, words};

fuzz_target!(|input: ([u8; 4], &str)| {
    let ([flags, more, ngrams, bits], text) = input;
    let config = config(flags, more, ngrams, bits);
    let cleaned = clean(text, &config);
    assert_eq!(clean(&cleaned, &config), cleaned);
    let end = |part: &str, whole: &str| part.as_ptr() as usize + part.len() - whole.as_ptr() as usize;
    let mut last = 0;
    for part in words(text) {
        let start = end(part, text) - part.len();
        assert!(!part.is_empty() && start >= last);
        last = end(part, text);
    }
    assert!(sentences(text).all(|part| !part.is_empty() && part.trim() == part && end(part, text) <= text.len()));
    let Ok(featurizer) = Featurizer::new(config.clone()) else {
        assert!(config.validate().is_err());
        return;
    };
    features(&featurizer, text);
});

fn config(flags: u8, more: u8, ngrams: u8, bits: u8) -> TextConfig {
    let on = |i: u8| flags >> i & 1 == 1;
    TextConfig {
        normalize: on(0),
        casefold: on(1),
        strip_markup: on(2),
        strip_urls: on(3),
        strip_control: on(4),
        stop_words: on(5),
        words: on(6),
        sublinear_tf: on(7),
        romanize: [Romanize::Off, Romanize::Also, Romanize::Only][usize::from(more) % 3],
        l2: more & 0x80 == 0,
        idf: more & 0x40 == 0,
        ngram_min: u32::from(ngrams & 15),
        ngram_max: u32::from(ngrams >> 4),
        hash_bits: u32::from(bits % 32),
    }
}

fn features(featurizer: &Featurizer, text: &str) {
    let config = featurizer.config();
    for language in ["eng", "rus", "xx", ""] {
        let counts = featurizer.counts(text, language);
        assert!(counts.tokens.windows(2).all(|t| t[0] < t[1]));
        assert!(counts.tokens.last().is_none_or(|&t| (t as usize) < config.vocabulary()));
        assert!(counts.tokens.len() == counts.counts.len() && counts.counts.iter().all(|&c| c > 0));
        let bag = featurizer.bag(&counts, None);
        assert!(bag.weights.iter().all(|w| w.is_finite() && *w > 0.0));
        let norm = bag.weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
        assert!(!config.l2 || bag.tokens.is_empty() || (norm - 1.0).abs() < 1e-4, "{norm}");
    }
}
