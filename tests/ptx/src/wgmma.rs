//! `wgmma` (PTX ISA 9.7.15): products that run when they are waited for.
//!
//! A warp computes the 16 rows it owns. Until the wait its accumulators are *pending*: copies of them are deferred
//! too (compilers emit such moves around inline assembly), any other use is a missing wait.

use std::collections::{HashMap, VecDeque};

use crate::convert::element;
use crate::error::{Blame, FaultKind, Ran};
use crate::inst::{MmaShape, Slot};
use crate::matrix::{a_matrix, dot};
use crate::shared::Shared;
use crate::types::{bits_of, f32_of};
use crate::warp::Lanes;

/// Where A comes from.
#[derive(Debug)]
pub(crate) enum Left {
    Descriptor(u64),
    Registers(Vec<Lanes>),
}

/// A product with its operands captured.
#[derive(Debug)]
pub(crate) struct Product {
    pub shape: MmaShape,
    pub d: Vec<Slot>,
    pub a: Left,
    pub b: u64,
    /// Whether A's rows and B's columns lie side by side in memory ("MN-major"), instead of each along K.
    pub transposed: [bool; 2],
    /// Whether D's old values count.
    pub accumulate: bool,
    pub negate: bool,
}

#[derive(Debug)]
enum Deferred {
    Product(Product),
    Copy { d: Slot, a: Slot },
}

/// A warp's deferred operations, each with the number of groups committed before it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ops: VecDeque<(u32, Deferred)>,
    committed: u32,
    pending: HashMap<Slot, u32>,
    fenced: bool,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn is_pending(&self, slot: Slot) -> bool {
        self.pending.contains_key(&slot)
    }

    pub fn copy(&mut self, d: Slot, a: Slot) {
        *self.pending.entry(d).or_default() += 1;
        self.ops.push_back((self.committed, Deferred::Copy { d, a }));
    }

    /// `wgmma.fence`: the first product needs one before it.
    pub fn fence(&mut self) {
        self.fenced = true;
    }

    /// Defers a product; its operands must be readable already.
    pub fn product(&mut self, warp: u16, p: Product, shared: &mut Shared) -> Ran {
        if !self.fenced {
            return Err(Blame::new(FaultKind::MissingFence, "a wgmma before any wgmma.fence"));
        }
        p.operands(warp, shared)?;
        for &slot in &p.d {
            *self.pending.entry(slot).or_default() += 1;
        }
        self.ops.push_back((self.committed, Deferred::Product(p)));
        Ok(())
    }

    pub fn commit(&mut self) {
        self.committed += 1;
    }

    /// Runs all but the last `pending` groups.
    pub fn wait(&mut self, pending: u32, warp: u16, registers: &mut [Lanes], shared: &mut Shared) -> Ran {
        while let Some((group, _)) = self.ops.front() {
            if group + pending >= self.committed {
                // A move after the last commit belongs to the products it copies from.
                let idle = self.ops.iter().all(|(_, op)| matches!(op, Deferred::Copy { .. }));
                if !idle {
                    break;
                }
            }
            let Some((_, op)) = self.ops.pop_front() else { break };
            match op {
                Deferred::Copy { d, a } => {
                    registers[d as usize] = registers[a as usize];
                    self.done(d);
                }
                Deferred::Product(p) => {
                    p.run(warp, registers, shared)?;
                    p.d.iter().for_each(|&slot| self.done(slot));
                }
            }
        }
        Ok(())
    }

    fn done(&mut self, slot: Slot) {
        if let Some(n) = self.pending.get_mut(&slot) {
            *n -= 1;
            if *n == 0 {
                self.pending.remove(&slot);
            }
        }
    }
}

impl Product {
    /// `a[16][k]` of this warp and `b[n][k]`.
    fn operands(&self, warp: u16, shared: &mut Shared) -> Ran<(Vec<f32>, Vec<f32>)> {
        let k = self.shape.k as usize;
        let a = match &self.a {
            Left::Descriptor(d) => self.rows(*d, self.transposed[0], 16 * (warp as usize % 4), 16, warp, shared)?,
            Left::Registers(words) => a_matrix(self.shape.ty, k, words),
        };
        Ok((a, self.rows(self.b, self.transposed[1], 0, self.shape.n as usize, warp, shared)?))
    }

