//! The loops around the GEMM tile: cache blocking and packing of B, after Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication" (2008), with A left in place.
//!
//! A is read through its strides: a tile needs 6 broadcasts a step, which come from at most 6 cache lines that the next
//! steps use again, so packing A would save little at few-shot sizes. B is packed when it must be transposed, or when
//! it is reused by enough rows to pay for the copy.

use super::contract::{Epilogue, Gemm, Tile};
use crate::dtype::Element;

/// Pointers and strides of one product C = op(A) op(B): element (i, p) of op(A) at `a + i * a_rs + p * a_cs`, element
/// (p, j) of op(B) at `b + p * b_rs + j * b_cs`.
#[derive(Clone, Copy)]
pub(crate) struct GemmOperands<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub a_rs: usize,
    pub a_cs: usize,
    pub b: *const T,
    pub b_rs: usize,
    pub b_cs: usize,
    pub c: *mut T,
    pub c_rs: usize,
    pub epilogue: Epilogue<T>,
}

/// Elements of packing space [`gemm`] needs for any product with at most `n` columns and a reduction of at most `k`.
pub(crate) fn pack_len<T>(gemm: &Gemm<T>, n: usize, k: usize) -> usize {
    gemm.kc.min(k) * gemm.nc.min(n.next_multiple_of(gemm.nr))
}

/// Rows of A from which packing an untransposed B pays: its copy is then a few percent of the work.
const ROWS_THAT_PAY_FOR_PACKING: usize = 64;

/// One product on the calling thread.
///
/// # Safety
/// The kernels' instruction set is there; all elements the formula names are valid; C overlaps nothing else; `pack`
/// holds at least [`pack_len`] elements.
pub(crate) unsafe fn gemm<T: Element>(kernel: &Gemm<T>, g: &GemmOperands<T>, pack: &mut [T]) {
    if g.m == 0 || g.n == 0 {
        return;
    }
    let packed = g.b_cs != 1 || (g.m >= ROWS_THAT_PAY_FOR_PACKING && g.n > kernel.nr);
    let mut j0 = 0;
    while j0 < g.n {
        let nc = kernel.nc.min(g.n - j0);
        let mut p0 = 0;
        loop {
            let kc = kernel.kc.min(g.k - p0);
            let epilogue = block_epilogue(g, p0, kc, j0);
            // Wrapping: with k = 0 a column of B may begin behind its end, and is not read.
            let b = g.b.wrapping_add(p0 * g.b_rs + j0 * g.b_cs);
            let (a, c) = (g.a.wrapping_add(p0 * g.a_cs), g.c.wrapping_add(j0));
            let block = GemmOperands { n: nc, k: kc, a, b, c, epilogue, ..*g };
            // SAFETY: p0 + kc <= k and j0 + nc <= n, so the block's operands are part of the caller's.
            unsafe {
                if packed {
                    pack_b(kernel.nr, &block, pack);
                    macro_kernel(kernel, &block, pack.as_ptr(), kernel.nr, kc * kernel.nr);
                } else {
                    macro_kernel(kernel, &block, b, g.b_rs, kernel.nr);
                }
            }
            p0 += kc;
            if p0 >= g.k {
                break;
            }
        }
        j0 += nc;
    }
}

/// The first block of the reduction applies the caller's beta, later ones add to it; the last applies bias and ReLU.
fn block_epilogue<T: Element>(g: &GemmOperands<T>, p0: usize, kc: usize, j0: usize) -> Epilogue<T> {
    let e = g.epilogue;
    let last = p0 + kc >= g.k;
    Epilogue {
        alpha: e.alpha,
        beta: if p0 == 0 { e.beta } else { T::ONE },
        bias: if last && !e.bias.is_null() { e.bias.wrapping_add(j0) } else { std::ptr::null() },
        relu: e.relu && last,
    }
}

/// Copies the block of B into panels of `nr` columns, each `k` x `nr` and contiguous, the last filled up with zeros.
///
/// # Safety
/// The block of B is readable; `pack` holds `k * n` elements, n rounded up to whole panels.
unsafe fn pack_b<T: Element>(nr: usize, g: &GemmOperands<T>, pack: &mut [T]) {
    for (panel, j0) in pack.chunks_exact_mut((g.k * nr).max(1)).zip((0..g.n).step_by(nr)) {
        let cols = nr.min(g.n - j0);
        if g.b_cs == 1 {
            for (p, dst) in panel.chunks_exact_mut(nr).enumerate() {
                // SAFETY: p < k and columns j0..j0 + cols lie below n.
                let src = unsafe { std::slice::from_raw_parts(g.b.add(p * g.b_rs + j0), cols) };
                dst[..cols].copy_from_slice(src);
                dst[cols..].fill(T::ZERO);
            }
            continue;
        }
        for j in 0..nr {
            for p in 0..g.k {
                // SAFETY: read only where j < cols: element (p, j0 + j) of B.
                let x = if j < cols { unsafe { *g.b.add(p * g.b_rs + (j0 + j) * g.b_cs) } } else { T::ZERO };
                panel[p * nr + j] = x;
            }
        }
    }
}

/// All tiles of a block: `mc` rows of A at a time, for each panel of B (in the first-level cache) all their tiles.
///
/// # Safety
/// As [`gemm`]; element (p, j) of panel q of B is at `b + q * panel_stride + p * b_rs + j`.
unsafe fn macro_kernel<T: Element>(
    kernel: &Gemm<T>,
    g: &GemmOperands<T>,
    b: *const T,
    b_rs: usize,
    panel_stride: usize,
) {
    for i0 in (0..g.m).step_by(kernel.mc) {
        let rows = kernel.mc.min(g.m - i0);
        for (panel, j0) in (0..g.n).step_by(kernel.nr).enumerate() {
            for i in (i0..i0 + rows).step_by(kernel.mr) {
                let bias = if g.epilogue.bias.is_null() { g.epilogue.bias } else { g.epilogue.bias.wrapping_add(j0) };
                let tile = Tile {
                    m: kernel.mr.min(i0 + rows - i),
                    n: kernel.nr.min(g.n - j0),
                    k: g.k,
                    a: g.a.wrapping_add(i * g.a_rs),
                    a_rs: g.a_rs,
                    a_cs: g.a_cs,
                    b: b.wrapping_add(panel * panel_stride),
                    b_rs,
                    c: g.c.wrapping_add(i * g.c_rs + j0),
                    c_rs: g.c_rs,
                    epilogue: Epilogue { bias, ..g.epilogue },
                };
                // SAFETY: the tile lies inside the block, whose operands the caller vouches for.
                unsafe { (kernel.tile)(&tile) };
            }
        }
    }
}
