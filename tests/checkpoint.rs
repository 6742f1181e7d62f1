//! Checkpoints: a round trip is the identity, and no bytes whatsoever make the reader panic, lie or allocate wildly.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;

use metaglot::Error;
use metaglot::checkpoint::{Checkpoint, Progress, RunState};
use metaglot::dataset::{DatasetSpec, DatasetWriter, Kind, Weighing};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::optim::State;
use proptest::num::{f32 as any32, f64 as any64};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The system's allocator, noting each thread's largest request.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|l| l.set(l.get().max(layout.size())));
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// Any finite number: subnormal, negative zero, the largest.
fn finite() -> impl Strategy<Value = f32> {
    any32::NORMAL | any32::SUBNORMAL | any32::ZERO | any32::NEGATIVE | any32::POSITIVE
}

fn finite64() -> impl Strategy<Value = f64> {
    any64::NORMAL | any64::SUBNORMAL | any64::ZERO | any64::NEGATIVE | any64::POSITIVE
}

fn shapes() -> impl Strategy<Value = MlpShape> {
    let kind = prop_oneof![Just(InputKind::Dense), Just(InputKind::Bag)];
    (1usize..6, kind, prop::collection::vec(1usize..5, 1..4)).prop_map(|(input, kind, widths)| MlpShape {
        input,
        kind,
        widths,
    })
}

fn params(shape: MlpShape) -> impl Strategy<Value = Params<f32>> {
    let vector = |n| prop::collection::vec(finite(), n);
    (vector(shape.first_len()), vector(shape.hidden()), vector(shape.head_len()))
        .prop_map(move |(first, bias, head)| Params { shape: shape.clone(), first, bias, head })
}

fn progress() -> impl Strategy<Value = Progress> {
    let counts = (0u64..1 << 40, 0u64..1 << 20, 0u64..1 << 20, 0u64..100, 0u64..100);
    (counts, prop::option::of(finite64()), finite64()).prop_map(|(c, best_score, loss_sum)| Progress {
        step: c.0 + c.3 + c.4,
        best_step: c.0,
        hits: c.1,
        predictions: c.1 + c.2,
        steps_since: c.3,
        best_score,
        loss_sum,
    })
}

fn runs(shape: MlpShape) -> impl Strategy<Value = RunState> {
    let p = || params(shape.clone());
    (progress(), p(), p(), p()).prop_map(|(progress, m, v, best)| RunState {
        optimizer: State { step: progress.step, m, v },
        progress,
        best,
    })
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    let number = finite64().prop_map(|x| json!({"x": x, "nested": [true, null, "ü\"\\\n"]}));
    let aux = prop::collection::btree_map("[a-z.\"\\\\ü]{0,6}", prop::collection::vec(finite(), 0..9), 0..3);
    let names = prop::collection::vec(any::<String>(), 0..4);
    (shapes(), aux, number, "[a-z]{1,9}", names, any::<bool>()).prop_flat_map(
        |(shape, aux, config, task, label_names, has_run)| {
            let run = if has_run { runs(shape.clone()).prop_map(Some).boxed() } else { Just(None).boxed() };
            (params(shape), run).prop_map(move |(params, run)| Checkpoint {
                task: task.clone(),
                params,
                aux: aux.clone(),
                config: config.clone(),
                text_config: json!({}),
                label_names: label_names.clone(),
                run,
            })
        },
    )
}

/// A small checkpoint with everything in it.
fn small() -> Checkpoint {
    let shape = MlpShape { input: 2, kind: InputKind::Bag, widths: vec![2, 1] };
    let p = |seed| Params::random(&shape, 0.5, seed).unwrap();
    let progress = Progress {
        step: 12,
        best_score: Some(0.1 + 0.2),
        best_step: 8,
        loss_sum: 1.0 / 3.0,
        hits: 3,
        predictions: 7,
        steps_since: 4,
    };
    Checkpoint {
        task: "classify".into(),
        params: p(1),
        aux: BTreeMap::from([("idf".to_string(), vec![1.0, 2.0])]),
        config: json!({"seed": 7}),
        text_config: json!({}),
        label_names: vec!["a".into(), "b".into()],
        run: Some(RunState { progress, optimizer: State { step: 12, m: p(2), v: p(3) }, best: p(4) }),
    }
}

