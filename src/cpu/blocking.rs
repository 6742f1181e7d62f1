//! The loops around the GEMM tile: cache blocking and packing, after Goto and van de Geijn, "Anatomy of high-performance
//! matrix multiplication" (2008), and Van Zee and van de Geijn, "BLIS" (2015).
//!
//! ```text
//! for nc columns: for kc steps:
//!     for mc rows:                              pack A if that pays     (second-level cache)
//!                                               the first time: pack B if that pays     (third-level cache, or none)
//!         for each panel of nr columns: for each tile of at most mr rows:   the tile  (B's panel: first- or second-level cache)
//! ```
//!
//! B is packed by copies, or where a table has tiles that pack (AVX2) and all rows are one block, by the first tile of rows as it
//! reads B: about half the cost (`benches/README.md`, "B packed by its first tile, measured again").
//!
//! Blocks and tiles are as even as their units allow: 25 rows are tiles of 13 and 12, not of 14 and 11, and 300 steps are
//! blocks of 152 and 148. The steps' blocks depend on k alone, so an element's bits do not depend on its place.

use std::ops::Range;

use super::contract::{Epilogue, Gemm, Kernels, Pack, PackingTile, Panel, Tile};
use super::{KernelElement, StoredElement};

/// Pointers and strides of one product C = op(A) op(B): element (i, p) of op(A) at `a + i * a_rs + p * a_cs`, element
/// (p, j) of op(B) at `b + p * b_rs + j * b_cs`. Of each pair of strides one is 1. A and B may be stored in types of their
/// own.
#[derive(Clone, Copy)]
pub(crate) struct GemmOperands<T, A = T, B = T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const A,
    pub a_rs: usize,
    pub a_cs: usize,
    pub b: *const B,
    pub b_rs: usize,
    pub b_cs: usize,
    pub c: *mut T,
    pub c_rs: usize,
    pub epilogue: Epilogue<T>,
}

/// Packed panels start at a cache line: a vector load across two lines takes two loads' time.
const LINE_BYTES: usize = 64;

/// Elements of packing space [`gemm`] needs: a block of B, a block of A, and what aligning them skips.
pub(crate) fn pack_len<T>(gemm: &Gemm<T>) -> usize {
    gemm.kc * (gemm.nc + gemm.mc) + LINE_BYTES / size_of::<T>()
}

/// Part `index` of `0..n` cut into `parts` ranges of whole multiples of `unit`, as even as that allows.
pub(crate) fn part(n: usize, unit: usize, parts: usize, index: usize) -> Range<usize> {
    if parts == 1 {
        return 0..n;
    }
    let units = n.div_ceil(unit);
    let bound = |i: usize| (units * i / parts * unit).min(n);
    bound(index)..bound(index + 1)
}

/// The address so many elements on; what is null stays so.
pub(crate) fn moved<T>(from: *const T, by: usize) -> *const T {
    if from.is_null() { from } else { from.wrapping_add(by) }
}

/// The rows of a product cut into tiles as even as can be, without a division for each.
#[derive(Clone, Copy)]
struct Tiles {
    count: usize,
    /// Rows of a tile, and how many of the first tiles have one more.
    rows: usize,
    longer: usize,
}

impl Tiles {
    /// `m` rows in tiles of at most `mr`.
    fn new(m: usize, mr: usize) -> Self {
        let count = m.div_ceil(mr);
        let rows = m.checked_div(count).unwrap_or(0);
        Self { count, rows, longer: m - rows * count }
    }

    /// The rows before a tile.
    fn start(&self, tile: usize) -> usize {
        tile * self.rows + tile.min(self.longer)
    }

    fn rows(&self, tile: usize) -> Range<usize> {
        self.start(tile)..self.start(tile + 1)
    }
}

/// Bytes across which a panel's rows of B lie when they evict each other even from a second-level cache, each in a few of its sets:
/// then copying them pays from the second tile of rows on.
const SPREAD: usize = 2 << 20;
/// Columns of B from which packing A pays.
const COLUMNS_THAT_PAY_FOR_A: usize = 192;

