//! The cases each kernel is tried at, listed once: sizes around every tile edge (4x8, 6x16, 6x8, 14x32, 14x16) and cache block,
//! tails, empty operands, wide leading dimensions, unaligned starts, and values at the ends of the number range.
//! The conformance tests walk the lists; the differential fuzzer makes cases of the same types from its bytes.

use metaglot::{Purpose, Rng};

/// Which product, through which entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Nn,
    Nt,
    Tn,
    Linear,
    LinearRelu,
    Gram,
}

impl Product {
    pub const ALL: [Product; 6] =
        [Product::Nn, Product::Nt, Product::Tn, Product::Linear, Product::LinearRelu, Product::Gram];
}

/// Where an operand's numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Between -2 and 2.
    Uniform,
    /// Around the smallest normal f32, mostly denormal there.
    Denormal,
    /// Uniform, with infinities of both signs, zeros of both signs and denormals among them.
    Special,
}

impl Fill {
    pub const ALL: [Fill; 3] = [Fill::Uniform, Fill::Denormal, Fill::Special];

    /// The next number. f32 holds every finite one.
    pub fn draw(self, rng: &mut Rng) -> f64 {
        const RARE: [f64; 8] = [f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, 1e4, -1e4];
        let x = 4.0 * rng.unit() - 2.0;
        match self {
            Fill::Uniform => x,
            Fill::Denormal => x * 6e-39,
            Fill::Special => RARE.get(rng.below(48)).copied().unwrap_or(x),
        }
    }
}

/// One matrix product: op(A) is m x k, op(B) is k x n.
#[derive(Clone, Copy, Debug)]
pub struct ProductCase {
    pub seed: u64,
    pub product: Product,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// How much longer than its rows a leading dimension is.
    pub gap: usize,
    /// Not used by layers and Gram matrices, which have their own.
    pub alpha: f64,
    pub beta: f64,
    pub fill: Fill,
}

/// Every product at every combination of sizes around the edges, scale factors taking turns.
pub fn products() -> Vec<ProductCase> {
    let mut cases = vec![];
    let mut push = |m, n, k, fill| {
        for product in Product::ALL {
            let i = cases.len();
            let (alpha, beta) = ([1.0, -0.1, 0.7][i % 3], [0.0, 1.0, 0.0, -0.5][i / 3 % 4]);
            cases.push(ProductCase { seed: i as u64, product, m, n, k, gap: i % 5, alpha, beta, fill });
        }
    };
    for m in [1, 3, 4, 5, 6, 7, 12, 13] {
        for n in [1, 4, 5, 7, 8, 9, 15, 16, 17, 33] {
            for k in [0, 1, 5, 255, 256, 257, 300] {
                push(m, n, k, Fill::Uniform);
            }
        }
    }
    // Every number of rows up to two tiles of 14, and every number of columns up to three vectors of 16.
    for m in 1..=29 {
        push(m, 34, 6, Fill::Uniform);
    }
    for n in 1..=49 {
        push(15, n, 7, Fill::Uniform);
    }
    // Every tail of a transposition: of the columns of B and of the steps.
    for n in [2, 3, 15, 31] {
        for k in 1..=18 {
            push(2, n, k, Fill::Uniform);
        }
    }
    // Empty results; where packing begins (48, 64 and 128 rows, 192 columns); tiles of 14 packed rows (140); the row blocks
    // (64, 96, 126, 192).
    for (m, n, k) in [(0, 5, 3), (5, 0, 3), (47, 17, 20), (48, 33, 257), (65, 33, 3), (97, 9, 30), (193, 18, 7)] {
        push(m, n, k, Fill::Uniform);
    }
    for (m, n, k) in [
        (1, 192, 40),
        (13, 191, 9),
        (29, 192, 258),
        (63, 33, 9),
        (127, 33, 9),
        (128, 33, 385),
        (140, 224, 19),
        (127, 17, 3),
        (251, 5, 4),
        (253, 33, 6),
    ] {
        push(m, n, k, Fill::Uniform);
    }
    // B packed by the first tile of rows: from 18 rows where its rows lie 2 KiB apart, from 30 where a panel does not stay in cache.
    for (m, n, k) in [(17, 520, 9), (18, 520, 9), (20, 516, 270), (30, 64, 256), (31, 72, 513)] {
        push(m, n, k, Fill::Uniform);
    }
    // The column blocks (256, 512, 1024) and the blocks of steps (256, 384).
    for (m, n, k) in [(7, 257, 3), (3, 513, 258), (64, 515, 5), (2, 520, 0), (2, 1023, 2), (3, 1025, 5), (50, 1030, 3)]
    {
        push(m, n, k, Fill::Uniform);
    }
    for k in [383, 384, 385, 511, 512, 513, 769, 1025] {
        push(15, 17, k, Fill::Uniform);
    }
    for fill in [Fill::Denormal, Fill::Special] {
        for (m, n, k) in [(5, 9, 3), (7, 17, 300), (13, 33, 40)] {
            push(m, n, k, fill);
        }
    }
    // Rows of B so far apart that even two tiles pay for packing: the first has 4 rows.
    let far = ProductCase {
        seed: 1,
        product: Product::Nn,
        m: 8,
        n: 2080,
        k: 256,
        gap: 3,
        alpha: 0.7,
        beta: -0.5,
        fill: Fill::Uniform,
    };
    cases.push(far);
    cases
}

