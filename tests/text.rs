//! Text to token ids, on real sentences of many scripts and on arbitrary strings.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use metaglot::text::{Featurizer, Idf, Romanize, StopWords, TextConfig, TokenCounts, clean, sentences, words};
use proptest::prelude::*;

const SAMPLES: [(&str, &str); 8] = [
    ("Die <b>Straße</b> nach Zürich, z.B. https://a.example/b?c=d und mail@b.example", "deu"),
    ("Всеобщая декларация прав человека: все люди рождаются свободными.", "rus"),
    ("人人生而自由，在尊严和权利上一律平等。", "cmn"),
    ("すべての人間は、生まれながらにして自由である。", "jpn"),
    ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน", "tha"),
    ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", "arb"),
    ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।", "hin"),
    ("the cat\u{ad} sat on the ﬁrst Ｔｏｋｙｏ mat&nbsp;&amp; the end", "eng"),
];

type Change = fn(&mut TextConfig);

fn featurizer(change: impl FnOnce(&mut TextConfig)) -> Featurizer {
    let mut config =
        TextConfig { romanize: Romanize::Also, ngram_min: 1, ngram_max: 4, hash_bits: 16, ..TextConfig::default() };
    change(&mut config);
    Featurizer::new(config).unwrap()
}

/// Strings that reach into every step: arbitrary characters mixed with the material of markup, entities, addresses.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        2 => "[ -~]{0,3}",
        2 => "[\u{a0}-\u{3ff}\u{590}-\u{6ff}\u{900}-\u{9ff}\u{e00}-\u{eff}\u{1e00}-\u{20ff}\u{3000}-\u{30ff}\u{fb00}-\u{ffef}]",
        6 => prop::sample::select(vec![
            "<", ">", "&", ";", "#", "x", "b", "</", "/>", " ", "=", "\"", "'", "&#", "amp;", "&lt;", "&gt;", "&#59", "&#x26;",
            "<!--", "-->", "<script>", "</script>", "<![CDATA[", "]]>", "<?", "?>", "<b ", "href=", "://", "http", "www.",
            "@", ".com", "a", "\u{0}", "\u{200d}", "\u{200c}", "\u{200b}", "\u{338}", "\u{307}", "i", "İ", "I", "ǰ", "ΐ", "ﬁ",
            "＆", "＜", "＞", "；", "；", "\u{37e}", "&#xff06;", "&#65286", "&shy;", "ß", "\u{345}", "्", "ह", "ی", "\n",
        ]).prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn configs() -> impl Strategy<Value = TextConfig> {
    any::<[bool; 12]>().prop_map(|on| TextConfig {
        normalize: on[0],
        casefold: on[1],
        strip_markup: on[2],
        strip_urls: on[3],
        strip_control: on[4],
        stop_words: on[5],
        romanize: [Romanize::Off, Romanize::Also, Romanize::Only][usize::from(on[6]) + usize::from(on[6] && on[10])],
        words: on[7],
        ngram_min: if on[7] && on[8] { 0 } else { 1 },
        ngram_max: if on[7] && on[8] { 0 } else { 3 },
        hash_bits: if on[9] { 8 } else { 12 },
        sublinear_tf: on[10],
        l2: on[11],
        ..TextConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clean_is_idempotent(text in texts(), config in configs()) {
        let once = clean(&text, &config);
        prop_assert_eq!(clean(&once, &config), once);
    }

    #[test]
    fn segments_are_substrings_in_order(text in texts()) {
        for segments in [words(&text).collect::<Vec<_>>(), sentences(&text).collect()] {
            let mut from = text.as_ptr() as usize;
            for segment in segments {
                prop_assert!(!segment.trim().is_empty());
                prop_assert!(segment.as_ptr() as usize >= from, "segments overlap");
                from = segment.as_ptr() as usize + segment.len();
                prop_assert!(from <= text.as_ptr() as usize + text.len());
            }
        }
    }

    #[test]
    fn sentences_lose_nothing_but_space_and_marks(text in texts()) {
        let kept = |s: &str| s.chars().filter(|c| !c.is_whitespace() && *c != '¶').collect::<String>();
        prop_assert_eq!(kept(&sentences(&text).collect::<String>()), kept(&text));
    }

    #[test]
    fn tokens_increase_and_bags_have_unit_norm(text in texts(), config in configs()) {
        let (vocabulary, l2) = (config.vocabulary() as u32, config.l2);
        let featurizer = Featurizer::new(config).unwrap();
        let counts = featurizer.counts(&text, "eng");
        prop_assert_eq!(counts.tokens.len(), counts.counts.len());
        prop_assert!(counts.tokens.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(counts.tokens.iter().all(|&token| token < vocabulary));
        prop_assert!(counts.counts.iter().all(|&count| count > 0));

        let idf = Idf::from_document_frequencies(&vec![3; vocabulary as usize], 10);
        let bag = featurizer.bag(&counts, Some(&idf));
        prop_assert_eq!(&bag.tokens, &counts.tokens);
        prop_assert!(bag.weights.iter().all(|w| w.is_finite() && *w > 0.0));
        let norm: f64 = bag.weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        prop_assert!(!l2 || bag.weights.is_empty() || (norm - 1.0).abs() < 1e-5, "squared norm {}", norm);
    }
}

#[test]
fn clean_removes_markup_and_leaves_comparisons() {
    let cases = [
        ("<p>Hello<br/>World</p>", "hello world"),
        ("a < b", "a < b"),
        ("if a<b then c>d", "if a<b then c>d"),
        ("1 <2 and 3> 2, <3 <- ->", "1 <2 and 3> 2, <3 <- ->"),
        ("<a href=\"x\" title='1 > 0' disabled>y</a>", "y"),
        ("<img src=a.png alt=x>z<input checked>", "z"),
        ("x<!-- <b>hidden</b> -- > --> y", "x y"),
        ("x<!-- never closed", "x<!-- never closed"),
        ("<script type=\"t\">if (a<b && c>d) x(\"<p>\");</script>after", "after"),
        ("<STYLE>p > a { color: red }</STYLE >after", "after"),
        ("</script>stray", "stray"),
        ("<![CDATA[kept]]> <?xml version=\"1.0\"?><!DOCTYPE html>x", "kept x"),
        (
            "R&amp;D &eacute;&#233;&#xE9; &quot;q&quot; &nosuch; &#0; &#x110000;",
            "r&d ééé \"q\" &nosuch; &#0; &#x110000;",
        ),
        ("it&#146;s", "it’s"),
        ("&amp;amp;lt;b&amp;gt;twice escaped&lt;/b&gt;", "twice escaped"),
        ("<a title=\"say &quot;hi&quot;\">link</a>", "link"),
        ("<b <b <b >>>nested", "nested"),
        ("\u{ff1c}b\u{ff1e}wide\u{ff1c}/b\u{ff1e}", "wide"),
    ];
    for (text, wanted) in cases {
        assert_eq!(clean(text, &TextConfig::default()), wanted, "{text}");
    }
}

#[test]
fn clean_removes_addresses_and_leaves_the_sentence() {
    let cases = [
        ("see https://a.example/b?c=d&e=f#g.", "see ."),
        ("(www.example.com), then", "( ), then"),
        ("访问http://example.com/a查看", "访问 查看"),
        ("https://ru.wikipedia.org/wiki/Москва город", "город"),
        ("write to first.last+tag@mail.example.org!", "write to !"),
        ("mailto:a@b.example ok", "ok"),
        ("at 5 @ home, a@b, 12:30, end.Next", "at 5 @ home, a@b, 12:30, end.next"),
        ("FTP://X.Y/z <a href=http://x.y/>in</a>", "in"),
        ("http:// empty, awww.cute", "http:// empty, awww.cute"),
    ];
    for (text, wanted) in cases {
        assert_eq!(clean(text, &TextConfig::default()), wanted, "{text}");
    }
}

#[test]
fn clean_gives_one_spelling() {
    let cases = [
        ("STRASSE Straße STRAẞE", "strasse strasse strasse"),
        ("ΣΊΣΥΦΟΣ Σίσυφος", "σίσυφοσ σίσυφοσ"),
        ("İSTANBUL istanbul I\u{307}stanbul ISPARTA ısparta", "istanbul istanbul istanbul isparta isparta"),
        ("ﬁn ŉ ǰ ﬓ ᾳ", "fin ʼn ǰ մն αι"),
        ("Ǆ ǅ ǆ ᏸ Ᏸ Ა ა", "dž dž dž ᏸ ᏸ ა ა"),
        ("Ｆｕｌｌ ｶﾞ cafe\u{301}", "full ガ café"),
        ("so\u{ad}ft\u{feff} \u{202e}rtl\u{0} tab\tline\nend", "soft rtl tab line end"),
        // Joiners: Persian plural and Sinhala and Bengali conjuncts keep them, Latin and emoji do not.
        ("می\u{200c}خواهم ශ\u{dca}\u{200d}රී র\u{200d}\u{9cd}য", "می\u{200c}خواهم ශ\u{dca}\u{200d}රී র\u{200d}\u{9cd}য"),
        ("Auf\u{200c}lage 👩\u{200d}💻", "auflage 👩💻"),
        ("ភាសា\u{200b}ខ្មែរ", "ភាសា ខ្មែរ"),
    ];
    for (text, wanted) in cases {
        assert_eq!(clean(text, &TextConfig::default()), wanted, "{text}");
    }
}

/// One linear pass each: a quadratic one would take minutes here.
#[test]
fn hostile_nesting_is_cheap() {
    let many = 200_000;
    let texts = [
        format!("&{}lt;", "amp;".repeat(many)),
        format!("{};", "&#59".repeat(many)),
        format!("{}amp;", "&#xff06;#xff06;".repeat(many / 4)),
        format!("{}{}", "<b ".repeat(many), ">".repeat(many)),
        format!("<!--{}", "<!-- -".repeat(many)),
        "a@".repeat(many),
        "a://".repeat(many),
        format!("<a b=\"{}", ">".repeat(many)),
    ];
    let start = std::time::Instant::now();
    for text in &texts {
        let shown: String = text.chars().take(12).collect();
        let before = start.elapsed();
        clean(text, &TextConfig::default());
        let taken = start.elapsed() - before;
        assert!(taken.as_secs() < 10, "{shown}... took {taken:?}");
    }
}

#[test]
fn words_of_many_scripts() {
    let cases: [(&str, &[&str]); 12] = [
        (
            "It's 3.14, e-mail; (snake_case) ¡Olé! — 50% 😀 #tag",
            &["It's", "3.14", "e", "mail", "snake_case", "Olé", "50", "tag"],
        ),
        ("我喜欢中国文化。", &["我", "喜欢", "中国", "文化"]),
        ("私は日本の学生です。", &["私", "は", "日本", "の", "学生", "です"]),
        ("ฉันรักประเทศไทย", &["ฉัน", "รัก", "ประเทศไทย"]),
        ("ខ្ញុំស្រលាញ់ប្រទេសកម្ពុជា", &["ខ្ញុំ", "ស្រលាញ់", "ប្រទេស", "កម្ពុជា"]),
        ("ຂ້ອຍຮັກປະເທດລາວ", &["ຂ້ອຍ", "ຮັກ", "ປະເທດ", "ລາວ"]),
        ("ကျောင်းသားစာအုပ်ဖတ်သည်", &["ကျောင်းသား", "စာအုပ်", "ဖတ်သည်"]),
        ("أحب اللغة العربية، كثيرا؟", &["أحب", "اللغة", "العربية", "كثيرا"]),
        ("मैं हिन्दी बोलता हूँ।", &["मैं", "हिन्दी", "बोलता", "हूँ"]),
        ("한국어를 배워요.", &["한국어를", "배워요"]),
        ("می\u{200c}خواهم بروم", &["می\u{200c}خواهم", "بروم"]),
        (" ...!? \n ", &[]),
    ];
    for (text, wanted) in cases {
        assert_eq!(words(text).collect::<Vec<_>>(), wanted, "{text}");
    }
}

#[test]
fn sentences_of_many_scripts() {
    let cases: [(&str, &[&str]); 10] = [
        ("It costs 3.50 euros. Really? Yes!", &["It costs 3.50 euros.", "Really?", "Yes!"]),
        ("今天天气很好。你好吗？很好！", &["今天天气很好。", "你好吗？", "很好！"]),
        ("私は学生です。あなたは？", &["私は学生です。", "あなたは？"]),
        ("मैं घर जाता हूँ। तुम कहाँ हो?", &["मैं घर जाता हूँ।", "तुम कहाँ हो?"]),
        ("كيف حالك؟ أنا بخير.", &["كيف حالك؟", "أنا بخير."]),
        ("ခင်ဗျားနေကောင်းလား။ ကျေးဇူးတင်ပါတယ်။", &["ခင်ဗျားနေကောင်းလား။", "ကျေးဇူးတင်ပါတယ်။"]),
        ("ខ្ញុំជាសិស្ស។ គាត់ជាគ្រូ។", &["ខ្ញុំជាសិស្ស។", "គាត់ជាគ្រូ។"]),
        ("ฉันเป็นนักเรียน\nเธอเป็นครู", &["ฉันเป็นนักเรียน", "เธอเป็นครู"]),
        ("ຂ້ອຍຮັກ ¶ ປະເທດລາວ", &["ຂ້ອຍຮັກ", "ປະເທດລາວ"]),
        ("¶ a ¶\r\n see ¶3 §4¶ b\u{2029}c ¶ ¶ ", &["a", "see ¶3 §4¶ b", "c"]),
    ];
    for (text, wanted) in cases {
        assert_eq!(sentences(text).collect::<Vec<_>>(), wanted, "{text}");
    }
}

#[test]
fn stop_words_of_forty_languages() {
    let languages: Vec<_> = StopWords::languages().collect();
    assert_eq!(languages.len(), 40);
    assert!(languages.is_sorted());
    let words = [
        ("eng", "the"),
        ("eng", "THE"),
        ("eng", "don’t"),
        ("deu", "für"),
        ("deu", "fu\u{308}r"),
        ("fra", "et"),
        ("rus", "и"),
        ("cmn", "的"),
        ("jpn", "の"),
        ("arb", "في"),
        ("ben", "এবং"),
        ("hye", "եւ"),
        ("zul", "futhi"),
        ("heb", "אני"),
    ];
    for (language, word) in words {
        assert!(StopWords::for_language(language).unwrap().contains(word), "{language} {word}");
    }
    for language in languages {
        let list = StopWords::for_language(language).unwrap();
        assert!(!list.contains("metaglot") && !list.contains(""), "{language}");
    }
}

#[test]
fn every_language_name_reaches_its_list() {
    let names = [
        ("en", "eng"),
        ("EN-us", "eng"),
        ("zh_Hant", "cmn"),
        ("zho_Hans", "cmn"),
        ("lvs", "lav"),
        ("fas", "pes"),
        ("arb_Arab", "arb"),
        ("no", "nob"),
        ("ms", "zsm"),
        ("fil", "tgl"),
        ("ekk", "est"),
    ];
    for (name, language) in names {
        let (named, list) = (StopWords::for_language(name).unwrap(), StopWords::for_language(language).unwrap());
        assert!(std::ptr::eq(named, list), "{name}");
    }
    assert!(["", "xx", "lang", "engl"].iter().all(|code| StopWords::for_language(code).is_none()));
}

#[test]
fn each_switch_changes_the_output() {
    let changes: [(&str, Change); 14] = [
        ("normalize", |c| c.normalize = false),
        ("casefold", |c| c.casefold = false),
        ("strip_markup", |c| c.strip_markup = false),
        ("strip_urls", |c| c.strip_urls = false),
        ("strip_control", |c| c.strip_control = false),
        ("stop_words", |c| c.stop_words = true),
        ("romanize", |c| c.romanize = Romanize::Off),
        ("words", |c| c.words = false),
        ("ngram_min", |c| c.ngram_min = 2),
        ("ngram_max", |c| c.ngram_max = 3),
        ("hash_bits", |c| c.hash_bits = 20),
        ("sublinear_tf", |c| c.sublinear_tf = false),
        ("idf", |c| c.idf = false),
        ("l2", |c| c.l2 = false),
    ];
    let vocabulary = TextConfig { hash_bits: 20, ..TextConfig::default() }.vocabulary() as u32;
    let idf = Idf::from_document_frequencies(&(0..vocabulary).map(|token| token % 7).collect::<Vec<_>>(), 9);
    let bags = |featurizer: &Featurizer| {
        SAMPLES.map(|(text, language)| featurizer.bag(&featurizer.counts(text, language), Some(&idf)))
    };
    let wanted = bags(&featurizer(|_| {}));
    for (name, change) in changes {
        assert!(bags(&featurizer(change)) != wanted, "{name} changes nothing");
    }
}

/// The hash is part of the file formats: these numbers must never change.
#[test]
fn golden_token_ids() {
    let words_only = featurizer(|c| (c.ngram_min, c.ngram_max, c.romanize) = (0, 0, Romanize::Off));
    let ngrams_only = featurizer(|c| (c.words, c.ngram_max, c.hash_bits) = (false, 2, 24));
    assert_eq!(
        words_only.counts("boris Борис 東京 boris", "rus"),
        TokenCounts { tokens: vec![1790, 36023, 36537], counts: vec![1, 1, 2] }
    );
    assert_eq!(
        ngrams_only.counts("où", "fra"),
        TokenCounts {
            tokens: vec![2974301, 3873121, 4031645, 5010041, 9837311, 9876296, 10839011, 16099747],
            counts: vec![1, 1, 1, 2, 1, 1, 2, 1]
        }
    );
}

#[test]
fn romanised_features_meet_across_scripts() {
    let on = featurizer(|_| {});
    let tokens =
        |featurizer: &Featurizer, text| featurizer.counts(text, "und").tokens.into_iter().collect::<HashSet<_>>();
    for (latin, other) in [("boris", "Борис"), ("cafe", "café"), ("moskva", "Москва"), ("toyota", "トヨタ")]
    {
        assert!(tokens(&on, latin).is_subset(&tokens(&on, other)), "{latin} {other}");
    }
    let off = featurizer(|c| c.romanize = Romanize::Off);
    assert!(tokens(&off, "boris").is_disjoint(&tokens(&off, "Борис")));
    // What is the same in ASCII is counted once.
    assert_eq!(on.counts("plain ascii", "eng"), off.counts("plain ascii", "eng"));
}

#[test]
fn romanised_words_can_replace_the_words() {
    let only = featurizer(|c| c.romanize = Romanize::Only);
    for (latin, other) in [("boris", "Борис"), ("cafe", "café"), ("moskva", "Москва")] {
        assert_eq!(only.counts(latin, "und"), only.counts(other, "und"), "{latin} {other}");
    }
    assert_ne!(only.counts("boris", "und"), only.counts("moskva", "und"));
}

#[test]
fn ngrams_of_a_word_are_counted_with_its_boundaries() {
    let bigrams = featurizer(|c| (c.words, c.ngram_min, c.ngram_max) = (false, 2, 2));
    let total = |featurizer: &Featurizer, text| featurizer.counts(text, "eng").counts.iter().sum::<u32>();
    assert_eq!(total(&bigrams, "abc de"), 4 + 3); // ^a ab bc c$, ^d de e$
    let unigrams = featurizer(|c| (c.words, c.ngram_max) = (false, 1));
    assert_eq!(total(&unigrams, "abc de"), 5);
    let all = featurizer(|_| {});
    assert_eq!(total(&all, "abc"), 1 + 3 + 4 + 3 + 2);
    assert_ne!(bigrams.counts("ab", "eng"), bigrams.counts("ba", "eng"));
}

#[test]
fn a_batch_does_not_depend_on_the_number_of_threads() {
    let texts: Vec<_> = SAMPLES.iter().copied().cycle().take(101).collect();
    let featurizer = featurizer(|c| c.stop_words = true);
    let wanted: Vec<_> = texts.iter().map(|(text, language)| featurizer.counts(text, language)).collect();
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| featurizer.counts_batch(&texts)), wanted, "{threads} threads");
    }
}

