//! The sums of a whole GEMM tile, rows by two vectors, in assembly.
//!
//! A step takes 2 loads of B and, for each row, 2 FMAs; every third row has a broadcast of A of its own, the others have theirs
//! embedded in both FMAs, an instruction less for a load more. So it is 35 instructions and 25 loads for 14 rows, whose 28 FMAs
//! last 14 cycles. With a broadcast for each row it would be 44 instructions, with the loop's end 3.4 a cycle: more than a core
//! gives to each of two threads that share its front end (`benches/README.md`, "The front end of a shared core"). Rows any
//! distance apart have indexed addresses, with which an FMA that loads counts as two, so each row has its broadcast there. Where
//! steps lie at constant distances, two go between two jumps.

use std::arch::asm;
use std::arch::x86_64::{__m512, __m512d, _mm512_setzero_pd, _mm512_setzero_ps};

use crate::cpu::avx2::Sums;
use crate::cpu::contract::Tile;

/// A row's part of a step, if there are as many rows: its element of A broadcast into a register.
#[rustfmt::skip]
macro_rules! loaded {
    ($i:literal, $sum0:literal, $sum1:literal, $t:tt, $at:expr) => {
        concat!(
            ".if {m} > ", $i, "\n",
            "vbroadcasts", kind!($t), " {x}, [", $at, "]\n",
            "vfmadd231p", kind!($t), " ", $sum0, ", {x}, {b0}\n",
            "vfmadd231p", kind!($t), " ", $sum1, ", {x}, {b1}\n",
            ".endif\n"
        )
    };
}

/// The same with the broadcast in either multiply-add.
#[rustfmt::skip]
macro_rules! embedded {
    ($i:literal, $sum0:literal, $sum1:literal, $t:tt, $at:expr) => {
        concat!(
            ".if {m} > ", $i, "\n",
            "vfmadd231p", kind!($t), " ", $sum0, ", {b0}, ", to_all!($t, $at), "\n",
            "vfmadd231p", kind!($t), " ", $sum1, ", {b1}, ", to_all!($t, $at), "\n",
            ".endif\n"
        )
    };
}

/// The letter of an instruction for elements of a type.
#[rustfmt::skip]
macro_rules! kind {
    (f32) => { "s" };
    (f64) => { "d" };
}

/// An element in memory, for all lanes.
#[rustfmt::skip]
macro_rules! to_all {
    (f32, $at:expr) => { concat!("dword ptr [", $at, "]{{1to16}}") };
    (f64, $at:expr) => { concat!("qword ptr [", $at, "]{{1to8}}") };
}

/// One step of all rows, its part of B `b` bytes behind the place of the pass; how two of three rows take their element of A, and
/// where row i's is.
#[rustfmt::skip]
macro_rules! step {
    ($t:tt, $most:ident, $b:expr, $at0:expr, $at1:expr, $at2:expr, $at3:expr, $at4:expr, $at5:expr, $at6:expr,
     $at7:expr, $at8:expr, $at9:expr, $at10:expr, $at11:expr, $at12:expr, $at13:expr) => {
        concat!(
            "vmovup", kind!($t), " {b0}, [{b} + ", $b, "]\n",
            "vmovup", kind!($t), " {b1}, [{b} + ", $b, " + 64]\n",
            loaded!(0, "{c0}", "{d0}", $t, $at0),
            $most!(1, "{c1}", "{d1}", $t, $at1),
            $most!(2, "{c2}", "{d2}", $t, $at2),
            loaded!(3, "{c3}", "{d3}", $t, $at3),
            $most!(4, "{c4}", "{d4}", $t, $at4),
            $most!(5, "{c5}", "{d5}", $t, $at5),
            loaded!(6, "{c6}", "{d6}", $t, $at6),
            $most!(7, "{c7}", "{d7}", $t, $at7),
            $most!(8, "{c8}", "{d8}", $t, $at8),
            loaded!(9, "{c9}", "{d9}", $t, $at9),
            $most!(10, "{c10}", "{d10}", $t, $at10),
            $most!(11, "{c11}", "{d11}", $t, $at11),
            loaded!(12, "{c12}", "{d12}", $t, $at12),
            $most!(13, "{c13}", "{d13}", $t, $at13)
        )
    };
}

