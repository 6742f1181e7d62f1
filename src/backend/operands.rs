//! What a product is: its operands, what is done with its result, the comparison of shapes, and its lowering to pointers
//! and strides.

use super::ops::check_len;
use crate::cpu::contract::Epilogue;
use crate::cpu::{GemmOperands, KernelElement, StoredElement};
use crate::error::{Error, Result};
use crate::view::{MatMut, MatRef};

/// What a product does with its result, in this order: `alpha * sum`, a mask of the product, `+ beta * old`, a bias a column,
/// ReLU, a mask of the result.
#[derive(Clone, Copy)]
pub struct Finish<'a, T> {
    /// Scales the sum.
    pub alpha: T,
    /// Scales the old values, which are not read where it is 0.
    pub beta: T,
    /// The old values where they are not the result's own; as large as the result.
    pub old: Option<MatRef<'a, T>>,
    /// One value a column.
    pub bias: Option<&'a [T]>,
    /// Whether the result is max(x, 0).
    pub relu: bool,
    /// Where it is 0.
    pub mask: Option<Mask<'a, T>>,
}

impl<T: KernelElement> Finish<'_, T> {
    /// `alpha * sum + beta * c`.
    pub fn scaled(alpha: T, beta: T) -> Self {
        Self { alpha, beta, old: None, bias: None, relu: false, mask: None }
    }
}

/// Zeros where a ReLU's output, as large as the result, is not positive.
#[derive(Clone, Copy)]
pub enum Mask<'a, T> {
    /// In place of the product; the old value is added all the same.
    Product(MatRef<'a, T>),
    /// In place of the result.
    Result(MatRef<'a, T>),
}

impl<T> Mask<'_, T> {
    /// The ReLU's output, and whether it masks the result.
    fn parts(&self) -> (&MatRef<'_, T>, bool) {
        match self {
            Mask::Product(mask) => (mask, false),
            Mask::Result(mask) => (mask, true),
        }
    }
}

/// Which operand of a product is read transposed.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// None: `a b`.
    Nn,
    /// The second: `a b^T`.
    Nt,
    /// The first: `a^T b`.
    Tn,
}

impl Form {
    fn op(self) -> &'static str {
        match self {
            Form::Nn => "gemm_nn",
            Form::Nt => "gemm_nt",
            Form::Tn => "gemm_tn",
        }
    }
}

/// One product of a batch: its operands, its result, and what is done with it. See [`Team::product_batch`](super::Team::product_batch).
pub struct Product<'a, T, A = T, B = T> {
    /// The first operand, stored in `A`.
    pub a: MatRef<'a, A>,
    /// The second, stored in `B`.
    pub b: MatRef<'a, B>,
    /// The result.
    pub c: MatMut<'a, T>,
    /// What is done with it.
    pub finish: Finish<'a, T>,
}

impl<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>> Product<'_, T, A, B> {
    /// Compares the shapes.
    pub(super) fn check(&self, form: Form) -> Result<()> {
        check_product(form, &self.a, &self.b, &self.c, &self.finish)
    }
}

/// Compares the shapes of `op(a) op(b)`, `c` and what `finish` names.
pub(super) fn check_product<T, A, B>(
    form: Form,
    a: &MatRef<A>,
    b: &MatRef<B>,
    c: &MatMut<T>,
    finish: &Finish<T>,
) -> Result<()> {
    let (m, ka) = if let Form::Tn = form { (a.cols(), a.rows()) } else { (a.rows(), a.cols()) };
    let (kb, n) = if let Form::Nt = form { (b.cols(), b.rows()) } else { (b.rows(), b.cols()) };
    if ka != kb || c.rows() != m || c.cols() != n {
        let [ar, ac, br, bc] = [a.rows(), a.cols(), b.rows(), b.cols()];
        let inner = if ka == kb { "the result must be" } else { "the inner sizes must match and the result be" };
        let detail = format!("a is {ar}x{ac}, b is {br}x{bc}, c is {}x{}; {inner} {m}x{n}", c.rows(), c.cols());
        return Err(Error::shape(form.op(), detail));
    }
    if let Some(bias) = finish.bias {
        check_len(form.op(), "the bias", bias.len(), n)?;
    }
    let mask = finish.mask.as_ref().map(|mask| mask.parts().0);
    for (what, matrix) in [("the old values are", finish.old.as_ref()), ("the mask is", mask)] {
        if let Some(x) = matrix
            && (x.rows(), x.cols()) != (m, n)
        {
            let detail = format!("{what} {}x{} but the result is {m}x{n}", x.rows(), x.cols());
            return Err(Error::shape(form.op(), detail));
        }
    }
    Ok(())
}

/// Lowers a product that [`check_product`] passed to pointers and strides. Part of its caller, which so writes them once, where
/// they are read: moved as the result of a function they took 30 ns, half of a call without work.
#[inline(always)]
pub(super) fn lower<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    form: Form,
    a: &MatRef<A>,
    b: &MatRef<B>,
    c: &mut MatMut<T>,
    finish: &Finish<T>,
) -> GemmOperands<T, A, B> {
    let (m, k, a_rs, a_cs) = match form {
        Form::Tn => (a.cols(), a.rows(), 1, a.ld()),
        _ => (a.rows(), a.cols(), a.ld(), 1),
    };
    let (n, b_rs, b_cs) = match form {
        Form::Nt => (b.rows(), 1, b.ld()),
        _ => (b.cols(), b.ld(), 1),
    };
    let place = |x: Option<&MatRef<T>>| x.map_or((std::ptr::null(), 0), |x| (x.as_ptr(), x.ld()));
    let (old, old_rs) = place(finish.old.as_ref());
    let (mask, mask_result) = match &finish.mask {
        Some(mask) => (Some(mask.parts().0), mask.parts().1),
        None => (None, false),
    };
    let (mask, mask_rs) = place(mask);
    let epilogue = Epilogue {
        alpha: finish.alpha,
        beta: finish.beta,
        old,
        old_rs,
        bias: finish.bias.map_or(std::ptr::null(), <[T]>::as_ptr),
        relu: finish.relu,
        mask,
        mask_rs,
        mask_result,
        chained: false,
    };
    let (a, b, c_rs, c) = (a.as_ptr(), b.as_ptr(), c.ld(), c.as_mut_ptr());
    GemmOperands { m, n, k, a, a_rs, a_cs, b, b_rs, b_cs, c, c_rs, epilogue }
}

/// Compares the shapes of `op(a) op(b)` and `c` and lowers the product to pointers and strides.
pub(super) fn operands<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    form: Form,
    a: &MatRef<A>,
    b: &MatRef<B>,
    c: &mut MatMut<T>,
    finish: Finish<T>,
) -> Result<GemmOperands<T, A, B>> {
    check_product(form, a, b, c, &finish)?;
    Ok(lower(form, a, b, c, &finish))
}
