//! Checked entry points: sizes are compared here, once, then one unsafe call is made.

use crate::cpu::contract::{AdamwStep, Kernels, Ops};
use crate::cpu::{Cpu, KernelElement, StoredElement, pack_len};
use crate::error::{Error, Result};
use crate::view::{Bags, MatMut, MatRef};

/// One thread's way to the kernels: operations of element type `T` and their packing space.
#[derive(Clone)]
pub struct Lane<T: KernelElement> {
    pub(super) kernels: &'static Kernels,
    pub(super) ops: &'static Ops<T>,
    pub(super) pack: Vec<T>,
    /// Its number in its team, and how many the team has.
    pub(super) index: usize,
    pub(super) lanes: usize,
}

pub(super) fn check_len(op: &'static str, what: &str, found: usize, wanted: usize) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::shape(op, format!("{what} has {found} elements but {wanted} are needed")))
}

/// A class as the kernels take it.
fn class(target: usize) -> Result<u32> {
    u32::try_from(target).map_err(|_| Error::shape("softmax_xent", format!("class {target} is out of range")))
}

/// One class below n for each of m rows.
fn check_classes(targets: &[u32], m: usize, n: usize) -> Result<()> {
    check_len("softmax_xent", "the list of classes", targets.len(), m)?;
    match targets.iter().find(|&&t| t as usize >= n) {
        Some(t) => Err(Error::shape("softmax_xent", format!("class {t} of {n} logits"))),
        None => Ok(()),
    }
}

/// What [`Lane::bag_linear`] asks of its operands.
pub(super) fn check_bag_linear<T: KernelElement, S: StoredElement<T>>(
    bags: &Bags<T>,
    table: &MatRef<S>,
    bias: &[T],
    dst: &MatMut<T>,
) -> Result<()> {
    let h = table.cols();
    check_len("bag_linear", "the bias", bias.len(), h)?;
    if bags.vocabulary() <= table.rows() && dst.rows() == bags.rows() && dst.cols() == h {
        return Ok(());
    }
    let detail = format!(
        "{} bags of {} tokens, a table of {}x{h}, a result of {}x{}",
        bags.rows(),
        bags.vocabulary(),
        table.rows(),
        dst.rows(),
        dst.cols()
    );
    Err(Error::shape("bag_linear", detail))
}

impl<T: KernelElement> Lane<T> {
    /// A lane of its own, with packing space for the largest product blocks.
    pub fn new(cpu: &Cpu) -> Self {
        Self::with_index(cpu, 0, 1)
    }

    pub(super) fn with_index(cpu: &Cpu, index: usize, lanes: usize) -> Self {
        let ops = cpu.ops::<T>();
        let pack = vec![T::ZERO; pack_len(&ops.gemm)];
        Self { kernels: cpu.kernels(), ops, pack, index, lanes }
    }

    /// Bytes of packing space of one lane.
    pub(crate) fn planned_bytes(cpu: &Cpu) -> usize {
        pack_len(&cpu.ops::<T>().gemm) * size_of::<T>()
    }

    /// `dst = init + sum over j of weights[j] * table[index[j]]`, rows of `table`, stored in `S`, as long as `dst`.
    pub fn gather_sum<S: StoredElement<T>>(
        &mut self,
        index: &[u32],
        weights: &[T],
        table: MatRef<S>,
        init: Option<&[T]>,
        dst: &mut [T],
    ) -> Result<()> {
        check_len("gather_sum", "the weights", weights.len(), index.len())?;
        check_len("gather_sum", "the result", dst.len(), table.cols())?;
        check_len("gather_sum", "the start", init.map_or(dst.len(), <[T]>::len), dst.len())?;
        if let Some(&bad) = index.iter().find(|&&i| i as usize >= table.rows()) {
            return Err(Error::shape("gather_sum", format!("row {bad} of a table of {} rows", table.rows())));
        }
        let init = init.map_or(std::ptr::null(), <[T]>::as_ptr);
        // SAFETY: lengths and every index were compared above; `dst` is borrowed mutably, so it overlaps nothing.
        unsafe {
            S::gather_sum(self.kernels)(
                index.len(),
                index.as_ptr(),
                weights.as_ptr(),
                table.as_ptr(),
                table.ld(),
                dst.len(),
                init,
                dst.as_mut_ptr(),
            );
        }
        Ok(())
    }

    /// `dst[i] = bias + sum of weights * table rows` of each bag; table: vocabulary x h, stored in `S`, dst: rows x h.
    ///
    /// # Errors
    /// [`Error::Shape`] where an operand's size does not match the others.
    pub fn bag_linear<S: StoredElement<T>>(
        &mut self,
        bags: &Bags<T>,
        table: MatRef<S>,
        bias: &[T],
        mut dst: MatMut<T>,
    ) -> Result<()> {
        check_bag_linear(bags, &table, bias, &dst)?;
        let gather_sum = S::gather_sum(self.kernels);
        for i in 0..bags.rows() {
            let ((tokens, weights), row) = (bags.row(i), dst.row_mut(i));
            let (len, tokens, weights) = (tokens.len(), tokens.as_ptr(), weights.as_ptr());
            // SAFETY: tokens lie below the vocabulary, which the table covers; a row of `dst` and the bias have h elements.
            unsafe {
                gather_sum(
                    len,
                    tokens,
                    weights,
                    table.as_ptr(),
                    table.ld(),
                    table.cols(),
                    bias.as_ptr(),
                    row.as_mut_ptr(),
                );
            }
        }
        Ok(())
    }

