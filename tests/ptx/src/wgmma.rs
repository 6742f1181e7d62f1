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

    /// Defers a product; its operands must be readable already.
    pub fn product(&mut self, warp: u16, p: Product, shared: &mut Shared) -> Ran {
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
            Left::Descriptor(d) => self.rows(*d, 16 * (warp as usize % 4), 16, warp, shared)?,
            Left::Registers(words) => a_matrix(self.shape.ty, k, words),
        };
        Ok((a, self.rows(self.b, 0, self.shape.n as usize, warp, shared)?))
    }

    /// Rows `first..first + n` of a K-major operand in shared memory: 32 bytes each, two chunks of 16.
    fn rows(&self, descriptor: u64, first: usize, n: usize, warp: u16, shared: &mut Shared) -> Ran<Vec<f32>> {
        let size = self.shape.ty.bytes() as usize;
        let mut out = Vec::with_capacity(n * self.shape.k as usize);
        for row in first..first + n {
            for chunk in 0..2 {
                let mut data = [0; 16];
                shared.load(warp, chunk_address(descriptor, row as u64, chunk)?, &mut data)?;
                out.extend(data.chunks_exact(size).map(|e| {
                    let mut word = [0; 4];
                    word[..size].copy_from_slice(e);
                    element(self.shape.ty, u32::from_le_bytes(word))
                }));
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

/// Where 16 bytes of a row lie (PTX ISA 9.7.15.5.1, matrix descriptor): bits 0..14 start, 16..30 leading and 32..46
/// stride offset, all in units of 16 bytes; 62..64 the swizzle. Swizzled rows are 128, 64 or 32 bytes wide, 8 of them
/// a stride offset apart, and bits of the address from 4 on are XORed with those from 7 on. Without swizzle 8 rows of
/// 16 bytes lie together; the next 16 bytes of a row follow a leading offset on.
fn chunk_address(descriptor: u64, row: u64, chunk: u64) -> Ran<u64> {
    let field = |at: u32| (descriptor >> at & 0x3fff) * 16;
    let (start, leading, stride) = (field(0), field(16), field(32));
    if descriptor >> 49 & 7 != 0 {
        return Err(Blame::new(FaultKind::Misaligned, "a wgmma descriptor with a base offset is not supported"));
    }
    let (width, bits) = match descriptor >> 62 {
        0 => return Ok(start + row / 8 * stride + chunk * leading + row % 8 * 16),
        1 => (128, 0x70),
        2 => (64, 0x30),
        _ => (32, 0x10),
    };
    let address = start + row / 8 * stride + row % 8 * width + chunk * 16;
    Ok(address ^ (address >> 3 & bits))
}
