//! The sums of a whole GEMM tile, rows by two vectors, in assembly.
//!
//! A step takes 2 loads of B, and for each row 1 broadcast of A and 2 FMAs: 20 instructions for 6 rows, whose 12 FMAs last 6
//! cycles. Packed operands lie at constant distances: four steps go between two jumps, which leaves 21 instructions a step
//! where a loop over steps has 24, and one to three prefetches of A, whose block comes from the second-level
//! cache.

use std::arch::asm;
use std::arch::x86_64::{__m256, __m256d, _mm256_setzero_pd, _mm256_setzero_ps};

use crate::cpu::contract::Tile;

/// A register of AVX2 or AVX-512, two of which are as wide as a tile.
pub trait Sums: Sized {
    /// The tile's element.
    type T;

    /// Adds all steps: `acc[i][v] += a[i, p] * b[p, v]`, p rising, each a fused multiply-add.
    ///
    /// # Safety
    /// The register's instruction set is there, with FMA; see [`Gemm::tile`](crate::cpu::contract::Gemm::tile); M is `t.m`, at
    /// most the rows of its table's tile, and `t.n` is two vectors.
    unsafe fn sum<const M: usize>(t: &Tile<Self::T>, acc: &mut [[Self; 2]; M]);
}

/// Sums that pack B.
pub trait PackingSums: Sums {
    /// [`Sums::sum`], which writes each step's two vectors of B from `to` on: two stores more a step, which the FMAs leave room for.
    ///
    /// # Safety
    /// As [`Sums::sum`]; see [`Gemm::packing_tile`](crate::cpu::contract::Gemm::packing_tile).
    unsafe fn sum_packing<const M: usize>(t: &Tile<Self::T>, to: *mut Self::T, acc: &mut [[Self; 2]; M]);
}

/// One row's part of a step, if there are as many rows.
#[rustfmt::skip]
macro_rules! row {
    ($i:literal, $sum0:literal, $sum1:literal, $kind:literal, $at:expr) => {
        concat!(
            ".if {m} > ", $i, "\n",
            "vbroadcasts", $kind, " {x}, [{a} + ", $at, "]\n",
            "vfmadd231p", $kind, " ", $sum0, ", {x}, {b0}\n",
            "vfmadd231p", $kind, " ", $sum1, ", {x}, {b1}\n",
            ".endif\n"
        )
    };
}

/// One step of all rows, `b` bytes behind the step's start; where row i's element of A is.
#[rustfmt::skip]
macro_rules! step {
    ($kind:literal, $b:expr, $at0:expr, $at1:expr, $at2:expr, $at3:expr, $at4:expr, $at5:expr) => {
        concat!(
            "vmovup", $kind, " {b0}, [{b} + ", $b, "]\n",
            "vmovup", $kind, " {b1}, [{b} + ", $b, " + 32]\n",
            row!(0, "{c0}", "{d0}", $kind, $at0),
            row!(1, "{c1}", "{d1}", $kind, $at1),
            row!(2, "{c2}", "{d2}", $kind, $at2),
            row!(3, "{c3}", "{d3}", $kind, $at3),
            row!(4, "{c4}", "{d4}", $kind, $at4),
            row!(5, "{c5}", "{d5}", $kind, $at5)
        )
    };
}

/// Step q of a packed A: its rows' elements lie one behind the other.
macro_rules! packed_step {
    ($kind:literal, $size:literal, $q:literal) => {
        step!(
            $kind,
            concat!("64*", $q),
            concat!($size, "*({m}*", $q, ")"),
            concat!($size, "*({m}*", $q, "+1)"),
            concat!($size, "*({m}*", $q, "+2)"),
            concat!($size, "*({m}*", $q, "+3)"),
            concat!($size, "*({m}*", $q, "+4)"),
            concat!($size, "*({m}*", $q, "+5)")
        )
    };
}

/// Asks for the line of A so many bytes ahead, if a pass takes more than `from` bytes (`benches/README.md`, "Two builds in one
/// program").
macro_rules! ask {
    ($ahead:literal, $from:literal) => {
        concat!(".if 4*{step} > ", $from, "\n", "prefetcht0 [{a} + ", $ahead, "]\n", ".endif")
    };
}

