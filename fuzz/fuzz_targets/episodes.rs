//! Splits and episodes of any small dataset under any settings: errors are values, draws never panic and fit the
//! model and the limits that were promised.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaglot::dataset::Dataset;
use metaglot::episode::{
    EpisodeBatch, EpisodeSource, LabelledSource, LabelledSpec, ListSource, ListSpec, PairSource, PairSpec, Part, Split,
    SplitConfig, TargetKind,
};
use metaglot::meta::{InnerLoop, Limits, Order};
use metaglot::model::{InputKind, MlpShape};
use serde_json::{Value, json};

const LANGUAGES: [&str; 4] = ["a", "b", "c", "d"];
const VOCABULARY: usize = 8;

/// Numbers read off the input; 0 when it is used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Mostly small, now and then as large as it gets.
    fn size(&mut self) -> usize {
        let byte = self.byte();
        if byte == 255 { usize::MAX } else { usize::from(byte % 8) }
    }

    fn share(&mut self) -> f64 {
        [0.0, 0.3, 0.5, 0.99, 1.0, -1.0, f64::NAN, f64::INFINITY][self.below(8)]
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "d", "x"][self.below(5)].to_string()
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let config = SplitConfig {
        exclude_languages: (0..bytes.below(3)).map(|_| bytes.name()).collect(),
        valid_languages: (0..bytes.below(3)).map(|_| bytes.name()).collect(),
        valid_texts: bytes.share(),
    };
    let seed = u64::from(bytes.byte());
    // `size` is for what is checked against the data; a huge meta-batch would only take long.
    let (n, k, q, meta_batch) = (bytes.size(), bytes.size(), bytes.size(), bytes.below(4));
    let (cross_lingual, dropout) = (bytes.share(), bytes.share());
    let pivot = (bytes.below(3) == 0).then(|| bytes.name());
    let ranking = bytes.below(2) == 1;
    let data = dataset(&mut bytes, ranking);
    let Ok(split) = Split::new(&data, &config, seed) else { return };
    let bag = MlpShape { input: VOCABULARY, kind: InputKind::Bag, widths: vec![3, 4] };
    let dense = MlpShape { input: 1, kind: InputKind::Dense, widths: vec![3, 1] };
    let spec = LabelledSpec { n_way: n, k_shot: k, queries: q, meta_batch, cross_lingual, dropout };
    if let Ok(source) = LabelledSource::new(&data, &split, spec) {
        draw(&source, &bag, seed);
    }
    if let Ok(source) = PairSource::new(&data, &split, PairSpec { support: k, query: q, meta_batch, dropout, pivot }) {
        draw(&source, &bag, seed);
    }
    if let Ok(source) = ListSource::new(&data, &split, ListSpec { support: k, query: q, meta_batch }) {
        draw(&source, &dense, seed);
    }
});

fn draw(source: &dyn EpisodeSource, shape: &MlpShape, seed: u64) {
    source.check_shape(shape).expect("the shape fits the dataset");
    let mut batch = EpisodeBatch::new(TargetKind::Classes);
    for (part, step) in [(Part::Train, 0), (Part::Train, u64::MAX), (Part::Valid, 0)] {
        match source.draw(part, seed, step, &mut batch) {
            Ok(()) => {
                let limits = Limits::of(
                    &batch.view(shape).expect("the batch fits the model"),
                    &InnerLoop::sgd(0, 0.0, Order::Evaluate),
                );
                assert!(source.limits().covers(&limits), "{limits:?}");
            }
            Err(error) => assert!(part == Part::Valid && error.code() == 3, "{error:?}"),
        }
    }
}

/// Four bytes a row: language and label, text, tokens, group.
fn dataset(bytes: &mut Bytes, ranking: bool) -> Dataset {
    let (mut offsets, mut groups, mut tokens) = (vec![0u64], Vec::new(), Vec::<u32>::new());
    let (mut labels, mut texts, mut languages, mut signals) =
        (Vec::<u32>::new(), Vec::<u32>::new(), Vec::<u16>::new(), Vec::<f32>::new());
    while !bytes.0.is_empty() && labels.len() < 256 {
        let (kind, bits, first) = (bytes.byte(), bytes.byte(), bytes.byte());
        texts.push(u32::from(bytes.byte() % 16));
        languages.push(u16::from(kind % 4));
        tokens.extend((0..VOCABULARY as u32).filter(|t| bits >> t & 1 == 1));
        offsets.push(tokens.len() as u64);
        signals.push(f32::from(bits) * 1e30);
        let begins = ranking && groups.last().is_none_or(|&g| labels.len() as u64 - g > 1) && first % 3 == 0;
        if begins || (ranking && labels.is_empty()) {
            groups.push(labels.len() as u64);
            labels.push(u32::MAX);
        } else {
            labels.push(if ranking { u32::from(kind / 4 % 2) } else { [0, 1, 2, u32::MAX][usize::from(kind / 4 % 4)] });
        }
    }
    // A group needs a candidate.
    if groups.last().is_some_and(|&g| labels.len() as u64 - g < 2) {
        groups.pop();
        let row = labels.len() - 1;
        if row == 0 {
            return dataset(&mut Bytes(&[]), ranking);
        }
        labels[row] = 0;
    }
    groups.push(labels.len() as u64);
    let rows = labels.len();
    let mut tensors = vec![("offsets", "U64", vec![rows + 1], le(&offsets, u64::to_le_bytes))];
    if ranking {
        tensors.push(("groups", "U64", vec![groups.len()], le(&groups, u64::to_le_bytes)));
    }
    tensors.push(("tokens", "U32", vec![tokens.len()], le(&tokens, u32::to_le_bytes)));
    tensors.push(("labels", "U32", vec![rows], le(&labels, u32::to_le_bytes)));
    tensors.push(("text_id", "U32", vec![rows], le(&texts, u32::to_le_bytes)));
    if ranking {
        tensors.push(("signals", "F32", vec![rows, 1], le(&signals, f32::to_le_bytes)));
    }
    tensors.push(("language", "U16", vec![rows], le(&languages, u16::to_le_bytes)));
    Dataset::from_bytes(&file(&tensors, ranking)).expect("a dataset as the format says")
}

fn le<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| bytes(v)).collect()
}

/// Lays the tensors out as a safetensors file.
fn file(tensors: &[(&str, &str, Vec<usize>, Vec<u8>)], ranking: bool) -> Vec<u8> {
    let labels = if ranking { vec!["wrong", "right"] } else { vec!["p", "q", "r"] };
    let mut metadata = json!({
        "format": "metaglot-dataset", "version": "1", "kind": if ranking { "ranking" } else { "labelled" },
        "vocabulary": VOCABULARY.to_string(), "label_names": json!(labels).to_string(),
        "language_names": json!(LANGUAGES).to_string(),
        "signal_names": if ranking { "[\"s\"]" } else { "[]" }, "text_config": "{}", "made_by": "{}",
    });
    let (mut header, mut body) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [body.len(), body.len() + bytes.len()];
        header.insert(name.to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        body.extend(bytes);
        metadata[format!("crc32.{name}")] = format!("{:08x}", crc32fast::hash(bytes)).into();
    }
    header.insert("__metadata__".into(), metadata);
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &body].concat()
}