/// Sets and ways of the smallest first-level cache of the machines that pack in tiles.
const FIRST_LEVEL: (usize, usize) = (64, 8);
/// Tiles of rows from which packing by the first of them pays where a panel's rows don't stay in the first-level cache.
const TILES_THAT_PAY: usize = 5;
/// The same where rows are [`FAR_APART`].
const TILES_THAT_PAY_FAR_APART: usize = 3;

/// Whether a panel's rows, a line each and so many bytes apart, stay in the first-level cache from one tile to the next.
fn panel_stays(rows: usize, apart: usize) -> bool {
    let (sets, ways) = FIRST_LEVEL;
    // Where rows begin inside lines, each takes two.
    let lines = if apart.is_multiple_of(LINE_BYTES) { rows } else { 2 * rows };
    // Of the addresses modulo what all sets hold once, rows have so many.
    let places = (sets * LINE_BYTES) >> apart.trailing_zeros().min((sets * LINE_BYTES).ilog2());
    lines < places.min(sets) * ways
}

/// Which part of C is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Both,
    /// Elements with j >= i, and those that share a tile with them.
    Upper,
}

/// Where the blocks of both operands are packed, or null where they are read in place: never where they are to be widened.
#[derive(Clone, Copy)]
struct Packed<T> {
    a: *mut T,
    b: *mut T,
    /// What computes the first tile of each whole panel and packs B meanwhile; copies do where there is none.
    tile: Option<PackingTile<T>>,
}

impl<T: KernelElement> Packed<T> {
    /// Of `m` rows and a B whose rows lie in memory as they are read. Tiles pack where all rows are one block.
    fn both(kernel: &Gemm<T>, m: usize, pack: &mut [T]) -> Self {
        debug_assert!(pack.len() >= pack_len(kernel));
        let b = pack.as_mut_ptr();
        let b = b.wrapping_add(b.align_offset(LINE_BYTES));
        Self { a: b.wrapping_add(kernel.kc * kernel.nc), b, tile: kernel.packing_tile.filter(|_| m <= kernel.mc) }
    }

    /// Those of which a copy pays, or is needed.
    fn choose<A: StoredElement<T>, B: StoredElement<T>>(
        kernel: &Gemm<T>,
        g: &GemmOperands<T, A, B>,
        half: Half,
        pack: &mut [T],
    ) -> Self {
        let Self { a, b, tile } = Self::both(kernel, g.m, pack);
        let needs_copy = g.b_cs != 1 || B::STORED != T::DTYPE;
        let tile = tile.filter(|_| half == Half::Both && !needs_copy);
        let (rows, apart) = (g.k.min(kernel.kc), g.b_rs * size_of::<B>());
        let from = match tile {
            _ if rows * apart >= SPREAD => kernel.mr + 1,
            Some(_) if apart >= FAR_APART => TILES_THAT_PAY_FAR_APART * kernel.mr,
            Some(_) if !panel_stays(rows, apart) => TILES_THAT_PAY * kernel.mr,
            _ => kernel.packs_b_from,
        };
        let packs_b = needs_copy || g.m >= from && g.n > kernel.nr;
        let pays_for_a = g.n >= COLUMNS_THAT_PAY_FOR_A && g.m > 1;
        let packs_a = pays_for_a || A::STORED != T::DTYPE;
        let or_null = |wanted: bool, at| if wanted { at } else { std::ptr::null_mut() };
        Self { a: or_null(packs_a, a), b: or_null(packs_b, b), tile: tile.filter(|_| packs_b) }
    }
}

/// A part of a product: rows of C given as tiles, columns, and steps of the reduction.
struct Block<'a, T, A, B> {
    kernel: &'a Gemm<T>,
    pack_a: Pack<T, A>,
    pack_b: Pack<T, B>,
    g: &'a GemmOperands<T, A, B>,
    /// The row tiles of the whole product, and those of this block.
    all_tiles: Tiles,
    tiles: Range<usize>,
    columns: Range<usize>,
    steps: Range<usize>,
    packed: Packed<T>,
    half: Half,
}

/// One product on the calling thread.
///
/// # Safety
/// The kernels' instruction set is there; all elements the formula names are valid; C overlaps nothing else; `pack`
/// holds at least [`pack_len`] elements.
pub(crate) unsafe fn gemm<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    kernels: &'static Kernels,
    g: &GemmOperands<T, A, B>,
    pack: &mut [T],
) {
    // SAFETY: the caller's promises are passed on.
    unsafe { product(kernels, g, Half::Both, pack) };
}

