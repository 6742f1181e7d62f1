//! A lane's matrix products, and the choice of a kernel for each.

use super::operands::{Finish, Form, Mask, Product, check_product, lower, operands};
use super::ops::Lane;
use crate::cpu::contract::{FEW, FewDots, LOW_RANK, Ops, Thin, ThinProduct};
use crate::cpu::{GemmOperands, KernelElement, StoredElement, gemm, moved, part, symmetric_gemm};
use crate::error::Result;
use crate::view::{MatMut, MatRef};

/// Multiply-adds of vectors in whose time the lanes of a sum are added up, rounded up from what AVX2 and AVX-512 take
/// (`benches/README.md`, "A quiet machine").
const ADDING_UP: usize = 6;
/// Columns that a kernel of dot products takes at once where there are more than [`FEW`]: four rows of sums fit into 32 registers.
const DOTS_AT_ONCE: usize = 5;

/// Whether dot products take fewer multiply-adds of vectors than tiles, whose last vector of columns is cut: 20 columns fill 20
/// of 32 lanes, after a transposition.
fn dots_pay(lanes: usize, n: usize, k: usize) -> bool {
    n <= FEW || n * (k.div_ceil(lanes) + ADDING_UP) < n.div_ceil(lanes) * k
}

/// A product of form [`Form::Nt`], or the sum of two of equal sizes and strides, by dot products, [`FEW`] columns or fewer at a time.
///
/// # Safety
/// All elements the operands name are valid; C overlaps nothing else.
unsafe fn few_dots<T: KernelElement>(ops: &Ops<T>, g: &GemmOperands<T>, second: Option<&GemmOperands<T>>) {
    let e = &g.epilogue;
    let (parts, a, b) = second.map_or((1, std::ptr::null(), std::ptr::null()), |h| (2, h.a, h.b));
    let groups = if g.n <= FEW { 1 } else { g.n.div_ceil(DOTS_AT_ONCE) };
    for group in 0..groups {
        let columns = part(g.n, 1, groups, group);
        let row = |b: *const T| b.wrapping_add(columns.start * g.b_cs);
        let dots = FewDots {
            m: g.m,
            n: columns.len(),
            k: g.k,
            parts,
            a: [g.a, a],
            a_rs: g.a_rs,
            b: [row(g.b), row(b)],
            b_rs: g.b_cs,
            c: g.c.wrapping_add(columns.start),
            c_rs: g.c_rs,
            alpha: e.alpha,
            beta: e.beta,
            bias: moved(e.bias, columns.start),
        };
        // SAFETY: the caller's; columns of the product.
        unsafe { (ops.few_columns)(&dots) };
    }
}

/// The sum of `parts` such products as a thin one, with its kernel, if it is thin: of few steps or few rows, of rows without gaps, and
/// nothing is done with the result but scaling, a mask of the product, and adding it.
#[inline(always)]
fn thin<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    ops: &Ops<T>,
    g: &GemmOperands<T, A, B>,
    parts: usize,
) -> Option<(ThinProduct<T>, Thin<T>)> {
    let e = &g.epilogue;
    let few_steps = g.a_cs == 1 && (1..=LOW_RANK).contains(&(parts * g.k));
    // Not more steps than a block of the reduction: its sums are added to the result one after the other.
    let few_rows = g.a_rs == 1 && g.m <= FEW && parts * g.k <= ops.gemm.kc && e.mask.is_null();
    let as_stored = A::STORED == T::DTYPE && B::STORED == T::DTYPE && g.b_cs == 1;
    let plain = e.bias.is_null() && e.old.is_null() && !e.relu && !e.mask_result;
    if !(few_steps || few_rows) || !as_stored || !plain || (e.beta != T::ZERO && e.beta != T::ONE) {
        return None;
    }
    let product = if few_steps { ops.rank_update } else { ops.few_rows };
    let operands = Thin {
        m: g.m,
        n: g.n,
        k: g.k,
        parts,
        a: [g.a.cast(), std::ptr::null()],
        a_rs: g.a_rs,
        a_cs: g.a_cs,
        b: [g.b.cast(), std::ptr::null()],
        b_rs: g.b_rs,
        c: g.c,
        c_rs: g.c_rs,
        alpha: e.alpha,
        adds: e.beta == T::ONE,
        mask: e.mask,
        mask_rs: e.mask_rs,
    };
    Some((product, operands))
}