    /// Rows `first..first + n` of A (columns of B), each with its `k` elements. Memory is read by 16 bytes: two for each row
    /// along K, or one for 8 rows at each of the 16 places along K.
    fn rows(
        &self,
        descriptor: u64,
        transposed: bool,
        first: usize,
        n: usize,
        warp: u16,
        shared: &mut Shared,
    ) -> Ran<Vec<f32>> {
        let (size, k) = (self.shape.ty.bytes() as usize, self.shape.k as usize);
        let mut out = vec![0.0; n * k];
        let (lines, chunks) = if transposed { (0..k, first / 8..(first + n) / 8) } else { (first..first + n, 0..2) };
        for (line, chunk) in lines.flat_map(|line| chunks.clone().map(move |chunk| (line, chunk))) {
            let mut data = [0; 16];
            let place = if transposed { mn_major_address } else { k_major_address };
            shared.load_async(warp, place(descriptor, line as u64, chunk as u64)?, &mut data)?;
            for (i, e) in data.chunks_exact(size).enumerate() {
                let mut word = [0; 4];
                word[..size].copy_from_slice(e);
                let at = match transposed {
                    true => (8 * chunk + i - first) * k + line,
                    false => (line - first) * k + chunk * (16 / size) + i,
                };
                out[at] = element(self.shape.ty, u32::from_le_bytes(word));
            }
        }
        Ok(out)
    }

    fn run(&self, warp: u16, registers: &mut [Lanes], shared: &mut Shared) -> Ran {
        let k = self.shape.k as usize;
        let (a, b) = self.operands(warp, shared)?;
        let sign = if self.negate { -1.0 } else { 1.0 };
        for (i, &slot) in self.d.iter().enumerate() {
            for (lane, x) in registers[slot as usize].iter_mut().enumerate() {
                // Register i: row g + 8 (i/2 % 2), column 8 (i/4) + 2t + i%2.
                let (row, column) = (lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2);
                let c = if self.accumulate { f64::from(f32_of(*x)) } else { 0.0 };
                *x = bits_of((c + sign * dot(&a[row * k..][..k], &b[column * k..][..k], 0.0)) as f32);
            }
        }
        Ok(())
    }
}

/// A matrix descriptor (PTX ISA 9.7.15.5.1): bits 0..14 start, 16..30 leading and 32..46 stride offset, all in units of 16
/// bytes; 62..64 the swizzle.
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    /// Bytes of a swizzled line; 16 without swizzle.
    width: u64,
}

impl Descriptor {
    fn of(bits: u64) -> Ran<Self> {
        let field = |at: u32| (bits >> at & 0x3fff) * 16;
        if bits >> 49 & 7 != 0 {
            return Err(Blame::new(FaultKind::Misaligned, "a wgmma descriptor with a base offset is not supported"));
        }
        let width = [16, 128, 64, 32][(bits >> 62) as usize];
        Ok(Self { start: field(0), leading: field(16), stride: field(32), width })
    }

    /// Bits of an address from 4 on are XORed with those from 7 on, as many as a line has chunks.
    fn swizzled(&self, offset: u64) -> u64 {
        let address = self.start + offset;
        address ^ (address >> 3 & (self.width - 16))
    }
}

/// Where the 16 bytes `chunk` of a row lie. Swizzled lines are a row's, 8 of them together, the next 8 a stride on. Without
/// swizzle 8 rows of 16 bytes lie together; the next 16 bytes of a row follow a leading offset on.
fn k_major_address(descriptor: u64, row: u64, chunk: u64) -> Ran<u64> {
    let d = Descriptor::of(descriptor)?;
    let along = if d.width == 16 { chunk * d.leading } else { chunk * 16 };
    Ok(d.swizzled(row / 8 * d.stride + row % 8 * d.width + along))
}

/// Where rows `8 chunk .. 8 chunk + 8` lie at place `k` along K. Swizzled lines hold as many rows as fit, at one k; 8 k lie
/// together, the next 8 a stride on, the next rows a leading offset. Without swizzle the two offsets have changed places.
fn mn_major_address(descriptor: u64, k: u64, chunk: u64) -> Ran<u64> {
    let d = Descriptor::of(descriptor)?;
    let (rows_on, k_on) = if d.width == 16 { (d.stride, d.leading) } else { (d.leading, d.stride) };
    let across = d.width / 16;
    Ok(d.swizzled(chunk / across * rows_on + chunk % across * 16 + k / 8 * k_on + k % 8 * d.width))
}
