//! The ranking tasks as a program: prepare, answer and summarize on small files, and on bad ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use metaglot::checkpoint::Checkpoint;
use metaglot::dataset::{Dataset, Kind, NO_LABEL};
use metaglot::model::{InputKind, MlpShape, Params};
use metaglot::task::{Choice, Corpus, RankingTask, qa};
use metaglot::text::TextConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Bench(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    /// A model whose score is one signal.
    fn with_model(self, name: &str, task: RankingTask, signal: &str, weight: f32) -> Self {
        let names = task.signal_names();
        let shape = MlpShape { input: names.len(), kind: InputKind::Dense, widths: vec![1] };
        let mut params = Params::zeros(&shape).unwrap();
        params.first[names.iter().position(|n| *n == signal).unwrap()] = weight;
        let vector = |name: &str, value: f32| (name.to_string(), vec![value; names.len()]);
        let checkpoint = Checkpoint {
            task: task.name().to_string(),
            params,
            aux: BTreeMap::from([vector("signal_mean", 0.0), vector("signal_scale", 1.0)]),
            config: json!({"train": {"inner_steps": 5, "inner_lr": 1.0}}),
            text_config: serde_json::to_value(TextConfig::default()).unwrap(),
            label_names: Vec::new(),
            run: None,
        };
        checkpoint.save(self.path(name)).unwrap();
        self
    }

    /// Arguments are separated by `|`.
    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metaglot"));
        command.args(arguments.split('|')).current_dir(self.0.path()).output().unwrap()
    }

    fn printed(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn prepare(&self, arguments: &str) -> Dataset {
        self.printed(&format!("prepare|{arguments}|--out|out.mgd"));
        let data = Dataset::open(self.path("out.mgd")).unwrap();
        data.verify_checksums().unwrap();
        data
    }

    /// Exit code 2, one line that contains `wanted`, nothing printed, and no new file.
    fn refused(&self, arguments: &str, wanted: &str) {
        let files = || fs::read_dir(self.0.path()).unwrap().count();
        let before = files();
        let output = self.run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {message}");
        assert!(message.contains(wanted), "{arguments}: {message}wanted: {wanted}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert!(output.stdout.is_empty() && files() == before, "{arguments}");
    }
}

const JSONL: &str = r#"{"l":"deu","p":3,"s":["Es regnet.","Die Katze schläft. Ja!"],"q":[{"q":"Wer schläft?","n":1,"a":"katze"},{"q":"Was regnet es?","n":0,"a":"Hund"}]}
{"l":"fra","p":3,"s":["Il pleut.","Le chat dort."],"q":[{"q":"Qui dort ?","n":1,"a":"Le  chat"}]}
"#;
const QUESTIONS: &str = "a.jsonl|--kind|answer|--text|q.q|--candidates|s|--language|l|--id|p";

fn labels(data: &Dataset) -> Vec<i64> {
    data.labels().iter().map(|l| if *l == NO_LABEL { -1 } else { i64::from(*l) }).collect()
}

#[test]
fn questions_become_groups_with_the_signals_of_their_language() {
    let bench = Bench::new().with("a.jsonl", JSONL);
    let data = bench.prepare(&format!("{QUESTIONS}|--answer|q.n"));
    assert_eq!((data.kind(), data.groups().unwrap()), (Kind::Ranking, &[0u64, 3, 6, 9][..]));
    assert_eq!(labels(&data), [-1, 0, 1, -1, 1, 0, -1, 0, 1]);
    assert_eq!((data.language_names().join(" "), data.text_ids()), ("deu fra".into(), &[3u32; 9][..]));
    assert_eq!(data.signal_names(), qa::SIGNALS);
    let config = TextConfig::default();
    let sentences = || ["Es regnet.", "Die Katze schläft. Ja!"].map(str::to_string).to_vec();
    let choices = ["Wer schläft?", "Was regnet es?"].map(|q| Choice::question(q, sentences(), None, &config));
    let mut corpus = Corpus::new(RankingTask::Answer);
    choices.iter().for_each(|choice| corpus.add(choice));
    let width = qa::SIGNALS.len();
    let signals = data.signals().unwrap();
    assert_eq!(signals[width..3 * width], corpus.list(&choices[0]).signals);
    assert_eq!(signals[4 * width..6 * width], corpus.list(&choices[1]).signals);
    assert!(signals[..width].iter().all(|x| *x == 0.0), "the question itself has none");
}

#[test]
fn the_answer_may_be_a_text_and_the_passage_may_be_one() {
    let bench = Bench::new().with("a.jsonl", JSONL);
    let data = bench.prepare(&format!("{QUESTIONS}|--answer-text|q.a"));
    assert_eq!(labels(&data), [-1, 0, 1, -1, 0, 0, -1, 0, 1], "`Hund` is in no sentence");
    let tsv = "q\tpassage\ta\nWer?\tEs regnet. Die Katze schläft.\tKatze\nWo?\t[\"Hier. Da.\", \"Dort.\"]\tdort\n";
    let bench = bench.with("a.tsv", tsv);
    let flags = "--kind|answer|--text|q|--candidates|passage|--answer-text|a|--language-is|deu";
    let data = bench.prepare(&format!("a.tsv|{flags}"));
    assert_eq!(labels(&data), [-1, 0, 1, -1, 0, 1]);
    let first = fs::read(bench.path("out.mgd")).unwrap();
    bench.prepare(&format!("a.tsv|{flags}|--threads|3"));
    assert_eq!(first, fs::read(bench.path("out.mgd")).unwrap(), "the file does not depend on the threads");
}

#[test]
fn documents_become_groups_of_candidates() {
    let tsv = "d\ts\tl\nCats sleep all day. ¶ Dogs bark at night.\tdogs at night\teng\nCats sleep all day.\t\teng\n\tx\teng\n";
    let bench = Bench::new().with("a.tsv", tsv);
    let flags = "prepare|a.tsv|--kind|summarize|--text|d|--text2|s|--language|l|--out|out.mgd";
    let printed = bench.printed(flags);
    // Two sentences and "sleep all day." of the first; that sentence and the same part; no candidate.
    assert!(printed.contains("2 groups, 5 candidates, 1 groups without a right one; 1 records without"), "{printed}");
    let data = Dataset::open(bench.path("out.mgd")).unwrap();
    assert_eq!(labels(&data), [-1, 0, 1, 0, -1, 0, 0]);
}

#[test]
fn bad_records_and_flags_are_refused() {
    let bad = r#"{"l":"deu","s":["a"],"q":"b","n":"0"}
{"l":"deu","s":["a"],"q":"b","n":"1"}"#;
    let bench = Bench::new().with("a.jsonl", bad).with("b.jsonl", bad.replace("\"1\"", "\"first\""));
    let bench = bench.with("c.tsv", "q\ts\nwho?\t\n");
    let flags = "--kind|answer|--text|q|--candidates|s|--language-is|deu|--out|out.mgd";
    bench.refused(&format!("prepare|a.jsonl|{flags}|--answer|n"), "a.jsonl:2: the answer is sentence 1 (from 0)");
    bench.refused(&format!("prepare|b.jsonl|{flags}|--answer|n"), "b.jsonl:2: the answer `first` is not the number");
    bench.refused(&format!("prepare|a.jsonl|{flags}|--answer|m"), "a.jsonl:1: no field `m`");
    bench.refused(&format!("prepare|c.tsv|{flags}"), "no record has a candidate");
    bench.refused(&format!("prepare|c.tsv|{flags}|--filter|q=x"), "no record left to write: 1 read");
    bench.refused(&format!("prepare|c.tsv|{flags}|--label|q"), "--label: not a column of --kind answer");
    bench.refused(&format!("prepare|c.tsv|{flags}|--ngrams|2-3"), "--kind: answer reads text in its own way");
    bench.refused(&format!("prepare|/dev/null|--format|tsv|{flags}"), "/dev/null: not a regular file");
    let text = "prepare|c.tsv|--text|q|--language-is|deu|--out|out.mgd";
    bench.refused(&format!("{text}|--kind|answer"), "--kind: answer needs --candidates");
    bench.refused(&format!("{text}|--candidates|s"), "--candidates: not a column of --kind text");
    bench.refused(&format!("{text}|--kind|summarize"), "--kind: summarize needs --text2");
}

#[test]
fn questions_are_answered_alone_and_by_the_file() {
    let bench = Bench::new().with_model("m", RankingTask::Answer, "words", 1.0).with("a.jsonl", JSONL);
    let bench = bench.with("p.txt", "Va ploure tot el dia.\nEl gat va dormir.");
    let one = "answer|--checkpoint|m|--question|On va dormir el gat?";
    assert_eq!(bench.printed(&format!("{one}|--passage|p.txt")), "El gat va dormir.\n");
    let passage = "--passage-text|Va ploure tot el dia. El gat va dormir.|--top|5";
    assert_eq!(bench.printed(&format!("{one}|{passage}")), "El gat va dormir.\tVa ploure tot el dia.\n");
    let many = "answer|--checkpoint|m|--input|a.jsonl|--text|q.q|--candidates|s|--filter|l=deu";
    assert_eq!(bench.printed(many), "Die Katze schläft. Ja!\nEs regnet.\n");
    let json: Value = serde_json::from_str(bench.printed(&format!("{many}|--json")).lines().next().unwrap()).unwrap();
    assert_eq!((&json["sentence"], &json["answer"]), (&json!(1), &json!("Die Katze schläft. Ja!")));
    assert!(json["scores"][1].as_f64() > json["scores"][0].as_f64() && json["question"] == "Wer schläft?");
}

/// The support says that sentences without any word of the question are right: enough steps turn the model round.
#[test]
fn a_support_file_changes_the_answers() {
    let bench = Bench::new().with_model("m", RankingTask::Answer, "words", 0.1).with("a.jsonl", JSONL);
    let support = JSONL.replace("\"n\":1", "\"n\":2").replace("\"n\":0", "\"n\":1").replace("\"n\":2", "\"n\":0");
    let bench = bench.with("s.jsonl", support);
    let many = "answer|--checkpoint|m|--input|a.jsonl|--text|q.q|--candidates|s|--filter|l=deu";
    let adapted = format!("{many}|--support|s.jsonl|--answer|q.n");
    assert_eq!(bench.printed(&adapted), "Es regnet.\nDie Katze schläft. Ja!\n");
    assert_eq!(bench.printed(&format!("{adapted}|--inner-steps|0")), bench.printed(many));
    assert_eq!(bench.printed(&format!("{adapted}|--inner-lr|1e-9")), bench.printed(many));
}

#[test]
fn documents_are_summarised() {
    let text = "Cats sleep all day, says Ann Lee. ¶ Cats purr: a lot. ¶ Dogs bark at night.";
    let bench = Bench::new().with_model("m", RankingTask::Summarize, "position", 9.0).with("d.txt", text);
    let one = "summarize|--checkpoint|m|--document|d.txt";
    assert_eq!(bench.printed(one), "Dogs bark at night.\n");
    let two = "Cats purr: a lot. Dogs bark at night.\n";
    assert_eq!(bench.printed(&format!("{one}|--sentences|2|--whole-sentences")), two);
    let bench = bench.with_model("dropped", RankingTask::Summarize, "dropped", 99.0);
    let one = "summarize|--checkpoint|dropped|--document|d.txt";
    assert_eq!(bench.printed(one), "says Ann Lee.\n");
    assert_eq!(bench.printed(&format!("{one}|--whole-sentences")), "Cats sleep all day, says Ann Lee.\n");
    let bench = bench.with("d.tsv", "t\ts\nDogs bark at night.\tdogs bark\n\tnothing\nOk.\tok\n");
    let many = "summarize|--checkpoint|m|--input|d.tsv|--text|t|--whole-sentences";
    assert_eq!(bench.printed(many), "Dogs bark at night.\n\nOk.\n", "a document without text has an empty line");
    assert_eq!(bench.printed(&format!("{many}|--support|d.tsv|--text2|s")).lines().count(), 3);
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let bench = Bench::new().with_model("m", RankingTask::Answer, "words", 1.0).with("bad.txt", b"a\nb\xff");
    let bench = bench.with("a.tsv", "question\tsentences\tn\nwho?\tHe. She.\t\nwhy?\t\t\n");
    let bench = bench.with("s.tsv", "question\tsentences\tn\nwho?\tHe. She.\t\n");
    let one = "answer|--checkpoint|m|--question|who?";
    bench.refused(one, "--question: it needs --passage");
    bench.refused(&format!("{one}|--passage-text| "), "--passage: it has no sentence");
    bench.refused(&format!("{one}|--passage|bad.txt"), "bad.txt:2: not UTF-8");
    bench.refused(&format!("{one}|--passage|none.txt"), "none.txt: cannot read");
    bench.refused("answer|--checkpoint|m|--input|a.tsv", "a.tsv:3: no sentence to choose from");
    bench.refused("answer|--checkpoint|m|--input|s.tsv|--support|s.tsv", "--support: it needs --answer");
    let support = "answer|--checkpoint|m|--input|s.tsv|--support|s.tsv|--answer|n";
    bench.refused(support, "s.tsv: no record has a right candidate");
    bench.refused("answer|--checkpoint|a.tsv|--input|s.tsv", "a.tsv: ");
    bench.refused("summarize|--checkpoint|m|--document|s.tsv", "it is for the task `answer`, not `summarize`");
}