/// A product that is its own transpose, as X X^T is: the upper half is computed and copied to the lower.
///
/// # Safety
/// As [`gemm`]; m = n, and the values C has before are symmetric where beta is not 0; there is no bias.
pub(crate) unsafe fn symmetric_gemm<T: KernelElement>(kernels: &'static Kernels, g: &GemmOperands<T>, pack: &mut [T]) {
    debug_assert!(g.m == g.n && g.epilogue.bias.is_null());
    // SAFETY: the caller's promises are passed on.
    unsafe { product(kernels, g, Half::Upper, pack) };
    let kernel = &T::ops(kernels).gemm;
    let tiles = Tiles::new(g.m, kernel.mr);
    for tile in 1..tiles.count {
        let rows = tiles.rows(tile);
        let (src, dst) = (g.c.wrapping_add(rows.start).cast_const(), g.c.wrapping_add(rows.start * g.c_rs));
        let mirror = Panel { width: rows.start, k: rows.len(), src, rs: g.c_rs, ps: 1, dst, ds: g.c_rs };
        // SAFETY: the rows before `rows`, at its columns, are read; `rows` at the columns before them is written.
        unsafe { (kernel.pack)(&mirror) };
    }
}

/// # Safety
/// As [`gemm`].
unsafe fn product<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    kernels: &'static Kernels,
    g: &GemmOperands<T, A, B>,
    half: Half,
    pack: &mut [T],
) {
    let packed = Packed::choose(&T::ops(kernels).gemm, g, half, pack);
    // SAFETY: the caller's promises are passed on; steps of a block are steps of its product.
    unsafe { all_blocks(kernels, g, half, packed, |steps, pack| pack(g, steps, 0)) };
}

/// Rows of C and columns from which on [`add_products`] forms blocks over several products.
const LEAST_FOR_JOINT_BLOCKS: (usize, usize) = (96, 96);

/// `c += sum over i < parts of a_i b_i`, i rising, on the calling thread. An element is one chain of multiply-adds that begins at
/// its old value, so cutting the parts into several calls changes no bit. Blocks of the reduction hold steps of several parts:
/// no more passes over C than for one product of all steps.
///
/// # Safety
/// As [`gemm`] for each product `part_of(i)`; they have the sizes m and n, the c and the epilogue of `whole`, which is chained.
pub(crate) unsafe fn add_products<T: KernelElement>(
    kernels: &'static Kernels,
    whole: &GemmOperands<T>,
    parts: usize,
    part_of: impl Fn(usize) -> GemmOperands<T>,
    pack: &mut [T],
) {
    debug_assert!(whole.epilogue.chained);
    if whole.m < LEAST_FOR_JOINT_BLOCKS.0 || whole.n < LEAST_FOR_JOINT_BLOCKS.1 {
        // SAFETY: the caller's promises are passed on.
        (0..parts).for_each(|i| unsafe { gemm(kernels, &part_of(i), pack) });
        return;
    }
    let k = (0..parts).map(|i| part_of(i).k).sum();
    let packed = Packed::both(&T::ops(kernels).gemm, whole.m, pack);
    let pieces = |steps: Range<usize>, pack: PackPiece<GemmOperands<T>>| {
        let mut end = 0;
        for part in (0..parts).map(&part_of) {
            let start = end;
            end += part.k;
            let (from, to) = (start.max(steps.start), end.min(steps.end));
            if from < to {
                pack(&part, from - start..to - start, from - steps.start);
            }
        }
    };
    // SAFETY: the caller's promises are passed on; the pieces of a block are its steps, one part's after the other.
    unsafe { all_blocks(kernels, &GemmOperands { k, ..*whole }, Half::Both, packed, pieces) };
}

/// Packs steps of a product behind so many of the block.
type PackPiece<'a, G> = &'a mut dyn FnMut(&G, Range<usize>, usize);