fn saved(checkpoint: &Checkpoint) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    checkpoint.save(&path).unwrap();
    fs::read(&path).unwrap()
}

/// The format error's text; anything else fails the test.
fn refusal(bytes: &[u8], what: &str) -> String {
    match Checkpoint::from_bytes(bytes, "here") {
        Err(error @ Error::Format { .. }) => error.to_string(),
        other => panic!("{what}: wanted a format error, got {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_saved_is_opened(checkpoint in checkpoints()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        checkpoint.save(&path).unwrap();
        let opened = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(&opened, &checkpoint);
        // Equality takes -0 for 0; bytes do not.
        prop_assert_eq!(saved(&opened), fs::read(&path).unwrap());
    }

    #[test]
    fn changed_bytes_never_open_as_something_else(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = saved(&small());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        opens_as_it_was_or_says_why(&bytes, "changed");
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), header in "[{}\\[\\]\":,a-z0-9]{0,64}") {
        refusal(&bytes, "random bytes");
        let mut with_header = (header.len() as u64).to_le_bytes().to_vec();
        with_header.extend(header.bytes());
        refusal(&with_header, "a random header");
    }
}

/// A format error, or the very checkpoint: white space in the header may change.
fn opens_as_it_was_or_says_why(bytes: &[u8], what: &str) {
    match Checkpoint::from_bytes(bytes, "here") {
        Ok(opened) => assert_eq!(opened, small(), "{what}"),
        Err(error) => assert!(matches!(error, Error::Format { .. }), "{what}: {error:?}"),
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = saved(&small());
    assert_eq!(Checkpoint::from_bytes(&bytes, "here").unwrap(), small());
    for len in 0..bytes.len() {
        refusal(&bytes[..len], &format!("the first {len} bytes"));
    }
    refusal(&[&bytes[..], &[0]].concat(), "one byte too many");
}

#[test]
fn every_flipped_byte_is_refused_or_means_the_same() {
    let bytes = saved(&small());
    let body = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for (at, flip) in (0..bytes.len()).flat_map(|at| [1, 2, 0x10, 0x80, 0xff].map(|flip| (at, flip))) {
        let mut flipped = bytes.clone();
        flipped[at] ^= flip;
        let what = format!("byte {at} ^ {flip:#x}");
        opens_as_it_was_or_says_why(&flipped, &what);
        if at >= body {
            let error = refusal(&flipped, &what);
            assert!(error.contains("checksum") || error.contains("finite"), "{what}: {error}");
        }
    }
}

/// The parts of a file, to be changed and put together again with fitting checksums.
struct Parts {
    header: Value,
    body: Vec<u8>,
}

impl Parts {
    fn small() -> Self {
        let bytes = saved(&small());
        let body = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Parts { header: serde_json::from_slice(&bytes[8..body]).unwrap(), body: bytes[body..].to_vec() }
    }

    /// With another value of a metadata key; none removes it.
    fn with(mut self, key: &str, value: Option<&str>) -> Self {
        let metadata = self.header["__metadata__"].as_object_mut().unwrap();
        match value {
            Some(value) => drop(metadata.insert(key.into(), value.into())),
            None => drop(metadata.remove(key)),
        }
        self
    }

    fn tensor_bytes(&mut self, name: &str) -> &mut [u8] {
        let at = |i: usize| self.header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        let range = at(0)..at(1);
        &mut self.body[range]
    }

    /// The file, its metadata summed up anew as the specification says.
    fn bytes(mut self) -> Vec<u8> {
        let metadata = self.header["__metadata__"].as_object_mut().unwrap();
        let mut hasher = crc32fast::Hasher::new();
        for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with("crc32")) {
            for piece in [key, "\0", value.as_str().unwrap(), "\0"] {
                hasher.update(piece.as_bytes());
            }
        }
        metadata.insert("crc32".into(), format!("{:08x}", hasher.finalize()).into());
        let header = self.header.to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &self.body].concat()
    }
}

