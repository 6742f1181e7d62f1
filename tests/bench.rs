//! `metaglot bench`: its JSON has every key with a sane value, and arguments that do not fit are refused.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metaglot")).arg("bench").args(arguments.split_whitespace()).output().unwrap()
}

/// One object a line.
fn objects(arguments: &str) -> Vec<Value> {
    let output = bench(arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {object}"))
}

const SMALL: &str = "meta --input 24 --hidden 16 --classes 3 --support 6 --query 9 --tasks 4 --steps 3 --reps 3 --json";

#[test]
fn a_meta_step_is_reported_with_every_key() {
    for (more, path, threads) in [("", "gram", 1.0), ("--path dense", "dense", 1.0), ("--threads 2", "gram", 2.0)] {
        let found = &objects(&format!("{SMALL} {more}"))[0];
        let [min, median, max] = ["min_s", "median_s", "max_s"].map(|key| number(found, key));
        assert!(0.0 < min && min <= median && median <= max, "{found}");
        assert_eq!((number(found, "reps"), number(found, "threads")), (3.0, threads), "{found}");
        assert_eq!(found["path"], path, "{found}");
        let fraction = number(found, "peak_fraction");
        assert!(0.0 < fraction && fraction < 1.2, "{found}");
        let wanted = number(found, "operations") / median / 1e9 / number(found, "peak_gflops");
        assert!((fraction - wanted).abs() < 1e-9 * wanted, "{found}");
        // At least the weights (24 x 16 + 16 + 16 x 3 + 3), their gradient and 60 rows of 24 inputs.
        assert!(number(found, "peak_bytes") >= (4 * (2 * 451 + 60 * 24)) as f64, "{found}");
    }
}

#[test]
fn operations_follow_order_and_size() {
    let of = |arguments: &str| number(&objects(arguments)[0], "operations");
    assert!(of(&format!("{SMALL} --order 1")) < of(SMALL));
    assert_eq!(of(&SMALL.replace("--tasks 4", "--tasks 8")), 2.0 * of(SMALL));
}

#[test]
fn without_steps_a_long_table_stays_in_gram_space() {
    let found = &objects("meta --bag --vocabulary 5000 --hidden 16 --tokens 20 --tasks 4 --steps 0 --reps 1 --json")[0];
    assert_eq!(found["path"], "gram", "the plain form passes over the whole table for each episode: {found}");
}

#[test]
fn a_case_gives_the_loss_that_grad_gives() {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("case.safetensors");
    let grad = folder.path().join("grad.safetensors");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_metaglot")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (case, grad) = (case.to_str().unwrap(), grad.to_str().unwrap());
    run(&["case", case, "--dims", "7,9,3", "--inner-steps", "2", "--inner-lr", "0.2"]);
    let wanted: Value =
        serde_json::from_str(&run(&["grad", case, "--algorithm", "maml", "--out", grad, "--json"])).unwrap();
    let found = &objects(&format!("meta --case {case} --dtype f64 --reps 1 --json"))[0];
    let [found, wanted] = [found, &wanted].map(|object| number(object, "meta_loss"));
    assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
}

#[test]
fn token_bags_take_memory_for_their_table() {
    let bytes = |v: usize| {
        let found =
            &objects(&format!("meta --bag --vocabulary {v} --tokens 5 --hidden 8 --tasks 2 --reps 1 --json"))[0];
        assert_eq!(found["path"], "gram");
        number(found, "peak_bytes")
    };
    // Beside a table of v rows of 8 f32, memory grows at most with the index over the rows.
    let grown = bytes(20_000) - bytes(10_000);
    assert!((320_000.0..640_000.0).contains(&grown), "{grown}");
}

#[test]
fn products_and_kernels_are_reported() {
    let products = objects("gemm --shapes 3,4,5;8,2,16 --forms nt,tn --reps 1 --threads 2 --json");
    let named: Vec<(&str, f64)> =
        products.iter().map(|p| (p["form"].as_str().unwrap(), number(p, "operations"))).collect();
    assert_eq!(named, [("nt", 120.0), ("tn", 120.0), ("nt", 512.0), ("tn", 512.0)]);
    for product in &products {
        assert!((0.0..1.2).contains(&number(product, "peak_fraction")), "{product}");
        assert!(number(product, "median_s") > 0.0, "{product}");
    }
    // A batch takes as long as its products; products of one call are counted.
    for (how, count) in [("", 2.0), ("--batch 5", 5.0), ("--together", 1.0)] {
        let arguments = format!("gemm --shapes 9,8,7 --forms nn --reps 1 --threads 2 --json {how}");
        let found = &objects(&arguments)[0];
        assert_eq!((number(found, "products"), number(found, "operations")), (count, 1008.0), "{found}");
        let wanted = count * 1008.0 / number(found, "median_s") / 1e9;
        assert!((number(found, "gflops") - wanted).abs() < 1e-9 * wanted, "{found}");
    }
    for line in objects("kernels --reps 1 --json") {
        let (rate, limit, of) = match line["kernel"].as_str().unwrap() {
            "few_columns" | "rank_update" | "few_rows" => ("gflops", "peak_gflops", "peak_fraction"),
            _ => ("gbytes", "copy_gbytes", "copy_fraction"),
        };
        let (rate, limit) = (number(&line, rate), number(&line, limit));
        assert!(rate > 0.0 && limit > 0.0, "{line}");
        assert!((number(&line, of) - rate / limit).abs() < 1e-12 * rate / limit, "{line}");
    }
    for dtype in ["f32", "f16", "bf16"] {
        let arguments = format!("gemm --shapes 5,40,3 --forms nn --dtype {dtype} --device cpu --reps 1 --json");
        let product = &objects(&arguments)[0];
        assert_eq!((&product["dtype"], number(product, "threads")), (&dtype.into(), 1.0), "{product}");
    }
}

#[test]
fn products_on_a_gpu_are_reported_with_every_key() {
    for dtype in ["f32", "tf32x3", "bf16", "f16"] {
        let arguments = format!("gemm --device cuda:0 --dtype {dtype} --shapes 64,48,32 --forms nt --reps 1 --json");
        let output = bench(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.starts_with("metaglot: cuda:0: ") {
            eprintln!("skipped: {said}");
            return;
        }
        let found = &objects(&arguments)[0];
        let names = ["device", "form", "precision", "kernel"].map(|key| found[key].as_str().unwrap());
        assert_eq!(names, ["cuda:0", "nt", dtype, &format!("{dtype}_gemm_nt_64x64")], "{found}");
        assert_eq!(found["dtype"], if dtype == "tf32x3" { "f32" } else { dtype }, "{found}");
        assert!(found["name"].is_string() && number(found, "peak_gflops") > 0.0, "{found}");
        let [min, median, max] = ["min_s", "median_s", "max_s"].map(|key| number(found, key));
        assert!(0.0 < min && min <= median && median <= max, "{found}");
        let wanted = number(found, "operations") / median / 1e9;
        assert!((number(found, "gflops") - wanted).abs() < 1e-9 * wanted, "{found}");
        assert!((0.0..1.2).contains(&number(found, "peak_fraction")), "{found}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let refused = [
        "meta --order 3",
        "meta --reps 0",
        "meta --threads 0",
        "meta --tasks 0",
        "meta --bag",
        "meta --vocabulary 10",
        "meta --bag --vocabulary 10 --tokens 11",
        "meta --case /nowhere",
        "meta --case /nowhere --input 3",
        "meta --inner-lr 1e30",
        "gemm --shapes 3,4",
        "gemm --shapes 3,4,0",
        "gemm --forms tt",
        "gemm --dtype f64",
        "gemm --dtype tf32x3",
        "gemm --threads 0",
        "gemm --batch 0",
        "gemm --batch 2 --together",
    ];
    for arguments in refused {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments}");
    }
}
