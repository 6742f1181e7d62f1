//! Work spread over all threads: large products, token bags, rows; with the bits one lane would give.

use std::ops::Range;

use super::operands::{Finish, Form, Product, operands};
use super::ops::{Lane, check_bag_linear};
use crate::cpu::contract::Epilogue;
use crate::cpu::{
    Cpu, GemmOperands, KernelElement, StoredElement, add_products, end_streams, join, moved, part, stream,
};
use crate::error::{Error, Result};
use crate::view::{Bags, MatMut, MatRef};

/// A lane for each thread of a [`Cpu`], for work that is spread over all of them.
#[derive(Clone)]
pub struct Team<T: KernelElement> {
    cpu: Cpu,
    lanes: Vec<Lane<T>>,
}

/// A pointer that threads may share because each writes its own rows or columns.
#[derive(Clone, Copy)]
struct Shared<P>(P);

// SAFETY: the code that makes one hands disjoint parts to the threads.
unsafe impl<P> Sync for Shared<P> {}

impl<P: Copy> Shared<P> {
    /// A method, so that closures capture the whole wrapper and not the bare pointer inside.
    fn get(&self) -> P {
        self.0
    }
}

impl<T: KernelElement> Team<T> {
    /// Lanes for all threads of `cpu`.
    pub fn new(cpu: &Cpu) -> Self {
        let n = cpu.thread_count();
        Self { cpu: cpu.clone(), lanes: (0..n).map(|i| Lane::with_index(cpu, i, n)).collect() }
    }

    /// Number of lanes.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Never: there is always a lane.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Bytes that [`Team::new`] allocates.
    pub(crate) fn planned_bytes(cpu: &Cpu) -> usize {
        cpu.thread_count() * (size_of::<Lane<T>>() + Lane::<T>::planned_bytes(cpu))
    }

    /// The first lane, for small work on the calling thread.
    pub fn lane(&mut self) -> &mut Lane<T> {
        &mut self.lanes[0]
    }

    /// Splits `work` over the lanes and runs the pieces in parallel: `split(work, left, all)` cuts off what `left` of
    /// `all` lanes will do. Returns the first error in order of the lanes. Allocates nothing.
    pub(crate) fn spread<W: Send>(
        &mut self,
        work: W,
        split: impl Fn(W, usize, usize) -> (W, W) + Sync,
        run: impl Fn(&mut Lane<T>, W) -> Result<()> + Sync,
    ) -> Result<()> {
        let (cpu, lanes) = (&self.cpu, &mut self.lanes);
        cpu.install(|| spread_over(lanes, work, &split, &run))
    }

    /// One product on all threads, each of which computes some of its rows, or of its columns where that is less work; with the
    /// bits of [`Lane::product`], whose shapes and errors it has.
    ///
    /// # Errors
    /// [`Error::Shape`] where an operand's size does not match the others.
    pub fn product<A: StoredElement<T>, B: StoredElement<T>>(
        &mut self,
        form: Form,
        a: MatRef<A>,
        b: MatRef<B>,
        mut c: MatMut<T>,
        finish: Finish<T>,
    ) -> Result<()> {
        let g = Shared(operands(form, &a, &b, &mut c, finish)?);
        let cpu = self.cpu.clone();
        cpu.for_each_part(&mut self.lanes, |lane| {
            let (g, kernel) = (g.get(), &lane.ops.gemm);
            let own = if rows_pay(kernel.nr, g.m, g.n, lane.lanes) {
                rows_of(&g, part(g.m, 1, lane.lanes, lane.index))
            } else {
                columns_of(&g, part(g.n, kernel.nr, lane.lanes, lane.index))
            };
            // SAFETY: as for one lane's product; the parts cover disjoint rows or columns of `c`.
            unsafe { lane.multiply(&own) };
        });
        Ok(())
    }