    /// `dst += sum over j of weights[j] * table[index[j]]`, j rising, as one chain of additions onto `dst`.
    pub(crate) fn gather_add(&mut self, index: &[u32], weights: &[T], table: MatRef<T>, dst: &mut [T]) -> Result<()> {
        check_len("gather_add", "the weights", weights.len(), index.len())?;
        check_len("gather_add", "the result", dst.len(), table.cols())?;
        if let Some(&bad) = index.iter().find(|&&i| i as usize >= table.rows()) {
            return Err(Error::shape("gather_add", format!("row {bad} of a table of {} rows", table.rows())));
        }
        let (n, dst) = (dst.len(), dst.as_mut_ptr());
        let (index, weights, len) = (index.as_ptr(), weights.as_ptr(), index.len());
        // SAFETY: lengths and every index were compared above; the contract allows the start value in place of `dst`.
        unsafe { (self.ops.gather_sum)(len, index, weights, table.as_ptr(), table.ld(), n, dst.cast_const(), dst) };
        Ok(())
    }

    /// `dst[i] = max(src[i], 0)`.
    pub fn relu(&mut self, src: &[T], dst: &mut [T]) -> Result<()> {
        check_len("relu", "the result", dst.len(), src.len())?;
        // SAFETY: both have the same length and do not overlap.
        unsafe { (self.ops.relu)(src.len(), src.as_ptr(), dst.as_mut_ptr()) };
        Ok(())
    }

    /// Zeroes `d[i]` where the ReLU's output `a[i]` is not positive.
    pub fn relu_mask(&mut self, a: &[T], d: &mut [T]) -> Result<()> {
        check_len("relu_mask", "the gradient", d.len(), a.len())?;
        let d = d.as_mut_ptr();
        // SAFETY: both have the same length and do not overlap; the contract allows the result in place.
        unsafe { (self.ops.relu_mask)(a.len(), a.as_ptr(), d.cast_const(), d) };
        Ok(())
    }

    /// `dst[i] = d[i]` where the ReLU's output `a[i]` is positive, 0 elsewhere.
    pub fn relu_mask_to(&mut self, a: &[T], d: &[T], dst: &mut [T]) -> Result<()> {
        check_len("relu_mask_to", "the gradient", d.len(), a.len())?;
        check_len("relu_mask_to", "the result", dst.len(), a.len())?;
        // SAFETY: all have the same length; the result is borrowed mutably, so it overlaps nothing.
        unsafe { (self.ops.relu_mask)(a.len(), a.as_ptr(), d.as_ptr(), dst.as_mut_ptr()) };
        Ok(())
    }

    /// Softmax cross-entropy of one row of logits against `target`: returns the loss, writes the softmax `p` and the
    /// gradient `dz = scale * (p - onehot)`.
    pub fn softmax_xent(&mut self, z: &[T], target: usize, scale: T, p: &mut [T], dz: &mut [T]) -> Result<T> {
        let target = class(target)?;
        self.softmax_xent_rows(MatRef::new(z, 1, z.len())?, &[target], scale, p, dz)
    }

    /// The same of every row of `z` against its class; `p` and `dz` as large as `z`, without gaps. Returns the sum of the
    /// losses.
    pub fn softmax_xent_rows(
        &mut self,
        z: MatRef<T>,
        targets: &[u32],
        scale: T,
        p: &mut [T],
        dz: &mut [T],
    ) -> Result<T> {
        let (m, n) = (z.rows(), z.cols());
        check_len("softmax_xent", "the softmax", p.len(), m * n)?;
        check_len("softmax_xent", "the gradient", dz.len(), m * n)?;
        check_classes(targets, m, n)?;
        let (p, dz) = (p.as_mut_ptr(), dz.as_mut_ptr());
        // SAFETY: sizes and classes were compared above; the outputs are borrowed mutably.
        Ok(unsafe { (self.ops.softmax_xent)(m, n, z.as_ptr(), z.ld(), targets.as_ptr(), scale, p, dz) })
    }

    /// [`Lane::softmax_xent`] with the logits given in `dz`, which the gradient replaces.
    pub fn softmax_xent_in_place(&mut self, target: usize, scale: T, p: &mut [T], dz: &mut [T]) -> Result<T> {
        let (n, target) = (dz.len(), [class(target)?]);
        check_len("softmax_xent", "the softmax", p.len(), n)?;
        check_classes(&target, 1, n)?;
        let z = dz.as_mut_ptr();
        // SAFETY: lengths and target were compared above; the contract allows the gradient in place of the logits.
        Ok(unsafe { (self.ops.softmax_xent)(1, n, z.cast_const(), n, target.as_ptr(), scale, p.as_mut_ptr(), z) })
    }

