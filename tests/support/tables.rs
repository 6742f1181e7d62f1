//! Every instruction set's kernels behind the public entry points: a lane each, and teams of some threads.

use metaglot::Element;
use metaglot::backend::{Lane, Team};
use metaglot::cpu::{Cpu, Isa, KernelElement};

use super::truth::Wanted;

/// What one element type's kernels are reached through on this machine.
pub struct Tables<T: KernelElement> {
    pub lanes: Vec<(Isa, Lane<T>)>,
    /// Instruction set, threads, team.
    pub teams: Vec<(Isa, usize, Team<T>)>,
}

impl<T: KernelElement> Tables<T> {
    /// Every table this machine can run, or those of them that the variable `METAGLOT_TEST_TABLES` names (`neon`, or
    /// `avx2,avx512`: under an emulator each takes long). What is left out is reported, so that nobody takes it for tested.
    pub fn new(threads: &[usize]) -> Self {
        let (mut lanes, mut teams) = (vec![], vec![]);
        let chosen = std::env::var("METAGLOT_TEST_TABLES").unwrap_or_default();
        let named = |name| Isa::from_name(name).unwrap_or_else(|| panic!("METAGLOT_TEST_TABLES: no table `{name}`"));
        let chosen: Vec<Isa> = chosen.split(',').filter(|name| !name.is_empty()).map(named).collect();
        for isa in Isa::ALL {
            if !chosen.is_empty() && !chosen.contains(&isa) {
                eprintln!("skipped: {} ({}): METAGLOT_TEST_TABLES leaves it out", isa.name(), T::DTYPE.name());
                continue;
            }
            let Ok(cpu) = Cpu::with_isa(isa) else {
                eprintln!("skipped: {} ({}): this machine lacks it", isa.name(), T::DTYPE.name());
                continue;
            };
            lanes.push((isa, Lane::new(&cpu)));
            for &n in threads {
                teams.push((isa, n, Team::new(&cpu.clone().threads(n).unwrap())));
            }
        }
        assert!(!lanes.is_empty(), "no table left to test");
        Self { lanes, teams }
    }
}

/// A label for messages: which kernel failed on what.
pub fn label<T: Element>(isa: Isa, threads: usize, op: &str, case: &impl std::fmt::Debug) -> String {
    format!("{}/{}/{op}, {threads} threads, {case:?}", isa.name(), T::DTYPE.name())
}

/// Panics at the first value outside its tolerance.
pub fn assert_met(what: &str, wanted: &[Wanted], found: &[f64]) {
    assert_eq!(wanted.len(), found.len(), "{what}");
    for (i, (w, &f)) in wanted.iter().zip(found).enumerate() {
        assert!(w.met_by(f), "{what}: element {i} is {f:e} but {:e} +- {:e} is wanted", w.value, w.slack);
    }
}