/// Step q of a packed A: its rows' elements lie one behind the other.
#[rustfmt::skip]
macro_rules! packed_step {
    ($t:tt, $q:literal) => {
        step!(
            $t, embedded, concat!("128*", $q),
            concat!("{a} + {e}*({m}*", $q, "+0)"),
            concat!("{a} + {e}*({m}*", $q, "+1)"),
            concat!("{a} + {e}*({m}*", $q, "+2)"),
            concat!("{a} + {e}*({m}*", $q, "+3)"),
            concat!("{a} + {e}*({m}*", $q, "+4)"),
            concat!("{a} + {e}*({m}*", $q, "+5)"),
            concat!("{a} + {e}*({m}*", $q, "+6)"),
            concat!("{a} + {e}*({m}*", $q, "+7)"),
            concat!("{a} + {e}*({m}*", $q, "+8)"),
            concat!("{a} + {e}*({m}*", $q, "+9)"),
            concat!("{a} + {e}*({m}*", $q, "+10)"),
            concat!("{a} + {e}*({m}*", $q, "+11)"),
            concat!("{a} + {e}*({m}*", $q, "+12)"),
            concat!("{a} + {e}*({m}*", $q, "+13)")
        )
    };
}

/// A step whose rows lie any distance apart, its elements of A `a` bytes behind the place of the pass, its part of B there.
#[rustfmt::skip]
macro_rules! far_step {
    ($t:tt, $a:literal) => {
        step!(
            $t, loaded, "0",
            concat!("{a} + ", $a),
            concat!("{a} + {row} + ", $a),
            concat!("{a} + 2*{row} + ", $a),
            concat!("{a} + {row3} + ", $a),
            concat!("{a} + 4*{row} + ", $a),
            concat!("{a} + {row5} + ", $a),
            concat!("{a} + 2*{row3} + ", $a),
            concat!("{a7} + ", $a),
            concat!("{a7} + {row} + ", $a),
            concat!("{a7} + 2*{row} + ", $a),
            concat!("{a7} + {row3} + ", $a),
            concat!("{a7} + 4*{row} + ", $a),
            concat!("{a7} + {row5} + ", $a),
            concat!("{a7} + 2*{row3} + ", $a)
        )
    };
}

/// A loop of `passes` around the steps of one pass, and how far A and B then move, in bytes. It begins at a cache line.
macro_rules! sum {
    ($acc:ident, $m:ident, $zero:ident, $passes:expr, [$($step:expr),*], [$($next:literal),*],
     const { $($constant:ident = $value:expr),* }, in { $($register:ident),* }, moved { $($moved:ident),* }) => {{
        let mut c = [[$zero(); 2]; 14];
        c[..$m].copy_from_slice($acc);
        // SAFETY: reads the elements of A and B that the contract names; behind the last pass the pointers read nothing.
        unsafe {
            asm!(
                "test {n}, {n}",
                "jz 3f",
                ".p2align 6",
                "2:",
                $($step,)*
                $($next,)*
                "dec {n}",
                "jnz 2b",
                "3:",
                m = const $m,
                n = inout(reg) $passes => _,
                $($constant = const $value,)*
                $($register = in(reg) $register,)*
                $($moved = inout(reg) $moved,)*
                x = out(zmm_reg) _,
                b0 = out(zmm_reg) _,
                b1 = out(zmm_reg) _,
                c0 = inout(zmm_reg) c[0][0],
                d0 = inout(zmm_reg) c[0][1],
                c1 = inout(zmm_reg) c[1][0],
                d1 = inout(zmm_reg) c[1][1],
                c2 = inout(zmm_reg) c[2][0],
                d2 = inout(zmm_reg) c[2][1],
                c3 = inout(zmm_reg) c[3][0],
                d3 = inout(zmm_reg) c[3][1],
                c4 = inout(zmm_reg) c[4][0],
                d4 = inout(zmm_reg) c[4][1],
                c5 = inout(zmm_reg) c[5][0],
                d5 = inout(zmm_reg) c[5][1],
                c6 = inout(zmm_reg) c[6][0],
                d6 = inout(zmm_reg) c[6][1],
                c7 = inout(zmm_reg) c[7][0],
                d7 = inout(zmm_reg) c[7][1],
                c8 = inout(zmm_reg) c[8][0],
                d8 = inout(zmm_reg) c[8][1],
                c9 = inout(zmm_reg) c[9][0],
                d9 = inout(zmm_reg) c[9][1],
                c10 = inout(zmm_reg) c[10][0],
                d10 = inout(zmm_reg) c[10][1],
                c11 = inout(zmm_reg) c[11][0],
                d11 = inout(zmm_reg) c[11][1],
                c12 = inout(zmm_reg) c[12][0],
                d12 = inout(zmm_reg) c[12][1],
                c13 = inout(zmm_reg) c[13][0],
                d13 = inout(zmm_reg) c[13][1],
                options(nostack, readonly),
            );
        }
        $acc.copy_from_slice(&c[..$m]);
    }};
}

