//! Datasets on disk: what is written is read back, and no bytes whatsoever make the reader panic or lie.

use std::path::Path;

use half::f16;
use metaglot::dataset::{Dataset, DatasetSpec, DatasetWriter, Kind, NO_LABEL, Row, Weighing};
use metaglot::text::{Featurizer, Idf, TextConfig};
use metaglot::{Error, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A row as a test makes it.
#[derive(Clone, Debug)]
struct Made {
    bag: Vec<(u32, f32)>,
    label: Option<String>,
    language: String,
    text_id: u32,
    signals: [f32; 2],
}

const VOCABULARY: u32 = 1000;

fn rows() -> impl Strategy<Value = Vec<Made>> {
    let bag = prop::collection::btree_map(0..VOCABULARY, -8.0f32..8.0, 0..12).prop_map(|m| m.into_iter().collect());
    let label = prop::option::of("[a-c\"\\\\ü]{0,2}");
    let row = (bag, label, "[a-d]{1,2}", any::<u32>(), [-1e30f32..1e30, -1.0f32..1.0]);
    let row = row.prop_map(|(bag, label, language, text_id, signals)| Made { bag, label, language, text_id, signals });
    prop::collection::vec(row, 0..40)
}

fn spec(kind: Kind, signals: usize, weighing: Weighing) -> DatasetSpec {
    let signal_names = ["one", "two"][..signals].iter().map(|s| s.to_string()).collect();
    DatasetSpec { kind, vocabulary: VOCABULARY, text_config: "{}".into(), signal_names, weighing }
}

fn write(path: &Path, rows: &[Made]) -> Result<()> {
    let mut writer = DatasetWriter::create(path, spec(Kind::Labelled, 2, Weighing::Given))?;
    for row in rows {
        let (tokens, values): (Vec<_>, Vec<_>) = row.bag.iter().copied().unzip();
        writer.push(Row {
            tokens: &tokens,
            values: &values,
            label: row.label.as_deref(),
            language: &row.language,
            text_id: &row.text_id.to_string(),
            signals: &row.signals,
        })?;
    }
    writer.finish(&json!({"program": "tests"})).map(drop)
}

/// The bytes of a small dataset with every tensor but `idf`.
fn small_ranking() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small");
    let mut writer = DatasetWriter::create(&path, spec(Kind::Ranking, 1, Weighing::Given)).unwrap();
    let row = Row { language: "de", text_id: "5", signals: &[0.5], ..Row::default() };
    for group in 0..2u32 {
        writer.begin_group().unwrap();
        writer.push(Row { tokens: &[group, 7, 999], values: &[1.0, 0.5, 2.0], ..row }).unwrap();
        writer.push(Row { tokens: &[7], values: &[1.0], label: Some("right"), ..row }).unwrap();
        writer.push(Row { label: Some("wrong"), language: "fr", ..row }).unwrap();
    }
    writer.finish(&json!({})).unwrap();
    std::fs::read(&path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(rows in rows()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        write(&path, &rows).unwrap();
        let mapped = Dataset::open(&path).unwrap();
        let copied = Dataset::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        for data in [mapped, copied] {
            data.verify_checksums().unwrap();
            prop_assert_eq!(data.len(), rows.len());
            for (i, row) in rows.iter().enumerate() {
                let bag = data.row(i);
                let tokens: Vec<u32> = row.bag.iter().map(|b| b.0).collect();
                let weights: Vec<f16> = row.bag.iter().map(|b| f16::from_f32(b.1)).collect();
                prop_assert_eq!(bag.tokens, &tokens[..]);
                prop_assert_eq!(bag.weights, Some(&weights[..]));
                let label = (data.labels()[i] != NO_LABEL).then(|| &data.label_names()[data.labels()[i] as usize]);
                prop_assert_eq!(label, row.label.as_ref());
                prop_assert_eq!(&data.language_names()[usize::from(data.languages()[i])], &row.language);
                prop_assert_eq!(data.text_ids()[i], row.text_id);
                prop_assert_eq!(&data.signals().unwrap()[2 * i..2 * i + 2], &row.signals[..]);
            }
        }
    }

    #[test]
    fn flipped_bytes_give_an_error_or_a_dataset_that_holds(at in any::<prop::sample::Index>(), with in 1u8..=255) {
        let mut bytes = small_ranking();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        opens_safely_or_says_why(&bytes);
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), header in "[{}\\[\\]\":,a-z0-9]{0,64}") {
        opens_safely_or_says_why(&bytes);
        let mut with_header = (header.len() as u64).to_le_bytes().to_vec();
        with_header.extend(header.bytes());
        opens_safely_or_says_why(&with_header);
    }
}

