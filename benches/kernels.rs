//! Kernels of every instruction set this machine has, each checked once against plain loops before it is timed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metaglot::backend::Lane;
use metaglot::cpu::{Cpu, Isa};
use metaglot::{MatMut, MatRef, Purpose, Rng};

/// Few-shot layers (support x hidden x input), first layers, an output layer, and a square for comparison.
const SHAPES: [(usize, usize, usize); 6] =
    [(25, 64, 64), (75, 128, 256), (100, 512, 512), (256, 2048, 1024), (25, 5, 128), (512, 512, 512)];

fn normal(n: usize, stream: u64) -> Vec<f32> {
    let mut rng = Rng::new(1, stream, 0, Purpose::Data);
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Every table there is, with the name of its GEMM tile.
fn lanes() -> Vec<(Isa, &'static str, Lane<f32>)> {
    let lane = |isa: Isa| Some((isa, isa.kernels()?.f32.gemm.name, Lane::new(&Cpu::with_isa(isa).ok()?)));
    Isa::ALL.into_iter().filter_map(lane).collect()
}

fn product(lane: &mut Lane<f32>, form: &str, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
    let view = |x, rows, cols| MatRef::new(x, rows, cols).unwrap();
    let c = MatMut::new(c, m, n).unwrap();
    match form {
        "nn" => lane.gemm_nn(1.0, view(a, m, k), view(b, k, n), 0.0, c),
        "nt" => lane.gemm_nt(1.0, view(a, m, k), view(b, n, k), 0.0, c),
        _ => lane.gemm_tn(1.0, view(a, k, m), view(b, k, n), 0.0, c),
    }
    .unwrap();
}

/// Some elements against a plain f64 sum.
fn check_product(form: &str, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &[f32]) {
    for i in (0..m).step_by(7) {
        for j in (0..n).step_by(13) {
            let term = |p: usize| {
                let a = if form == "tn" { a[p * m + i] } else { a[i * k + p] };
                let b = if form == "nt" { b[j * k + p] } else { b[p * n + j] };
                f64::from(a) * f64::from(b)
            };
            let (sum, size) = (0..k).map(term).fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
            let slack = (k + 2) as f64 * f64::from(f32::EPSILON) * size;
            assert!((f64::from(c[i * n + j]) - sum).abs() <= slack, "{form} {m}x{n}x{k}: element ({i}, {j})");
        }
    }
}

/// 2mnk floating-point operations a product.
fn gemm(c: &mut Criterion) {
    for (isa, tile, mut lane) in lanes() {
        for form in ["nn", "nt", "tn"] {
            let mut group = c.benchmark_group(format!("{}/{tile}/{form}", isa.name()));
            for (m, n, k) in SHAPES {
                let (a, b, mut dst) = (normal(m * k, 1), normal(n * k, 2), vec![0.0; m * n]);
                product(&mut lane, form, (m, n, k), &a, &b, &mut dst);
                check_product(form, (m, n, k), &a, &b, &dst);
                group.throughput(Throughput::Elements((2 * m * n * k) as u64));
                group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |bench| {
                    bench.iter(|| product(&mut lane, form, (m, n, k), black_box(&a), &b, &mut dst));
                });
            }
        }
    }
}

/// The rate of fused multiply-adds alone, 12 independent chains in registers: what no product can exceed.
#[cfg(target_arch = "x86_64")]
fn fma_peak(c: &mut Criterion) {
    use std::arch::x86_64::*;

    const STEPS: usize = 1000;

    #[target_feature(enable = "avx2,fma")]
    fn chains(x: f32) -> f32 {
        let (a, b) = (_mm256_set1_ps(x), _mm256_set1_ps(0.5));
        let mut sums = [_mm256_setzero_ps(); 12];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, b, a);
            }
        }
        let total = sums.into_iter().fold(_mm256_setzero_ps(), |t, s| _mm256_add_ps(t, s));
        _mm256_cvtss_f32(total)
    }

    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return;
    }
    // SAFETY: AVX2 and FMA are there.
    let total = unsafe { chains(1.0) };
    assert!((total - 24.0).abs() < 1e-4, "each chain goes to 2, not {}", total / 12.0);
    let mut group = c.benchmark_group("avx2/fma_peak");
    group.throughput(Throughput::Elements((STEPS * 12 * 8 * 2) as u64));
    // SAFETY: as above.
    group.bench_function("f32", |bench| bench.iter(|| unsafe { chains(black_box(1.0)) }));
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_peak(_: &mut Criterion) {}

/// A bag of 60 tokens out of a table of 65536 rows: the rows lie apart, as in training.
fn gather_sum(c: &mut Criterion) {
    const ROWS: usize = 65_536;
    for (isa, _, mut lane) in lanes() {
        let mut group = c.benchmark_group(format!("{}/f32_gather_sum/60_of_65536", isa.name()));
        for n in [64, 128, 256] {
            let (table, weights, mut dst) = (normal(ROWS * n, 3), normal(60, 4), vec![0.0; n]);
            let mut rng = Rng::new(1, 5, 0, Purpose::Data);
            let bags: Vec<u32> = (0..60 * 256).map(|_| rng.below(ROWS) as u32).collect();
            let table = MatRef::new(&table, ROWS, n).unwrap();
            lane.gather_sum(&bags[..60], &weights, table, None, &mut dst).unwrap();
            let terms = bags[..60].iter().zip(&weights).map(|(&i, w)| f64::from(table.row(i as usize)[0] * w));
            assert!((f64::from(dst[0]) - terms.sum::<f64>()).abs() < 1e-4);
            group.throughput(Throughput::Elements((60 * n) as u64));
            let mut next = bags.chunks_exact(60).cycle();
            group.bench_function(BenchmarkId::from_parameter(n), |bench| {
                bench.iter(|| lane.gather_sum(next.next().unwrap(), &weights, table, None, &mut dst).unwrap());
            });
        }
    }
}

fn softmax(c: &mut Criterion) {
    for (isa, _, mut lane) in lanes() {
        let mut group = c.benchmark_group(format!("{}/f32_softmax_xent", isa.name()));
        for n in [5, 64, 1000] {
            let (z, mut p, mut dz) = (normal(n, 6), vec![0.0; n], vec![0.0; n]);
            let loss = lane.softmax_xent(&z, 1, 1.0, &mut p, &mut dz).unwrap();
            let sum: f64 = z.iter().map(|&x| f64::from(x).exp()).sum();
            assert!((f64::from(loss) - (sum.ln() - f64::from(z[1]))).abs() < 1e-5);
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(BenchmarkId::from_parameter(n), |bench| {
                bench.iter(|| lane.softmax_xent(black_box(&z), 1, 1.0, &mut p, &mut dz).unwrap());
            });
        }
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500));
    targets = fma_peak, gemm, gather_sum, softmax
}
criterion_main!(kernels);