macro_rules! sums {
    ($t:tt, $vector:ty, $zero:ident) => {
        impl Sums for $vector {
            type T = $t;

            #[inline]
            #[target_feature(enable = "avx512f")]
            unsafe fn sum<const M: usize>(t: &Tile<$t>, acc: &mut [[$vector; 2]; M]) {
                const SIZE: usize = size_of::<$t>();
                let (mut a, mut b, mut k) = (t.a, t.b, t.k);
                if (t.a_rs, t.a_cs, t.b_rs) == (1, M, 128 / SIZE) {
                    sum!(
                        acc, M, $zero, k / 2,
                        [packed_step!($t, 0), packed_step!($t, 1)], ["add {a}, 2*{e}*{m}", "add {b}, 256"],
                        const { e = SIZE }, in {}, moved { a, b }
                    );
                    k %= 2;
                }
                // A stride of which there is one row only may be any number.
                let bytes = |stride: usize, times: usize| stride.wrapping_mul(SIZE * times);
                let (a_next, b_next) = (bytes(t.a_cs, 1), bytes(t.b_rs, 1));
                if t.a_rs == 1 {
                    sum!(
                        acc, M, $zero, k,
                        [step!(
                            $t, embedded, "0",
                            "{a} + 0*{e}", "{a} + 1*{e}", "{a} + 2*{e}", "{a} + 3*{e}", "{a} + 4*{e}", "{a} + 5*{e}", "{a} + 6*{e}",
                            "{a} + 7*{e}", "{a} + 8*{e}", "{a} + 9*{e}", "{a} + 10*{e}", "{a} + 11*{e}", "{a} + 12*{e}", "{a} + 13*{e}"
                        )],
                        ["add {a}, {a_next}", "add {b}, {b_next}"],
                        const { e = SIZE }, in { a_next, b_next }, moved { a, b }
                    );
                } else {
                    let (row, row3, row5) = (bytes(t.a_rs, 1), bytes(t.a_rs, 3), bytes(t.a_rs, 5));
                    let mut a7 = a.wrapping_byte_add(bytes(t.a_rs, 7));
                    if t.a_cs == 1 {
                        sum!(
                            acc, M, $zero, k / 2,
                            [far_step!($t, "0"), "add {b}, {b_next}", far_step!($t, "{e}")],
                            ["add {a}, 2*{e}", "add {a7}, 2*{e}", "add {b}, {b_next}"],
                            const { e = SIZE }, in { row, row3, row5, b_next }, moved { a, a7, b }
                        );
                        k %= 2;
                    }
                    sum!(
                        acc, M, $zero, k, [far_step!($t, "0")],
                        ["add {a}, {a_next}", "add {a7}, {a_next}", "add {b}, {b_next}"],
                        const {}, in { row, row3, row5, a_next, b_next }, moved { a, a7, b }
                    );
                    let _ = a7;
                }
                let _ = (a, b);
            }
        }
    };
}

sums!(f32, __m512, _mm512_setzero_ps);
sums!(f64, __m512d, _mm512_setzero_pd);
