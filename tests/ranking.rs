//! The ranking tasks against values worked out by hand: signals, expected overlap, ROUGE, adaptation.

use metaglot::cpu::Cpu;
use metaglot::meta::{InnerLoop, Order};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::task::qa::{self, AnswerCorpus};
use metaglot::task::summarize::{self, SummaryCorpus};
use metaglot::task::{Choice, Corpus, Cut, List, Ranker, RankingTask, Reading, candidates, rouge_1, rouge_l};
use metaglot::text::TextConfig;

fn read(text: &str) -> Reading {
    Reading::new(text, &TextConfig::default())
}

fn close(found: f64, wanted: f64, what: &str) {
    assert!((found - wanted).abs() < 1e-6, "{what}: {found}, wanted {wanted}");
}

/// The signal `name` of row `i`.
fn signal(rows: &[f32], names: &[&str], i: usize, name: &str) -> f64 {
    let column = names.iter().position(|n| *n == name).unwrap();
    f64::from(rows[i * names.len() + column])
}

/// Words of one letter have one n-gram each, `^a$`, so words and n-grams can be counted by eye.
#[test]
fn answer_signals_are_what_their_table_says() {
    let question = read("A b c?");
    let sentences = ["A b.", "c a e7!"].map(read);
    let mut corpus = AnswerCorpus::new();
    corpus.add_passage(&sentences);
    corpus.add_question(&question);
    let rows = qa::signals(&question, &sentences, &corpus);
    assert_eq!(rows.len(), 2 * qa::SIGNALS.len());
    // Of two sentences a is in both, b and c in one; each word is in the only question.
    let (a, once, asked) = ((3.0f64 / 2.5).ln(), (3.0f64 / 1.5).ln(), (2.0f64 / 1.5).ln());
    let (all, all_words) = (a + 2.0 * once, a + 2.0 * asked);
    let grams = (a + once) / all;
    let wanted = [
        ("grams", [grams; 2]),
        ("local", [grams; 2]),
        ("words", [(a + asked) / all_words; 2]),
        ("fuzzy", [(a + asked) / all_words; 2]),
        ("unique", [once / all; 2]),
        ("previous", [0.0, 1.0 - grams]),
        ("next", [1.0 - grams, 0.0]),
        ("run", [2.0 / 5.0, 1.0 / 5.0]),
        ("run_below", [0.0, -1.0 / 5.0]),
        ("grams_below", [0.0, 0.0]),
        ("next_below", [0.0, grams - 1.0]),
        ("length", [(4.0f64 / 5.5).ln(), (7.0f64 / 5.5).ln()]),
        ("first", [1.0, 0.0]),
        ("sentences", [2f64.ln(); 2]),
        ("news", [0.0, once / 50.0]),
        ("digits", [0.0, 1.0 / 3.0]),
    ];
    for (name, values) in wanted {
        (0..2).for_each(|i| close(signal(&rows, qa::SIGNALS, i, name), values[i], &format!("{name} of {i}")));
    }
}

#[test]
fn fuzzy_finds_other_forms_of_a_word_and_nothing_else() {
    let fuzzy = |question: &str, sentence: &str| {
        let rows = qa::signals(&read(question), &[read(sentence)], &AnswerCorpus::new());
        signal(&rows, qa::SIGNALS, 0, "fuzzy")
    };
    // ^ki kit itt tte ten en$ and ^ki kit itt tte ten ens ns$ share 5.
    close(fuzzy("kitten", "two kittens"), 10.0 / 13.0, "kittens");
    // ^ca cat at$ and ^ca car ar$ share 1 of 3: 1/3 is too little.
    close(fuzzy("cat", "car"), 0.0, "car");
}

#[test]
fn floors_are_plain_overlap_and_cosine() {
    let (question, sentences) = (read("a b c"), ["a b", "x y", "c b a"].map(read));
    assert_eq!(qa::word_overlap(&question, &sentences), [2.0 / 3.0, 0.0, 1.0]);
    // Nothing is counted, so all weigh alike: 2 of 3 against 2, cosine 2 / sqrt(6).
    let cosine = qa::ngram_cosine(&question, &sentences, &AnswerCorpus::new());
    [2.0 / 6f64.sqrt(), 0.0, 1.0].iter().zip(&cosine).for_each(|(wanted, found)| close(*found, *wanted, "cosine"));
}

#[test]
fn a_passage_with_many_questions_counts_once() {
    let config = TextConfig::default();
    let sentences = || vec!["a b".to_string(), "c".to_string()];
    let choices = ["a", "b", "c"].map(|question| Choice::question(question, sentences(), None, &config));
    let mut corpus = Corpus::new(RankingTask::Answer);
    choices.iter().for_each(|choice| corpus.add(choice));
    assert_eq!(choices[2].floor(), [0.0, 1.0], "without learning: word overlap");
    let list = corpus.list(&Choice::question("a z", sentences(), Some(1), &config));
    assert_eq!(list.right, Some(1));
    // df(a) = 1 of 2 sentences, df(z) = 0.
    let (a, z) = ((3.0f64 / 1.5).ln(), (3.0f64 / 0.5).ln());
    close(signal(&list.signals, qa::SIGNALS, 0, "grams"), a / (a + z), "grams");
}

