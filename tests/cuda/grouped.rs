//! What runs over all episodes of a batch in one launch: products, losses and ends, of episodes of different sizes, for every
//! architecture, through the engine's own launch code, on the interpreter and on a GPU where there is one; and the
//! interpreter's proof that it sees what may go wrong.

use crate::support::check_device::softmax_wanted;
use crate::support::edit::{lines, shifted, without};
use crate::support::simulator::{Simulator, simulators};
use crate::support::tables::assert_met;
use crate::support::truth::{self, Sum, Wanted, precision};
use bytemuck::{Pod, cast_slice, cast_slice_mut};
use metaglot::cuda::grouped::{self, Ends, Extent, Mask, Moved, NOTHING, Product, Rows};
use metaglot::cuda::{Cuda, Device, Form, Operand};
use metaglot::{Purpose, Result, Rng};

/// Numbers on a device, and their address.
fn put<D: Device, T: Pod>(device: &mut D, values: &[T]) -> (D::Buffer, u64) {
    let mut memory = device.alloc(size_of_val(values)).unwrap();
    device.upload(&mut memory, 0, cast_slice(values)).unwrap();
    let at = device.address(&memory);
    (memory, at)
}

fn get<D: Device, T: Pod + Default>(device: &mut D, memory: &D::Buffer, n: usize) -> Vec<T> {
    let mut values = vec![T::default(); n];
    device.download(memory, 0, cast_slice_mut(&mut values)).unwrap();
    values
}

/// 0 and the sums of the first, the first two, ...
fn bounds(sizes: &[usize]) -> Vec<i32> {
    let ends = sizes.iter().scan(0, |sum, &size| {
        *sum += size as i32;
        Some(*sum)
    });
    [0].into_iter().chain(ends).collect()
}

/// A matrix for each episode in a frame of NaN.
#[derive(Clone)]
struct Stack {
    data: Vec<f32>,
    offset: usize,
    ld: usize,
    stride: usize,
    /// Each episode's first row, and how many it has.
    rows: Vec<(usize, usize)>,
    cols: usize,
}

impl Stack {
    /// Place of an episode's element; row `rows` is what stands behind the last.
    fn place(&self, e: usize, i: usize, j: usize) -> usize {
        self.offset + e * self.stride + (self.rows[e].0 + i) * self.ld + j
    }

    fn at(&self, e: usize, i: usize, j: usize) -> f64 {
        self.data[self.place(e, i, j)].into()
    }

    /// Its operand in memory of that address.
    fn operand(&self, address: u64) -> Operand {
        Operand { address: address + 4 * self.offset as u64, ld: self.ld, stride: self.stride }
    }
}

/// How many of something each episode has: a number, or its rows in one of two sets.
#[derive(Clone, Copy, Debug)]
enum Count {
    Same(usize),
    Set(usize),
}

/// A product and all that is around it.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    form: Form,
    /// Rows of the episodes in two sets.
    sets: [Vec<usize>; 2],
    m: Count,
    n: usize,
    k: Count,
    tile: usize,
    aligned: bool,
    alpha: f32,
    beta: f32,
    second: bool,
    old_is_c: bool,
    /// 0: none, 1: of the products, 2: of the result.
    mask: usize,
    mask_is_c: bool,
    relu: bool,
    bias: bool,
}

impl Case {
    fn sizes(&self, count: Count) -> Vec<usize> {
        match count {
            Count::Same(size) => vec![size; self.sets[0].len()],
            Count::Set(set) => self.sets[set].clone(),
        }
    }

    /// Matrices with `rows` rows an episode; `behind` numbers stand behind each.
    fn stack(&self, rng: &mut Rng, rows: Count, cols: usize, behind: usize, nan: bool) -> Stack {
        let (ld, offset) =
            if self.aligned { (cols.next_multiple_of(4), 0) } else { (cols + rng.below(3), 1 + rng.below(3)) };
        let sizes = self.sizes(rows);
        let (stride, firsts) = match rows {
            Count::Same(size) => ((size * ld + behind).next_multiple_of(4) + 4, vec![0; sizes.len()]),
            Count::Set(_) => (0, bounds(&sizes)[..sizes.len()].to_vec()),
        };
        let rows: Vec<_> = firsts.iter().map(|&first| first as usize).zip(sizes.iter().copied()).collect();
        let numbers = offset + sizes.len() * stride + sizes.iter().sum::<usize>() * ld + behind + 17;
        let mut stack = Stack { data: vec![f32::NAN; numbers], offset, ld, stride, rows, cols };
        for e in 0..sizes.len() {
            for (i, j) in stack.places(e, behind) {
                let at = stack.place(e, i, j);
                stack.data[at] = if nan { f32::NAN } else { rng.normal() as f32 };
            }
        }
        stack
    }
}

