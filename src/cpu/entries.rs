//! The entries an instruction set gets by compiling shared code for itself: element-wise loops, which the compiler turns
//! into full-width vector code (intrinsics would only repeat the loop), and the kernels over [`Lanes`](super::lanes::Lanes).
//!
//! Passes over memory: `relu`, `relu_mask`, `axpby` read each operand once and write once; `sgd` reads g, v, w and writes
//! v, w; `adamw` reads g, m, v, w and writes m, v, w: the least that is possible, so out of cache they run at its speed.

/// Defines the entries for the instruction set named `$isa`, which the features `$features` enable.
macro_rules! entries {
    ($isa:literal, $features:literal) => {
        use $crate::cpu::contract::{AdamwStep, FewDots, FmaChains, Thin};
        use $crate::cpu::lanes::{self, Lanes};
        use $crate::cpu::scalar;
        use $crate::dtype::{Element, Stored};

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `FewColumns`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn few_columns<L: Lanes>(f: &FewDots<L::T>) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::few_columns::<L>(f) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `rank_update`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn rank_update<L: Lanes>(t: &Thin<L::T>) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::rank_update::<L>(t) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `few_rows`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn few_rows<L: Lanes>(t: &Thin<L::T>) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::few_rows::<L>(t) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `gather_sum`.")]
        #[target_feature(enable = $features)]
        #[expect(clippy::too_many_arguments, reason = "the contract's operands")]
        pub unsafe fn gather_sum<T: Element, S: Stored<T>>(
            len: usize,
            index: *const u32,
            weights: *const T,
            table: *const S,
            ld: usize,
            n: usize,
            init: *const T,
            dst: *mut T,
        ) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::gather_sum_loop::<T, S, true>(len, index, weights, table, ld, n, init, dst) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `relu`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn relu<T: Element>(n: usize, src: *const T, dst: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::relu_loop(n, src, dst) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `relu_mask`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn relu_mask<T: Element>(n: usize, a: *const T, d: *const T, dst: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::relu_mask_loop(n, a, d, dst) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `axpy`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn axpy<T: Element>(n: usize, alpha: T, x: *const T, y: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::axpy_loop::<T, true>(n, alpha, x, y) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `axpby`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn axpby<T: Element>(n: usize, alpha: T, x: *const T, beta: T, y: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::axpby_loop::<T, true>(n, alpha, x, beta, y) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `sgd`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn sgd<T: Element>(n: usize, lr: T, momentum: T, decay: T, g: *const T, v: *mut T, w: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::sgd_loop(n, lr, momentum, decay, g, v, w) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `adamw`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn adamw<T: Element>(n: usize, s: &AdamwStep<T>, g: *const T, m: *mut T, v: *mut T, w: *mut T) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { scalar::adamw_loop(n, s, g, m, v, w) }
        }

        #[doc = concat!("# Safety\n", $isa, " is there; see the contract's `col_sum`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn col_sum<L: Lanes>(
            m: usize,
            n: usize,
            alpha: L::T,
            src: *const L::T,
            ld: usize,
            beta: L::T,
            dst: *mut L::T,
        ) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::col_sum::<L>(m, n, alpha, src, ld, beta, dst) }
        }

        /// The contract's `fma_chains` in registers `L`.
        pub const fn chains<L: Lanes>() -> FmaChains<L::T> {
            FmaChains { count: lanes::CHAINS * L::N, run: fma_chains::<L> }
        }

        #[doc = concat!("# Safety\n", $isa, " is there.")]
        #[target_feature(enable = $features)]
        unsafe fn fma_chains<L: Lanes>(steps: usize, b: L::T, x: L::T) -> L::T {
            // SAFETY: the instructions are enabled here.
            unsafe { lanes::fma_chains::<L>(steps, b, x) }
        }

        #[doc = concat!("Rows in registers `S` where they fit into one, else in `L`.\n\n# Safety\n", $isa)]
        #[doc = "is there; see the contract's `softmax_xent`."]
        #[target_feature(enable = $features)]
        #[expect(clippy::too_many_arguments, reason = "the contract's operands")]
        pub unsafe fn softmax_xent<L: Lanes, S: Lanes<T = L::T>>(
            m: usize,
            n: usize,
            z: *const L::T,
            ld: usize,
            targets: *const u32,
            scale: L::T,
            p: *mut L::T,
            dz: *mut L::T,
        ) -> L::T {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::softmax_xent::<L, S>(m, n, z, ld, targets, scale, p, dz) }
        }

        #[doc = concat!("As `softmax_xent`.\n\n# Safety\n", $isa, " is there; see the contract's `softmax_xent_rop`.")]
        #[target_feature(enable = $features)]
        pub unsafe fn softmax_xent_rop<L: Lanes, S: Lanes<T = L::T>>(
            m: usize,
            n: usize,
            p: *const L::T,
            rz: *const L::T,
            scale: L::T,
            rdz: *mut L::T,
        ) {
            // SAFETY: the contract is passed on unchanged.
            unsafe { lanes::softmax_xent_rop::<L, S>(m, n, p, rz, scale, rdz) }
        }

        #[cfg(test)]
        mod tests {
            use super::{Lanes, lanes};

            #[target_feature(enable = $features)]
            fn exp<L: Lanes>(x: L::T) -> L::T {
                // SAFETY: the instructions are enabled here.
                unsafe { lanes::exp_nonpositive(L::splat(x)).largest() }
            }

            fn check<L: Lanes>(name: &str) {
                // SAFETY: the caller saw that the instructions are there.
                lanes::check_exponential::<L::T>(name, |x| unsafe { exp::<L>(x) });
            }

            #[test]
            fn the_exponential_is_off_by_less_than_one_unit_in_the_last_place() {
                if super::super::KERNELS.isa.kernels().is_none() {
                    eprintln!("skipped: this machine lacks {}", $isa);
                    return;
                }
                check::<super::super::Wide32>(concat!($isa, " f32"));
                check::<super::super::Wide64>(concat!($isa, " f64"));
            }
        }
    };
}

pub(crate) use entries;