/// Opens without a panic; what opens can be read all through; what does not is a `Format` error.
fn opens_safely_or_says_why(bytes: &[u8]) {
    match Dataset::from_bytes(bytes) {
        Ok(data) => {
            for i in 0..data.len() {
                let bag = data.row(i);
                assert!(bag.tokens.iter().all(|t| *t < data.vocabulary()));
                assert!(bag.weights.is_none_or(|w| w.len() == bag.tokens.len()));
                let _ = &data.language_names()[usize::from(data.languages()[i])];
            }
            let _ = data.verify_checksums();
        }
        Err(error) => assert!(matches!(error, Error::Format { .. }), "{error:?}"),
    }
}

#[test]
fn every_single_byte_flip_and_every_truncation_is_safe() {
    let bytes = small_ranking();
    assert!(Dataset::from_bytes(&bytes).is_ok());
    for len in 0..bytes.len() {
        let error = Dataset::from_bytes(&bytes[..len]).expect_err("a truncated file must not open");
        assert!(matches!(error, Error::Format { .. }), "{len}: {error:?}");
    }
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            opens_safely_or_says_why(&flipped);
        }
    }
}

#[test]
fn damage_in_the_body_is_found_by_checksums() {
    let bytes = small_ranking();
    let body = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in body..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        // Damage that opening already refuses need not be found again.
        let Ok(data) = Dataset::from_bytes(&flipped) else { continue };
        let error = data.verify_checksums().expect_err("damage must be found");
        assert!(error.to_string().contains("is damaged"), "{at}: {error}");
    }
}

/// A tensor for a hand-made file: name, dtype, shape, bytes.
type Raw = (&'static str, &'static str, Vec<u64>, Vec<u8>);

fn bytes_of<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Two rows: tokens 1, 4 and 2.
fn plain() -> Vec<Raw> {
    vec![
        ("offsets", "U64", vec![3], bytes_of(&[0u64, 2, 3])),
        ("tokens", "U32", vec![3], bytes_of(&[1u32, 4, 2])),
        ("labels", "U32", vec![2], bytes_of(&[0u32, u32::MAX])),
        ("text_id", "U32", vec![2], bytes_of(&[0u32, 1])),
        ("language", "U16", vec![2], bytes_of(&[0u16, 0])),
        ("weights", "F16", vec![3], bytes_of(&[f16::ONE; 3])),
    ]
}

fn plain_metadata() -> Value {
    json!({
        "format": "metaglot-dataset", "version": "1", "kind": "labelled", "vocabulary": "5",
        "label_names": "[\"x\"]", "language_names": "[\"de\"]", "signal_names": "[]",
        "text_config": "{}", "made_by": "{}",
    })
}

/// Lays tensors out as a safetensors file, without looking at what they say.
fn file(tensors: &[Raw], mut metadata: Value, padding: usize) -> Vec<u8> {
    let (mut header, mut body) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [body.len(), body.len() + bytes.len()];
        header.insert(name.to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        body.extend(bytes);
        metadata[format!("crc32.{name}")] = format!("{:08x}", crc32fast::hash(bytes)).into();
    }
    header.insert("__metadata__".into(), metadata);
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8) + padding, b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &body].concat()
}