#[test]
fn each_broken_piece_of_metadata_is_named() {
    assert_eq!(Checkpoint::from_bytes(&Parts::small().bytes(), "here").unwrap(), small());
    let state = |key: &str, value: Value| {
        let mut state = serde_json::to_value(small().run.unwrap().progress).unwrap();
        state[key] = value;
        Some(state.to_string())
    };
    let shape = |input: u64, widths: &[u64]| Some(json!({"input": input, "kind": "bag", "widths": widths}).to_string());
    let cases = [
        ("format", Some("metaglot-dataset".to_string()), "format `metaglot-dataset`, wanted `metaglot-checkpoint`"),
        ("format", None, "lacks `format`"),
        ("version", Some("2".to_string()), "version 2 of the format; this program reads 1"),
        ("task", None, "lacks `task`"),
        ("shape", shape(3, &[2, 1]), "`theta.first` has 4 values, but the shape asks for 6"),
        ("shape", shape(2, &[3, 1]), "`theta.first` has 4 values, but the shape asks for 6"),
        ("shape", shape(2, &[2, 2]), "`theta.head` has 3 values, but the shape asks for 6"),
        ("shape", shape(2, &[]), "layers"),
        ("shape", shape(0, &[2, 1]), "layers"),
        ("shape", shape(u64::MAX, &[2, 1]), "layers"),
        ("shape", shape(1 << 40, &[1 << 10, 1]), "but the shape asks for"),
        ("shape", Some("{}".to_string()), "metadata `shape`"),
        ("config", Some("{".to_string()), "metadata `config`"),
        ("label_names", Some("[1]".to_string()), "metadata `label_names`"),
        ("state", Some("{}".to_string()), "metadata `state`"),
        ("state", state("unknown", json!(1)), "metadata `state`"),
        ("state", state("best_step", json!(13)), "metadata `state`"),
        ("state", state("steps_since", json!(13)), "metadata `state`"),
        ("state", state("hits", json!(8)), "metadata `state`"),
        ("state", state("predictions", json!(u64::MAX)), "metadata `state`"),
        // Without a position the moments have no meaning.
        ("state", None, "unknown tensor"),
        ("crc32.m.bias", None, "lacks `crc32.m.bias`"),
        ("crc32.m.bias", Some("00000000".to_string()), "the checksum of `m.bias`"),
    ];
    for (key, value, wanted) in cases {
        let error = refusal(&Parts::small().with(key, value.as_deref()).bytes(), key);
        assert!(error.starts_with("here: ") && error.contains(wanted), "{error}\nwanted: {wanted}");
    }
    let mut parts = Parts::small();
    parts.header["__metadata__"]["crc32"] = "00000000".into();
    let header = parts.header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &parts.body].concat();
    assert!(refusal(&bytes, "crc32").contains("the checksum of the metadata"));
}

#[test]
fn each_broken_tensor_is_named() {
    let set = |name: &str, key: &str, value: Value| {
        let mut parts = Parts::small();
        parts.header[name][key] = value;
        refusal(&parts.bytes(), name)
    };
    assert!(set("theta.first", "dtype", json!("I32")).contains("`theta.first` is I32 [4], wanted F32"));
    assert!(set("theta.first", "shape", json!([2, 2])).contains("in one dimension"));
    assert!(set("theta.first", "shape", json!([5])).contains("not a whole safetensors file"));
    assert!(set("theta.first", "shape", json!([u64::MAX])).contains("not a whole safetensors file"));

    let mut parts = Parts::small();
    let bytes = parts.tensor_bytes("best.bias");
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let crc = format!("{:08x}", crc32fast::hash(bytes));
    let error = refusal(&parts.with("crc32.best.bias", Some(&crc)).bytes(), "NaN");
    assert!(error.contains("`best.bias` value 0 is not finite"), "{error}");

    let mut parts = Parts::small();
    let moved = parts.header["v.head"].take();
    parts.header.as_object_mut().unwrap().remove("v.head");
    parts.header["v.tail"] = moved;
    let error = refusal(&parts.bytes(), "a missing and a foreign tensor");
    assert!(error.contains("v.head") || error.contains("v.tail"), "{error}");
}