#[test]
fn summary_signals_are_what_their_table_says() {
    let document = candidates("aa bb cc dd. ¶ aa bb cc dd. ¶ xx yy zz ww:");
    let whole: Vec<_> = document.into_iter().filter(|c| c.cut == Cut::Whole).collect();
    let readings: Vec<Reading> = whole.iter().map(|c| read(&c.text)).collect();
    let mut corpus = SummaryCorpus::new();
    corpus.add_document(&readings);
    let rows = summarize::signals(&whole, &readings, &corpus);
    let idf = (2.0f64 / 1.5).ln();
    // Unit vectors u, u, v at right angles: the centroid is (2, 1) / sqrt(5).
    let (near, far) = (2.0 / 5f64.sqrt(), 1.0 / 5f64.sqrt());
    let wanted = [
        ("first", [1.0, 0.0, 0.0]),
        ("position", [0.0, 0.5, 1.0]),
        ("length", [5f64.ln(); 3]),
        ("longer", [0.0; 3]),
        ("unlike", [0.0; 3]),
        ("colon", [0.0, 0.0, 1.0]),
        ("central", [near, near, far]),
        ("central_below", [0.0, 0.0, far - near]),
        ("salience", [4.0 * idf / 50.0; 3]),
        ("novelty", [1.0, 0.0, 1.0]),
    ];
    for (name, values) in wanted {
        (0..3).for_each(|i| close(signal(&rows, summarize::SIGNALS, i, name), values[i], &format!("{name} of {i}")));
    }
    corpus.add_reference(&read("one"));
    corpus.add_reference(&read("one two three four five six seven"));
    let rows = summarize::signals(&whole, &readings, &corpus);
    let longer = 5f64.ln() - (2f64.ln() + 8f64.ln()) / 2.0;
    close(signal(&rows, summarize::SIGNALS, 0, "longer"), longer, "longer");
    close(signal(&rows, summarize::SIGNALS, 0, "unlike"), longer.abs(), "unlike");
}