/// Runs over all blocks. `pieces` is given steps of the reduction and calls its argument with each product that some of them
/// are of, these, and how many come before them.
///
/// # Safety
/// As [`gemm`], for `g` and what `pieces` names, which covers the steps it is given.
unsafe fn all_blocks<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>>(
    kernels: &'static Kernels,
    g: &GemmOperands<T, A, B>,
    half: Half,
    packed: Packed<T>,
    pieces: impl Fn(Range<usize>, PackPiece<GemmOperands<T, A, B>>),
) {
    if g.m == 0 || g.n == 0 {
        return;
    }
    let (kernel, pack_a, pack_b) = (&T::ops(kernels).gemm, A::pack(kernels), B::pack(kernels));
    let all_tiles = Tiles::new(g.m, kernel.mr);
    let row_blocks = all_tiles.count.div_ceil(kernel.mc / kernel.mr);
    let (column_blocks, step_blocks) = (g.n.div_ceil(kernel.nc), g.k.div_ceil(kernel.kc).max(1));
    for column_block in 0..column_blocks {
        for step_block in 0..step_blocks {
            for row_block in 0..row_blocks {
                let block = Block {
                    kernel,
                    pack_a,
                    pack_b,
                    g,
                    all_tiles,
                    tiles: part(all_tiles.count, 1, row_blocks, row_block),
                    columns: part(g.n, kernel.nr, column_blocks, column_block),
                    steps: part(g.k, STEP_UNIT, step_blocks, step_block),
                    packed,
                    half,
                };
                // SAFETY: the block is a part of the caller's product; B is packed before the first rows ask for it, and A before
                // a tile that packs B does.
                unsafe {
                    if !packed.a.is_null() {
                        pieces(block.steps.clone(), &mut |g, steps, at| block.pack_a(g, steps, at));
                    }
                    if row_block == 0 && !packed.b.is_null() {
                        pieces(block.steps.clone(), &mut |g, steps, at| block.pack_b(g, steps, at));
                    }
                    block.run();
                }
            }
        }
    }
}

/// Steps packed at a time where rows lie far apart.
const STEPS_AT_A_TIME: usize = 16;
/// Distance in bytes from which rows fall into so few sets of the first-level cache that a panel's lines don't stay.
const FAR_APART: usize = 2048;

/// The steps in the pieces they are packed in. Where a step is a row of the operand and rows lie far apart, all panels'
/// part of some steps is packed, one panel after the other, which reads memory in order; a whole panel takes one cache line
/// of every row.
fn pieces(k: usize, rows_are_steps: bool, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let each = if rows_are_steps && row_bytes >= FAR_APART { STEPS_AT_A_TIME } else { k.max(1) };
    (0..k).step_by(each).map(move |p| p..k.min(p + each))
}

/// Steps of a block are a multiple of what a transposition takes at once.
const STEP_UNIT: usize = 4;

