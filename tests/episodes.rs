//! Episodes: what is drawn is what was asked for, nothing of the evaluated part is ever trained on, and the same seed
//! and step draw the same batch.

#[path = "support/datasets.rs"]
mod datasets;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use datasets::{Made, lists, texts};
use metaglot::dataset::{Dataset, Kind, NO_LABEL};
use metaglot::episode::{
    EpisodeBatch, EpisodeSource, LabelledSource, LabelledSpec, ListSource, ListSpec, PairSource, PairSpec, Part, Split,
    SplitConfig, TargetKind,
};
use metaglot::meta::{BatchTargets, EpisodeSet, InnerLoop, Inputs, Limits, Order};
use metaglot::model::{InputKind, MlpShape};
use metaglot::{Error, Purpose, Rng};
use proptest::prelude::*;

const LANGUAGES: [&str; 5] = ["aa", "bb", "cc", "dd", "ee"];

fn name(rng: &mut Rng, of: usize) -> String {
    LANGUAGES[rng.below(of)].to_string()
}

/// Rows of `texts` texts in `languages` languages: some translations are missing, some texts have several rows in a
/// language, some rows have another label than their text's other rows, some none. Row i has token i alone.
fn random_texts(rng: &mut Rng, languages: usize, classes: usize, texts: u32) -> Vec<Made> {
    let mut rows = Vec::new();
    for text in 0..texts {
        for language in &LANGUAGES[..languages] {
            let copies = [0, 1, 1, 1, 1, 1, 1, 2][rng.below(8)];
            for _ in 0..copies {
                let class = if rng.below(30) == 0 { rng.below(classes) } else { text as usize % classes };
                let label = (rng.below(30) > 0).then(|| format!("class {class}"));
                rows.push(Made { language: language.to_string(), label, text, tokens: vec![], signals: vec![] });
            }
        }
    }
    rng.shuffle(&mut rows);
    rows.iter_mut().enumerate().for_each(|(i, row)| row.tokens = vec![i as u32]);
    rows
}

fn random_split(rng: &mut Rng, languages: usize) -> SplitConfig {
    let valid_languages = if rng.below(4) > 0 { vec![name(rng, languages)] } else { vec![] };
    let exclude_languages = if rng.below(3) == 0 { vec![name(rng, languages)] } else { vec![] };
    SplitConfig { exclude_languages, valid_languages, valid_texts: [0.0, 0.3][rng.below(2)] }
}

/// Which rows training may use and which are evaluated, worked out from the split's settings and the rows it says are
/// set aside.
struct Rules<'a> {
    data: &'a Dataset,
    config: &'a SplitConfig,
    aside: BTreeSet<u32>,
}

impl<'a> Rules<'a> {
    fn new(data: &'a Dataset, config: &'a SplitConfig, split: &Split) -> Self {
        let aside = if config.valid_texts > 0.0 { [&split.valid[..], &split.aside].concat() } else { vec![] };
        Rules { data, config, aside: aside.into_iter().map(|row| data.text_ids()[row as usize]).collect() }
    }

    fn language(&self, row: usize) -> &str {
        &self.data.language_names()[usize::from(self.data.languages()[row])]
    }

    fn check(&self, part: Part, row: usize, what: &str) {
        let language = self.language(row).to_string();
        assert!(!self.config.exclude_languages.contains(&language), "{what}: row {row} is of an excluded language");
        let (valid, aside) = (self.config.valid_languages.contains(&language), self.aside(row));
        match part {
            Part::Train => assert!(!valid && !aside, "{what}: row {row} must not be trained on"),
            Part::Valid => {
                assert!(valid && (aside || self.config.valid_texts == 0.0), "{what}: row {row} is not evaluated");
            }
        }
    }

    fn aside(&self, row: usize) -> bool {
        self.aside.contains(&self.data.text_ids()[row])
    }
}

fn assert_all_differ(ids: impl Iterator<Item = u32>, what: &str) {
    let mut seen = BTreeSet::new();
    ids.for_each(|id| assert!(seen.insert(id), "{what}: text {id} is there twice"));
}