/// What is done to a product's result beside its scale factors.
#[derive(Clone, Copy, Debug)]
pub struct Fused {
    /// The old values lie in a matrix of their own.
    pub old: bool,
    pub bias: bool,
    pub relu: bool,
    pub mask: Option<Masked>,
}

/// What a mask is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masked {
    Product,
    Result,
}

impl Fused {
    /// The combination of number `i` of 24.
    pub fn number(i: usize) -> Self {
        let bit = |b: usize| (i / 3) >> b & 1 == 1;
        let mask = [None, Some(Masked::Product), Some(Masked::Result)][i % 3];
        Self { old: bit(0), bias: bit(1), relu: bit(2), mask }
    }
}

/// The three plain products, each with all that can be fused, at sizes around the tiles' edges and the blocks of steps.
pub fn fused() -> Vec<(ProductCase, Fused)> {
    let mut cases = vec![];
    for (i, product) in [Product::Nn, Product::Nt, Product::Tn].into_iter().enumerate() {
        for (j, (m, n, k)) in [
            (1, 1, 0),
            (3, 5, 7),
            (7, 17, 257),
            (14, 32, 513),
            (3, 17, 1025),
            (15, 33, 40),
            (29, 49, 6),
            (49, 33, 257),
            (140, 259, 20),
            (56, 259, 258),
            (70, 50, 300),
        ]
        .into_iter()
        .enumerate()
        {
            // Of the largest, whose truth takes longest, one in five.
            for number in (0..24).step_by(if m * n * k > 1 << 20 { 5 } else { 1 }) {
                let seed = (i * 10 + j) * 24 + number;
                let beta = [1.0, 0.0, -0.5][seed / 24 % 3];
                let fill = if number % 5 == 4 { Fill::Special } else { Fill::Uniform };
                let case = ProductCase { seed: seed as u64, product, m, n, k, gap: seed % 5, alpha: -0.3, beta, fill };
                cases.push((case, Fused::number(number)));
            }
        }
    }
    cases
}

/// The three plain products for operands in half precision, with and without bias and ReLU: every tail of both packings, sizes
/// around the tiles' edges and the blocks of steps.
pub fn stored() -> Vec<(ProductCase, Fused)> {
    let sizes = (1..=18).flat_map(|w| [(w, 5, w), (2, w + 16, 7), (w + 12, 3, 9)]);
    let larger =
        [(0, 5, 3), (5, 0, 3), (4, 6, 0), (1, 1, 300), (49, 33, 257), (15, 193, 40), (50, 259, 258), (15, 33, 1025)];
    let mut cases = vec![];
    for (m, n, k) in sizes.chain(larger) {
        for product in [Product::Nn, Product::Nt, Product::Tn] {
            let seed = cases.len();
            let (alpha, beta) = ([1.0, -0.3][seed % 2], [0.0, 1.0, -0.5][seed / 2 % 3]);
            let (gap, fill) = (seed % 5, Fill::ALL[seed / 5 % 3]);
            let case = ProductCase { seed: seed as u64, product, m, n, k, gap, alpha, beta, fill };
            cases.push((case, Fused { old: false, bias: seed / 3 % 2 == 0, relu: seed % 4 == 0, mask: None }));
        }
    }
    cases
}