#[test]
fn weights_follow_the_formulas() {
    let counts = TokenCounts { tokens: vec![0, 2], counts: vec![1, 4] };
    let idf = Idf::from_document_frequencies(&[0, 9, 1], 3);
    let (a, b) = (4f64.ln() + 1.0, (1.0 + 4f64.ln()) * (2f64.ln() + 1.0));
    let norm = a.hypot(b);
    let close = |got: &[f32], wanted: [f64; 2]| got.iter().zip(wanted).all(|(g, w)| (f64::from(*g) - w).abs() < 1e-6);
    assert!(close(&featurizer(|_| {}).bag(&counts, Some(&idf)).weights, [a / norm, b / norm]));
    assert!(close(&featurizer(|c| c.l2 = false).bag(&counts, Some(&idf)).weights, [a, b]));
    let plain = featurizer(|c| (c.sublinear_tf, c.idf, c.l2) = (false, false, false));
    assert!(close(&plain.bag(&counts, Some(&idf)).weights, [1.0, 4.0]));
    assert_eq!(idf.as_slice()[1], 1.0); // a frequency above the number of documents
    assert!(featurizer(|_| {}).bag(&featurizer(|_| {}).counts(" <b> ", "eng"), Some(&idf)).weights.is_empty());
}

#[test]
fn idf_survives_a_round_trip_and_refuses_nonsense() {
    let idf = Idf::from_document_frequencies(&[0, 5, 17], 20);
    let stored = serde_json::to_string(&idf).unwrap();
    assert!(stored.starts_with('['));
    assert_eq!(serde_json::from_str::<Idf>(&stored).unwrap(), idf);
    for weights in [vec![1.0, f32::NAN], vec![f32::INFINITY], vec![0.0], vec![-1.0]] {
        assert_eq!(Idf::new(weights).unwrap_err().code(), 3);
    }
}

#[test]
fn configurations_are_checked_and_survive_a_round_trip() {
    let changed = TextConfig { romanize: Romanize::Off, hash_bits: 9, ngram_min: 2, ..TextConfig::default() };
    assert_eq!(serde_json::from_str::<TextConfig>(&serde_json::to_string(&changed).unwrap()).unwrap(), changed);
    let wrong: [(&str, Change); 6] = [
        ("hash_bits", |c| c.hash_bits = 7),
        ("hash_bits", |c| c.hash_bits = 25),
        ("ngram_min", |c| c.ngram_min = 0),
        ("ngram_min", |c| (c.ngram_min, c.ngram_max) = (3, 2)),
        ("ngram_max", |c| c.ngram_max = 9),
        ("words", |c| (c.words, c.ngram_min, c.ngram_max) = (false, 0, 0)),
    ];
    for (name, change) in wrong {
        let mut config = TextConfig::default();
        change(&mut config);
        let error = Featurizer::new(config).unwrap_err();
        assert!(error.code() == 3 && error.to_string().starts_with(name), "{error}");
    }
}
