//! A matrix product of random operands on a device, to be timed: what `metaglot bench gemm --device` runs.

use super::{Device, Form, Gemm, Launch, Operand, Precision};
use crate::rng::{Purpose, Rng};
use crate::{Error, Result};
use half::{bf16, f16};

/// c = op(a) op(b) of standard normals, all three on the device.
pub struct RandomProduct<'d, D: Device> {
    device: &'d mut D,
    gemm: Gemm,
    launch: Launch,
    c: D::Buffer,
    /// Where the operands lie; they live as long as this.
    _operands: [D::Buffer; 2],
    wanted: Element,
}

/// An element of c in f64.
struct Element {
    row: usize,
    column: usize,
    value: f64,
    /// The same sum of absolute values.
    size: f64,
}

impl<'d, D: Device> RandomProduct<'d, D> {
    /// Draws the operands of a product of m x n sums over k, each at least 1, and uploads them, rows without gaps; seed 1.
    ///
    /// # Errors
    /// Those of [`Gemm::plan`], and where the device refuses.
    pub fn new(device: &'d mut D, form: Form, precision: Precision, [m, n, k]: [usize; 3]) -> Result<Self> {
        let (a, b) = (normals(precision, m * k, 1), normals(precision, n * k, 2));
        let (row, column) = (m / 2, n / 2);
        let terms = (0..k).map(|p| {
            let a = value(precision, &a, if form == Form::Tn { p * m + row } else { row * k + p });
            a * value(precision, &b, if form == Form::Nt { column * k + p } else { p * n + column })
        });
        let (value, size) = terms.fold((0.0, 0.0), |(value, size), t| (value + t, size + t.abs()));
        let (a, b, c) = (put(device, &a)?, put(device, &b)?, device.alloc(4 * m * n)?);
        let operand = |buffer, ld| Operand { address: device.address(buffer), ld, stride: 0 };
        let gemm = Gemm {
            form,
            precision,
            m,
            n,
            k,
            batch: 1,
            alpha: 1.0,
            beta: 0.0,
            a: operand(&a, if form == Form::Tn { m } else { k }),
            b: operand(&b, if form == Form::Nt { k } else { n }),
            c: operand(&c, n),
            bias: 0,
            relu: false,
        };
        let launch = gemm.plan(device.arch())?;
        Ok(Self { device, gemm, launch, c, _operands: [a, b], wanted: Element { row, column, value, size } })
    }

    /// The kernel that was chosen.
    pub fn kernel(&self) -> &'static str {
        self.launch.kernel
    }

    /// Runs it as often, one launch behind the other, and waits for the last. All read the same operands, so those of small
    /// products come out of the device's caches.
    ///
    /// # Errors
    /// Where the device refuses.
    pub fn run(&mut self, times: usize) -> Result<()> {
        let args = self.gemm.args();
        for _ in 0..times {
            // SAFETY: the buffers are as long as the sizes say, apart from each other, on this device, and live in `self`.
            unsafe { self.device.launch(&self.launch, &args)? };
        }
        self.device.synchronize()
    }

    /// Compares the element in the middle with the plain sum in f64: within k + 2 eps of the sum of the terms' sizes, four
    /// times as many where each number is two of tf32.
    ///
    /// # Errors
    /// [`Error::Device`] where it differs by more.
    pub fn check(&mut self) -> Result<()> {
        let (Gemm { n, k, precision, .. }, Element { row, column, value, size }) = (self.gemm, &self.wanted);
        let mut found = [0; 4];
        self.device.download(&self.c, 4 * (row * n + column), &mut found)?;
        let found = f32::from_le_bytes(found);
        let eps = f64::from(f32::EPSILON) * if precision == Precision::Tf32x3 { 4.0 } else { 1.0 };
        if (f64::from(found) - value).abs() <= (k + 2) as f64 * eps * size {
            return Ok(());
        }
        Err(Error::device(self.launch.kernel, format!("element ({row}, {column}) is {found}, wanted {value}")))
    }
}

/// Standard normals as an operand is stored.
fn normals(precision: Precision, len: usize, stream: u64) -> Vec<u8> {
    let mut rng = Rng::new(1, stream, 0, Purpose::Data);
    let mut bytes = Vec::with_capacity(len * precision.bytes());
    for _ in 0..len {
        let x = rng.normal() as f32;
        match precision {
            Precision::F32 | Precision::Tf32x3 => bytes.extend_from_slice(&x.to_le_bytes()),
            Precision::Bf16 => bytes.extend_from_slice(&bf16::from_f32(x).to_le_bytes()),
            Precision::F16 => bytes.extend_from_slice(&f16::from_f32(x).to_le_bytes()),
        }
    }
    bytes
}

/// Number i of those.
fn value(precision: Precision, bytes: &[u8], i: usize) -> f64 {
    match (precision, &bytes[i * precision.bytes()..][..precision.bytes()]) {
        (Precision::Bf16, &[low, high]) => bf16::from_le_bytes([low, high]).to_f64(),
        (Precision::F16, &[low, high]) => f16::from_le_bytes([low, high]).to_f64(),
        (_, four) => f64::from(bytemuck::pod_read_unaligned::<f32>(four)),
    }
}

/// A buffer that holds these bytes.
fn put<D: Device>(device: &mut D, bytes: &[u8]) -> Result<D::Buffer> {
    let mut buffer = device.alloc(bytes.len())?;
    device.upload(&mut buffer, 0, bytes)?;
    Ok(buffer)
}
