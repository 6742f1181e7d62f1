//! Cases: what is written is read back, a damaged file is refused, and both paths give one answer.

use metaglot::case::{Algorithm, Case, Imaml, PathChoice, RandomCase, solve};
use metaglot::cpu::Cpu;

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
