//! `metaglot bench gemm`: matrix products of given shapes.
#![forbid(unsafe_code)]

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

#[cfg(feature = "cuda")]
use super::gemm_gpu;
use super::timing::{Times, peak_gflops};
use crate::backend::{self, Finish, Lane, Product, Team};
use crate::cli::device::DeviceArg;
use crate::cli::{cpu, output_error};
use crate::cpu::{Cpu, StoredElement};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};
use crate::view::{MatMut, MatRef};
use half::{bf16, f16};

/// Time matrix products c = op(a) op(b), c: m x n, sums over k; sums and c in f32.
#[derive(Args, Debug)]
pub struct Gemm {
    /// Shapes, each m,n,k
    #[arg(long, value_name = "M,N,K;...", value_delimiter = ';', value_parser = shape,
        default_value = "25,64,64;75,128,256;100,512,512;256,2048,1024;25,5,128;512,512,512")]
    pub(super) shapes: Vec<[usize; 3]>,
    /// Which operands are read transposed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nn,nt,tn")]
    pub(super) forms: Vec<Form>,
    /// How both operands are stored and multiplied
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) dtype: Stored,
    /// Threads, 1 unless given; each computes products of its own unless told otherwise; not for a GPU
    #[arg(long, value_name = "K")]
    threads: Option<usize>,
    /// One call computes so many products, spread over the threads, as those of the tasks of a meta-batch are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: Option<u32>,
    /// One call computes one product on all threads, each some of its rows or columns
    #[arg(long, conflicts_with = "batch")]
    together: bool,
    /// Where: cpu, or an NVIDIA GPU by its number, as in cuda:0 (a build with CUDA); there one product runs over and over,
    /// so small ones read from caches and take no less than a launch
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceArg,
    /// Timed repetitions of a loop of about 5 ms
    #[arg(long, value_name = "R", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) reps: u32,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Nn,
    Nt,
    Tn,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Nn => "nn",
            Form::Nt => "nt",
            Form::Tn => "tn",
        }
    }

    fn of_lane(self) -> backend::Form {
        match self {
            Form::Nn => backend::Form::Nn,
            Form::Nt => backend::Form::Nt,
            Form::Tn => backend::Form::Tn,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Stored {
    F32,
    F16,
    Bf16,
    /// f32, on a GPU's tensor cores: each number as two of tf32
    Tf32x3,
}

/// `m,n,k`, each from 1 to 65536.
fn shape(text: &str) -> std::result::Result<[usize; 3], String> {
    let sizes: Vec<usize> = text
        .split(',')
        .map(|s| s.trim().parse().map_err(|_| format!("`{s}` is no size")))
        .collect::<std::result::Result<_, _>>()?;
    match <[usize; 3]>::try_from(sizes) {
        Ok(shape) if shape.iter().all(|s| (1..=1 << 16).contains(s)) => Ok(shape),
        _ => Err("wanted m,n,k, each from 1 to 65536".to_string()),
    }
}

/// One product's operands and result.
struct Operands<S> {
    form: Form,
    shape: [usize; 3],
    a: Vec<S>,
    b: Vec<S>,
    c: Vec<f32>,
}

impl<S: StoredElement<f32>> Operands<S> {
    /// Those of product `number`.
    fn new(form: Form, shape: [usize; 3], number: u64) -> Self {
        let [m, n, k] = shape;
        let normal = |len: usize, stream| {
            let mut rng = Rng::new(1, stream, number, Purpose::Data);
            (0..len).map(|_| S::narrow(rng.normal() as f32)).collect()
        };
        Self { form, shape, a: normal(m * k, 1), b: normal(n * k, 2), c: vec![0.0; m * n] }
    }

    fn product(&mut self) -> Result<Product<'_, f32, S, S>> {
        let [m, n, k] = self.shape;
        let (ar, ac) = if self.form == Form::Tn { (k, m) } else { (m, k) };
        let (br, bc) = if self.form == Form::Nt { (n, k) } else { (k, n) };
        Ok(Product {
            a: MatRef::new(&self.a, ar, ac)?,
            b: MatRef::new(&self.b, br, bc)?,
            c: MatMut::new(&mut self.c, m, n)?,
            finish: Finish::scaled(1.0, 0.0),
        })
    }

    /// Compares an element with the plain sum in f64.
    fn check(&self) -> Result<()> {
        let [m, n, k] = self.shape;
        let (i, j) = (m / 2, n / 2);
        let a = |p: usize| if self.form == Form::Tn { self.a[p * m + i] } else { self.a[i * k + p] };
        let b = |p: usize| if self.form == Form::Nt { self.b[j * k + p] } else { self.b[p * n + j] };
        let terms = (0..k).map(|p| f64::from(a(p).widen()) * f64::from(b(p).widen()));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
        if (f64::from(self.c[i * n + j]) - sum).abs() <= (k + 2) as f64 * f64::from(f32::EPSILON) * size {
            return Ok(());
        }
        Err(Error::config("bench gemm", format!("element ({i}, {j}) is {}, wanted {sum}", self.c[i * n + j])))
    }
}

impl Gemm {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        if let DeviceArg::Cuda(number) = self.device {
            let options = [
                ("--threads", self.threads.is_some()),
                ("--batch", self.batch.is_some()),
                ("--together", self.together),
            ];
            if let Some((option, _)) = options.iter().find(|(_, given)| *given) {
                return Err(Error::config(*option, "a GPU computes one product at a time, on all of it"));
            }
            #[cfg(feature = "cuda")]
            return gemm_gpu::run(number, self, out);
            #[cfg(not(feature = "cuda"))]
            return Err(crate::cli::device::not_built(number));
        }
        let cpu = cpu()?.threads(self.threads.unwrap_or(1))?;
        for &shape in &self.shapes {
            for &form in &self.forms {
                match self.dtype {
                    Stored::F32 => self.measure::<f32>(&cpu, form, shape, out)?,
                    Stored::F16 => self.measure::<f16>(&cpu, form, shape, out)?,
                    Stored::Bf16 => self.measure::<bf16>(&cpu, form, shape, out)?,
                    Stored::Tf32x3 => return Err(Error::config("--dtype", "tf32x3: only GPUs have it")),
                }
            }
        }
        Ok(())
    }

    fn measure<S: StoredElement<f32>>(
        &self,
        cpu: &Cpu,
        form: Form,
        shape: [usize; 3],
        out: &mut dyn Write,
    ) -> Result<()> {
        let ([m, n, k], threads) = (shape, cpu.thread_count());
        let products = match self.batch {
            Some(batch) => batch as usize,
            None if self.together => 1,
            None => threads,
        };
        let mut operands: Vec<Operands<S>> = (0..products).map(|i| Operands::new(form, shape, i as u64)).collect();
        let operations = 2 * (m * n * k) as u64;
        let peak = peak_gflops::<f32>(cpu);
        // As often as about 5 ms take.
        let calls = (5e-3 * 0.5 * peak * 1e9 / products as f64 / operations as f64).clamp(1.0, 1e6) as usize;
        let times = self.times(cpu, form, calls, &mut operands)?;
        operands.iter().try_for_each(Operands::<S>::check)?;
        let seconds = [times.median(), times.min(), times.max()].map(|t| t / calls as f64);
        let gflops = (operations * products as u64) as f64 / seconds[0] / 1e9;
        let (form, isa, dtype) = (form.name(), cpu.isa().name(), S::STORED.name());
        let line = if self.json {
            json!({
                "form": form, "m": m, "n": n, "k": k, "median_s": seconds[0], "min_s": seconds[1], "max_s": seconds[2],
                "reps": self.reps, "operations": operations, "gflops": gflops, "peak_gflops": peak,
                "peak_fraction": gflops / peak, "products": products, "threads": threads, "isa": isa, "dtype": dtype,
            })
            .to_string()
        } else {
            let percent = 100.0 * gflops / peak;
            format!("{isa} {dtype} {form} {m:>5} x {n:>5} x {k:>5}  {gflops:>7.1} G/s  {percent:>3.0}% of {peak:.1}")
        };
        writeln!(out, "{line}").map_err(output_error)
    }

    /// Times of loops of `calls`.
    fn times<S: StoredElement<f32>>(
        &self,
        cpu: &Cpu,
        form: Form,
        calls: usize,
        operands: &mut [Operands<S>],
    ) -> Result<Times> {
        let (reps, form) = (self.reps as usize, form.of_lane());
        let mut batch = operands.iter_mut().map(Operands::product).collect::<Result<Vec<_>>>()?;
        let mut team = Team::<f32>::new(cpu);
        if self.batch.is_some() {
            return cpu
                .install(|| Times::of(reps, || (0..calls).try_for_each(|_| team.product_batch(form, &mut batch))));
        }
        if self.together {
            let p = &mut batch[0];
            let mut call = || team.product(form, p.a, p.b, p.c.as_mut(), p.finish);
            return cpu.install(|| Times::of(reps, || (0..calls).try_for_each(|_| call())));
        }
        // Each thread repeats its own product: a hand-over between threads costs microseconds.
        let mut own: Vec<_> = batch.into_iter().map(|p| (Lane::<f32>::new(cpu), p, Ok(()))).collect();
        cpu.install(|| {
            Times::of(reps, || {
                cpu.for_each_part(&mut own, |(lane, p, result)| {
                    *result = (0..calls).try_for_each(|_| lane.product(form, p.a, p.b, p.c.as_mut(), p.finish));
                });
                own.iter_mut().try_for_each(|(_, _, result)| std::mem::replace(result, Ok(())))
            })
        })
    }
}