/// The row numbers of an episode's bags: each has its row's number as its only token.
fn rows_of(set: &EpisodeSet<f32>, t: usize) -> Vec<usize> {
    let Inputs::Bags(bags) = &set.inputs else { panic!("bags were drawn") };
    set.range(t)
        .map(|i| {
            let (tokens, weights) = bags.row(i);
            assert_eq!((tokens.len(), weights), (1, &[1.0][..]));
            tokens[0] as usize
        })
        .collect()
}

fn bag_shape(data: &Dataset, outputs: usize) -> MlpShape {
    MlpShape { input: data.vocabulary() as usize, kind: InputKind::Bag, widths: vec![4, outputs] }
}

fn drawn(source: &dyn EpisodeSource, part: Part, seed: u64, step: u64) -> EpisodeBatch {
    let mut batch = EpisodeBatch::new(TargetKind::Classes);
    source.draw(part, seed, step, &mut batch).unwrap();
    batch
}

/// The same (seed, step) draws the same batch, whatever was in it before; others draw others; all fit the limits.
fn draws_are_named_by_seed_and_step(source: &dyn EpisodeSource, part: Part, shape: &MlpShape, what: &str) {
    let text = |seed, step| format!("{:?}", drawn(source, part, seed, step));
    let mut used = drawn(source, part, 3, 9);
    source.draw(part, 3, 4, &mut used).unwrap();
    assert_eq!(format!("{used:?}"), text(3, 4), "{what}");
    let different = (0..64).filter(|&i| text(3, i) != text(3, i + 1) && text(i, 4) != text(i + 1, 4)).count();
    assert!(different > 0, "{what}: neither seed nor step matters");
    source.check_shape(shape).unwrap();
    let limits = Limits::of(&used.view(shape).unwrap(), &InnerLoop::sgd(0, 0.0, Order::Evaluate));
    assert!(source.limits().covers(&limits), "{what}: {limits:?}");
}

#[test]
fn a_split_divides_texts_in_all_languages_alike() {
    let rows = random_texts(&mut Rng::new(1, 0, 0, Purpose::Data), 5, 3, 400);
    let data = texts(Kind::Labelled, rows.len() as u32, &rows);
    let config = SplitConfig {
        exclude_languages: vec!["aa".into()],
        valid_languages: vec!["bb".into(), "cc".into()],
        valid_texts: 0.25,
    };
    let split = Split::new(&data, &config, 7).unwrap();
    let ids = |rows: &[u32]| rows.iter().map(|&r| data.text_ids()[r as usize]).collect::<BTreeSet<_>>();
    let aside = ids(&[&split.valid[..], &split.aside].concat());
    assert!(ids(&split.train).is_disjoint(&aside));
    let share = aside.len() as f64 / 400.0;
    // Five standard deviations of a binomial share.
    assert!((share - 0.25).abs() < 5.0 * (0.25 * 0.75 / 400f64).sqrt(), "{share}");
    for (i, row) in rows.iter().enumerate() {
        let is = [&split.train, &split.valid, &split.aside].map(|part| part.contains(&(i as u32)));
        let wanted = match row.language.as_str() {
            "aa" => [false; 3],
            // A validation language's rows whose text is not set aside belong to no part.
            "bb" | "cc" => [false, aside.contains(&row.text), false],
            _ => [!aside.contains(&row.text), false, aside.contains(&row.text)],
        };
        assert_eq!(is, wanted, "row {i}: {row:?}");
    }
    assert_ne!(split.valid, Split::new(&data, &config, 8).unwrap().valid, "the seed matters");
    let by_language = Split::new(&data, &SplitConfig { valid_texts: 0.0, ..config }, 7).unwrap();
    assert_eq!(by_language.valid.len(), rows.iter().filter(|r| ["bb", "cc"].contains(&&r.language[..])).count());
}

