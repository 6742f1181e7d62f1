//! The program as a user meets it: the demo, every example of the help, and what it says to bad input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

fn metaglot(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metaglot")).args(arguments).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs the lines after `Example` of a command's help; returns what they print.
fn run_example(folder: &Path, command: &str) -> String {
    let help = stdout(&metaglot(folder, &[command, "--help"]));
    let (_, example) = help.split_once("\nExample").expect("the help ends with an example");
    let (_, script) = example.split_once(":\n").expect("the example has a heading");
    let program = Path::new(env!("CARGO_BIN_EXE_metaglot")).parent().unwrap().display();
    let script = format!("set -e; PATH={program}:$PATH\n{script}");
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", stderr(&output));
    stdout(&output)
}

/// The means of the demo's table: (task, floor, result).
fn means(table: &str) -> Vec<(String, f64, f64)> {
    let number = |text: &str, after: &str| {
        let rest = text.split_once(after).expect("the line of a mean has both numbers").1;
        rest.split([',', ':']).next().unwrap().trim().parse::<f64>().unwrap()
    };
    let lines = table.lines().filter(|l| l.contains("mean of the new languages"));
    let task = |l: &str| l.split_whitespace().next().unwrap().to_string();
    lines.map(|l| (task(l), number(l, "floor "), number(l, "result "))).collect()
}

/// The folder in which the demo ran, once for all tests, and the table it printed.
static DEMO: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-demo");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    let demo = metaglot(&folder, &["demo"]);
    assert!(demo.status.success(), "{}", stderr(&demo));
    (folder, stdout(&demo))
});

#[test]
fn the_demo_learns() {
    let (folder, table) = &*DEMO;
    let means = means(table);
    let tasks: Vec<&str> = means.iter().map(|m| m.0.as_str()).collect();
    assert_eq!(tasks, ["classify", "translate", "summarize", "answer"]);
    for (task, floor, result) in &means[..2] {
        assert!(result > floor, "{task}: {result} is not above {floor}");
    }
    let report = std::fs::read_to_string(folder.join("metaglot-demo/report.html")).unwrap();
    assert_eq!(report.matches("<svg").count(), 4);
}

#[test]
fn every_example_of_the_help_works() {
    let folder = &DEMO.0;
    for command in ["train", "classify", "translate", "summarize", "answer"] {
        let printed = run_example(folder, command);
        assert!(!printed.trim().is_empty(), "{command} prints something");
    }
    assert_eq!(run_example(folder, "classify").trim(), "animal");
}

#[test]
fn checkpoints_are_shown_and_told_apart() {
    let folder = &DEMO.0;
    let info = metaglot(folder, &["info", "metaglot-demo/translate/model.safetensors", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&stdout(&info)).unwrap();
    assert_eq!((shown["task"].as_str(), shown["shape"]["kind"].as_str()), (Some("translate"), Some("bag")));
    std::fs::write(folder.join("two.tsv"), "animal\tgat\nfood\tsopa\n").unwrap();
    let wrong = metaglot(
        folder,
        &[
            "classify",
            "--checkpoint",
            "metaglot-demo/translate/model.safetensors",
            "--support",
            "two.tsv",
            "--text",
            "x",
        ],
    );
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("for the task `translate`, not `classify`"), "{}", stderr(&wrong));
}

#[test]
fn every_algorithm_trains_a_model_that_classifies() {
    let folder = &DEMO.0;
    std::fs::write(folder.join("taught.tsv"), "animal\tgat negre\nfood\tsopa calenta\n").unwrap();
    let mut said = Vec::new();
    for algorithm in ["maml", "fomaml", "anil", "reptile", "protonet", "protomaml"] {
        let data = "metaglot-demo/classify.mgd";
        let train =
            ["train", data, "--task", "classify", "--algorithm", algorithm, "--steps", "20", "--run", algorithm];
        let output = metaglot(folder, &train);
        assert!(output.status.success(), "{algorithm}: {}", stderr(&output));
        let config = std::fs::read_to_string(folder.join(algorithm).join("config.toml")).unwrap();
        assert!(config.contains(&format!("algorithm = \"{algorithm}\"")), "{config}");
        let model = format!("{algorithm}/model.safetensors");
        let classify = ["classify", "--checkpoint", &model, "--support", "taught.tsv", "--text", "gat"];
        let output = metaglot(folder, &classify);
        assert!(output.status.success(), "{algorithm}: {}", stderr(&output));
        said.push(stdout(&output));
    }
    assert!(said.iter().all(|s| !s.trim().is_empty()), "{said:?}");
}