impl<T: KernelElement> Lane<T> {
    /// One of the three products with all that can be done to its result, which is written once. The shapes are those of
    /// [`Lane::gemm_nn`], [`Lane::gemm_nt`] and [`Lane::gemm_tn`]. An operand stored in f16 or bf16 is widened on the way: the
    /// result has the bits of the product of its widened copy.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where an operand's size does not match the others.
    pub fn product<A: StoredElement<T>, B: StoredElement<T>>(
        &mut self,
        form: Form,
        a: MatRef<A>,
        b: MatRef<B>,
        mut c: MatMut<T>,
        finish: Finish<T>,
    ) -> Result<()> {
        check_product(form, &a, &b, &c, &finish)?;
        let g = lower(form, &a, &b, &mut c, &finish);
        // SAFETY: the views are valid and their sizes were compared; `c` is borrowed mutably, so it overlaps nothing.
        unsafe { self.multiply(&g) };
        Ok(())
    }

    /// One product of a batch.
    ///
    /// # Safety
    /// [`Product::check`] passed it.
    pub(super) unsafe fn compute<A: StoredElement<T>, B: StoredElement<T>>(
        &mut self,
        form: Form,
        p: &mut Product<T, A, B>,
    ) {
        debug_assert!(p.check(form).is_ok());
        let g = lower(form, &p.a, &p.b, &mut p.c, &p.finish);
        // SAFETY: as in `product`; the caller compared the sizes.
        unsafe { self.multiply(&g) };
    }

    /// One product by the kernel that suits it.
    ///
    /// # Safety
    /// All elements the operands name are valid; C overlaps nothing else.
    #[inline(always)]
    pub(super) unsafe fn multiply<A: StoredElement<T>, B: StoredElement<T>>(&mut self, g: &GemmOperands<T, A, B>) {
        // SAFETY: the caller's; the table was handed out for this machine; the packing space holds the largest block.
        unsafe {
            match thin(self.ops, g, 1) {
                Some((product, operands)) => product(&operands),
                None => gemm(self.kernels, g, &mut self.pack),
            }
        }
    }

    /// `c = alpha * (a_0 b_0 + a_1 b_1)`, 0 where the `mask`, a ReLU's output, is not positive, `+ beta * c`: two products of one
    /// [`Form`] and of equal sizes.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where an operand's size does not match the others.
    pub fn product_pair(
        &mut self,
        form: Form,
        [first, second]: [(MatRef<T>, MatRef<T>); 2],
        alpha: T,
        mask: Option<MatRef<T>>,
        beta: T,
        mut c: MatMut<T>,
    ) -> Result<()> {
        let finish = Finish { mask: mask.map(Mask::Product), ..Finish::scaled(alpha, beta) };
        [first, second].iter().try_for_each(|(a, b)| check_product(form, a, b, &c, &finish))?;
        let g = lower(form, &first.0, &first.1, &mut c, &finish);
        let h = lower(form, &second.0, &second.1, &mut c, &Finish { beta: T::ONE, ..finish });
        // SAFETY: as for any product; a thin product of both has the strides of both.
        unsafe {
            match thin(self.ops, &g, 2) {
                Some((product, operands)) if (g.k, g.a_rs, g.a_cs, g.b_rs) == (h.k, h.a_rs, h.a_cs, h.b_rs) => {
                    product(&Thin { a: [g.a, h.a], b: [g.b, h.b], ..operands });
                }
                _ => [g, h].iter().for_each(|g| self.multiply(g)),
            }
        }
        Ok(())
    }

    /// `c = alpha * a b + beta * c` with a: m x k, b: k x n, c: m x n.
    pub fn gemm_nn(&mut self, alpha: T, a: MatRef<T>, b: MatRef<T>, beta: T, c: MatMut<T>) -> Result<()> {
        self.product(Form::Nn, a, b, c, Finish::scaled(alpha, beta))
    }

    /// `c = alpha * a b^T + beta * c` with a: m x k, b: n x k, c: m x n.
    pub fn gemm_nt(&mut self, alpha: T, a: MatRef<T>, b: MatRef<T>, beta: T, c: MatMut<T>) -> Result<()> {
        self.product(Form::Nt, a, b, c, Finish::scaled(alpha, beta))
    }