impl<T: KernelElement, A: StoredElement<T>, B: StoredElement<T>> Block<'_, T, A, B> {
    /// Where a tile's packed rows begin: tiles lie one after the other, each k x rows.
    fn packed_rows(&self, tile: usize) -> *mut T {
        let before = self.all_tiles.start(tile) - self.all_tiles.start(self.tiles.start);
        self.packed.a.wrapping_add(before * self.steps.len())
    }

    /// Where a panel's packed columns begin: panels lie one after the other, each k x nr.
    fn packed_columns(&self, column: usize) -> *mut T {
        self.packed.b.wrapping_add((column - self.columns.start) * self.steps.len())
    }

    /// The first columns of all panels.
    fn panels(&self) -> impl Iterator<Item = usize> + use<T, A, B> {
        self.columns.clone().step_by(self.kernel.nr)
    }

    /// Packs steps `from` of the rows of A in `g` as those from `at` on of the block.
    ///
    /// # Safety
    /// As [`gemm`], of `g`; they are steps of the block; there is a place for them.
    unsafe fn pack_a(&self, g: &GemmOperands<T, A, B>, from: Range<usize>, at: usize) {
        for steps in pieces(from.len(), g.a_rs == 1, g.a_cs * size_of::<A>()) {
            for tile in self.tiles.clone() {
                let rows = self.all_tiles.rows(tile);
                let (width, ds) = (rows.len(), rows.len());
                let src = g.a.wrapping_add(rows.start * g.a_rs + (from.start + steps.start) * g.a_cs);
                let dst = self.packed_rows(tile).wrapping_add((at + steps.start) * ds);
                let panel = Panel { width, k: steps.len(), src, rs: g.a_rs, ps: g.a_cs, dst, ds };
                // SAFETY: rows and steps of A; a block of at most mc rows and kc steps fits its packing space.
                unsafe { (self.pack_a)(&panel) };
            }
        }
    }

    /// The same of the columns of B. Tiles that pack compute their part of these steps.
    ///
    /// # Safety
    /// As [`gemm`], of `g`; they are steps of the block, all of them unless sums are chained; A is packed; there is a place for them.
    unsafe fn pack_b(&self, g: &GemmOperands<T, A, B>, from: Range<usize>, at: usize) {
        if let Some(tile) = self.packed.tile {
            // SAFETY: the caller's promises are passed on.
            unsafe { self.pack_b_in_tiles(tile, g, from, at) };
            return;
        }
        let nr = self.kernel.nr;
        for steps in pieces(from.len(), g.b_cs == 1, g.b_rs * size_of::<B>()) {
            for j in self.panels() {
                let (width, ds) = (nr.min(self.columns.end - j), nr);
                let src = g.b.wrapping_add((from.start + steps.start) * g.b_rs + j * g.b_cs);
                let dst = self.packed_columns(j).wrapping_add((at + steps.start) * ds);
                let panel = Panel { width, k: steps.len(), src, rs: g.b_cs, ps: g.b_rs, dst, ds };
                // SAFETY: steps and columns of B; a block of at most kc steps and nc columns fits its packing space.
                unsafe { (self.pack_b)(&panel) };
            }
        }
    }

    /// [`Block::pack_b`] of rows of B in place: whole panels by the first tile of rows, the cut one by a copy.
    ///
    /// # Safety
    /// As [`Block::pack_b`].
    unsafe fn pack_b_in_tiles(&self, tile: PackingTile<T>, g: &GemmOperands<T, A, B>, steps: Range<usize>, at: usize) {
        let (rows, nr, whole, k) = (self.all_tiles.rows(0).len(), self.kernel.nr, self.epilogue(), steps.len());
        let (a, a_rs, a_cs) = match self.packed.a.is_null() {
            true => (g.a.wrapping_add(steps.start * g.a_cs).cast(), g.a_rs, g.a_cs),
            false => (self.packed_rows(0).wrapping_add(at * rows).cast_const(), 1, rows),
        };
        for j in self.panels() {
            let src = g.b.wrapping_add(steps.start * g.b_rs + j);
            let dst = self.packed_columns(j).wrapping_add(at * nr);
            let n = nr.min(self.columns.end - j);
            // SAFETY: steps and columns of B, which is stored in `T`; a block of at most kc steps and nc columns fits its packing space;
            // rows and columns of C.
            unsafe {
                if n < nr {
                    (self.pack_b)(&Panel { width: n, k, src, rs: 1, ps: g.b_rs, dst, ds: nr });
                    continue;
                }
                let [old, mask, bias] = [whole.old, whole.mask, whole.bias].map(|of_columns| moved(of_columns, j));
                let epilogue = Epilogue { old, mask, bias, ..whole };
                let (b, b_rs, c, c_rs) = (src.cast(), g.b_rs, g.c.wrapping_add(j), g.c_rs);
                tile(&Tile { m: rows, n, k, a, a_rs, a_cs, b, b_rs, c, c_rs, epilogue }, dst);
            }
        }
    }

    /// The first block of the reduction applies the caller's beta, later ones add to C; the last applies what is of the
    /// whole result: bias, ReLU, its mask. What is not applied is null.
    fn epilogue(&self) -> Epilogue<T> {
        let e = self.g.epilogue;
        let (first, last) = (self.steps.start == 0, self.steps.end == self.g.k);
        let part = |wanted: bool, whole: *const T| if wanted { whole } else { std::ptr::null() };
        Epilogue {
            beta: if first || e.chained { e.beta } else { T::ONE },
            old: part(first, e.old),
            bias: part(last, e.bias),
            mask: part(last || !e.mask_result, e.mask),
            relu: e.relu && last,
            ..e
        }
    }

    /// All tiles, panel by panel, but those that packed B. An operand that is read in place is stored in `T`. Between two tiles
    /// only what differs is written anew, which shows in products with few steps.
    ///
    /// # Safety
    /// As [`gemm`]; what is packed holds this block.
    unsafe fn run(&self) {
        let (g, nr, whole) = (self.g, self.kernel.nr, self.epilogue());
        let packs_a = !self.packed.a.is_null();
        let a: *const T = g.a.wrapping_add(self.steps.start * g.a_cs).cast();
        let (a_rs, a_cs) = if packs_a { (1, 0) } else { (g.a_rs, g.a_cs) };
        let mut t = Tile {
            m: 0,
            n: 0,
            k: self.steps.len(),
            a,
            a_rs,
            a_cs,
            b: std::ptr::null(),
            b_rs: if self.packed.b.is_null() { g.b_rs } else { nr },
            c: g.c,
            c_rs: g.c_rs,
            epilogue: whole,
        };
        for panel in self.panels() {
            let end = self.columns.end.min(panel + nr);
            let b: *const T = match self.packed.b.is_null() {
                true => g.b.wrapping_add(self.steps.start * g.b_rs + panel).cast(),
                false => self.packed_columns(panel).cast_const(),
            };
            let done = usize::from(self.packed.tile.is_some() && end - panel == nr);
            for tile in self.tiles.start + done..self.tiles.end {
                let rows = self.all_tiles.rows(tile);
                let start = if self.half == Half::Upper { panel.max(rows.start) } else { panel };
                if start >= end {
                    continue;
                }
                (t.m, t.n, t.b) = (rows.len(), end - start, b.wrapping_add(start - panel));
                if packs_a {
                    (t.a, t.a_cs) = (self.packed_rows(tile).cast_const(), rows.len());
                } else {
                    t.a = a.wrapping_add(rows.start * g.a_rs);
                }
                t.c = g.c.wrapping_add(rows.start * g.c_rs + start);
                t.epilogue.old = moved(whole.old, rows.start * whole.old_rs + start);
                t.epilogue.mask = moved(whole.mask, rows.start * whole.mask_rs + start);
                t.epilogue.bias = moved(whole.bias, start);
                // SAFETY: the tile lies inside the block, whose operands the caller vouches for.
                unsafe { (self.kernel.tile)(&t) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once_at_whole_tiles() {
        for n in [0, 1, 5, 6, 7, 48, 100] {
            for parts in 1..9 {
                let mut next = 0;
                for index in 0..parts {
                    let p = part(n, 6, parts, index);
                    assert_eq!(p.start, next, "n {n}, parts {parts}, index {index}");
                    assert!(p.end == n || p.end.is_multiple_of(6));
                    assert!(p.len() <= n.div_ceil(6).div_ceil(parts) * 6);
                    next = p.end;
                }
                assert_eq!(next, n);
            }
        }
    }

    #[test]
    fn panels_stay_where_their_lines_spread_over_the_sets() {
        // Rows of 64 columns take every fourth set: 16 sets of 8 lines.
        assert!(panel_stays(127, 256) && !panel_stays(128, 256));
        // All rows in one set, and an odd number of lines apart in all.
        assert!(panel_stays(7, 4096) && !panel_stays(8, 8192));
        assert!(panel_stays(511, 192) && !panel_stays(512, 192));
        // Rows that begin inside lines: two lines each.
        assert!(panel_stays(255, 1000) && !panel_stays(256, 1000));
        // A single row, which may have any stride.
        assert!(panel_stays(1, 0) && panel_stays(1, 1 << 20));
    }

    #[test]
    fn tiles_cover_all_rows_once_and_are_even() {
        for m in 0..100 {
            for mr in 1..15 {
                let tiles = Tiles::new(m, mr);
                let sizes: Vec<usize> = (0..tiles.count).map(|t| tiles.rows(t).len()).collect();
                assert_eq!((tiles.start(0), tiles.start(tiles.count)), (0, m), "{m} rows in tiles of {mr}");
                assert!(sizes.iter().all(|&s| s <= mr && s + 1 >= sizes[0] && s > 0), "{m}, {mr}: {sizes:?}");
            }
        }
    }
}