/// Products with few columns, one more than few among them: every number of them by every tail of rows and of steps.
pub fn few_columns() -> Vec<ProductCase> {
    let few = (0..=9).flat_map(|n| (0..=34).chain([64, 127, 257]).map(move |k| (n, k)));
    // So long that dot products pay where tiles are poorly filled, and so wide that there are several groups of them.
    let more = [10, 11, 12, 13, 17, 18, 20, 23, 33].into_iter().flat_map(|n| [130, 257, 512].map(|k| (n, k)));
    let mut cases = vec![];
    for (n, k) in few.chain(more) {
        for m in [0, 1, 2, 3, 4, 5, 9] {
            let i = cases.len();
            let (alpha, beta) = ([1.0, -0.1][i % 2], [0.0, 1.0, -0.5][i % 3]);
            let fill = if i % 11 == 7 { Fill::Special } else { Fill::Uniform };
            let (seed, gap) = (i as u64, i % 5);
            cases.push(ProductCase { seed, product: Product::Nt, m, n, k, gap, alpha, beta, fill });
        }
    }
    cases
}

/// Products, and sums of two, with few steps and some more: every rank by tails of columns, all three forms.
pub fn low_ranks() -> Vec<ProductCase> {
    let mut cases = vec![];
    for k in 0..=11 {
        for n in [0, 1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 49] {
            for m in [0, 1, 2, 25] {
                let i = cases.len();
                let product = [Product::Nn, Product::Nn, Product::Tn, Product::Nt][(i + i / 4) % 4];
                let (alpha, beta) = ([1.0, -0.1, 0.7][i % 3], [1.0, 0.0, 1.0, -0.5][i / 3 % 4]);
                let fill = if i % 11 == 7 { Fill::Special } else { Fill::Uniform };
                let (seed, gap) = (i as u64, i % 5);
                cases.push(ProductCase { seed, product, m, n, k, gap, alpha, beta, fill });
            }
        }
    }
    cases
}

/// Products with few rows, one more than few among them: every number of them by every tail of the widest panel (64 columns).
pub fn few_rows() -> Vec<ProductCase> {
    let mut cases = vec![];
    for m in 1..=9 {
        for n in [7, 24, 47, 48, 63, 64, 65, 130] {
            for k in [0, 1, 25, 385] {
                let i = cases.len();
                let (alpha, beta) = ([1.0, -0.1][i % 2], [1.0, 0.0, 1.0][i % 3]);
                let fill = if i % 11 == 7 { Fill::Special } else { Fill::Uniform };
                let (seed, gap) = (i as u64, i % 5);
                cases.push(ProductCase { seed, product: Product::Tn, m, n, k, gap, alpha, beta, fill });
            }
        }
    }
    cases
}

/// One row-wise or element-wise operation on n elements that start `offset` elements past an aligned address.
#[derive(Clone, Copy, Debug)]
pub struct RowCase {
    pub seed: u64,
    pub n: usize,
    pub offset: usize,
    pub fill: Fill,
}

/// Every length up to 257 at every offset from 0 to 15, the kinds of numbers taking turns.
pub fn rows() -> Vec<RowCase> {
    let each = |i: usize| RowCase { seed: i as u64, n: i / 16, offset: i % 16, fill: Fill::ALL[(i / 16 + i) % 3] };
    (0..258 * 16).map(each).collect()
}

/// Blocks of logits: rows, classes, gap between the rows. Row lengths around every register and number of registers.
pub fn softmax_blocks() -> Vec<(usize, usize, usize)> {
    let classes = (1..=33).chain([47, 48, 49, 63, 64, 65, 127, 128, 129, 200]);
    classes.flat_map(|n| [0, 1, 2, 7, 300].map(|m| (m, n, (m + n) % 3))).collect()
}