/// A loop of `passes` around the steps of one pass, and how far A and B then move, in bytes; what `moves` beside them the steps
/// move themselves. It begins at a cache line: where
/// the compiler had put the same instructions across lines by chance, a small product took up to a fifth longer on a loaded
/// machine (`benches/README.md`, "Where the tile's loop begins").
macro_rules! sum {
    ($acc:ident, $m:ident, $zero:ident, $passes:expr, [$($step:expr),*], $a:ident += $a_next:literal, $b:ident += $b_next:literal,
     const { $($constant:ident = $value:expr),* }, in { $($register:ident),* } $(, moves { $moved:ident })?) => {{
        let mut c = [[$zero(); 2]; 6];
        c[..$m].copy_from_slice($acc);
        // SAFETY: reads the elements of A and B, and writes those of the packed panel, that the contract names; behind the last pass
        // the pointers read and write nothing.
        unsafe {
            asm!(
                "test {n}, {n}",
                "jz 3f",
                ".p2align 6",
                "2:",
                $($step,)*
                concat!("add {a}, ", $a_next),
                concat!("add {b}, ", $b_next),
                "dec {n}",
                "jnz 2b",
                "3:",
                m = const $m,
                n = inout(reg) $passes => _,
                a = inout(reg) $a,
                b = inout(reg) $b,
                $($constant = const $value,)*
                $($register = in(reg) $register,)*
                $($moved = inout(reg) $moved => _,)?
                x = out(ymm_reg) _,
                b0 = out(ymm_reg) _,
                b1 = out(ymm_reg) _,
                c0 = inout(ymm_reg) c[0][0],
                d0 = inout(ymm_reg) c[0][1],
                c1 = inout(ymm_reg) c[1][0],
                d1 = inout(ymm_reg) c[1][1],
                c2 = inout(ymm_reg) c[2][0],
                d2 = inout(ymm_reg) c[2][1],
                c3 = inout(ymm_reg) c[3][0],
                d3 = inout(ymm_reg) c[3][1],
                c4 = inout(ymm_reg) c[4][0],
                d4 = inout(ymm_reg) c[4][1],
                c5 = inout(ymm_reg) c[5][0],
                d5 = inout(ymm_reg) c[5][1],
                options(nostack),
            );
        }
        $acc.copy_from_slice(&c[..$m]);
    }};
}

macro_rules! sums {
    ($t:ty, $vector:ty, $kind:literal, $size:literal, $zero:ident) => {
        impl Sums for $vector {
            type T = $t;

            #[inline]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn sum<const M: usize>(t: &Tile<$t>, acc: &mut [[$vector; 2]; M]) {
                let (mut a, mut b, mut k) = (t.a, t.b, t.k);
                if (t.a_rs, t.a_cs, t.b_rs) == (1, M, 64 / $size) {
                    sum!(
                        acc, M, $zero, k / 4,
                        [packed_step!($kind, $size, 0), ask!("512", "0"), packed_step!($kind, $size, 1),
                         ask!("576", "64"), packed_step!($kind, $size, 2), ask!("640", "128"),
                         packed_step!($kind, $size, 3)],
                        a += "4*{step}", b += "256",
                        const { step = $size * M }, in {}
                    );
                    k %= 4;
                }
                // A stride of which there is one row only may be any number.
                let bytes = |stride: usize, times: usize| stride.wrapping_mul($size * times);
                let (a_next, b_next) = (bytes(t.a_cs, 1), bytes(t.b_rs, 1));
                if t.a_rs == 1 {
                    sum!(
                        acc, M, $zero, k,
                        [step!($kind, "0", "0", "1*{e}", "2*{e}", "3*{e}", "4*{e}", "5*{e}")],
                        a += "{a_next}", b += "{b_next}",
                        const { e = $size }, in { a_next, b_next }
                    );
                } else {
                    let (row, row3, row5) = (bytes(t.a_rs, 1), bytes(t.a_rs, 3), bytes(t.a_rs, 5));
                    sum!(
                        acc, M, $zero, k,
                        [step!($kind, "0", "0", "{row}", "2*{row}", "{row3}", "4*{row}", "{row5}")],
                        a += "{a_next}", b += "{b_next}",
                        const {}, in { row, row3, row5, a_next, b_next }
                    );
                }
                let _ = (a, b);
            }
        }

        impl PackingSums for $vector {
            #[inline]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn sum_packing<const M: usize>(t: &Tile<$t>, to: *mut $t, acc: &mut [[$vector; 2]; M]) {
                let (mut a, mut b) = (t.a, t.b);
                let bytes = |stride: usize, times: usize| stride.wrapping_mul($size * times);
                let (a_next, b_next) = (bytes(t.a_cs, 1), bytes(t.b_rs, 1));
                let (row, row3, row5) = (bytes(t.a_rs, 1), bytes(t.a_rs, 3), bytes(t.a_rs, 5));
                // A later panel's part of each row is asked for, as copies do (`pack`).
                sum!(
                    acc, M, $zero, t.k,
                    [step!($kind, "0", "0", "{row}", "2*{row}", "{row3}", "4*{row}", "{row5}"),
                     concat!("vmovup", $kind, " [{to}], {b0}"), concat!("vmovup", $kind, " [{to} + 32], {b1}"),
                     "add {to}, 64", "prefetcht0 [{b} + 256]"],
                    a += "{a_next}", b += "{b_next}",
                    const {}, in { row, row3, row5, a_next, b_next }, moves { to }
                );
                let _ = (a, b);
            }
        }
    };
}

sums!(f32, __m256, "s", 4, _mm256_setzero_ps);
sums!(f64, __m256d, "d", 8, _mm256_setzero_pd);