impl Stack {
    /// An episode's elements, and what stands behind them as the row after the last.
    fn places(&self, e: usize, behind: usize) -> Vec<(usize, usize)> {
        let (rows, cols) = (self.rows[e].1, self.cols);
        let own = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
        own.chain((0..behind).map(|j| (rows, j))).collect()
    }
}

/// A case's operands.
struct Operands {
    a: Stack,
    b: Stack,
    second: Option<[Stack; 2]>,
    old: Stack,
    c: Stack,
    mask: Stack,
}

/// Numbers behind the last row: of B (nt), and of c and the old values (tn).
fn behind(case: &Case) -> [usize; 2] {
    let m = case.sizes(case.m).first().copied().unwrap_or(0);
    match (case.bias, case.form) {
        (true, Form::Nt) => [case.n, 0],
        (true, Form::Tn) => [0, m],
        _ => [0, 0],
    }
}

impl Operands {
    fn new(case: &Case) -> Self {
        let mut rng = Rng::new(case.seed, 0, 0, Purpose::Data);
        let widest = |count| case.sizes(count).into_iter().max().unwrap_or(0);
        let (m, n, k) = (widest(case.m), case.n, widest(case.k));
        let (a_rows, a_cols) = if case.form == Form::Tn { (case.k, m) } else { (case.m, k) };
        let (b_rows, b_cols) = if case.form == Form::Nt { (Count::Same(n), k) } else { (case.k, n) };
        let [of_b, of_c] = behind(case);
        let mut pair =
            |of_b| [case.stack(&mut rng, a_rows, a_cols, 0, false), case.stack(&mut rng, b_rows, b_cols, of_b, false)];
        let [a, b] = pair(of_b);
        // The second operands have the first ones' leading dimensions in the engine, but need not.
        let second = case.second.then(|| pair(0));
        let mut of = |nan| case.stack(&mut rng, case.m, n, of_c, nan);
        let needs_c = case.beta != 0.0 && case.old_is_c || case.mask > 0 && case.mask_is_c;
        let (old, c, mask) = (of(case.beta == 0.0), of(!needs_c), of(case.mask == 0));
        Self { a, b, second, old, c, mask }
    }

    fn old(&self, case: &Case) -> &Stack {
        if case.old_is_c { &self.c } else { &self.old }
    }

    /// Element (i, j) of episode e.
    fn wanted(&self, case: &Case, k: usize, e: usize, (i, j): (usize, usize)) -> Wanted {
        let mut sum = Sum::default();
        let add = |a: &Stack, b: &Stack, sum: &mut Sum| {
            for p in 0..k {
                let x = if case.form == Form::Tn { a.at(e, p, i) } else { a.at(e, i, p) };
                let y = if case.form == Form::Nt { b.at(e, j, p) } else { b.at(e, p, j) };
                sum.add(x, y);
            }
        };
        add(&self.a, &self.b, &mut sum);
        if case.bias && case.form == Form::Nt {
            sum.add(1.0, self.b.at(e, case.n, j));
        }
        sum.scale(case.alpha.into());
        if let Some([a, b]) = &self.second {
            add(a, b, &mut sum);
        }
        let mask = if case.mask_is_c { &self.c } else { &self.mask };
        let keeps = case.mask == 0 || mask.at(e, i, j) > 0.0;
        if case.mask == 1 && !keeps {
            sum = Sum::default();
        }
        if case.beta != 0.0 {
            sum.add(case.beta.into(), self.old(case).at(e, i, j));
        }
        let x = sum.wanted(precision::<f32>());
        let x = if case.relu { truth::relu(x) } else { x };
        if case.mask == 2 && !keeps { Wanted::exactly(0.0) } else { x }
    }