#[test]
fn parts_of_sentences_are_told_from_whole_ones() {
    let found = candidates("- Foo (old) shows pictures of cats, dogs and small birds");
    let readings: Vec<Reading> = found.iter().map(|c| read(&c.text)).collect();
    let rows = summarize::signals(&found, &readings, &SummaryCorpus::new());
    let of = |text: &str, name| {
        let i = found.iter().position(|c| c.text == text).unwrap_or_else(|| panic!("no `{text}` in {found:?}"));
        signal(&rows, summarize::SIGNALS, i, name)
    };
    let flags = |text| ["list", "part", "suffix", "dropped"].map(|name| of(text, name));
    assert_eq!(flags("- Foo (old) shows pictures of cats, dogs and small birds"), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(flags("- Foo shows pictures of cats, dogs and small birds"), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(flags("- Foo (old) shows pictures of cats"), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(flags("dogs and small birds"), [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(flags("(old) shows pictures of cats, dogs and small birds"), [0.0, 1.0, 1.0, 0.5]);
    let texts: Vec<&str> = found.iter().map(|c| &c.text[..]).collect();
    assert!(!texts.iter().any(|text| text.starts_with("old)")), "{texts:?}");
    assert!((1..texts.len()).all(|i| !texts[..i].contains(&texts[i])), "each text once: {texts:?}");
}

#[test]
fn expected_overlap_pools_the_chances_of_those_that_say_the_same() {
    let readings = ["a b", "a c", "d"].map(read);
    // Chances 1/4, 1/4, 1/2; the first two share 1 of 2 words.
    let found = summarize::expected_overlap(&readings, &[0.0, 0.0, 2f32.ln()]);
    let wanted = [0.375, 0.375, 0.5];
    wanted.iter().zip(&found).for_each(|(wanted, found)| close(f64::from(*found), *wanted, "overlap"));
    let readings = ["a b", "b a", "d"].map(read);
    let found = summarize::expected_overlap(&readings, &[0.0, 0.0, 1.5f32.ln()]);
    assert!(found[0] > found[2] && found[0] == found[1], "2/3.5 against 1.5/3.5: {found:?}");
}

#[test]
fn the_best_candidate_is_the_closest_and_the_first_of_equals() {
    let found = candidates("Birds sing in the morning. ¶ Cats sleep all day. ¶ Cats sleep all day.");
    assert_eq!(found[summarize::best_candidate(&found, "cats sleep all day").unwrap()].sentence, 1);
    assert_eq!(summarize::best_candidate(&found, "nothing shared"), None);
    assert_eq!(summarize::best_candidate(&[], "cats"), None);
    let document = Choice::document("Birds sing in the morning. ¶ Cats sleep all day.", None, &TextConfig::default());
    let floor = document.floor();
    assert!(floor.iter().skip(1).all(|score| *score < floor[0]), "without learning: the lead sentence");
}

#[test]
fn rouge_equals_hand_computed_values() {
    let (found, reference) = ("The cat was found under the bed.", "the cat was under the bed");
    close(rouge_1(found, reference), 12.0 / 13.0, "rouge-1");
    close(rouge_l(found, reference), 12.0 / 13.0, "rouge-l");
    // Shared: a b c d, but in order only b c d (or a).
    close(rouge_1("b c d a", "a b c d"), 1.0, "rouge-1 of a rotation");
    close(rouge_l("b c d a", "a b c d"), 0.75, "rouge-l of a rotation");
    close(rouge_1("a a a", "a"), 0.5, "a repetition counts once");
    // Characters: 猫 が 寝 る against 猫 は 寝 る.
    close(rouge_1("猫が寝る", "猫は寝る。"), 0.75, "rouge-1 of Japanese");
    close(rouge_l("猫が寝る", "猫は寝る。"), 0.75, "rouge-l of Japanese");
    assert_eq!([rouge_1("", ""), rouge_l("a", ""), rouge_1("...", "a")], [0.0; 3]);
}

/// One weight on one signal: score = w (x - mean) scale.
fn linear(mean: f32, scale: f32, weight: f32) -> Ranker {
    let shape = MlpShape { input: 1, kind: InputKind::Dense, widths: vec![1] };
    let mut params = Params::zeros(&shape).unwrap();
    params.first[0] = weight;
    Ranker::new(params, vec![mean], vec![scale]).unwrap()
}

fn list(signals: &[f32], right: Option<usize>) -> List {
    List { signals: signals.to_vec(), right }
}

const ONE_STEP: InnerLoop = InnerLoop::sgd(1, 0.5, Order::Evaluate);

#[test]
fn a_ranker_standardises_and_adapts() {
    let cpu = Cpu::new().threads(1).unwrap();
    let query = [list(&[3.0, 5.0], None), list(&[7.0], None)];
    let scores = linear(3.0, 0.5, 2.0).scores(&cpu, &[], &query, &ONE_STEP).unwrap();
    assert_eq!(scores, [vec![0.0, 2.0], vec![4.0]]);
    // From w = 0 all are equally likely: the gradient of the list's loss is (1/2 - 1) 1 + (1/2) (-1) = -1, so w = lr.
    let support = [list(&[5.0, 1.0], Some(0)), list(&[-9.0, 9.0], None)];
    let scores = linear(3.0, 0.5, 0.0).scores(&cpu, &support, &query, &ONE_STEP).unwrap();
    assert_eq!(scores, [vec![0.0, 0.5], vec![1.0]], "the list without a right candidate teaches nothing");
}

#[test]
fn many_lists_are_scored_in_parts_alike() {
    let cpu = Cpu::new().threads(2).unwrap();
    let lists: Vec<List> = (0..5000).map(|i| list(&[i as f32, -(i as f32), 1.0], None)).collect();
    let support = [list(&[5.0, 1.0], Some(0))];
    let ranker = linear(0.0, 0.001, 1.0);
    let all = ranker.scores(&cpu, &support, &lists, &ONE_STEP).unwrap();
    assert_eq!(all.len(), lists.len());
    for i in [0, 1, 2730, 2731, 4999] {
        let alone = ranker.scores(&cpu, &support, &lists[i..=i], &ONE_STEP).unwrap();
        assert_eq!(all[i], alone[0], "list {i}");
    }
}

#[test]
fn what_does_not_fit_a_ranker_is_an_error() {
    let cpu = Cpu::new().threads(1).unwrap();
    let shape = MlpShape { input: 2, kind: InputKind::Dense, widths: vec![3, 1] };
    let params = || Params::random(&shape, 0.5, 1).unwrap();
    assert!(Ranker::new(params(), vec![0.0; 3], vec![1.0; 3]).is_err());
    assert!(Ranker::new(params(), vec![0.0; 2], vec![1.0; 3]).is_err());
    let ranker = Ranker::new(params(), vec![0.0; 2], vec![1.0; 2]).unwrap();
    for wrong in [list(&[1.0; 3], None), list(&[], None), list(&[1.0; 4], Some(2))] {
        assert!(ranker.scores(&cpu, &[], &[wrong], &ONE_STEP).is_err());
    }
    let support: Vec<List> = (0..5000).map(|_| list(&[1.0; 4], Some(0))).collect();
    let error = ranker.scores(&cpu, &support, &[list(&[1.0; 4], None)], &ONE_STEP).unwrap_err();
    assert!(error.to_string().contains("10000 candidates"), "{error}");
    let steep = InnerLoop::sgd(3, 1e30, Order::Evaluate);
    let support = [list(&[1.0, 2.0, -3.0, 4.0], Some(1))];
    assert!(ranker.scores(&cpu, &support, &[list(&[1.0, -1.0], None)], &steep).is_err());
}
