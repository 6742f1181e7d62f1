//! Cases: what is written is read back, a damaged file is refused, and both paths give one answer.

use metaglot::case::{Algorithm, Case, Imaml, RandomCase, solve};
use metaglot::cpu::Cpu;
use metaglot::meta::PathChoice;

fn random(seed: u64) -> Case {
    let imaml = Imaml { lambda: 2.0, steps: 10, lr: 0.1 };
    let dims = vec![5, 7, 3];
    RandomCase { dims, tasks: 2, support: 4, query: 3, inner_steps: 3, inner_lr: 0.1, imaml, seed }.draw().unwrap()
}

#[test]
fn a_case_is_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("case.safetensors");
    let case = random(5);
    case.save(&file).unwrap();
    let found = Case::open(&file).unwrap();
    assert_eq!((&found.theta, &found.v, &found.alpha), (&case.theta, &case.v, &case.alpha), "seed 5");
    assert_eq!((&found.support.x, &found.query.y), (&case.support.x, &case.query.y), "seed 5");
    assert_eq!((found.inner_steps, found.inner_lr), (3, 0.1));
}

#[test]
fn every_truncation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("case.safetensors");
    random(6).save(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for len in (0..whole.len()).step_by(7) {
        std::fs::write(&file, &whole[..len]).unwrap();
        assert!(Case::open(&file).is_err(), "{len} of {} bytes", whole.len());
    }
}

#[test]
fn both_paths_give_one_answer() {
    let case = random(7);
    let algorithms = [Algorithm::Maml, Algorithm::Fomaml, Algorithm::Anil, Algorithm::Reptile, Algorithm::Imaml];
    for algorithm in algorithms {
        let solved = |path| solve::<f64>(&Cpu::new(), &case, algorithm, path).unwrap();
        let (gram, dense) = (solved(PathChoice::Gram), solved(PathChoice::Dense));
        for (a, b) in gram.params[0].1.head.iter().zip(&dense.params[0].1.head) {
            assert!((a - b).abs() < 1e-11, "{algorithm:?}, seed 7: {a} is not {b}");
        }
    }
    assert!(solve::<f64>(&Cpu::new(), &case, Algorithm::MetaSgd, PathChoice::Gram).is_err());
}

/// How a random case of `dims` with `n` support and `m` query examples is computed.
fn explained(dims: &[usize], n: usize, m: usize, steps: usize, choice: PathChoice) -> metaglot::meta::Explanation {
    let imaml = Imaml { lambda: 1.0, steps: 1, lr: 0.1 };
    let (dims, inner_steps) = (dims.to_vec(), steps);
    let random = RandomCase { dims, tasks: 2, support: n, query: m, inner_steps, inner_lr: 0.05, imaml, seed: 5 };
    solve::<f64>(&Cpu::new(), &random.draw().unwrap(), Algorithm::Maml, choice).unwrap().path
}

#[test]
fn operations_are_counted_as_the_products_say() {
    // Two tasks of 4 support and 6 query rows, 10 inputs, 8 hidden units, 3 classes, 2 steps; each product 2 m n k.
    let found = explained(&[10, 8, 3], 4, 6, 2, PathChoice::Auto).operations;
    let (z, grams) = (2 * 10 * 10 * 8, 4 * 4 * 10 + 2 * 6 * 4 * 10);
    let inner = 2 * (2 * 4 * 4 * 8) + 2 * (2 * 6 * 4 * 8);
    let head = (2 * 6 + 2 * 12) * 4 * (9 * 3) + 6 * 6 * (9 * 3);
    assert_eq!(found.gram, 2 * (2 * z + grams + inner + head));
    let weights = 10 * 8 + 8 + 9 * 3;
    let step = 10 * (4 * 10) * 8 + 24 * 4 * (9 * 3) + 8 * weights;
    assert_eq!(found.dense, 2 * (8 * weights + 2 * step + 4 * 60 * 8 + 6 * 6 * (9 * 3)));
    assert_eq!(found.joint, 2 * (4 * 60 * 8 + 6 * 6 * (9 * 3)));
    // Without a step nothing is read of the support set.
    assert_eq!(explained(&[10, 8, 3], 4, 6, 0, PathChoice::Auto).operations.gram, found.joint);
}

#[test]
fn the_form_with_fewer_operations_is_taken() {
    let wide = explained(&[200, 8, 3], 5, 5, 3, PathChoice::Auto);
    let narrow = explained(&[2, 8, 3], 60, 5, 3, PathChoice::Auto);
    assert_eq!((wide.path, narrow.path), ("gram", "dense"));
    assert!(wide.operations.gram < wide.operations.dense && narrow.operations.dense < narrow.operations.gram);
    assert_eq!(explained(&[2, 8, 3], 60, 5, 3, PathChoice::Gram).path, "gram");
}