    /// Products of one form, as the tasks of a meta-batch have them: their sizes may differ, each is one thread's, and each thread
    /// takes as many, one after the other. With the bits of [`Lane::product`]. Nothing is computed where one does not fit.
    ///
    /// ```
    /// use metaglot::backend::{Finish, Form, Product, Team};
    /// use metaglot::cpu::Cpu;
    /// use metaglot::{MatMut, MatRef};
    ///
    /// // Each of two tasks has its own weights.
    /// let (x, w, mut z) = ([1.0f32, 2.0, 3.0, 4.0], [1.0f32, 1.0, 2.0, 0.0], [0.0f32; 2]);
    /// let tasks = x.chunks(2).zip(w.chunks(2)).zip(z.chunks_mut(1));
    /// let mut batch = tasks
    ///     .map(|((x, w), z)| {
    ///         let (a, b, c) = (MatRef::new(x, 1, 2)?, MatRef::new(w, 1, 2)?, MatMut::new(z, 1, 1)?);
    ///         Ok(Product { a, b, c, finish: Finish::scaled(1.0, 0.0) })
    ///     })
    ///     .collect::<metaglot::Result<Vec<_>>>()?;
    /// Team::new(&Cpu::new()).product_batch(Form::Nt, &mut batch)?;
    /// assert_eq!(z, [3.0, 6.0]);
    /// # Ok::<(), metaglot::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where a product's sizes do not fit, with its number.
    pub fn product_batch<A: StoredElement<T>, B: StoredElement<T>>(
        &mut self,
        form: Form,
        batch: &mut [Product<T, A, B>],
    ) -> Result<()> {
        for (i, product) in batch.iter().enumerate() {
            product.check(form).map_err(|error| match error {
                Error::Shape { op, detail } => Error::shape(op, format!("product {i} of the batch: {detail}")),
                other => other,
            })?;
        }
        self.spread(batch, split_slice, |lane, batch| {
            // SAFETY: each was checked above, and nothing else can change it since.
            batch.iter_mut().for_each(|product| unsafe { lane.compute(form, product) });
            Ok(())
        })
    }

    /// [`Lane::linear`] without ReLU on all threads, its weights stored in `S`.
    pub fn linear<S: StoredElement<T>>(
        &mut self,
        src: MatRef<T>,
        w: MatRef<S>,
        bias: &[T],
        dst: MatMut<T>,
    ) -> Result<()> {
        self.product(Form::Nt, src, w, dst, Finish { bias: Some(bias), ..Finish::scaled(T::ONE, T::ZERO) })
    }

    /// [`Lane::gemm_tn`] on all threads.
    pub fn gemm_tn(&mut self, alpha: T, a: MatRef<T>, b: MatRef<T>, beta: T, c: MatMut<T>) -> Result<()> {
        self.product(Form::Tn, a, b, c, Finish::scaled(alpha, beta))
    }

