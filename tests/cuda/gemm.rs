//! Matrix products on a device: every kernel, for every architecture, through the engine's own launch code, on the
//! interpreter and on a GPU where there is one; and the interpreter's proof that it sees what may go wrong.

use crate::support::cases::{self, Fill, Product, ProductCase};
use crate::support::edit::{shifted, without};
use crate::support::padded::Padded;
use crate::support::simulator::{Simulator, simulators};
use crate::support::truth::{self, Wanted, precision};
use metaglot::cuda::{Arch, Cuda, Device, Form, Gemm, Operand, Precision, Tiling};
use metaglot::{Purpose, Result, Rng};

/// Rounds to what an operand is stored as.
fn stored(precision: Precision, x: f64) -> f64 {
    match precision {
        Precision::F32 | Precision::Tf32x3 => f64::from(x as f32),
        Precision::Bf16 => half::bf16::from_f64(x).to_f64(),
        Precision::F16 => half::f16::from_f64(x).to_f64(),
    }
}

/// A buffer's bytes as an operand is stored.
fn bytes(precision: Precision, values: &[f32]) -> Vec<u8> {
    let one = |&x: &f32| match precision {
        Precision::F32 | Precision::Tf32x3 => x.to_le_bytes().to_vec(),
        Precision::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        Precision::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(one).collect()
}

/// A case's operands: in even cases aligned for wide loads, in odd ones neither their start nor their rows are.
struct Operands {
    form: Form,
    precision: Precision,
    a: Padded<f32>,
    b: Padded<f32>,
    c: Padded<f32>,
    bias: Option<Padded<f32>>,
    alpha: f32,
    beta: f32,
}

impl Operands {
    fn new(case: &ProductCase, precision: Precision, aligned: bool) -> Self {
        let form = match case.product {
            Product::Nn => Form::Nn,
            Product::Tn => Form::Tn,
            _ => Form::Nt,
        };
        let (m, n, k) = (case.m, case.n, case.k);
        let plain = matches!(case.product, Product::Nn | Product::Nt | Product::Tn);
        let (alpha, beta) = if plain { (case.alpha as f32, case.beta as f32) } else { (1.0, 0.0) };
        let mut rng = Rng::new(case.seed, 0, 0, Purpose::Data);
        let mut matrix = |rows: usize, cols: usize, round: Precision, nan: bool| {
            let (gap, offset) =
                if aligned { (cols.next_multiple_of(8) - cols, 0) } else { (case.gap, 1 + case.gap % 3) };
            Padded::matrix(rows, cols, gap, offset, || {
                if nan { f64::NAN } else { stored(round, case.fill.draw(&mut rng)) }
            })
        };
        let (ar, ac) = if form == Form::Tn { (k, m) } else { (m, k) };
        let (br, bc) = if form == Form::Nt { (n, k) } else { (k, n) };
        let a = matrix(ar, ac, precision, false);
        let b = matrix(br, bc, precision, false);
        let c = matrix(m, n, Precision::F32, beta == 0.0);
        let bias = match case.product {
            Product::Linear | Product::LinearRelu => Some(matrix(1, n, Precision::F32, false)),
            Product::Gram => Some(Padded::row(n, 0, || 1.0)),
            _ => None,
        };
        Self { form, precision, a, b, c, bias, alpha, beta }
    }

    fn wanted(&self, case: &ProductCase) -> Vec<Wanted> {
        let one = |i: usize, j: usize| {
            let a = |q| if self.form == Form::Tn { self.a.at(q, i) } else { self.a.at(i, q) };
            let b = |q| if self.form == Form::Nt { self.b.at(j, q) } else { self.b.at(q, j) };
            let old = if self.beta == 0.0 { 0.0 } else { self.c.at(i, j) };
            let bias = self.bias.as_ref().map(|bias| bias.at(0, j));
            let terms = (0..case.k).map(|q| (a(q), b(q)));
            let x = truth::product(precision::<f32>(), terms, self.alpha.into(), self.beta.into(), old, bias);
            // Two numbers of tf32 leave 2^-22 of a factor out, and the product of the small ones: six eps a product.
            let more = if self.precision == Precision::Tf32x3 { 4.0 } else { 1.0 };
            let x = Wanted { slack: more * x.slack, ..x };
            if case.product == Product::LinearRelu { truth::relu(x) } else { x }
        };
        (0..case.m).flat_map(|i| (0..case.n).map(move |j| one(i, j))).collect()
    }
}

/// Puts a buffer on the device; its operand there.
fn put<D: Device>(device: &mut D, p: Precision, matrix: &Padded<f32>) -> Result<(D::Buffer, Operand)> {
    let (whole, offset, ld) = matrix.whole();
    let bytes = bytes(p, whole);
    let mut buffer = device.alloc(bytes.len())?;
    device.upload(&mut buffer, 0, &bytes)?;
    let address = device.address(&buffer) + (offset * p.bytes()) as u64;
    Ok((buffer, Operand { address, ld, stride: 0 }))
}

/// Runs a case with the first of the tilings that can be; the result with its frame.
fn run<D: Device>(device: &mut D, case: &ProductCase, o: &Operands, tilings: &[Tiling]) -> Result<Padded<f32>> {
    let (_a, a) = put(device, o.precision, &o.a)?;
    let (_b, b) = put(device, o.precision, &o.b)?;
    let (memory, c) = put(device, Precision::F32, &o.c)?;
    let bias = o.bias.as_ref().map(|bias| put(device, Precision::F32, bias)).transpose()?;
    let gemm = Gemm {
        form: o.form,
        precision: o.precision,
        m: case.m,
        n: case.n,
        k: case.k,
        batch: 1,
        alpha: o.alpha,
        beta: o.beta,
        a,
        b,
        c,
        bias: bias.as_ref().map_or(0, |(_, at)| at.address),
        relu: case.product == Product::LinearRelu,
    };
    if case.m > 0 && case.n > 0 {
        let arch = device.arch();
        let tiling = tilings.iter().find(|&&tiling| gemm.can_be(tiling, arch)).expect("a tiling");
        let launch = gemm.plan_with(*tiling, arch)?;
        // SAFETY: the operands are as long as the case says and live to the end of this function.
        unsafe { device.launch(&launch, &gemm.args()) }?;
    }
    let mut result = o.c.clone();
    device.download(&memory, 0, bytemuck::cast_slice_mut(result.whole_mut()))?;
    Ok(result)
}

/// Whether each element is as wanted and nothing outside was written; the first complaint.
fn judge(case: &ProductCase, o: &Operands, found: &Padded<f32>, what: &str) -> std::result::Result<(), String> {
    if let Some((at, x)) = found.written_outside() {
        return Err(format!("{what}: {x} was written outside, at {at}"));
    }
    for (i, (w, f)) in o.wanted(case).iter().zip(found.values()).enumerate() {
        let dropped = case.product == Product::LinearRelu && w.value.is_nan() && f == 0.0;
        if !w.met_by(f) && !dropped {
            return Err(format!("{what}: element {i} is {f:e} but {:e} +- {:e} is wanted", w.value, w.slack));
        }
    }
    Ok(())
}

/// Every `stride`-th case of the list that all backends share, in all precisions, the tilings taking turns.
fn check<D: Device>(device: &mut D, stride: usize) {
    let arch = device.arch();
    let mut count = 0;
    for (turn, case) in cases::products().iter().step_by(stride).enumerate() {
        for precision in Precision::ALL {
            if precision != Precision::F32 && case.fill != Fill::Uniform {
                continue;
            }
            // The list goes through the products by six; each meets both alignments and all tilings.
            let aligned = turn / 6 % 2 == 0;
            let mut tilings = Tiling::ALL;
            tilings.rotate_left(turn / 12 % 3);
            let o = Operands::new(case, precision, aligned);
            let what = format!("{arch} {precision:?} aligned {aligned}, {:?}, {case:?}", tilings[0]);
            let found = run(device, case, &o, &tilings).unwrap_or_else(|e| panic!("{what}: {e}"));
            judge(case, &o, &found, &what).unwrap_or_else(|e| panic!("{e}"));
            count += 1;
        }
    }
    eprintln!("{arch}: {count} products");
}

#[test]
fn products_equal_the_truth_on_every_architecture() {
    for mut simulator in simulators() {
        check(&mut simulator, 101);
        simulator.assert_all_launched(&["gemm", "gemm.sm_90a"]);
    }
}

#[test]
fn products_equal_the_truth_on_a_gpu() {
    match Cuda::new(0) {
        Ok(mut cuda) => check(&mut cuda, 7),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

/// A product that takes several slices and tiles.
const WIDE: ProductCase = ProductCase {
    seed: 3,
    product: Product::Linear,
    m: 70,
    n: 72,
    k: 136,
    gap: 1,
    alpha: 1.0,
    beta: 0.0,
    fill: Fill::Uniform,
};

const SMALL: [Tiling; 1] = [Tiling::Small];
const WARPGROUP: [Tiling; 1] = [Tiling::Warpgroup];

#[test]
fn the_order_of_warps_and_blocks_changes_no_bit() {
    let small = Precision::ALL.map(|precision| ("sm_80", precision, SMALL));
    let warpgroup = [Precision::Bf16, Precision::F16].map(|precision| ("sm_90a", precision, WARPGROUP));
    for (arch, precision, tilings) in small.into_iter().chain(warpgroup) {
        let o = Operands::new(&WIDE, precision, true);
        let mut bits = vec![];
        for seed in [1, 2, 99] {
            let mut simulator = Simulator::new(arch);
            simulator.seed = seed;
            bits.push(run(&mut simulator, &WIDE, &o, &tilings).unwrap().bits());
        }
        assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "{arch} {precision:?} {tilings:?}");
    }
}

#[test]
fn warpgroups_take_large_products_where_they_can() {
    let operand = |ld| Operand { address: 1 << 32, ld, stride: 0 };
    let gemm = Gemm {
        form: Form::Nt,
        precision: Precision::Bf16,
        m: 12_800,
        n: 128,
        k: 256,
        batch: 1,
        alpha: 1.0,
        beta: 0.0,
        a: operand(256),
        b: operand(256),
        c: operand(128),
        bias: 0,
        relu: false,
    };
    let kernel = |arch: &str, gemm: Gemm| gemm.plan(Arch::parse(arch).unwrap()).unwrap().kernel;
    assert_eq!(kernel("sm_90a", gemm), "bf16_gemm_nt_wgmma");
    assert_eq!(kernel("sm_100", gemm), "bf16_gemm_nt_128x128");
    assert_eq!(kernel("sm_90a", Gemm { a: operand(257), ..gemm }), "bf16_gemm_nt_128x128");
    assert_eq!(kernel("sm_90a", Gemm { precision: Precision::Tf32x3, ..gemm }), "tf32x3_gemm_nt_128x128");
    assert_eq!(kernel("sm_90a", Gemm { m: 128, ..gemm }), "bf16_gemm_nt_64x64");
    let sm_80 = Arch::parse("sm_80").unwrap();
    assert!(gemm.plan_with(Tiling::Warpgroup, sm_80).is_err());
}

/// Runs [`WIDE`] with changed kernels; what is wrong then, empty if nothing is.
fn with_bug(arch: &str, precision: Precision, tilings: &[Tiling], edit: fn(&str) -> String) -> String {
    let o = Operands::new(&WIDE, precision, true);
    match run(&mut Simulator::with_edit(arch, edit), &WIDE, &o, tilings) {
        Err(error) => error.to_string(),
        Ok(found) => judge(&WIDE, &o, &found, "").err().unwrap_or_default(),
    }
}

/// What a block barrier that is gone shows as.
const OF_BARRIER: [&str; 3] = ["Race", "UninitializedShared", "MissingAsyncWait"];

fn without_barrier(ptx: &str) -> String {
    without(&without(ptx, "bar.sync", |_| true), "barrier.sync", |_| true)
}

#[test]
fn planted_bugs_are_caught() {
    for arch in ["sm_80", "sm_90a", "sm_100"] {
        for precision in Precision::ALL {
            let bug = |edit| with_bug(arch, precision, &SMALL, edit);
            assert_eq!(bug(str::to_string), "", "{arch} {precision:?}");
            let found = bug(without_barrier);
            assert!(OF_BARRIER.iter().any(|kind| found.contains(kind)), "{arch} {precision:?}: no barrier: {found:?}");
            let found = bug(|ptx| shifted(ptx, "st.global.v2", 8));
            let wrong = found.contains("is wanted") || found.contains("outside");
            assert!(wrong, "{arch} {precision:?}: results two elements to the right: {found:?}");
        }
        for precision in [Precision::Tf32x3, Precision::Bf16, Precision::F16] {
            let found = with_bug(arch, precision, &SMALL, |ptx| without(ptx, "cp.async.wait_group", |_| true));
            assert!(found.contains("MissingAsyncWait"), "{arch} {precision:?}: no wait: {found:?}");
        }
        for precision in [Precision::Bf16, Precision::F16] {
            let found = with_bug(arch, precision, &SMALL, |ptx| shifted(ptx, "ldmatrix", 16));
            let wrong = ["is wanted", "UninitializedShared", "OutOfBounds", "Race", "MissingAsyncWait"];
            let wrong = wrong.iter().any(|sign| found.contains(sign));
            assert!(wrong, "{arch} {precision:?}: fragments of the next columns: {found:?}");
        }
    }
}

#[test]
fn planted_bugs_of_warpgroups_are_caught() {
    for precision in [Precision::Bf16, Precision::F16] {
        let bug = |edit| with_bug("sm_90a", precision, &WARPGROUP, edit);
        assert_eq!(bug(str::to_string), "", "{precision:?}");
        let found = bug(without_barrier);
        assert!(OF_BARRIER.iter().any(|kind| found.contains(kind)), "{precision:?}: no barrier: {found:?}");
        let found = bug(|ptx| without(ptx, "cp.async.wait_group", |_| true));
        assert!(found.contains("MissingAsyncWait"), "{precision:?}: copies are not waited for: {found:?}");
        let found = bug(|ptx| without(ptx, "wgmma.wait_group", |_| true));
        assert!(found.contains("MissingAsyncWait"), "{precision:?}: products are not waited for: {found:?}");
        let found = bug(|ptx| without(ptx, "fence.proxy.async", |_| true));
        assert!(found.contains("MissingFence"), "{precision:?}: copies are not fenced: {found:?}");
        let found = bug(|ptx| without(ptx, "wgmma.fence", |_| true));
        assert!(found.contains("MissingFence"), "{precision:?}: registers are not fenced: {found:?}");
        // Both descriptors' constant part, with the swizzle's bits (62 and 63) and without.
        let found = bug(|ptx| ptx.replace("4611686293305360384", "274877972480"));
        assert!(found.contains("is wanted"), "{precision:?}: no swizzle: {found:?}");
    }
}