/// The kinds of logits softmax cross-entropy is tried at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Normal with standard deviation 3.
    Usual,
    Equal,
    /// +-1e4 at random.
    Extreme,
    /// All but one are minus infinity.
    OneFinite,
    /// Evenly from -104 to 0: everything the exponential sees down to the smallest f32.
    Wide,
    Denormal,
}

/// One row of logits.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxCase {
    pub seed: u64,
    pub n: usize,
    pub target: usize,
    pub scale: f64,
    pub offset: usize,
    pub logits: Logits,
}

impl SoftmaxCase {
    /// The logits.
    pub fn draw(&self) -> Vec<f64> {
        let mut rng = Rng::new(self.seed, 0, 0, Purpose::Data);
        let finite = rng.below(self.n);
        (0..self.n)
            .map(|i| match self.logits {
                Logits::Usual => 3.0 * rng.normal(),
                Logits::Equal => -7.25,
                Logits::Extreme => [1e4, -1e4][rng.below(2)],
                Logits::OneFinite if i == finite => 2.5,
                Logits::OneFinite => f64::NEG_INFINITY,
                Logits::Wide => -104.0 * i as f64 / self.n as f64,
                Logits::Denormal => 1e-40 * rng.normal(),
            })
            .collect()
    }
}

/// Every length from 1 to 257 and some long ones, for all kinds of logits; targets and scales take turns.
pub fn softmaxes() -> Vec<SoftmaxCase> {
    let kinds = [Logits::Usual, Logits::Equal, Logits::Extreme, Logits::OneFinite, Logits::Wide, Logits::Denormal];
    let mut cases = vec![];
    for n in (1..=257).chain([1000, 4099, 30_000]) {
        for logits in kinds {
            let seed = cases.len();
            let (target, scale) = ([0, n / 2, n - 1][seed % 3], [1.0, 1.0 / 75.0][seed / 3 % 2]);
            cases.push(SoftmaxCase { seed: seed as u64, n, target, scale, offset: seed % 8, logits });
        }
    }
    cases
}

/// One gather-and-sum of `len` rows of width `n` out of a table of `rows`.
#[derive(Clone, Copy, Debug)]
pub struct GatherCase {
    pub seed: u64,
    pub len: usize,
    pub rows: usize,
    pub n: usize,
    pub gap: usize,
    pub init: bool,
    pub fill: Fill,
}

/// Widths around the vector and the 64-column block; empty bags, long bags, a start value or none.
pub fn gathers() -> Vec<GatherCase> {
    let mut cases = vec![];
    for n in [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 71, 72, 73, 127, 128, 129, 200] {
        for len in [0, 1, 2, 7, 60, 257] {
            for fill in Fill::ALL {
                let seed = cases.len();
                let (gap, init) = (seed % 4, seed % 2 == 0);
                cases.push(GatherCase { seed: seed as u64, len, rows: 1 + seed % 50, n, gap, init, fill });
            }
        }
    }
    cases
}

/// Column sums: rows, columns, gap, alpha, beta.
pub fn column_sums() -> Vec<(usize, usize, usize, f64, f64)> {
    let mut cases = vec![];
    for m in [0, 1, 2, 25, 257] {
        for n in [0, 1, 5, 7, 8, 9, 31, 32, 33, 65] {
            for (i, beta) in [0.0, 1.0, -0.5].into_iter().enumerate() {
                cases.push((m, n, (m + n + i) % 4, [1.0, 1.0 / 32.0][i % 2], beta));
            }
        }
    }
    cases
}

/// Lengths of two bags whose dot product is taken, and the vocabulary: disjoint, nested, equal, empty.
pub const BAG_DOTS: [(usize, usize, usize); 8] =
    [(0, 0, 5), (0, 4, 9), (1, 1, 1), (5, 5, 5), (3, 60, 100), (60, 60, 70), (60, 60, 65_536), (257, 300, 400)];
