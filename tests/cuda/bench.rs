//! What `metaglot bench meta --device` and `metaglot bench gemm --device` measure: a meta-step, products, and the peaks they
//! are compared with. On the interpreter, but for one that a GPU runs where there is one.

use crate::support::edit::without;
use crate::support::simulator::{Simulator, simulators};
use crate::support::{LossKind, Problem, shape};
use metaglot::Result;
use metaglot::cuda::{Cuda, Device, Form, MetaStep, PeakSizes, Peaks, Precision, RandomProduct, StepTimes, step_bytes};
use metaglot::meta::{Limits, MetaGradient, maml};
use metaglot::model::InputKind;

/// Five steps of tensor cores: compilers unroll four.
const SIZES: PeakSizes = PeakSizes { blocks: 2, steps: 40, bytes: 4096 };

/// Every peak: it is a number, and its kernels' results are right.
fn peaks<D: Device>(device: &mut D, sizes: PeakSizes) {
    let peaks = Peaks::measure(device, sizes).unwrap();
    assert!(peaks.operations > 0.0 && peaks.bytes > 0.0, "{peaks:?}");
    for precision in Precision::ALL {
        assert!(precision.peak(device, sizes).unwrap() > 0.0, "{precision:?}");
    }
}

#[test]
fn peaks_are_measured_on_a_gpu() {
    match Cuda::new(0) {
        Ok(mut cuda) => peaks(&mut cuda, PeakSizes { blocks: 300, steps: 1 << 12, bytes: 1 << 20 }),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn peaks_are_measured_and_their_kernels_checked() {
    for mut simulator in simulators() {
        peaks(&mut simulator, SIZES);
        simulator.assert_all_launched(&["peak", "peak.sm_90a"]);
    }
}

/// What an edited kernel's measurement says; empty where nothing is wrong.
fn broken<T>(arch: &str, edit: fn(&str) -> String, measure: impl Fn(&mut Simulator) -> Result<T>) -> String {
    measure(&mut Simulator::with_edit(arch, edit)).err().map_or_else(String::new, |e| e.to_string())
}

#[test]
fn a_peak_of_a_broken_kernel_is_refused() {
    let memory = |device: &mut Simulator| Peaks::measure(device, SIZES);
    // A sum with wrong signs; a copy that stores nothing.
    let found = broken("sm_80", |ptx| ptx.replace("add.f32", "sub.f32"), memory);
    assert!(found.contains("fma_chains") && found.contains("wanted"), "{found}");
    let found = broken("sm_80", |ptx| ptx.replace("st.global.v4", "// st.global.v4"), memory);
    assert!(found.contains("differs"), "{found}");
    for precision in [Precision::Tf32x3, Precision::Bf16, Precision::F16] {
        let peak = |device: &mut Simulator| precision.peak(device, SIZES);
        for arch in ["sm_80", "sm_90a", "sm_100"] {
            let found = broken(arch, |ptx| without(ptx, "mma.sync", |i| i % 8 == 3), peak);
            assert!(found.contains("mma_chains") && found.contains("wanted"), "{arch} {precision:?}: {found}");
        }
        let found = broken("sm_90a", |ptx| without(ptx, "wgmma.mma_async", |i| i % 4 == 1), peak);
        assert!(found.contains("wgmma_chains") && found.contains("wanted"), "{precision:?}: {found}");
        let found = broken("sm_90a", |ptx| without(ptx, "fence.proxy.async", |_| true), peak);
        assert!(found.contains("wgmma_chains") && found.contains("MissingFence"), "{precision:?}: {found}");
        let found = broken("sm_90a", |ptx| without(ptx, "wgmma.wait_group", |_| true), peak);
        assert!(found.contains("wgmma_chains") && found.contains("MissingAsyncWait"), "{precision:?}: {found}");
    }
}

#[test]
fn a_random_product_is_checked() {
    for (precision, form) in Precision::ALL.into_iter().flat_map(|p| [Form::Nn, Form::Nt, Form::Tn].map(|f| (p, f))) {
        let what = format!("{precision:?} {form:?}");
        let mut simulator = Simulator::new("sm_90a");
        let mut product = RandomProduct::new(&mut simulator, form, precision, [70, 33, 45]).unwrap();
        assert!(product.kernel().starts_with(precision.name()), "{what}: {}", product.kernel());
        product.run(2).and_then(|()| product.check()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(simulator.counts.launches, 2, "{what}");
        // Sums plus 1 in place of times 1.
        let mut simulator = Simulator::with_edit("sm_90a", |ptx| ptx.replace("mul.f32", "add.f32"));
        let mut product = RandomProduct::new(&mut simulator, form, precision, [70, 34, 45]).unwrap();
        let found = product.run(1).and_then(|()| product.check()).unwrap_err().to_string();
        assert!(found.contains(precision.name()) && found.contains("(35, 17)"), "{what}: {found}");
    }
}

#[test]
fn a_meta_step_is_timed() {
    let p = Problem::random(3, shape(InputKind::Dense, &[10, 9, 4]), LossKind::Classes, 2, 5, 6);
    let (params, inner) = (p.params::<f32>(), maml::inner_loop(1, 0.1));
    p.with_batch::<f32, _>(|batch| {
        let limits = Limits::of(batch, &inner);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let mut step = MetaStep::new(Simulator::new("sm_80"), &p.shape, limits).unwrap();
        assert_eq!(step.repeat(1, false).unwrap_err().code(), 3, "no batch was run");
        let times = StepTimes::measure(&mut step, &params, batch, &inner, &mut gradient, 2).unwrap();
        assert!([times.step, times.device, times.episodes].iter().all(|&t| t > 0.0), "{times:?}");
        assert!(gradient.is_finite());
        // 22 rows of 10 inputs twice, 9 x 10 weights twice, 22 x 9 four times, 2 x 5 x 11 twice, in f32.
        assert_eq!(step_bytes(&p.shape, batch), 4 * (2 * 220 + 2 * 90 + 4 * 198 + 2 * 110));
        // 4 whole steps and 4 repeated, of 6 launches; 4 of the episode kernel alone.
        assert_eq!(step.device().counts.launches, 8 * 6 + 4);
    });
}