fn refusal(tensors: &[Raw], metadata: Value) -> String {
    match Dataset::from_bytes(&file(tensors, metadata, 0)) {
        Err(error @ Error::Format { .. }) => error.to_string(),
        other => panic!("wanted a format error, got {other:?}"),
    }
}

#[test]
fn a_file_made_by_hand_opens() {
    let data = Dataset::from_bytes(&file(&plain(), plain_metadata(), 0)).unwrap();
    data.verify_checksums().unwrap();
    assert_eq!(data.row(0).tokens, [1, 4]);
    assert_eq!(data.labels(), [0, NO_LABEL]);
}

#[test]
fn each_broken_tensor_is_named() {
    let nan = bytes_of(&[f16::ONE, f16::NAN, f16::ONE]);
    let cases: Vec<(Raw, &str)> = vec![
        (("offsets", "U64", vec![3], bytes_of(&[1u64, 2, 3])), "`offsets` begins with 1"),
        (("offsets", "U64", vec![3], bytes_of(&[0u64, 4, 3])), "`offsets` decreases after row 1"),
        (("offsets", "U64", vec![3], bytes_of(&[0u64, u64::MAX, 3])), "`offsets` decreases after row 1"),
        (("offsets", "U64", vec![3], bytes_of(&[0u64, 2, 4])), "`offsets` ends with 4"),
        (("offsets", "U64", vec![2], bytes_of(&[0u64, 3])), "`offsets` has 2 elements"),
        (("offsets", "U64", vec![0], vec![]), "`offsets` has 0 elements"),
        (("offsets", "I64", vec![3], bytes_of(&[0u64, 2, 3])), "tensor `offsets` is I64"),
        (("offsets", "U64", vec![3, 1], bytes_of(&[0u64, 2, 3])), "not U64 of 1 dimension"),
        (("tokens", "U32", vec![3], bytes_of(&[1u32, 5, 2])), "row 0 has token 5"),
        (("tokens", "U32", vec![3], bytes_of(&[4u32, 4, 2])), "the tokens of row 0 do not strictly increase"),
        (("labels", "U32", vec![2], bytes_of(&[1u32, 0])), "row 0 has label 1"),
        (("labels", "U32", vec![1], bytes_of(&[0u32])), "`offsets` has 3 elements"),
        (("text_id", "U32", vec![3], bytes_of(&[0u32; 3])), "`text_id` has 3 elements"),
        (("language", "U16", vec![2], bytes_of(&[0u16, 1])), "row 1 has language 1"),
        (("weights", "F16", vec![3], nan), "`weights` element 1 is NaN"),
        (("weights", "F16", vec![2], bytes_of(&[f16::ONE; 2])), "`weights` has 2 elements"),
        (("weights", "BF16", vec![3], bytes_of(&[f16::ONE; 3])), "tensor `weights` is BF16"),
        (("idf", "F32", vec![4], bytes_of(&[1f32; 4])), "`idf` has 4 elements"),
        (("idf", "F32", vec![5], bytes_of(&[1.0, 1.0, 0.0, 1.0, 1f32])), "`idf` element 2 is 0"),
        (("signals", "F32", vec![2, 1], bytes_of(&[1f32; 2])), "metadata names 0 signals"),
        (("groups", "U64", vec![2], bytes_of(&[0u64, 2])), "kind `labelled` has no tensor `groups`"),
        (("extra", "U8", vec![1], vec![0]), "unknown tensor `extra`"),
    ];
    for (broken, wanted) in cases {
        let mut tensors = plain();
        // Wide elements first, as the writer does, so that alignment is not what is refused.
        match tensors.iter().position(|t| t.0 == broken.0) {
            Some(at) => tensors[at] = broken,
            None if broken.1 == "U8" => tensors.push(broken),
            None if broken.1 == "F32" => tensors.insert(4, broken),
            None => tensors.insert(0, broken),
        }
        let error = refusal(&tensors, plain_metadata());
        assert!(error.contains(wanted), "{error}\nwanted: {wanted}");
    }
    let without_tokens: Vec<Raw> = plain().into_iter().filter(|t| t.0 != "tokens").collect();
    assert!(refusal(&without_tokens, plain_metadata()).contains("tensor `tokens` is missing"));
}

