//! Products of metaglot and of the crates gemm, faer and matrixmultiply in turn, one thread, the same operands; prints a
//! JSON object a line. With a command as arguments, `run.py --numpy-part`, numpy takes its turn in that process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut as FaerMut, MatRef as FaerRef, Par};
use metaglot::backend::Lane;
use metaglot::cpu::Cpu;
use metaglot::{MatMut, MatRef, Purpose, Rng};

const SHAPES: [[usize; 3]; 6] =
    [[25, 64, 64], [75, 128, 256], [100, 512, 512], [256, 2048, 1024], [25, 5, 128], [512, 512, 512]];
const REPS: usize = 15;

/// Operands of c = op(a) op(b), with op's strides (row, column).
struct Problem {
    form: &'static str,
    shape: [usize; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    a_strides: (isize, isize),
    b_strides: (isize, isize),
}

impl Problem {
    fn new(form: &'static str, shape: [usize; 3]) -> Self {
        let [m, n, k] = shape;
        let normal = |len: usize, stream| {
            let mut rng = Rng::new(1, stream, 0, Purpose::Data);
            (0..len).map(|_| rng.normal() as f32).collect()
        };
        let a_strides = if form == "tn" { (1, m as isize) } else { (k as isize, 1) };
        let b_strides = if form == "nt" { (1, k as isize) } else { (n as isize, 1) };
        Self { form, shape, a: normal(m * k, 1), b: normal(n * k, 2), a_strides, b_strides }
    }

    fn metaglot(&self, lane: &mut Lane<f32>, c: &mut [f32]) {
        let [m, n, k] = self.shape;
        let view = |x, rows, cols| MatRef::new(x, rows, cols).unwrap();
        let c = MatMut::new(c, m, n).unwrap();
        match self.form {
            "nn" => lane.gemm_nn(1.0, view(&self.a, m, k), view(&self.b, k, n), 0.0, c),
            // What a layer of few outputs calls; with more columns it is `gemm_nt`.
            "nt" => lane.few_columns(1.0, view(&self.a, m, k), view(&self.b, n, k), 0.0, None, c),
            _ => lane.gemm_tn(1.0, view(&self.a, k, m), view(&self.b, k, n), 0.0, c),
        }
        .unwrap();
    }

    fn matrixmultiply(&self, c: &mut [f32]) {
        let ([m, n, k], (ar, ac), (br, bc)) = (self.shape, self.a_strides, self.b_strides);
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the strides are those of operands of these sizes.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, ar, ac, b, br, bc, 0.0, c, n as isize, 1) };
    }

    fn gemm(&self, c: &mut [f32]) {
        let ([m, n, k], (ar, ac), (br, bc)) = (self.shape, self.a_strides, self.b_strides);
        let (a, b, c, rs, par) =
            (self.a.as_ptr(), self.b.as_ptr(), c.as_mut_ptr(), n as isize, gemm::Parallelism::None);
        // SAFETY: as above; the old c is not read.
        unsafe { gemm::gemm(m, n, k, c, 1, rs, false, a, ac, ar, b, bc, br, 0.0f32, 1.0, false, false, false, par) };
    }

    fn faer(&self, c: &mut [f32]) {
        let [m, n, k] = self.shape;
        let a = match self.form {
            "tn" => FaerRef::from_row_major_slice(&self.a, k, m).transpose(),
            _ => FaerRef::from_row_major_slice(&self.a, m, k),
        };
        let b = match self.form {
            "nt" => FaerRef::from_row_major_slice(&self.b, n, k).transpose(),
            _ => FaerRef::from_row_major_slice(&self.b, k, n),
        };
        matmul(FaerMut::from_row_major_slice_mut(c, m, n), Accum::Replace, a, b, 1.0f32, Par::Seq);
    }
}