/// Texts of each class in each training language: those with one label only, and those with this label among others.
fn class_sizes(data: &Dataset, split: &Split) -> BTreeMap<u16, BTreeMap<u32, [BTreeSet<u32>; 2]>> {
    let mut labels: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    let rows: Vec<usize> = split.train.iter().map(|&r| r as usize).filter(|&r| data.labels()[r] != NO_LABEL).collect();
    for &r in &rows {
        labels.entry(data.text_ids()[r]).or_default().insert(data.labels()[r]);
    }
    let mut sizes: BTreeMap<u16, BTreeMap<u32, [BTreeSet<u32>; 2]>> = BTreeMap::new();
    for r in rows {
        let text = data.text_ids()[r];
        let [sure, all] = sizes.entry(data.languages()[r]).or_default().entry(data.labels()[r]).or_default();
        all.insert(text);
        if labels[&text].len() == 1 {
            sure.insert(text);
        }
    }
    sizes
}

fn check_labelled(batch: &EpisodeBatch, rules: &Rules, spec: &LabelledSpec, part: Part, what: &str) -> Vec<[u32; 2]> {
    let data = rules.data;
    let shape = bag_shape(data, data.label_names().len());
    let view = batch.view(&shape).unwrap();
    let mut seen = Vec::new();
    assert_eq!(view.episodes(), spec.meta_batch);
    for t in 0..view.episodes() {
        let (support, query) = (rows_of(&view.support, t), rows_of(&view.query, t));
        assert_all_differ(support.iter().chain(&query).map(|&r| data.text_ids()[r]), what);
        let mut counts: BTreeMap<u32, [usize; 2]> = BTreeMap::new();
        for (side, set, rows) in [(0, &view.support, &support), (1, &view.query, &query)] {
            let BatchTargets::Classes(labels) = set.targets else { panic!("classes were drawn") };
            for (&row, &label) in rows.iter().zip(&labels[set.range(t)]) {
                assert_eq!(label, data.labels()[row], "{what}: row {row}");
                rules.check(part, row, what);
                counts.entry(label).or_default()[side] += 1;
            }
        }
        assert_eq!(counts.len(), spec.n_way, "{what}: classes {counts:?}");
        assert!(counts.values().all(|&c| c == [spec.k_shot, spec.queries]), "{what}: {counts:?}");
        let languages = |rows: &[usize]| rows.iter().map(|&r| data.languages()[r]).collect::<BTreeSet<_>>();
        let (s, q) = (languages(&support), languages(&query));
        assert!(s.len() == 1 && q.len() == 1, "{what}: support {s:?}, query {q:?}");
        if part == Part::Valid || spec.cross_lingual == 0.0 {
            assert_eq!(s, q, "{what}");
        } else if spec.cross_lingual == 1.0 {
            assert_ne!(s, q, "{what}");
        }
        seen.extend(counts.keys().map(|&class| [u32::from(*s.first().unwrap()), class]));
    }
    seen
}