#[test]
fn each_broken_piece_of_metadata_is_named() {
    let cases = [
        ("format", json!("other"), "`format` is `other`"),
        ("format", Value::Null, "not a metaglot dataset"),
        ("version", json!("2"), "dataset version 2"),
        ("kind", json!("poems"), "`kind` is unknown: `poems`"),
        ("kind", json!("ranking"), "kind `ranking` needs the tensor `groups`"),
        ("vocabulary", json!("0"), "`vocabulary` is `0`"),
        ("vocabulary", json!("4294967296"), "`vocabulary` is `4294967296`"),
        ("vocabulary", Value::Null, "metadata `vocabulary` is missing"),
        ("label_names", json!("[1]"), "`label_names` is not a JSON list of strings"),
        ("language_names", json!(r#"["a","a"]"#), "`language_names` has `a` twice"),
        ("signal_names", json!(r#"["s"]"#), "no tensor `signals`"),
        ("text_config", json!("[]"), "`text_config` is not a JSON object"),
    ];
    for (key, value, wanted) in cases {
        let mut metadata = plain_metadata();
        match value {
            Value::Null => drop(metadata.as_object_mut().unwrap().remove(key)),
            value => metadata[key] = value,
        }
        let error = refusal(&plain(), metadata);
        assert!(error.contains(wanted), "{error}\nwanted: {wanted}");
    }
}

#[test]
fn hostile_headers_are_refused() {
    let with = |header: &str, body: &[u8]| {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), body].concat();
        match Dataset::from_bytes(&bytes) {
            Err(error @ Error::Format { .. }) => error.to_string(),
            other => panic!("wanted a format error, got {other:?}"),
        }
    };
    // A foreign but valid file.
    let error = with(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, &[0]);
    assert!(error.contains("not a metaglot dataset"), "{error}");
    // Shapes whose product overflows, offsets that run backwards or past the end.
    let huge = format!(r#"{{"a":{{"dtype":"U64","shape":[{0},{0}],"data_offsets":[0,8]}}}}"#, u64::MAX / 2);
    for header in [
        &huge,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#,
        r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#,
        r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
    ] {
        assert!(with(header, &[0; 8]).contains("not a whole safetensors file"), "{header}");
    }
    let mut endless = u64::MAX.to_le_bytes().to_vec();
    endless.extend([b'{'; 100]);
    assert!(Dataset::from_bytes(&endless).unwrap_err().to_string().contains("a header of"));
    let misaligned = Dataset::from_bytes(&file(&plain(), plain_metadata(), 1)).unwrap_err();
    assert!(misaligned.to_string().contains("which is not aligned"), "{misaligned}");
}

#[test]
fn broken_groups_are_named() {
    let cases: [(&[u64], [u32; 2], &str); 5] = [
        (&[0, 1, 2], [u32::MAX, 0], "group 0 goes from row 0 to 1"),
        (&[0, u64::MAX, 2], [u32::MAX, 0], "group 1 goes from"),
        (&[0], [u32::MAX, 0], "`groups` ends with 0"),
        (&[], [u32::MAX, 0], "`groups` is empty"),
        (&[0, 2], [0, 0], "its first row must have no label"),
    ];
    for (groups, labels, wanted) in cases {
        let mut tensors = plain();
        tensors[2].3 = bytes_of(&labels);
        tensors.insert(0, ("groups", "U64", vec![groups.len() as u64], bytes_of(groups)));
        let mut metadata = plain_metadata();
        metadata["kind"] = "ranking".into();
        let error = refusal(&tensors, metadata);
        assert!(error.contains(wanted), "{error}\nwanted: {wanted}");
    }
}

#[test]
fn weights_are_those_the_featurizer_gives_new_text() {
    let texts = ["guten Tag", "Tag und Nacht, Tag um Tag", "", "gute Nacht"];
    for config in [TextConfig::default(), TextConfig { idf: false, l2: false, ..TextConfig::default() }] {
        let featurizer = Featurizer::new(config.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut writer = DatasetWriter::create(&path, DatasetSpec::for_text(featurizer.clone())).unwrap();
        for (i, text) in texts.iter().enumerate() {
            let counts = featurizer.counts(text, "deu");
            let values: Vec<f32> = counts.counts.iter().map(|c| *c as f32).collect();
            let id = i.to_string();
            let row = Row { tokens: &counts.tokens, values: &values, language: "deu", text_id: &id, ..Row::default() };
            writer.push(row).unwrap();
        }
        let written = writer.finish(&json!({})).unwrap();
        assert_eq!((written.rows, written.empty_rows), (4, 1));

        let data = Dataset::open(&path).unwrap();
        assert_eq!(serde_json::from_str::<TextConfig>(data.text_config_json()).unwrap(), config);
        let idf = data.idf().map(|idf| Idf::new(idf.to_vec()).unwrap());
        assert_eq!(idf.is_some(), config.idf);
        for (i, text) in texts.iter().enumerate() {
            let bag = featurizer.bag(&featurizer.counts(text, "deu"), idf.as_ref());
            let weights: Vec<f16> = bag.weights.iter().map(|w| f16::from_f32(*w)).collect();
            assert_eq!((data.row(i).tokens, data.row(i).weights), (&bag.tokens[..], Some(&weights[..])));
        }
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let good = Row { tokens: &[1, 2], values: &[1.0, 1.0], language: "de", text_id: "0", ..Row::default() };
    let bad = [
        Row { tokens: &[2, 1], ..good },
        Row { tokens: &[2, 2], ..good },
        Row { tokens: &[1, VOCABULARY], ..good },
        Row { values: &[1.0], ..good },
        Row { values: &[1.0, f32::NAN], ..good },
        Row { values: &[1.0, 1e6], ..good },
        Row { signals: &[1.0], ..good },
    ];
    for row in bad {
        let mut writer = DatasetWriter::create(&path, spec(Kind::Labelled, 0, Weighing::Given)).unwrap();
        writer.push(good).unwrap();
        assert!(writer.push(row).is_err(), "{row:?}");
    }
    let plain = || spec(Kind::Labelled, 0, Weighing::Ones);
    for bad in [
        DatasetSpec { vocabulary: 0, ..plain() },
        DatasetSpec { text_config: "[]".into(), ..plain() },
        DatasetSpec { signal_names: vec!["a".into(), "a".into()], ..plain() },
    ] {
        assert!(DatasetWriter::create(&path, bad).is_err());
    }
    let ranking = || DatasetWriter::create(&path, spec(Kind::Ranking, 0, Weighing::Given)).unwrap();
    assert!(ranking().push(good).is_err(), "no group begun");
    let mut writer = ranking();
    writer.begin_group().unwrap();
    assert!(writer.push(Row { label: Some("right"), ..good }).is_err(), "a query with a label");
    writer.push(good).unwrap();
    assert!(writer.push(Row { label: Some("maybe"), ..good }).is_err(), "an unknown label");
    assert!(writer.begin_group().is_err(), "a group of one row");
    assert!(writer.finish(&json!({})).is_err(), "a group of one row");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left");
}

#[test]
fn the_writers_files_have_all_tensors_where_python_finds_them() {
    let bytes = small_ranking();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort();
    assert_eq!(names, ["groups", "labels", "language", "offsets", "signals", "text_id", "tokens", "weights"]);
    assert_eq!(tensors.tensor("signals").unwrap().shape(), [6, 1]);
    assert_eq!(tensors.tensor("groups").unwrap().data(), bytes_of(&[0u64, 3, 6]));
}

#[test]
fn what_is_no_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Dataset::open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(matches!(Dataset::open(folder.path().join("none")).unwrap_err(), Error::Io { .. }));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert!(Dataset::open(&empty).unwrap_err().to_string().contains("the file is empty"));
}

#[test]
fn datasets_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Dataset>();
}