#[test]
fn ctrl_c_saves_and_resume_goes_on_with_the_same_bits() {
    let folder = &DEMO.0;
    let data = "metaglot-demo/classify.mgd";
    let train =
        |run: &'static str| ["train", data, "--task", "classify", "--steps", "60", "--valid-every", "7", "--run", run];
    assert!(metaglot(folder, &train("whole")).status.success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_metaglot"))
        .args(train("stopped"))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The handler is set before the first report is written.
    while !folder.join("stopped/metrics.jsonl").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(folder.join("stopped/checkpoint.safetensors").exists());
    assert!(!folder.join("stopped/model.safetensors").exists(), "a run that was stopped has no model yet");
    let resumed = metaglot(folder, &["train", "--resume", "--run", "stopped"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    for file in ["metrics.jsonl", "model.safetensors", "checkpoint.safetensors", "curves.svg"] {
        let read = |run: &str| std::fs::read(folder.join(run).join(file)).unwrap();
        assert!(read("whole") == read("stopped"), "{file} differs");
    }
}

#[test]
fn bad_input_gets_a_clear_line() {
    let folder = &DEMO.0;
    let model = "metaglot-demo/classify/model.safetensors";
    let whole = std::fs::read(folder.join(model)).unwrap();
    let files: [(&str, &[u8]); 7] = [
        ("empty.tsv", b""),
        ("four.tsv", b"1\tsupport\ta\tanimals\tcat\n1\tquery\ta\tanimals\n"),
        ("role.tsv", b"1\tteach\ta\tanimals\tcat\n"),
        ("latin1.tsv", b"1\tsupport\ta\tanimals\tcat\n1\tquery\ta\tanimals\tna\xefve\n"),
        ("half.tsv", b"1\tsupport\ta\tanimals\tcat\n"),
        ("cut.safetensors", &whole[..whole.len() / 2]),
        ("one.tsv", b"gat\n"),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let episodes = |file| vec!["classify", "--checkpoint", model, "--episodes", file];
    let train = |more: &[&'static str]| {
        [&["train", "metaglot-demo/classify.mgd", "--task", "classify", "--run", "bad"], more].concat()
    };
    let cases: [(Vec<&str>, &str); 14] = [
        (episodes("empty.tsv"), "empty.tsv: it is empty; wanted lines of an episode"),
        (episodes("four.tsv"), "four.tsv:2: 4 columns; wanted episode, role, label, class, text"),
        (episodes("role.tsv"), "role.tsv:1: role `teach`; wanted support or query"),
        (episodes("latin1.tsv"), "latin1.tsv:2: it is not UTF-8"),
        (episodes("half.tsv"), "half.tsv: episode `1` needs support and query lines"),
        (episodes("none.tsv"), "none.tsv: cannot read"),
        (vec!["info", "cut.safetensors"], "cut.safetensors: not a whole safetensors file"),
        (vec!["classify", "--checkpoint", "cut.safetensors", "--episodes", "half.tsv"], "half.tsv: episode `1`"),
        (train(&["--k-shot", "500"]), "no training language has 5 classes with 505"),
        (train(&["--valid-languages", "tlh"]), "`tlh` is not in the dataset"),
        (
            vec!["train", "x.mgd", "--task", "translate", "--algorithm", "protonet", "--run", "bad"],
            "--algorithm protonet or protomaml: the task translate has no such setting",
        ),
        (train(&["--device", "cuda:999"]), "cuda:999: "),
        (train(&["--pivot", "eng"]), "--pivot: the task classify has no such setting"),
        (
            vec!["translate", "--checkpoint", model, "--candidates", "empty.tsv", "--text", "x"],
            "empty.tsv: it is empty; wanted a text a line",
        ),
    ];
    for (arguments, wanted) in cases {
        let output = metaglot(folder, &arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(!folder.join("bad").exists(), "{arguments:?} leaves nothing");
    }
}

/// The hundredth GPU is on no machine, with drivers or without, whether or not this program has kernels for it.
#[test]
fn a_gpu_that_is_not_there_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(metaglot(folder, &["case", "case", "--dims", "7,9,3"]).status.success());
    let grad = ["grad", "case", "--out", "out", "--device", "cuda:999", "--algorithm"];
    let bench = ["bench", "meta", "--reps", "1", "--device", "cuda:999"];
    let gemm = ["bench", "gemm", "--shapes", "3,4,5", "--device", "cuda:999"];
    let not_there = "metaglot: cuda:999: ";
    let cases: [(&[&str], &[&str], &str); 10] = [
        (&grad, &["maml"], not_there),
        (&grad, &["hvp"], "metaglot: hvp: only the CPU has it"),
        (&grad, &["maml", "--dtype", "f64"], "metaglot: --dtype: GPUs compute in f32"),
        (&grad, &["maml", "--path", "dense"], "metaglot: --path: GPUs compute in Gram space"),
        (&bench, &[], not_there),
        (&bench, &["--dtype", "f64"], "metaglot: --dtype: GPUs compute in f32"),
        (&gemm, &[], not_there),
        (&gemm, &["--dtype", "tf32x3", "--json"], not_there),
        (&gemm, &["--threads", "1"], "metaglot: --threads: a GPU computes one product at a time"),
        (&gemm, &["--batch", "3"], "metaglot: --batch: a GPU computes one product at a time"),
    ];
    for (arguments, more, wanted) in cases {
        let output = metaglot(folder, &[arguments, more].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {more:?}: {said}");
        assert!(said.starts_with(wanted) && said.lines().count() == 1, "{arguments:?} {more:?}: {said}");
        assert!(output.stdout.is_empty() && !folder.join("out").exists(), "{arguments:?} {more:?}");
    }
    for what in ["meta", "gemm"] {
        let output = metaglot(folder, &["bench", what, "--device", "gpu"]);
        assert!(stderr(&output).contains("wanted cpu or, say, cuda:0"), "{what}: {}", stderr(&output));
    }
    if cfg!(not(feature = "cuda")) {
        for arguments in [[&grad[..], &["maml"]].concat(), gemm.to_vec()] {
            let said = stderr(&metaglot(folder, &arguments));
            assert!(said.contains("built without CUDA; `cargo build --release --features cuda` has it"), "{said}");
        }
    }
}

#[test]
fn verify_proves_every_gradient_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = metaglot(folder.path(), &["verify", "--seed", "5", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = found["rows"].as_array().unwrap();
    for algorithm in ["maml", "fomaml", "anil", "reptile", "imaml", "cavia", "lslr", "protomaml", "maml++"] {
        for path in ["gram", "dense"] {
            let row = rows.iter().find(|r| r["algorithm"] == algorithm && r["path"] == path);
            let row = row.unwrap_or_else(|| panic!("no row of {algorithm}, {path}"));
            assert!(row["f64"].as_f64().unwrap() < 1e-8 && row["f32"].as_f64().unwrap() < 1e-4, "seed 5: {row}");
        }
    }
    assert!(rows.iter().any(|r| r["algorithm"] == "metasgd") && rows.iter().any(|r| r["algorithm"] == "hvp"));
    assert!(found["order_difference"].as_f64().unwrap() > 1e-3, "seed 5");
    assert!(run_example(folder.path(), "verify").contains("first and second order differ"));
}