    /// The sum of column i of A, behind c's last row.
    fn wanted_sum(&self, case: &Case, k: usize, e: usize, i: usize) -> Wanted {
        let old = self.old(case);
        let before = if case.beta == 0.0 { 0.0 } else { old.at(e, old.rows[e].1, i) };
        let terms = (0..k).map(|p| (1.0, self.a.at(e, p, i)));
        truth::product(precision::<f32>(), terms, case.alpha.into(), case.beta.into(), before, None)
    }
}

/// Runs a case; c with its frame.
fn run<D: Device>(device: &mut D, case: &Case, o: &Operands) -> Result<Vec<f32>> {
    let sets = case.sets.each_ref().map(|sizes| put(device, &bounds(sizes)));
    let extent = |count| match count {
        Count::Same(size) => Extent::Same(size),
        Count::Set(set) => {
            Extent::Rows { bounds: sets[set].1, most: case.sets[set].iter().copied().max().unwrap_or(0) }
        }
    };
    let mut placed = |stack: &Stack| {
        let (memory, address) = put(device, &stack.data);
        (memory, stack.operand(address))
    };
    let (a, b, c) = (placed(&o.a), placed(&o.b), placed(&o.c));
    let second = o.second.as_ref().map(|pair| pair.each_ref().map(&mut placed));
    let (old, mask) = (placed(&o.old), placed(&o.mask));
    let mask = if case.mask_is_c { c.1 } else { mask.1 };
    let product = Product {
        form: case.form,
        episodes: case.sets[0].len(),
        m: extent(case.m),
        n: case.n,
        k: extent(case.k),
        alpha: case.alpha,
        a: a.1,
        b: b.1,
        second: second.as_ref().map(|pair| pair.each_ref().map(|x| x.1)),
        beta: case.beta,
        old: if case.old_is_c { c.1 } else { old.1 },
        c: c.1,
        mask: [Mask::None, Mask::Products(mask), Mask::Result(mask)][case.mask],
        relu: case.relu,
        bias: case.bias,
    };
    // SAFETY: the operands are as long as the case says and live to the end of this function.
    unsafe { product.call_with(case.tile)?.run(device)? };
    Ok(get(device, &c.0, o.c.data.len()))
}

/// Whether each element is as wanted and nothing else was written; the first complaint.
fn judge(case: &Case, o: &Operands, found: &[f32]) -> std::result::Result<(), String> {
    let (ks, [_, of_c]) = (case.sizes(case.k), behind(case));
    let mut untouched: Vec<bool> = vec![true; found.len()];
    for (e, &k) in ks.iter().enumerate() {
        for (i, j) in o.c.places(e, of_c) {
            let is_sum = i == o.c.rows[e].1;
            let w = if is_sum { o.wanted_sum(case, k, e, j) } else { o.wanted(case, k, e, (i, j)) };
            let at = o.c.place(e, i, j);
            untouched[at] = false;
            if !w.met_by(found[at].into()) {
                let f = found[at];
                return Err(format!("episode {e}, ({i}, {j}) is {f:e} but {:e} +- {:e} is wanted", w.value, w.slack));
            }
        }
    }
    let changed = |at: &usize| untouched[*at] && found[*at].to_bits() != o.c.data[*at].to_bits();
    (0..found.len()).find(changed).map_or(Ok(()), |at| Err(format!("{} was written outside, at {at}", found[at])))
}

/// The shapes of the meta-step's products: of rows and weights, of rows and rows, of weights, of a Gram matrix transposed.
const SHAPES: [(Form, bool, bool); 5] = [
    (Form::Nt, true, false),
    (Form::Nn, true, false),
    (Form::Nn, true, true),
    (Form::Tn, false, true),
    (Form::Tn, true, true),
];