    /// `c += sum over i < parts of a_i^T b_i`, i rising, with (a_i, b_i) = `part(i)`, k_i x m and k_i x n; c: m x n. An element is
    /// one chain of multiply-adds that begins at its old value, so cutting the parts into several calls changes no bit.
    ///
    /// `part_of` is called several times with each number.
    ///
    /// # Errors
    /// [`Error::Shape`] where a part's size does not match c.
    ///
    /// # Panics
    /// Where a part has another size than at the first call.
    pub fn add_products<'v>(
        &mut self,
        parts: usize,
        part_of: impl Fn(usize) -> (MatRef<'v, T>, MatRef<'v, T>) + Sync,
        mut c: MatMut<T>,
    ) -> Result<()> {
        let mut whole = None;
        for i in 0..parts {
            let (a, b) = part_of(i);
            whole = Some(operands(Form::Tn, &a, &b, &mut c, Finish::scaled(T::ONE, T::ZERO))?);
        }
        let Some(whole) = whole else { return Ok(()) };
        let (m, n) = (whole.m, whole.n);
        let whole = Shared(GemmOperands { epilogue: Epilogue { chained: true, ..whole.epilogue }, ..whole });
        let cpu = self.cpu.clone();
        cpu.for_each_part(&mut self.lanes, |lane| {
            let (whole, kernel) = (whole.get(), &lane.ops.gemm);
            let by_rows = rows_pay(kernel.nr, whole.m, whole.n, lane.lanes);
            let own = |wanted: bool, len, unit| if wanted { part(len, unit, lane.lanes, lane.index) } else { 0..len };
            let (rows, cols) = (own(by_rows, whole.m, 1), own(!by_rows, whole.n, kernel.nr));
            let c = whole.c.wrapping_add(rows.start * whole.c_rs + cols.start);
            let whole = GemmOperands { m: rows.len(), n: cols.len(), c, ..whole };
            let part_of = |i: usize| {
                let (a, b) = part_of(i);
                let (k, a_cs, b_rs) = (a.rows(), a.ld(), b.ld());
                assert!((a.cols(), b.cols(), b.rows()) == (m, n, k), "part {i} has another size than before");
                // Wrapping: an empty part begins behind its operand.
                let (a, b) = (a.as_ptr().wrapping_add(rows.start), b.as_ptr().wrapping_add(cols.start));
                GemmOperands { k, a, a_cs, b, b_rs, ..whole }
            };
            // SAFETY: each part's sizes are compared where it is made; lanes own disjoint rows or columns of `c`.
            unsafe { add_products(lane.kernels, &whole, parts, part_of, &mut lane.pack) };
        });
        Ok(())
    }

    /// [`Lane::bag_linear`] on all threads.
    pub fn bag_linear<S: StoredElement<T>>(
        &mut self,
        bags: &Bags<T>,
        table: MatRef<S>,
        bias: &[T],
        dst: MatMut<T>,
    ) -> Result<()> {
        check_bag_linear(bags, &table, bias, &dst)?;
        self.spread((0, dst), split_rows, |lane, (start, rows)| {
            lane.bag_linear(&bags.rows_range(start, start + rows.rows()), table, bias, rows)
        })
    }

    /// Runs `f(lane, row index, row)` for every row of `dst`, spread over the threads.
    pub(crate) fn each_row(
        &mut self,
        dst: MatMut<T>,
        f: impl Fn(&mut Lane<T>, usize, &mut [T]) -> Result<()> + Sync,
    ) -> Result<()> {
        self.spread((0, dst), split_rows, |lane, (start, mut rows)| {
            (0..rows.rows()).try_for_each(|i| f(lane, start + i, rows.row_mut(i)))
        })
    }

    /// The same where `f` writes rows without reading them. Large results go past the caches, by way of each lane's part of `space`.
    pub(crate) fn write_each_row(
        &mut self,
        dst: MatMut<T>,
        space: &mut [T],
        f: impl Fn(&mut Lane<T>, usize, &mut [T]) -> Result<()> + Sync,
    ) -> Result<()> {
        let columns = dst.cols();
        if dst.rows() * columns * size_of::<T>() < PAST_CACHES || space.len() / self.len() < columns {
            return self.each_row(dst, f);
        }
        let split = |(rows, space), left, all| {
            let (rows, space) = (split_rows(rows, left, all), split_slice(space, left, all));
            ((rows.0, space.0), (rows.1, space.1))
        };
        self.spread(((0, dst), space), split, |lane, ((start, mut rows), space)| {
            let row = &mut space[..columns];
            let result = (0..rows.rows()).try_for_each(|i| {
                f(lane, start + i, row)?;
                stream(row, rows.row_mut(i));
                Ok(())
            });
            end_streams();
            result
        })
    }
}

/// Bytes of a result of which little stays in a cache until it is read.
const PAST_CACHES: usize = 32 << 20;

/// Multiply-adds in whose time an element is taken to be packed. Not measured: it decides between cuts of about equal work alone.
const PACKING: usize = 8;

/// Whether a lane has less to do where it takes some of the m rows than some of the n columns, whole panels of `nr`: it packs its own
/// part of one operand, but all of the other.
fn rows_pay(nr: usize, m: usize, n: usize, lanes: usize) -> bool {
    let (rows, columns) = (m.div_ceil(lanes), (n.div_ceil(nr).div_ceil(lanes) * nr).min(n));
    (rows + PACKING) * n <= (columns + PACKING) * m
}

