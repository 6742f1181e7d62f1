//! The command line `metaglot prepare` and `metaglot info`, run as a program.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::write::GzEncoder;
use metaglot::dataset::{Dataset, Kind, NO_LABEL};
use metaglot::text::{Featurizer, TextConfig};
use tempfile::TempDir;

/// A folder with the inputs of a test.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    /// Runs the program in the folder.
    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metaglot"));
        command.args(arguments.split(' ')).current_dir(self.folder.path()).output().unwrap()
    }

    /// Prepares `out.mgd` and opens it.
    fn prepare(&self, arguments: &str) -> Dataset {
        let output = self.run(&format!("prepare {arguments} --out out.mgd"));
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        let data = Dataset::open(self.path("out.mgd")).unwrap();
        data.verify_checksums().unwrap();
        data
    }

    /// Prepares in vain: exit code 2, one line that contains `wanted`, and no file but the inputs.
    fn refused(&self, arguments: &str, wanted: &str) {
        let before = names(self.folder.path());
        let output = self.run(&format!("prepare {arguments} --out out.mgd"));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {message}");
        assert!(message.contains(wanted), "{arguments}: {message}\nwanted: {wanted}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert_eq!(names(self.folder.path()), before, "{arguments}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

const TSV: &str = "id\tsplit\tlocale\ttext\tintent\textra\n\
    7\ttrain\tde\tguten Tag\tgreet\thallo\n\
    7\ttrain\tfr\tbonjour \"toi\ttime\tmonde\n\
    9\ttest\tde\tgute Nacht\t\t\n";
const COLUMNS: &str = "--text text --label intent --language locale --id id";

/// Rows as a person would write them down: language, label, text id.
fn described(data: &Dataset) -> Vec<(String, String, u32)> {
    let label = |l: u32| if l == NO_LABEL { "-".into() } else { data.label_names()[l as usize].clone() };
    let language = |l: u16| data.language_names()[usize::from(l)].clone();
    let row = |i: usize| (language(data.languages()[i]), label(data.labels()[i]), data.text_ids()[i]);
    (0..data.len()).map(row).collect()
}

fn rows(expected: &[(&str, &str, u32)]) -> Vec<(String, String, u32)> {
    expected.iter().map(|(language, label, id)| (language.to_string(), label.to_string(), *id)).collect()
}

/// The tokens the library gives a text with the default settings.
fn tokens(text: &str, language: &str) -> Vec<u32> {
    Featurizer::new(TextConfig::default()).unwrap().counts(text, language).tokens
}

#[test]
fn tsv_csv_jsonl_and_gz_give_the_same_rows() {
    let csv = "id,split,locale,text,intent,extra\n\
        7,train,de,guten Tag,greet,hallo\n7,train,fr,\"bonjour \"\"toi\",time,monde\n9,test,de,\"gute Nacht\",,\n";
    let jsonl = "\u{feff}{\"id\":7,\"split\":\"train\",\"locale\":\"de\",\"text\":\"guten Tag\",\"intent\":\"greet\"}\r\n\n\
        {\"id\":7,\"locale\":\"fr\",\"text\":\"bonjour \\\"toi\",\"intent\":\"time\"}\n\
        {\"id\":9,\"locale\":\"de\",\"text\":\"gute Nacht\",\"intent\":null}";
    let bench = Bench::new().with("a.tsv", TSV).with("a.csv", csv).with("a.jsonl", jsonl);
    let bench = bench.with("a.tsv.gz", gz(TSV.as_bytes())).with("a.unknown", gz(csv.as_bytes()));
    for input in ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz", "a.unknown --format csv"] {
        let data = bench.prepare(&format!("{input} {COLUMNS}"));
        assert_eq!(described(&data), rows(&[("de", "greet", 7), ("fr", "time", 7), ("de", "-", 9)]), "{input}");
        assert_eq!(data.kind(), Kind::Labelled);
        assert_eq!(data.row(1).tokens, tokens("bonjour \"toi", "fr"), "{input}");
        assert_eq!(data.idf().map(<[f32]>::len), Some(data.vocabulary() as usize));
    }
}

#[test]
fn records_are_filtered_and_columns_joined() {
    let bench = Bench::new().with("a.tsv", TSV);
    let data = bench.prepare("a.tsv --text text,extra --language locale --filter split=train");
    assert_eq!(described(&data), rows(&[("de", "-", 0), ("fr", "-", 1)]));
    assert_eq!(data.row(0).tokens, tokens("guten Tag hallo", "de"));
    let data =
        bench.prepare("a.tsv --text text --text extra --language locale --filter split=train --filter split=test");
    assert_eq!((data.len(), data.row(0).tokens), (3, &tokens("guten Tag hallo", "de")[..]));
    let both = "a.tsv --text text --language locale --filter split=train --filter id=9";
    bench_without_output(&bench).refused(both, "no record left to write: 3 read");
    let data = bench.prepare("a.tsv --text text --language locale --languages fr,it");
    assert_eq!(described(&data), rows(&[("fr", "-", 0)]));
    let data = bench.prepare("a.tsv --text text --language locale --exclude-languages fr");
    assert_eq!(described(&data), rows(&[("de", "-", 0), ("de", "-", 1)]));
    let data = bench.prepare("a.tsv --text text --language-is xx");
    assert_eq!(data.language_names(), ["xx"]);
}

/// `refused` compares the folder before and after, so the file of an earlier run must go.
fn bench_without_output(bench: &Bench) -> &Bench {
    let _ = fs::remove_file(bench.path("out.mgd"));
    bench
}

#[test]
fn pairs_make_two_rows_with_one_id() {
    let bench = Bench::new().with("a.tsv", "de\ten\tlang\nja\tyes\ten\nnein\tno\teng\n");
    let data = bench.prepare("a.tsv --text de --language-is de --text2 en --language2 lang");
    assert_eq!(data.kind(), Kind::Pairs);
    assert_eq!(described(&data), rows(&[("de", "-", 0), ("en", "-", 0), ("de", "-", 1), ("eng", "-", 1)]));
    assert_eq!(data.row(3).tokens, tokens("no", "eng"));
    // A pair is kept or dropped as a whole.
    let data = bench.prepare("a.tsv --text de --language-is de --text2 en --language2 lang --languages de,en");
    assert_eq!(data.len(), 2);
}

#[test]
fn ids_that_are_no_numbers_join_equal_strings() {
    let emoji = "code\ttext\n1f600\tgrins\n1f601\tstrahl\n1f600\tgrin\n";
    let bench = Bench::new().with("a.tsv", emoji);
    assert_eq!(bench.prepare("a.tsv --text text --language-is de --id code").text_ids(), [0, 1, 0]);
}

#[test]
fn an_array_in_a_json_line_makes_a_record_of_each_element() {
    let line = r#"{"context":"c","qas":[{"question":"wer","id":"x"},{"question":"was","id":"y"}]}"#;
    let bench = Bench::new().with("a.jsonl", line);
    let data = bench.prepare("a.jsonl --text qas.question,context --language-is de --id qas.id");
    assert_eq!(data.text_ids(), [0, 1]);
    assert_eq!(data.row(1).tokens, tokens("was c", "de"));
}

#[test]
fn text_switches_reach_the_featurizer_and_the_file() {
    let bench = Bench::new().with("a.tsv", "text\nStraße www.example.org 12\n");
    let flags = "--no-normalize --no-casefold --no-strip-markup --no-strip-urls --no-strip-control --stop-words \
                 --no-romanize --no-words --ngrams 2-3 --hash-bits 12 --no-sublinear-tf --no-idf --no-l2";
    let data = bench.prepare(&format!("a.tsv --text text --language-is de {flags}"));
    let wanted = TextConfig {
        normalize: false,
        casefold: false,
        strip_markup: false,
        strip_urls: false,
        strip_control: false,
        stop_words: true,
        romanize: false,
        words: false,
        ngram_min: 2,
        ngram_max: 3,
        hash_bits: 12,
        sublinear_tf: false,
        idf: false,
        l2: false,
    };
    assert_eq!(serde_json::from_str::<TextConfig>(data.text_config_json()).unwrap(), wanted);
    assert_eq!((data.vocabulary(), data.idf()), (1 << 12, None));
    let data = bench.prepare("a.tsv --text text --language-is de --ngrams none");
    assert_eq!(serde_json::from_str::<TextConfig>(data.text_config_json()).unwrap().ngram_max, 0);
    let data = bench.prepare("a.tsv --text text --language-is de");
    assert_eq!(serde_json::from_str::<TextConfig>(data.text_config_json()).unwrap(), TextConfig::default());
}

/// Some thousand lines of changing length in several scripts: more than a batch.
fn many_lines() -> String {
    let words = ["морская", "звезда", "море", "の", "犬が", "走る", "star", "Straße", "שלום", "सितारा", "x"];
    let mut text = String::from("text\tlabel\tlocale\tkey\n");
    for i in 0..10_000usize {
        let line: Vec<_> = (0..i % 7).map(|k| words[(i * 31 + k * k * 17) % words.len()]).collect();
        text += &format!("{}\tl{}\t{}\tkey{}\n", line.join(" "), i % 60, ["ru", "ja", "de"][i % 3], i % 5000);
    }
    text
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_the_run() {
    let bench = Bench::new().with("a.tsv", many_lines());
    let mut first: Option<Vec<u8>> = None;
    for threads in [1, 2, 3, 8, 8] {
        let columns = "--text text --label label --language locale --id key";
        let data = bench.prepare(&format!("a.tsv {columns} --threads {threads}"));
        assert_eq!(data.len(), 10_000);
        assert_eq!(data.text_ids()[5001], 1);
        let bytes = fs::read(bench.path("out.mgd")).unwrap();
        assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes, "{threads} threads give other bytes");
    }
}

#[test]
fn bad_input_is_refused_with_its_line() {
    let long = format!("text\n{}\n", "x".repeat(5 << 20));
    let open_quote = format!("text,a\n\"{}", "x\n".repeat(4 << 20));
    let mut cut = gz(many_lines().as_bytes());
    cut.truncate(cut.len() / 2);
    let cases: [(&str, &[u8], &str); 19] = [
        ("a.tsv", b"", "a.tsv: the file is empty"),
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.tsv", b"text\n", "no record left to write: 0 read"),
        ("a.tsv", b"a\tb\n1\t2\n", "a.tsv:1: no column `text`; the columns are: a, b"),
        ("a.tsv", b"text\ttext\n1\t2\n", "a.tsv:1: two columns are called `text`"),
        ("a.tsv", b"text\ta\n1\t2\n\n3\n", "a.tsv:4: 1 columns, but the first line names 2"),
        ("a.csv", b"text,a\n1,2\n\"3\n4\",5\n6\n", "a.csv:5: 1 columns, but the first line names 2"),
        ("a.csv", b"a,b\n", "a.csv:1: no column `text`; the columns are: a, b"),
        ("a.tsv", b"text\nok\nb\xff\n", "a.tsv:3: not UTF-8 from byte 2 of the line on"),
        ("a.csv", b"text,a\nok,1\nok,b\xff\n", "a.csv:3: not UTF-8 from byte 2 of column 2 on"),
        ("a.jsonl", b"{\"text\":1}\n{\"text\":\n", "a.jsonl:2: not one JSON object on one line: EOF"),
        ("a.jsonl", b"{\"a\":1,\"b\":2}\n", "a.jsonl:1: no field `text`; the fields are: a, b"),
        ("a.jsonl", b"3\n", "a.jsonl:1: a JSON object is wanted"),
        ("a.tsv", long.as_bytes(), "a.tsv:2: the line is longer than 4194304 bytes"),
        ("a.csv", open_quote.as_bytes(), "a.csv:2: the record is longer than 4194304 bytes; is a quote not closed?"),
        ("a.tsv", &cut, "broken gzip data"),
        ("a.txt", b"text\nx\n", "a.txt: the name does not tell the format"),
        ("a.tsv", b"\x1f\x8b", "a.tsv:1: broken gzip data"),
    ];
    for (name, content, wanted) in cases {
        Bench::new().with(name, content).refused(&format!("{name} --text text --language-is de"), wanted);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let bench = Bench::new().with("a.tsv", "text\tlocale\tid\nx\t\t\n").with("out.tsv", "text\nx\n");
    let cases = [
        ("none.tsv --text text --language-is de", "none.tsv: cannot open: No such file"),
        ("a.tsv --text text --language locale", "a.tsv:2: the language is empty"),
        ("a.tsv --text text --language-is de --id id", "a.tsv:2: the text id is empty"),
        ("a.tsv --text text --language-is de --filter text", "--filter: `text` is not COL=VALUE"),
        ("a.tsv --text text --language-is de --text2 id", "wanted --language2 COL or --language2-is CODE"),
        ("a.tsv --text text --language-is de --hash-bits 40", "hash_bits"),
        ("a.tsv --text text --language-is de --out missing/x", "missing/x"),
    ];
    for (arguments, wanted) in cases {
        let output = bench.run(&match arguments.contains("--out") {
            true => format!("prepare {arguments}"),
            false => format!("prepare {arguments} --out out.mgd"),
        });
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(stderr(&output).contains(wanted), "{arguments}: {}", stderr(&output));
        assert_eq!(names(bench.folder.path()), ["a.tsv", "out.tsv"]);
    }
    let output = bench.run("prepare out.tsv --text text --language-is de --out ./out.tsv");
    assert!(stderr(&output).contains("is one of the inputs"), "{}", stderr(&output));
    assert_eq!(fs::read(bench.path("out.tsv")).unwrap(), b"text\nx\n");
}

#[test]
fn an_old_file_survives_a_failed_run() {
    let bench = Bench::new().with("a.tsv", "text\nok\n").with("b.tsv", b"text\nb\xff\n");
    bench.prepare("a.tsv --text text --language-is de");
    let old = fs::read(bench.path("out.mgd")).unwrap();
    bench.refused("b.tsv --text text --language-is de", "b.tsv:2: not UTF-8");
    assert_eq!(fs::read(bench.path("out.mgd")).unwrap(), old);
}

/// A limit on file sizes stands for a full disk: some limits stop the columns, others the file made of them.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let bench = Bench::new().with("a.tsv", many_lines());
    let program = env!("CARGO_BIN_EXE_metaglot");
    let size = {
        bench.prepare("a.tsv --text text --language locale --no-idf");
        let size = fs::metadata(bench.path("out.mgd")).unwrap().len();
        fs::remove_file(bench.path("out.mgd")).unwrap();
        size
    };
    for kilobytes in [8, 64, size / 1024 / 4, size / 1024 / 2, size / 1024 - 1] {
        let script = format!(
            "trap '' XFSZ; ulimit -f {kilobytes}; \
             exec {program} prepare a.tsv --text text --language locale --no-idf --out out.mgd"
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(bench.folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{kilobytes} KiB: {}", stderr(&output));
        assert!(stderr(&output).contains("out.mgd: cannot write"), "{kilobytes} KiB: {}", stderr(&output));
        assert_eq!(names(bench.folder.path()), ["a.tsv"], "{kilobytes} KiB");
    }
}

#[test]
fn info_says_what_is_there() {
    let bench = Bench::new().with("a.tsv", TSV);
    bench.prepare(&format!("a.tsv {COLUMNS}"));
    let output = bench.run("info out.mgd --verify --json");
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&info["rows"], &info["kind"], &info["without_label"]), (&3.into(), &"labelled".into(), &1.into()));
    assert_eq!(info["languages"], serde_json::json!([{"name": "de", "rows": 2}, {"name": "fr", "rows": 1}]));
    assert_eq!(info["made_by"]["inputs"][0]["records_kept"], 3);
    assert_eq!(info["checksums_verified"], true);
    let text = String::from_utf8(bench.run("info out.mgd").stdout).unwrap();
    assert!(text.contains("rows        3") && text.contains("greet"), "{text}");
    assert!(!text.contains("verified"), "{text}");

    let mut damaged = fs::read(bench.path("out.mgd")).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(bench.path("damaged"), damaged).unwrap();
    assert!(bench.run("info damaged").status.success());
    assert!(stderr(&bench.run("info damaged --verify")).contains("tensor `weights` is damaged"));
}

#[test]
fn info_refuses_foreign_files() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let plain = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat();
    let header = r#"{"__metadata__":{"format":"pt"}}"#;
    let pt = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let bench = Bench::new().with("plain", plain).with("pt", pt).with("text", "hello, world");
    let cases =
        [("plain", "it has no `format`"), ("pt", "format `pt`"), ("text", "not one of our files"), ("none", "No such")];
    for (file, wanted) in cases {
        let output = bench.run(&format!("info {file}"));
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert!(stderr(&output).contains(wanted), "{file}: {}", stderr(&output));
    }
}

#[test]
fn the_examples_in_the_help_work() {
    let bench = Bench::new();
    for command in ["prepare", "info"] {
        let help = String::from_utf8(bench.run(&format!("{command} --help")).stdout).unwrap();
        let (_, example) = help.split_once("Example:").expect("the help ends with an example");
        let folder = Path::new(env!("CARGO_BIN_EXE_metaglot")).parent().unwrap().display();
        let script = format!("set -e; PATH={folder}:$PATH\n{example}");
        let output = Command::new("bash").args(["-c", &script]).current_dir(bench.folder.path()).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", stderr(&output));
    }
}