/// Every shape with every tile; sizes at the tiles' edges, and all that may be around a product, take turns.
fn products() -> Vec<Case> {
    let mut cases = vec![];
    let rows = [0, 1, 31, 33, 65, 5, 64, 32, 129, 63, 2, 127];
    let columns = [1, 31, 64, 65, 20, 33, 3, 128, 63];
    let inner = [0, 1, 8, 17, 9, 33, 16, 7];
    for round in 0..4 {
        for (form, m_is_rows, k_is_rows) in SHAPES {
            for tile in 0..3 {
                let t = cases.len();
                let size = |i: usize| rows[(5 * t + i) % rows.len()];
                let other = |i: usize| [3, 0, 10, 40, 17][(t + i) % 5];
                let m = if m_is_rows { Count::Set(0) } else { Count::Same(columns[(4 * t + 1) % 9]) };
                let k = match (k_is_rows, m_is_rows) {
                    (true, true) => Count::Set(1),
                    (true, false) => Count::Set(0),
                    _ => Count::Same(inner[(3 * t + round) % 8]),
                };
                let mask = if form == Form::Tn { 0 } else { (t + round) % 3 };
                cases.push(Case {
                    seed: t as u64,
                    form,
                    sets: [[0, 1, 2].map(size).to_vec(), [0, 1, 2].map(other).to_vec()],
                    m,
                    n: columns[(t + 2 * round) % 9],
                    k,
                    tile,
                    aligned: (t + round) % 2 == 0,
                    alpha: [1.0, -0.3][t % 2],
                    beta: [0.0, 1.0, 0.5][(t / 2 + round) % 3],
                    second: (t / 3 + round) % 2 == 0,
                    old_is_c: t % 4 < 2,
                    mask,
                    mask_is_c: t % 5 == 0,
                    relu: mask != 1 && t % 3 == 1,
                    bias: form == Form::Nt && round % 2 == 0 || form == Form::Tn && !m_is_rows && round != 1,
                });
            }
        }
    }
    cases
}