/// Operations a second of multiply-adds alone, best of 20 loops.
fn peak(lane: &mut Lane<f32>) -> f64 {
    let mut rate = || {
        let start = Instant::now();
        let (operations, sum) = lane.fma_chains(500_000, 0.5, std::hint::black_box(1.0));
        std::hint::black_box(sum);
        operations as f64 / start.elapsed().as_secs_f64()
    };
    (0..20).map(|_| rate()).fold(0.0, f64::max)
}

/// numpy in a process of its own: a line is sent, a line comes back.
struct Numpy(Child);

impl Numpy {
    fn new(command: &[String]) -> Self {
        let mut child = Command::new(&command[0]);
        Self(child.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        // One line is in flight at a time, so nothing is lost with the reader.
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        answer.trim().to_string()
    }

    /// Gives it the operands and metaglot's result, which it compares with its own.
    fn load(&mut self, problem: &Problem, wanted: &[f32]) {
        let [m, n, k] = problem.shape;
        let path = std::env::temp_dir().join(format!("{}_{m}x{n}x{k}", problem.form)).with_extension("f32");
        let numbers = [&problem.a, &problem.b, wanted].into_iter().flatten();
        std::fs::write(&path, numbers.flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        let answer = self.ask(&format!("load {}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(answer, "equal", "{} {:?}: numpy beside metaglot", problem.form, problem.shape);
    }
}

fn main() {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut numpy = (!command.is_empty()).then(|| Numpy::new(&command));
    if let Some(numpy) = &mut numpy {
        println!("{{\"kernel\":\"{}\"}}", numpy.ask("kernel"));
    }
    let mut lane = Lane::<f32>::new(&Cpu::new());
    for shape @ [m, n, k] in SHAPES {
        for form in ["nn", "nt", "tn"] {
            let (problem, peak) = (Problem::new(form, shape), peak(&mut lane));
            let mut results = [(); 4].map(|()| vec![0.0f32; m * n]);
            problem.metaglot(&mut lane, &mut results[0]);
            if let Some(numpy) = &mut numpy {
                numpy.load(&problem, &results[0]);
            }
            let mut times = [(); 5].map(|()| Vec::new());
            let operations = 2.0 * (m * n * k) as f64;
            let calls = (3e-3 * 0.5 * peak / operations).max(1.0) as usize;
            for rep in 0..REPS + 2 {
                for (i, times) in times.iter_mut().enumerate() {
                    let start = Instant::now();
                    let mut seconds = None;
                    match (i, &mut numpy) {
                        (4, None) => continue,
                        (4, Some(numpy)) => seconds = Some(numpy.ask(&format!("run {calls}")).parse().unwrap()),
                        _ => (0..calls).for_each(|_| match i {
                            0 => problem.metaglot(&mut lane, &mut results[0]),
                            1 => problem.gemm(&mut results[1]),
                            2 => problem.faer(&mut results[2]),
                            _ => problem.matrixmultiply(&mut results[3]),
                        }),
                    }
                    if rep >= 2 {
                        times.push(seconds.unwrap_or_else(|| start.elapsed().as_secs_f64()) / calls as f64);
                    }
                }
            }
            for (i, c) in results.iter().enumerate() {
                let off = c.iter().zip(&results[0]).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                assert!(off <= 1e-5 * k as f32, "{form} {shape:?}: peer {i} differs by {off}");
            }
            let names = ["metaglot", "gemm", "faer", "matrixmultiply", "openblas"];
            let percent = names.iter().zip(times).filter(|(_, t)| !t.is_empty()).map(|(name, mut t)| {
                t.sort_by(f64::total_cmp);
                format!(",\"{name}\":{:.1}", 100.0 * operations / t[t.len() / 2] / peak)
            });
            let percent: String = percent.collect();
            println!(
                "{{\"form\":\"{form}\",\"m\":{m},\"n\":{n},\"k\":{k},\"peak_gflops\":{:.1}{percent}}}",
                peak / 1e9
            );
        }
    }
}
