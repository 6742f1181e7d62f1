//! GEMM tile and packing, reference: one accumulator an element, the reduction in rising order.

use crate::cpu::contract::{FewDots, Gemm, Panel, Thin, Tile};
use crate::dtype::{Element, Stored};

/// Single precision.
pub const F32_4X8: Gemm<f32> = Gemm {
    name: "f32_gemm_4x8",
    mr: 4,
    nr: 8,
    lanes: 1,
    mc: 64,
    kc: 256,
    nc: 512,
    packs_b_from: 48,
    tile: tile::<f32>,
    packing_tile: None,
    pack: pack::<f32, f32>,
};
/// Double precision.
pub const F64_4X8: Gemm<f64> = Gemm {
    name: "f64_gemm_4x8",
    mr: 4,
    nr: 8,
    lanes: 1,
    mc: 64,
    kc: 256,
    nc: 256,
    packs_b_from: 48,
    tile: tile::<f64>,
    packing_tile: None,
    pack: pack::<f64, f64>,
};

/// # Safety
/// See [`Gemm::tile`].
unsafe fn tile<T: Element>(t: &Tile<T>) {
    let mut acc = [[T::ZERO; 8]; 4];
    if t.epilogue.chained {
        for (i, row) in acc.iter_mut().enumerate().take(t.m) {
            for (j, sum) in row.iter_mut().enumerate().take(t.n) {
                // SAFETY: i < m and j < n: this element of C is readable.
                *sum = unsafe { *t.c.add(i * t.c_rs + j) };
            }
        }
    }
    for p in 0..t.k {
        for (i, row) in acc.iter_mut().enumerate().take(t.m) {
            // SAFETY: i < m and p < k, so the contract makes this element of A readable.
            let a = unsafe { *t.a.add(i * t.a_rs + p * t.a_cs) };
            for (j, sum) in row.iter_mut().enumerate().take(t.n) {
                // SAFETY: p < k and j < n, so the contract makes this element of B readable.
                *sum += a * unsafe { *t.b.add(p * t.b_rs + j) };
            }
        }
    }
    for (i, row) in acc.iter().enumerate().take(t.m) {
        for (j, &sum) in row.iter().enumerate().take(t.n) {
            // SAFETY: i < m and j < n: this element of C is readable and writable.
            unsafe { store(t, i, j, sum) };
        }
    }
}

/// # Safety
/// Element (i, j) of C, the old values and the mask, and bias j are valid, as [`Gemm::tile`] asks.
unsafe fn store<T: Element>(t: &Tile<T>, i: usize, j: usize, sum: T) {
    let e = &t.epilogue;
    // SAFETY: the caller vouches for element (i, j) of each and bias j, if not null.
    unsafe {
        let c = t.c.add(i * t.c_rs + j);
        let kept = e.mask.is_null() || *e.mask.add(i * e.mask_rs + j) > T::ZERO;
        let mut x = if !kept && !e.mask_result { T::ZERO } else { e.alpha * sum };
        if e.beta != T::ZERO {
            x += e.beta * if e.old.is_null() { *c } else { *e.old.add(i * e.old_rs + j) };
        }
        if !e.bias.is_null() {
            x += *e.bias.add(j);
        }
        *c = if (e.relu && x <= T::ZERO) || (!kept && e.mask_result) { T::ZERO } else { x };
    }
}

/// # Safety
/// See [`FewColumns`](crate::cpu::contract::FewColumns).
pub unsafe fn few_columns<T: Element>(f: &FewDots<T>) {
    for i in 0..f.m {
        for j in 0..f.n {
            // SAFETY: i < m, j < n, p < k: the contract makes these elements valid.
            unsafe {
                let mut sum = T::ZERO;
                for (a, b) in f.a.iter().zip(&f.b).take(f.parts) {
                    for p in 0..f.k {
                        sum += *a.add(i * f.a_rs + p) * *b.add(j * f.b_rs + p);
                    }
                }
                let c = f.c.add(i * f.c_rs + j);
                let mut x = f.alpha * sum;
                if f.beta != T::ZERO {
                    x += f.beta * *c;
                }
                *c = if f.bias.is_null() { x } else { x + *f.bias.add(j) };
            }
        }
    }
}

/// # Safety
/// See [`ThinProduct`](crate::cpu::contract::ThinProduct).
pub unsafe fn thin<T: Element>(t: &Thin<T>) {
    for i in 0..t.m {
        for j in 0..t.n {
            // SAFETY: i < m, j < n, p < k, q < parts: the contract makes these elements valid.
            unsafe {
                let mut sum = T::ZERO;
                for (a, b) in t.a.iter().zip(&t.b).take(t.parts) {
                    for p in 0..t.k {
                        sum += *a.add(i * t.a_rs + p * t.a_cs) * *b.add(p * t.b_rs + j);
                    }
                }
                let c = t.c.add(i * t.c_rs + j);
                let kept = t.mask.is_null() || *t.mask.add(i * t.mask_rs + j) > T::ZERO;
                let x = if kept { t.alpha * sum } else { T::ZERO };
                *c = if t.adds { x + *c } else { x };
            }
        }
    }
}

/// # Safety
/// See [`Pack`](crate::cpu::contract::Pack).
pub unsafe fn pack<T: Element, S: Stored<T>>(panel: &Panel<T, S>) {
    for i in 0..panel.width {
        for p in 0..panel.k {
            // SAFETY: i < width and p < k: both elements are valid.
            unsafe { *panel.dst.add(p * panel.ds + i) = (*panel.src.add(i * panel.rs + p * panel.ps)).widen() };
        }
    }
}