fn check_products<D: Device>(device: &mut D) {
    for case in products() {
        let (o, what) = (Operands::new(&case), format!("{} {case:?}", device.arch()));
        let found = run(device, &case, &o).unwrap_or_else(|e| panic!("{what}: {e}"));
        judge(&case, &o, &found).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

/// Episodes of these numbers of rows, one of them without any; softmax and gradient beside the logits and in their place.
fn check_losses<D: Device>(device: &mut D, seed: u64, sizes: &[usize], classes: usize) {
    let what = format!("{} losses, {seed}, {sizes:?} rows of {classes}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let count: usize = sizes.iter().sum();
    let mut numbers = || (0..count * classes).map(|_| 3.0 * rng.normal() as f32).collect::<Vec<_>>();
    let (z, rz) = (numbers(), numbers());
    let targets: Vec<u32> = (0..count).map(|_| rng.below(classes) as u32).collect();
    let (_bounds, bounds) = put(device, &bounds(sizes));
    let rows = Rows { episodes: sizes.len(), bounds, most: sizes.iter().copied().max().unwrap_or(0), classes };
    let (_targets, targets_at) = put(device, &targets);
    let scales: Vec<f32> = sizes.iter().flat_map(|&n| vec![1.0 / n as f32; n]).collect();
    // z, p, dz and losses apart; p in z's place; p and dz in one place, without losses.
    for (p_is_z, dz_is_p) in [(false, false), (true, false), (false, true)] {
        let [logits, p, dz] = [&z, &z, &z].map(|like| put(device, like));
        let (losses, losses_at) = put(device, &vec![f32::NAN; count]);
        let p = if p_is_z { &logits } else { &p };
        let dz = if dz_is_p { p } else { &dz };
        let no_losses = if dz_is_p { 0 } else { losses_at };
        let call = grouped::softmax_xent(&rows, logits.1, targets_at, [p.1, dz.1], no_losses).unwrap();
        // SAFETY: the buffers hold the rows' numbers.
        unsafe { call.run(device) }.unwrap();
        let (p, dz): (Vec<f32>, Vec<f32>) = (get(device, &p.0, z.len()), get(device, &dz.0, z.len()));
        let losses: Vec<f32> = get(device, &losses, count);
        for (i, own) in z.chunks(classes).enumerate() {
            let row: Vec<f64> = own.iter().map(|&x| x.into()).collect();
            let (softmax, gradient, loss) = softmax_wanted(&row, targets[i] as usize, scales[i]);
            let of = |x: &[f32]| x[i * classes..][..classes].iter().map(|&x| x.into()).collect::<Vec<f64>>();
            assert_met(&what, &gradient, &of(&dz));
            if !dz_is_p {
                assert_met(&what, &softmax, &of(&p));
                assert_met(&what, &[loss], &[losses[i].into()]);
            }
        }
    }
    let softmax: Vec<f32> = z.iter().map(|x| x.abs() / (4.0 * classes as f32)).collect();
    let [p, rdz] = [&softmax, &rz].map(|x| put(device, x));
    // SAFETY: as above.
    unsafe { grouped::softmax_xent_rop(&rows, p.1, rdz.1, rdz.1).unwrap().run(device) }.unwrap();
    let found: Vec<f32> = get(device, &rdz.0, rz.len());
    for i in 0..count {
        let of = |x: &[f32]| x[i * classes..][..classes].iter().map(|&x| x.into()).collect::<Vec<f64>>();
        let wanted = truth::softmax_xent_rop(precision::<f32>(), &of(&softmax), &of(&rz), scales[i].into());
        assert_met(&what, &wanted, &of(&found));
    }
}

/// Means, column sums, differences and flags of three episodes, the second without query rows.
fn check_ends<D: Device>(device: &mut D, seed: u64, hidden: usize, head: usize, moves: bool) {
    let what = format!("{} ends, {seed}, {hidden} and {head}, moves {moves}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let mut numbers = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let (support, query, len) = ([3usize, 5, 40], [70usize, 0, 9], hidden + head);
    let (losses, u, eps) = (numbers(79), numbers(48 * hidden), numbers(79 * hidden));
    let (start, from, stride) = (numbers(head), head / 3, head + 2);
    let (adapted, mut gradient) = (numbers(3 * stride), numbers(3 * len));
    // The last episode's gradient is not finite.
    gradient[3 * len - 1] = f32::INFINITY;
    let adapted_at = put(device, &adapted);
    let placed = [&losses, &vec![f32::NAN; 3], &u, &eps, &start, &gradient].map(|x| put(device, x));
    let [losses_at, mean, u_at, eps_at, start_at, rows] = placed.each_ref().map(|x| x.1);
    let sets = [bounds(&support), bounds(&query)].map(|x| put(device, &x));
    let (finite, finite_at) = put(device, &[9u32; 3]);
    let moved = Moved { head: start_at, adapted: adapted_at.1, stride, from };
    let ends = Ends {
        episodes: 3,
        bounds: [sets[0].1, sets[1].1],
        losses: [losses_at, mean],
        hidden,
        adjoints: [u_at, if moves { 0 } else { eps_at }],
        moved: moves.then_some(moved),
        rows,
        row_len: len,
        finite: finite_at,
    };
    // SAFETY: the buffers have what the sizes say.
    unsafe { ends.call().unwrap().run(device) }.unwrap();
    let found: Vec<f32> = get(device, &placed[5].0, 3 * len);
    let means: Vec<f32> = get(device, &placed[1].0, 3);
    let (mut s0, mut q0) = (0, 0);
    for e in 0..3 {
        let mut sum = Sum::default();
        losses[q0..q0 + query[e]].iter().for_each(|&x| sum.add(1.0, x.into()));
        sum.scale(1.0 / query[e].max(1) as f64);
        assert_met(&what, &[sum.wanted(precision::<f32>())], &[means[e].into()]);
        for j in 0..hidden {
            let mut sum = Sum::default();
            (s0..s0 + support[e]).for_each(|i| sum.add(1.0, u[i * hidden + j].into()));
            (q0..q0 + query[e]).filter(|_| !moves).for_each(|i| sum.add(1.0, eps[i * hidden + j].into()));
            assert_met(&what, &[sum.wanted(precision::<f32>())], &[found[e * len + j].into()]);
        }
        for i in 0..head {
            let difference = if i < from { 0.0 } else { start[i] - adapted[e * stride + i.saturating_sub(from)] };
            let wanted = if moves { difference } else { gradient[e * len + hidden + i] };
            assert_eq!(found[e * len + hidden + i], wanted, "{what}: episode {e}, {i}");
        }
        (s0, q0) = (s0 + support[e], q0 + query[e]);
    }
    // Differences replace what was not finite.
    assert_eq!(get::<_, u32>(device, &finite, 3), [1, 1, u32::from(moves)], "{what}");
}

fn check<D: Device>(device: &mut D) {
    check_products(device);
    for (seed, classes) in (0..).zip([1, 5, 32, 33, 70]) {
        check_losses(device, seed, &[5, 0, 1, 19], classes);
    }
    for (seed, (hidden, head)) in (0..).zip([(1, 1), (9, 64), (300, 501)]) {
        check_ends(device, seed, hidden, head, seed % 2 == 0);
        check_ends(device, seed, hidden, head, seed % 2 == 1);
    }
}

#[test]
fn grouped_kernels_equal_the_truth_on_every_architecture() {
    std::thread::scope(|scope| {
        for mut simulator in simulators() {
            scope.spawn(move || {
                check(&mut simulator);
                simulator.assert_all_launched(&["grouped"]);
            });
        }
    });
}

#[test]
fn grouped_kernels_equal_the_truth_on_a_gpu() {
    match Cuda::new(0) {
        Ok(mut cuda) => check(&mut cuda),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

/// A case with several tiles, slices and episodes, and everything around the product that its form has.
fn busy(form: Form, tile: usize) -> Case {
    let is_tn = form == Form::Tn;
    Case {
        seed: 77,
        form,
        sets: [vec![5, 130, 33], vec![1, 1, 1]],
        m: if is_tn { Count::Same(70) } else { Count::Set(0) },
        n: 72,
        k: if is_tn { Count::Set(0) } else { Count::Same(20) },
        tile,
        aligned: true,
        alpha: -0.3,
        beta: 0.5,
        second: true,
        old_is_c: true,
        mask: usize::from(!is_tn),
        mask_is_c: false,
        relu: false,
        bias: true,
    }
}

#[test]
fn the_order_of_warps_and_blocks_changes_no_bit() {
    for form in [Form::Nn, Form::Nt, Form::Tn] {
        let case = busy(form, 1);
        let o = Operands::new(&case);
        let one = |seed| {
            let mut simulator = Simulator::new("sm_80");
            simulator.seed = seed;
            run(&mut simulator, &case, &o).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(one(1) == one(2) && one(1) == one(99), "{form:?}");
    }
}

#[test]
fn impossible_products_are_refused() {
    let operand = |ld| Operand { address: 1 << 32, ld, stride: 0 };
    let product = Product {
        form: Form::Nt,
        episodes: 2,
        m: Extent::Rows { bounds: 1 << 33, most: 5 },
        n: 7,
        k: Extent::Same(9),
        alpha: 1.0,
        a: operand(9),
        b: operand(9),
        second: None,
        beta: 0.0,
        old: NOTHING,
        c: operand(7),
        mask: Mask::None,
        relu: false,
        bias: false,
    };
    assert!(product.call().is_ok());
    let large = Extent::Same(1 << 31);
    let short = [operand(8), operand(6)];
    for bad in [
        Product { a: short[0], ..product },
        Product { b: short[0], ..product },
        Product { c: short[1], ..product },
        Product { m: large, ..product },
        Product { n: 1 << 31, c: operand(1 << 31), ..product },
    ] {
        assert_eq!(bad.call().unwrap_err().code(), 1, "{bad:?}");
    }
}

/// Runs a case with changed kernels; what is wrong then, empty if nothing is.
fn with_bug(arch: &str, case: &Case, edit: fn(&str) -> String) -> String {
    let o = Operands::new(case);
    match run(&mut Simulator::with_edit(arch, edit), case, &o) {
        Err(error) => error.to_string(),
        Ok(found) => judge(case, &o, &found).err().unwrap_or_default(),
    }
}

#[test]
fn planted_bugs_are_caught() {
    // A form and a tile for each architecture.
    for (arch, form, tile) in [("sm_80", Form::Nn, 0), ("sm_90a", Form::Nt, 1), ("sm_100", Form::Tn, 2)] {
        let case = busy(form, tile);
        let bug = |edit| with_bug(arch, &case, edit);
        assert_eq!(bug(str::to_string), "", "{arch} {form:?}");
        let found = bug(|ptx| without(&without(ptx, "bar.sync", |_| true), "barrier.sync", |_| true));
        let kinds = ["Race", "UninitializedShared"];
        assert!(kinds.iter().any(|kind| found.contains(kind)), "{arch} {form:?}: no barrier: {found:?}");
        let found = bug(|ptx| shifted(ptx, "st.global.v4", 16));
        assert!(found.contains("is wanted") || found.contains("outside"), "{arch} {form:?}: shifted: {found:?}");
        // Every episode takes the first one's rows.
        let found = bug(|ptx| lines(ptx, "%ctaid.z", |_, line| line.replace("%ctaid.z", "0")));
        assert!(!found.is_empty(), "{arch} {form:?}: one episode only");
        let found = bug(|ptx| lines(ptx, "setp.gt.f32", |_, line| line.replace("setp.gt", "setp.lt")));
        assert!(form == Form::Tn || found.contains("is wanted"), "{arch} {form:?}: the mask turned round: {found:?}");
    }
}