#[test]
fn labelled_episodes_are_what_was_asked_for() {
    let (mut built, mut refused, mut validated) = (0, 0, 0);
    for seed in 0..150 {
        let rng = &mut Rng::new(seed, 0, 0, Purpose::Data);
        let (languages, classes) = (2 + rng.below(4), 2 + rng.below(3));
        let per_class = 4 + rng.below(12);
        let rows = random_texts(rng, languages, classes, (classes * per_class) as u32);
        let data = texts(Kind::Labelled, rows.len() as u32, &rows);
        let config = random_split(rng, languages);
        let split = Split::new(&data, &config, seed).unwrap();
        let spec = LabelledSpec {
            n_way: 2 + rng.below(classes - 1),
            k_shot: 1 + rng.below(3),
            queries: 1 + rng.below(3),
            meta_batch: 1 + rng.below(3),
            cross_lingual: [0.0, 0.5, 1.0][rng.below(3)],
            dropout: 0.0,
        };
        let what = format!("seed {seed}, {spec:?}, {config:?}");
        let sizes = class_sizes(&data, &split);
        let need = spec.k_shot + spec.queries;
        let enough = |kind: usize| {
            let ways = |c: &BTreeMap<u32, [BTreeSet<u32>; 2]>| c.values().filter(|s| s[kind].len() >= need).count();
            sizes.values().filter(|&c| ways(c) >= spec.n_way).count()
        };
        let source = match LabelledSource::new(&data, &split, spec.clone()) {
            Ok(source) => source,
            Err(error) => {
                assert!(error.code() == 3, "{what}: {error}");
                assert!(spec.cross_lingual > 0.0 || enough(0) == 0, "{what}: {error}");
                refused += 1;
                continue;
            }
        };
        assert!((enough(0)..=enough(1)).contains(&source.languages(Part::Train)), "{what}");
        built += 1;
        let mut seen = BTreeSet::new();
        for step in 0..150 {
            let batch = drawn(&source, Part::Train, seed, step);
            seen.extend(check_labelled(&batch, &rules(&data, &config, &split), &spec, Part::Train, &what));
        }
        if spec.cross_lingual < 1.0 {
            let sure = sizes.iter().map(|(&l, c)| (l, c.iter().filter(|c| c.1[0].len() >= need).collect::<Vec<_>>()));
            for (language, classes) in sure.filter(|(_, c)| c.len() >= spec.n_way) {
                for (class, _) in classes {
                    assert!(seen.contains(&[u32::from(language), *class]), "{what}: {language}, {class} never drawn");
                }
            }
        }
        let shape = bag_shape(&data, data.label_names().len());
        draws_are_named_by_seed_and_step(&source, Part::Train, &shape, &what);
        if source.languages(Part::Valid) > 0 {
            validated += 1;
            for step in 0..10 {
                let batch = drawn(&source, Part::Valid, seed, step);
                check_labelled(&batch, &rules(&data, &config, &split), &spec, Part::Valid, &what);
            }
        }
    }
    // The generator must reach every branch above.
    assert!(built > 50 && refused > 10 && validated > 10, "{built} built, {refused} refused, {validated} validated");
}

prop_compose! {
    fn any_spec()(
        n_way in 2usize..5,
        k_shot in 1usize..4,
        queries in 1usize..4,
        meta_batch in 1usize..4,
        cross_lingual in prop::sample::select(vec![0.0, 0.5, 1.0]),
    ) -> LabelledSpec {
        LabelledSpec { n_way, k_shot, queries, meta_batch, cross_lingual, dropout: 0.0 }
    }
}