#[test]
fn foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let spec = DatasetSpec {
        kind: Kind::Labelled,
        vocabulary: 4,
        text_config: "{}".into(),
        signal_names: vec![],
        weighing: Weighing::Ones,
    };
    DatasetWriter::create(&path, spec).unwrap().finish(&json!({})).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert_eq!(error.code(), 5);
    assert!(error.to_string().contains("format `metaglot-dataset`, wanted `metaglot-checkpoint`"), "{error}");

    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let foreign = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat();
    assert!(refusal(&foreign, "foreign").contains("not a checkpoint: it has no metadata"));
    assert!(refusal(b"", "empty").contains("shorter than 8 bytes"));
    assert!(refusal(b"PK\x03\x04 a zip file", "zip").contains("a header of"));

    assert_eq!(Checkpoint::open(folder.path().join("missing")).unwrap_err().code(), 6);
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn claimed_sizes_allocate_nothing() {
    let mut endless = (16u64 << 20).to_le_bytes().to_vec();
    endless.extend(b"{\"__metadata__\":{}}");
    let shape = json!({"input": 1u64 << 40, "kind": "dense", "widths": [1024, 1024]}).to_string();
    let huge_shape = Parts::small().with("shape", Some(&shape)).bytes();
    let mut parts = Parts::small();
    parts.header["theta.first"]["shape"] = json!([1u64 << 40]);
    parts.header["theta.first"]["data_offsets"] = json!([0, 1u64 << 42]);
    for bytes in [endless, huge_shape, parts.bytes()] {
        LARGEST.set(0);
        refusal(&bytes, "a huge claim");
        assert!(LARGEST.get() <= 16 * bytes.len(), "{} bytes at once for {}", LARGEST.get(), bytes.len());
    }
}

#[test]
fn what_could_not_be_opened_is_not_saved() {
    type Break = fn(&mut Checkpoint);
    let broken: [(&str, Break); 6] = [
        ("`theta.bias` value 1 is not finite", |c| c.params.bias[1] = f32::NAN),
        ("`aux.idf` value 0 is not finite", |c| c.aux.get_mut("idf").unwrap()[0] = f32::INFINITY),
        ("`v.head` value 2 is not finite", |c| {
            c.run.as_mut().unwrap().optimizer.v.head[2] = f32::INFINITY;
        }),
        ("`theta.first` has 3 values", |c| c.params.first.truncate(3)),
        ("best", |c| c.run.as_mut().unwrap().best.shape.input = 7),
        ("loss_sum", |c| c.run.as_mut().unwrap().progress.loss_sum = f64::NAN),
    ];
    for (wanted, change) in broken {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        small().save(&path).unwrap();
        let mut checkpoint = small();
        change(&mut checkpoint);
        let error = checkpoint.save(&path).expect_err(wanted);
        assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(wanted), "{error}\n{wanted}");
        assert_eq!(Checkpoint::open(&path).unwrap(), small(), "the old file stays");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}

#[test]
fn a_failed_save_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(small().save(folder.path().join("missing/model")).unwrap_err().code(), 6);
    assert_eq!(small().save(folder.path()).unwrap_err().code(), 6);
    let mut wide = small();
    wide.task = "x".repeat(17 << 20);
    assert_eq!(wide.save(folder.path().join("model")).unwrap_err().code(), 5);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