    /// `c = alpha * a^T b + beta * c` with a: k x m, b: k x n, c: m x n.
    pub fn gemm_tn(&mut self, alpha: T, a: MatRef<T>, b: MatRef<T>, beta: T, c: MatMut<T>) -> Result<()> {
        self.product(Form::Tn, a, b, c, Finish::scaled(alpha, beta))
    }

    /// A layer: `dst = src w^T + bias`, then ReLU if `relu`; src: m x in, w: out x in, bias: out, dst: m x out.
    pub fn linear(&mut self, src: MatRef<T>, w: MatRef<T>, bias: &[T], relu: bool, dst: MatMut<T>) -> Result<()> {
        self.product(Form::Nt, src, w, dst, Finish { bias: Some(bias), relu, ..Finish::scaled(T::ONE, T::ZERO) })
    }

    /// `c = alpha * a b^T + beta * c`, plus a bias a column if given, as [`Lane::gemm_nt`] and [`Lane::linear`] have it; where b
    /// has at most 8 rows, or so many that tiles would be poorly filled, by a kernel of dot products, whose sums have another
    /// order. a: m x k, b: n x k, c: m x n.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where an operand's size does not match the others.
    pub fn few_columns(
        &mut self,
        alpha: T,
        a: MatRef<T>,
        b: MatRef<T>,
        beta: T,
        bias: Option<&[T]>,
        mut c: MatMut<T>,
    ) -> Result<()> {
        let finish = Finish { bias, ..Finish::scaled(alpha, beta) };
        check_product(Form::Nt, &a, &b, &c, &finish)?;
        let g = lower(Form::Nt, &a, &b, &mut c, &finish);
        // SAFETY: as for any product.
        unsafe {
            if dots_pay(self.ops.gemm.lanes, g.n, g.k) {
                few_dots(self.ops, &g, None);
            } else {
                self.multiply(&g);
            }
        }
        Ok(())
    }

    /// `c = a_0 b_0^T + a_1 b_1^T`, plus a bias a column if given: two products as [`Lane::few_columns`] has them, of equal sizes.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where an operand's size does not match the others.
    pub fn few_columns_pair(
        &mut self,
        [first, second]: [(MatRef<T>, MatRef<T>); 2],
        bias: Option<&[T]>,
        mut c: MatMut<T>,
    ) -> Result<()> {
        let finish = Finish { bias, ..Finish::scaled(T::ONE, T::ZERO) };
        [first, second].iter().try_for_each(|(a, b)| check_product(Form::Nt, a, b, &c, &finish))?;
        let g = lower(Form::Nt, &first.0, &first.1, &mut c, &finish);
        let h = lower(Form::Nt, &second.0, &second.1, &mut c, &Finish::scaled(T::ONE, T::ONE));
        // SAFETY: as for any product; one call of both has the strides of both.
        unsafe {
            let alike = (g.k, g.a_rs, g.b_cs) == (h.k, h.a_rs, h.b_cs);
            if alike && dots_pay(self.ops.gemm.lanes, g.n, g.k) {
                few_dots(self.ops, &g, Some(&h));
            } else {
                [g, h].iter().for_each(|g| self.multiply(g));
            }
        }
        Ok(())
    }

    /// `dst = a b^T + 1`: the Gram matrix of two dense sets of rows, the 1 carrying the bias; dst: m x n.
    pub fn gram(&mut self, a: MatRef<T>, b: MatRef<T>, mut dst: MatMut<T>) -> Result<()> {
        let add = Finish::scaled(T::ONE, T::ONE);
        // Compared before the ones are written: an error leaves the result as it was.
        check_product(Form::Nt, &a, &b, &dst, &add)?;
        for i in 0..dst.rows() {
            dst.row_mut(i).fill(T::ONE);
        }
        self.product(Form::Nt, a, b, dst, add)
    }

    /// `dst = a a^T + 1`, with the bits of [`Lane::gram`] at little more than half the work; dst: m x m.
    pub fn gram_symmetric(&mut self, a: MatRef<T>, mut dst: MatMut<T>) -> Result<()> {
        let add = Finish::scaled(T::ONE, T::ONE);
        let g = operands(Form::Nt, &a, &a, &mut dst, add)?;
        for i in 0..dst.rows() {
            dst.row_mut(i).fill(T::ONE);
        }
        // SAFETY: as for any product; `dst` is square, without a bias, and holds the same value everywhere.
        unsafe { symmetric_gemm(self.kernels, &g, &mut self.pack) };
        Ok(())
    }
}