prop_compose! {
    fn any_config(languages: usize)(
        exclude in prop::sample::subsequence(LANGUAGES[..languages].to_vec(), 0..=1),
        valid in prop::sample::subsequence(LANGUAGES[..languages].to_vec(), 0..=2),
        valid_texts in prop::sample::select(vec![0.0, 0.1, 0.5]),
    ) -> SplitConfig {
        let names = |chosen: Vec<&str>| chosen.into_iter().map(str::to_string).collect();
        SplitConfig { exclude_languages: names(exclude), valid_languages: names(valid), valid_texts }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same rules as above, on settings that proptest makes smaller until it has the smallest that break one.
    #[test]
    fn no_episode_breaks_the_rules(
        (languages, config) in (2usize..6).prop_flat_map(|n| (Just(n), any_config(n))),
        spec in any_spec(),
        classes in 2usize..5,
        texts_of_a_class in 1usize..16,
        seed in 0u64..1 << 32,
    ) {
        let rows = random_texts(&mut Rng::new(seed, 0, 0, Purpose::Data), languages, classes, (classes * texts_of_a_class) as u32);
        let data = texts(Kind::Labelled, rows.len() as u32, &rows);
        // Of a language every row may be missing: then its name is an error.
        let split = match Split::new(&data, &config, seed) {
            Ok(split) => split,
            Err(error) => return { prop_assert_eq!(error.code(), 3); Ok(()) },
        };
        let what = format!("seed {seed}, {spec:?}, {config:?}");
        match LabelledSource::new(&data, &split, spec.clone()) {
            Err(error) => prop_assert_eq!(error.code(), 3),
            Ok(source) => for part in [Part::Train, Part::Valid] {
                let steps = if source.languages(part) > 0 { 5 } else { 0 };
                for step in 0..steps {
                    let batch = drawn(&source, part, seed, step);
                    check_labelled(&batch, &rules(&data, &config, &split), &spec, part, &what);
                }
            },
        }
    }
}

fn rules<'a>(data: &'a Dataset, config: &'a SplitConfig, split: &Split) -> Rules<'a> {
    Rules::new(data, config, split)
}

#[test]
fn dropout_leaves_out_its_share_of_training_tokens_alone() {
    let row = |text: u32| Made {
        language: LANGUAGES[text as usize % 2].into(),
        label: Some(format!("{}", text / 2 % 2)),
        text,
        tokens: (0..100).collect(),
        signals: vec![],
    };
    let data = texts(Kind::Labelled, 100, &(0..80).map(row).collect::<Vec<_>>());
    let config = SplitConfig { valid_languages: vec!["bb".into()], ..SplitConfig::default() };
    let split = Split::new(&data, &config, 1).unwrap();
    let spec = LabelledSpec { n_way: 2, k_shot: 5, queries: 5, meta_batch: 4, cross_lingual: 0.0, dropout: 0.2 };
    let source = LabelledSource::new(&data, &split, spec).unwrap();
    let batch = drawn(&source, Part::Train, 5, 0);
    let shape = bag_shape(&data, 2);
    let Inputs::Bags(bags) = batch.support.view(&shape, TargetKind::Classes).unwrap().inputs else { panic!() };
    for i in 0..bags.rows() {
        assert!(bags.row(i).1.iter().all(|&w| w == 1.25), "what is kept makes good for what is not");
    }
    let share = bags.nnz() as f64 / (100 * bags.rows()) as f64;
    // Five standard deviations of a binomial share of 4000 tokens.
    assert!((share - 0.8).abs() < 5.0 * (0.16f64 / 4000.0).sqrt(), "{share}");
    assert_eq!(drawn(&source, Part::Valid, 5, 0).support.tokens().len(), 100 * 40);
}

#[test]
fn pairs_are_translations_and_none_is_evaluated() {
    let (mut built, mut refused, mut validated) = (0, 0, 0);
    for seed in 0..120 {
        let rng = &mut Rng::new(seed, 1, 0, Purpose::Data);
        let (languages, count) = (2 + rng.below(4), 4 + rng.below(40));
        let rows = random_texts(rng, languages, 2, count as u32);
        let data = texts(Kind::Pairs, rows.len() as u32, &rows);
        let config = random_split(rng, languages);
        let split = Split::new(&data, &config, seed).unwrap();
        let pivot = (rng.below(3) == 0).then(|| name(rng, languages));
        let pivot = pivot.filter(|p| data.language_names().contains(p));
        let (support, query) = (1 + rng.below(3), 2 + rng.below(3));
        let spec = PairSpec { support, query, meta_batch: 1 + rng.below(3), dropout: 0.0, pivot };
        let what = format!("seed {seed}, {spec:?}, {config:?}");
        let rules = Rules::new(&data, &config, &split);
        let source = match PairSource::new(&data, &split, spec.clone()) {
            Ok(source) => source,
            Err(error) => {
                assert_eq!(error.code(), 3, "{what}: {error}");
                refused += 1;
                continue;
            }
        };
        built += 1;
        for part in [Part::Train, Part::Valid] {
            if source.languages(part) == 0 {
                continue;
            }
            validated += usize::from(part == Part::Valid);
            for step in 0..30 {
                check_pairs(&drawn(&source, part, seed, step), &rules, &spec, &split, part, &what);
            }
            draws_are_named_by_seed_and_step(&source, part, &bag_shape(&data, 3), &what);
        }
    }
    assert!(built > 40 && refused > 5 && validated > 10, "{built} built, {refused} refused, {validated} validated");
}

fn check_pairs(batch: &EpisodeBatch, rules: &Rules, spec: &PairSpec, split: &Split, part: Part, what: &str) {
    let (data, shape) = (rules.data, bag_shape(rules.data, 3));
    let view = batch.view(&shape).unwrap();
    assert_eq!(view.episodes(), spec.meta_batch, "{what}");
    for t in 0..view.episodes() {
        let (mut texts, mut languages) = (Vec::new(), [BTreeSet::new(), BTreeSet::new()]);
        for (set, size) in [(&view.support, spec.support), (&view.query, spec.query)] {
            assert!(matches!(set.targets, BatchTargets::Pairs));
            let rows = rows_of(set, t);
            assert_eq!(rows.len(), 2 * size, "{what}");
            for (&left, &right) in rows[..size].iter().zip(&rows[size..]) {
                assert_eq!(data.text_ids()[left], data.text_ids()[right], "{what}: not translations");
                texts.push(data.text_ids()[left]);
                languages[0].insert(rules.language(left).to_string());
                languages[1].insert(rules.language(right).to_string());
                rules.check(part, left, what);
                if part == Part::Train || split.aside.is_empty() {
                    rules.check(part, right, what);
                } else {
                    assert!(split.aside.contains(&(right as u32)), "{what}: right side {right}");
                }
            }
        }
        assert_all_differ(texts.into_iter(), what);
        let [left, right] = languages;
        assert!(left.len() == 1 && right.len() == 1 && left != right, "{what}: {left:?}, {right:?}");
        assert!(spec.pivot.iter().all(|pivot| right.contains(pivot)), "{what}: {right:?}");
    }
}

/// Lists of 1 to 4 candidates with none, one or two right ones; questions share texts; candidates have texts and
/// languages of their own now and then. Signals: the row's number, a constant, noise.
fn random_lists(rng: &mut Rng, languages: usize, groups: usize) -> Vec<Vec<Made>> {
    let mut row = 0.0;
    (0..groups)
        .map(|_| {
            let (language, text) = (name(rng, languages), rng.below(groups) as u32);
            let candidates = 1 + rng.below(4);
            (0..=candidates)
                .map(|i| {
                    row += 1.0;
                    let label = if rng.below(2) == 0 { "right" } else { "wrong" };
                    let elsewhere = i > 0 && rng.below(10) == 0;
                    Made {
                        language: if elsewhere { name(rng, languages) } else { language.clone() },
                        label: (i > 0).then(|| label.into()),
                        text: if elsewhere { rng.below(groups) as u32 } else { text },
                        tokens: vec![],
                        signals: vec![row - 1.0, 1e6, rng.normal() as f32],
                    }
                })
                .collect()
        })
        .collect()
}

#[test]
fn lists_are_whole_standardised_and_have_their_positives() {
    let (mut built, mut refused, mut validated) = (0, 0, 0);
    for seed in 0..120 {
        let rng = &mut Rng::new(seed, 2, 0, Purpose::Data);
        let (languages, groups) = (2 + rng.below(3), 5 + rng.below(60));
        let data = lists(&random_lists(rng, languages, groups));
        let config = random_split(rng, languages);
        let config = SplitConfig {
            valid_languages: config.valid_languages.into_iter().filter(|l| data.language_names().contains(l)).collect(),
            exclude_languages: vec![],
            ..config
        };
        let split = Split::new(&data, &config, seed).unwrap();
        let spec = ListSpec { support: rng.below(3), query: 1 + rng.below(3), meta_batch: 1 + rng.below(3) };
        let what = format!("seed {seed}, {spec:?}, {config:?}");
        let source = match ListSource::new(&data, &split, spec.clone()) {
            Ok(source) => source,
            Err(error) => {
                assert_eq!(error.code(), 3, "{what}: {error}");
                refused += 1;
                continue;
            }
        };
        built += 1;
        let rules = Rules::new(&data, &config, &split);
        for part in [Part::Train, Part::Valid] {
            let mut batch = EpisodeBatch::new(TargetKind::Lists);
            for step in 0..30 {
                if source.draw(part, seed, step, &mut batch).is_err() {
                    assert_eq!(part, Part::Valid, "{what}");
                    break;
                }
                validated += usize::from(part == Part::Valid && step == 0);
                check_lists(&batch, &source, &rules, &spec, part, &what);
            }
        }
        let shape = MlpShape { input: 3, kind: InputKind::Dense, widths: vec![4, 1] };
        draws_are_named_by_seed_and_step(&source, Part::Train, &shape, &what);
    }
    assert!(built > 40 && refused > 5 && validated > 10, "{built} built, {refused} refused, {validated} validated");
}

fn check_lists(batch: &EpisodeBatch, source: &ListSource, rules: &Rules, spec: &ListSpec, part: Part, what: &str) {
    let (data, (mean, scale)) = (rules.data, source.standardisation());
    assert!(scale[1] == 0.0 && scale[0] > 0.0 && scale[2] > 0.0, "{what}: {scale:?}");
    let shape = MlpShape { input: 3, kind: InputKind::Dense, widths: vec![4, 1] };
    let view = batch.view(&shape).unwrap();
    // The first signal is the row's number.
    let row_of = |x: f32| (f64::from(x) / f64::from(scale[0]) + f64::from(mean[0])).round() as usize;
    let groups: Vec<usize> = data.groups().unwrap().iter().map(|&g| g as usize).collect();
    for t in 0..view.episodes() {
        let (mut texts, mut languages) = (Vec::new(), BTreeSet::new());
        for (set, size) in [(&view.support, spec.support), (&view.query, spec.query)] {
            let BatchTargets::Lists { offsets, positives, episodes } = set.targets else { panic!("lists were drawn") };
            let Inputs::Dense(inputs) = &set.inputs else { panic!("dense rows were drawn") };
            assert_eq!(episodes[t + 1] - episodes[t], size, "{what}");
            for l in episodes[t]..episodes[t + 1] {
                let rows: Vec<usize> = (offsets[l]..offsets[l + 1]).map(|i| row_of(inputs.row(i)[0])).collect();
                let first = rows[0] - 1;
                let group = groups.binary_search(&first).unwrap_or_else(|_| panic!("{what}: {rows:?} begins no list"));
                assert_eq!(rows, (first + 1..groups[group + 1]).collect::<Vec<_>>(), "{what}: a whole list");
                let right = rows.iter().position(|&r| data.labels()[r] == 1);
                assert_eq!(right, Some(positives[l] as usize), "{what}: list {group}");
                texts.push(data.text_ids()[first]);
                languages.insert(data.languages()[first]);
                rules.check(part, first, what);
                if part == Part::Train {
                    rows.iter().for_each(|&row| rules.check(part, row, what));
                }
            }
        }
        assert_all_differ(texts.into_iter(), what);
        assert_eq!(languages.len(), 1, "{what}");
    }
}

#[test]
fn what_cannot_be_drawn_is_refused_in_words() {
    let rows = random_texts(&mut Rng::new(4, 0, 0, Purpose::Data), 3, 2, 40);
    let data = texts(Kind::Labelled, rows.len() as u32, &rows);
    let all = Split::new(&data, &SplitConfig::default(), 0).unwrap();
    let text = |error: Error| {
        assert_eq!(error.code(), 3, "{error}");
        error.to_string()
    };
    let labelled = |change: fn(&mut LabelledSpec), data: &Dataset| {
        let mut spec =
            LabelledSpec { n_way: 2, k_shot: 2, queries: 2, meta_batch: 2, cross_lingual: 0.0, dropout: 0.0 };
        change(&mut spec);
        let split = Split::new(data, &SplitConfig::default(), 0).unwrap();
        text(LabelledSource::new(data, &split, spec).err().expect("it must be refused"))
    };
    type Change = fn(&mut LabelledSpec);
    let cases: [(Change, &str); 9] = [
        (|s| s.k_shot = 60, "no training language has 2 classes with 62 texts each (60 support, 2 query)"),
        (|s| s.k_shot = usize::MAX, "no training language has 2 classes"),
        (|s| s.n_way = 3, "no training language has 3 classes with 4 texts each"),
        (|s| s.n_way = 1, "at least 2 ways"),
        (|s| s.queries = 0, "1 query"),
        (|s| s.meta_batch = 0, "1 episode"),
        (|s| s.cross_lingual = 1.5, "shares lie in"),
        (|s| s.dropout = 1.0, "shares lie in"),
        (|s| s.dropout = f64::NAN, "shares lie in"),
    ];
    for (change, wanted) in cases {
        let error = labelled(change, &data);
        assert!(error.starts_with("episodes: ") && error.contains(wanted), "{error}\nwanted: {wanted}");
    }
    let one: Vec<Made> = rows.iter().filter(|r| r.language == "aa").cloned().collect();
    let error = labelled(|s| s.cross_lingual = 0.5, &texts(Kind::Labelled, 1000, &one));
    assert_eq!(error, "cross_lingual: no two training languages have 2 classes in common");
    let unlabelled: Vec<Made> = rows.iter().map(|r| Made { label: None, ..r.clone() }).collect();
    let error = labelled(|_| {}, &texts(Kind::Pairs, 1000, &unlabelled));
    assert_eq!(error, "dataset: it has no labels to learn from");

    let unknown = SplitConfig { valid_languages: vec!["xx".into()], ..SplitConfig::default() };
    assert_eq!(
        text(Split::new(&data, &unknown, 0).unwrap_err()),
        "language: `xx` is not in the dataset; it has aa bb cc"
    );
    let everything = SplitConfig { valid_texts: 1.0, ..SplitConfig::default() };
    assert!(text(Split::new(&data, &everything, 0).unwrap_err()).contains("1 does not lie in [0, 1)"));

    let pairs = |change: fn(&mut PairSpec)| {
        let mut spec = PairSpec { support: 2, query: 2, meta_batch: 1, dropout: 0.0, pivot: None };
        change(&mut spec);
        text(PairSource::new(&data, &all, spec).err().expect("it must be refused"))
    };
    assert!(pairs(|s| s.pivot = Some("xx".into())).contains("`xx` is not in the dataset"));
    assert!(pairs(|s| s.query = 100).contains("no two training languages share 102 texts (by their id)"));
    assert!(pairs(|s| s.support = usize::MAX).contains("no two training languages share"));
    assert!(pairs(|s| s.query = 1).contains("at least 2 query pairs"));

    let spec = ListSpec { support: 1, query: 1, meta_batch: 1 };
    assert!(text(ListSource::new(&data, &all, spec).err().expect("no lists")).contains("no candidate lists"));
    // Nothing to validate on is known only when it is asked for.
    let spec = LabelledSpec { n_way: 2, k_shot: 2, queries: 2, meta_batch: 2, cross_lingual: 0.0, dropout: 0.0 };
    let source = LabelledSource::new(&data, &all, spec).unwrap();
    let error = source.draw(Part::Valid, 0, 0, &mut EpisodeBatch::new(TargetKind::Classes)).unwrap_err();
    assert!(text(error).starts_with("valid_languages: no language has 2 classes"));
}

#[test]
fn a_tie_is_no_hit() {
    let rows = random_texts(&mut Rng::new(4, 0, 0, Purpose::Data), 2, 2, 40);
    let data = texts(Kind::Pairs, rows.len() as u32, &rows);
    let split = Split::new(&data, &SplitConfig::default(), 0).unwrap();
    let spec = PairSpec { support: 2, query: 3, meta_batch: 1, dropout: 0.0, pivot: None };
    let pairs = drawn(&PairSource::new(&data, &split, spec).unwrap(), Part::Train, 0, 0);
    let outputs = |values: &[f32]| pairs.hits(metaglot::MatRef::new(values, 6, 1).unwrap());
    assert_eq!(outputs(&[1.0; 6]), (0, 3), "a collapsed model");
    assert_eq!(outputs(&[f32::NAN; 6]), (0, 3));
    assert_eq!(outputs(&[1.0, 0.0, 0.0, 5.0, 2.0, 3.0]), (1, 3));
}