/// Some rows of a product. A part may be empty and then begin behind the operand, where only wrapping arithmetic may point.
fn rows_of<T: Copy, A, B>(g: &GemmOperands<T, A, B>, rows: Range<usize>) -> GemmOperands<T, A, B> {
    let (a, c) = (g.a.wrapping_add(rows.start * g.a_rs), g.c.wrapping_add(rows.start * g.c_rs));
    let e = &g.epilogue;
    let (old, mask) = (moved(e.old, rows.start * e.old_rs), moved(e.mask, rows.start * e.mask_rs));
    GemmOperands { m: rows.len(), a, c, epilogue: Epilogue { old, mask, ..*e }, ..*g }
}

/// Some columns, in the same way.
fn columns_of<T: Copy, A, B>(g: &GemmOperands<T, A, B>, columns: Range<usize>) -> GemmOperands<T, A, B> {
    let (b, c) = (g.b.wrapping_add(columns.start * g.b_cs), g.c.wrapping_add(columns.start));
    let e = &g.epilogue;
    let [old, bias, mask] = [e.old, e.bias, e.mask].map(|of_columns| moved(of_columns, columns.start));
    GemmOperands { n: columns.len(), b, c, epilogue: Epilogue { old, bias, mask, ..*e }, ..*g }
}

/// Rows cut for the first `left` of `all` lanes.
fn split_rows<T>((start, rows): NumberedRows<T>, left: usize, all: usize) -> (NumberedRows<T>, NumberedRows<T>) {
    let at = rows.rows() * left / all;
    let (front, back) = rows.split_rows(at);
    ((start, front), (start + at, back))
}

/// Rows and the number of the first.
type NumberedRows<'a, T> = (usize, MatMut<'a, T>);

/// A slice cut in the same way.
pub(crate) fn split_slice<P>(slice: &mut [P], left: usize, all: usize) -> (&mut [P], &mut [P]) {
    slice.split_at_mut(slice.len() * left / all)
}

/// The recursion behind [`Team::spread`]: both halves of the lanes at once.
fn spread_over<T: KernelElement, W: Send>(
    lanes: &mut [Lane<T>],
    work: W,
    split: &(impl Fn(W, usize, usize) -> (W, W) + Sync),
    run: &(impl Fn(&mut Lane<T>, W) -> Result<()> + Sync),
) -> Result<()> {
    if let [lane] = lanes {
        return run(lane, work);
    }
    let (left, all) = (lanes.len() / 2, lanes.len());
    let (left_lanes, right_lanes) = lanes.split_at_mut(left);
    let (left_work, right_work) = split(work, left, all);
    let (first, second) =
        join(|| spread_over(left_lanes, left_work, split, run), || spread_over(right_lanes, right_work, split, run));
    first.and(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_go_past_the_caches_are_where_others_are() {
        let columns = 1001;
        for (rows, threads, space) in [
            (40, 2, columns),
            (PAST_CACHES / 4004 + 40, 1, columns),
            (PAST_CACHES / 4004 + 40, 3, columns),
            (9000, 2, 1),
        ] {
            let what = format!("{rows} rows, {threads} threads, {space} elements of space");
            let mut team = Team::<f32>::new(&Cpu::new().threads(threads).unwrap());
            // Two columns more than are written, and a row.
            let ld = columns + 2;
            let mut memory = vec![-1.0f32; (rows + 1) * ld];
            let mut space = vec![f32::NAN; threads * space];
            let dst = MatMut::with_ld(&mut memory, rows, columns, ld).unwrap();
            let value = |i: usize, j: usize| ((31 * i + 7 * j) % 65_537) as f32;
            let write = |_: &mut Lane<f32>, i: usize, row: &mut [f32]| {
                row.iter_mut().enumerate().for_each(|(j, x)| *x = value(i, j));
                Ok(())
            };
            team.write_each_row(dst, &mut space, write).unwrap();
            for (i, row) in memory.chunks_exact(ld).enumerate() {
                for (j, &x) in row.iter().enumerate() {
                    let wanted = if i < rows && j < columns { value(i, j) } else { -1.0 };
                    assert_eq!(x, wanted, "{what}: row {i}, column {j}");
                }
            }
        }
    }
}