    /// `rdz = scale * (p * rz - p (p . rz))`, in place of `rz`.
    pub fn softmax_xent_rop(&mut self, p: &[T], scale: T, rz: &mut [T]) -> Result<()> {
        self.softmax_xent_rop_rows(p.len(), p, scale, rz)
    }

    /// The same for every row of `n` elements, without gaps.
    pub fn softmax_xent_rop_rows(&mut self, n: usize, p: &[T], scale: T, rz: &mut [T]) -> Result<()> {
        check_len("softmax_xent_rop", "the tangent", rz.len(), p.len())?;
        let m = p.len().checked_div(n).unwrap_or(0);
        check_len("softmax_xent_rop", "the softmax", p.len(), m * n)?;
        let rdz = rz.as_mut_ptr();
        // SAFETY: both have m rows of n elements; the contract allows the result in place of the tangent.
        unsafe { (self.ops.softmax_xent_rop)(m, n, p.as_ptr(), rdz.cast_const(), scale, rdz) };
        Ok(())
    }

    /// Multiply-adds in registers, `steps` in each of many independent chains `s = s * b + x`: how many operations that
    /// was (a multiply-add is two), and the sum of the chains.
    pub fn fma_chains(&mut self, steps: usize, b: T, x: T) -> (u64, T) {
        let chains = &self.ops.fma_chains;
        // SAFETY: the table was handed out for this machine.
        let sum = unsafe { (chains.run)(steps, b, x) };
        (2 * (steps * chains.count) as u64, sum)
    }

    /// `y += alpha * x`.
    pub fn axpy(&mut self, alpha: T, x: &[T], y: &mut [T]) -> Result<()> {
        check_len("axpy", "y", y.len(), x.len())?;
        // SAFETY: both have the same length and do not overlap.
        unsafe { (self.ops.axpy)(x.len(), alpha, x.as_ptr(), y.as_mut_ptr()) };
        Ok(())
    }

    /// `y = alpha * x + beta * y`; with `beta` = 0 the old `y` does not count.
    pub fn axpby(&mut self, alpha: T, x: &[T], beta: T, y: &mut [T]) -> Result<()> {
        check_len("axpby", "y", y.len(), x.len())?;
        // SAFETY: both have the same length and do not overlap.
        unsafe { (self.ops.axpby)(x.len(), alpha, x.as_ptr(), beta, y.as_mut_ptr()) };
        Ok(())
    }

    /// `dst = alpha * (column sums of src) + beta * dst`.
    pub fn col_sum(&mut self, alpha: T, src: MatRef<T>, beta: T, dst: &mut [T]) -> Result<()> {
        check_len("col_sum", "the result", dst.len(), src.cols())?;
        let (m, n, ld) = (src.rows(), src.cols(), src.ld());
        // SAFETY: the view is valid, `dst` is as long as a row and borrowed mutably.
        unsafe { (self.ops.col_sum)(m, n, alpha, src.as_ptr(), ld, beta, dst.as_mut_ptr()) };
        Ok(())
    }

    /// SGD with momentum and weight decay: `v = momentum v + g + weight_decay w; w -= lr v`; `g` = `None` is zero.
    pub fn sgd(
        &mut self,
        lr: T,
        momentum: T,
        weight_decay: T,
        g: Option<&[T]>,
        v: &mut [T],
        w: &mut [T],
    ) -> Result<()> {
        check_len("sgd", "the gradient", g.map_or(w.len(), <[T]>::len), w.len())?;
        check_len("sgd", "the velocity", v.len(), w.len())?;
        let g = g.map_or(std::ptr::null(), <[T]>::as_ptr);
        // SAFETY: all have the length of `w`; `v` and `w` are borrowed mutably, so nothing overlaps.
        unsafe { (self.ops.sgd)(w.len(), lr, momentum, weight_decay, g, v.as_mut_ptr(), w.as_mut_ptr()) };
        Ok(())
    }

    /// AdamW; `g` = `None` stands for a gradient of zero.
    pub fn adamw(&mut self, s: &AdamwStep<T>, g: Option<&[T]>, m: &mut [T], v: &mut [T], w: &mut [T]) -> Result<()> {
        check_len("adamw", "the gradient", g.map_or(w.len(), <[T]>::len), w.len())?;
        check_len("adamw", "the first moment", m.len(), w.len())?;
        check_len("adamw", "the second moment", v.len(), w.len())?;
        let g = g.map_or(std::ptr::null(), <[T]>::as_ptr);
        // SAFETY: all have the length of `w`; the written ones are borrowed mutably, so nothing overlaps.
        unsafe { (self.ops.adamw)(w.len(), s, g, m.as_mut_ptr(), v.as_mut_ptr(), w.as_mut_ptr()) };
        Ok(())
    }
}
