//! Row and element kernels of a device against the truth, at the cases the CPU's tables are tried at.

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use metaglot::cpu::contract::AdamwStep;
use metaglot::cuda::Device;
use metaglot::cuda::rows::{self, BagsAt, Call, Grams, Softmax, Updated};
use metaglot::{Element, Purpose, Rng, Stored};

use super::cases::{GatherCase, RowCase, SoftmaxCase};
use super::check_sums::random_bags;
use super::padded::Padded;
use super::tables::assert_met;
use super::truth::{self, Sum, Wanted, precision};

/// Something on a device: what keeps it there, and where its first element is.
struct Placed<B> {
    memory: B,
    at: u64,
}

/// Puts numbers there.
fn put<D: Device, T: Pod>(device: &mut D, values: &[T]) -> Placed<D::Buffer> {
    let mut memory = device.alloc(size_of_val(values)).unwrap();
    device.upload(&mut memory, 0, cast_slice(values)).unwrap();
    Placed { at: device.address(&memory), memory }
}

/// Puts an operand there with its frame.
fn place<D: Device, T: Pod + Element>(device: &mut D, operand: &Padded<T>) -> Placed<D::Buffer> {
    let (whole, offset, _) = operand.whole();
    let placed = put(device, whole);
    Placed { at: placed.at + (offset * size_of::<T>()) as u64, ..placed }
}

/// Gets it back; panics where the frame was written.
fn fetch<D: Device, T: Pod + Element>(
    device: &mut D,
    placed: &Placed<D::Buffer>,
    like: &Padded<T>,
    what: &str,
) -> Padded<T> {
    let mut found = like.clone();
    device.download(&placed.memory, 0, cast_slice_mut(found.whole_mut())).unwrap();
    found.assert_frame(what);
    found
}

fn run<D: Device>(device: &mut D, call: &Call, what: &str) {
    // SAFETY: each check below places operands of the sizes it names, and they live until it has what came out.
    unsafe { call.run(device) }.unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// A case's operand number `which`; each lies elsewhere.
fn draw(case: &RowCase, which: u64) -> Padded<f32> {
    let mut rng = Rng::new(case.seed, which, 0, Purpose::Data);
    Padded::row(case.n, (case.offset + which as usize * 3) % 16, || case.fill.draw(&mut rng))
}

/// Runs a call on the whole row and again in two parts, compares the outputs with the truth and with each other. `call` gets
/// the number of elements and where they begin, of the inputs and then of the outputs.
fn whole_and_cut<D: Device>(
    device: &mut D,
    op: &str,
    case: &RowCase,
    [inputs, outputs]: [&[&Padded<f32>]; 2],
    wanted: &[Vec<Wanted>],
    call: impl Fn(usize, &[u64]) -> Call,
) {
    let what = format!("{}/{op}, {case:?}", device.arch());
    let cut = Rng::new(case.seed, 99, 0, Purpose::Data).below(case.n + 1);
    let inputs: Vec<_> = inputs.iter().map(|x| place(device, x)).collect();
    let mut whole: Option<Vec<Padded<f32>>> = None;
    for bounds in [&[0, case.n][..], &[0, cut, case.n]] {
        let placed: Vec<_> = outputs.iter().map(|x| place(device, x)).collect();
        for part in bounds.windows(2) {
            let at: Vec<_> = inputs.iter().chain(&placed).map(|x| x.at + 4 * part[0] as u64).collect();
            run(device, &call(part[1] - part[0], &at), &what);
        }
        let found: Vec<_> = outputs.iter().zip(&placed).map(|(x, at)| fetch(device, at, x, &what)).collect();
        for (found, wanted) in found.iter().zip(wanted) {
            assert_met(&what, wanted, &found.values());
        }
        let same = |whole: &Vec<Padded<f32>>| whole.iter().zip(&found).all(|(a, b)| a.bits() == b.bits());
        assert!(whole.as_ref().is_none_or(same), "{what}: other bits when cut at {cut}");
        whole = Some(found);
    }
}

fn exactly(values: impl Iterator<Item = f64>) -> Vec<Vec<Wanted>> {
    vec![values.map(Wanted::exactly).collect()]
}

/// ReLU into another place, and of NaN.
pub fn relu<D: Device>(device: &mut D, case: &RowCase) {
    let (src, dst) = (draw(case, 0), Padded::row(case.n, case.offset, || f64::NAN));
    let wanted = exactly(src.values().into_iter().map(|x| x.max(0.0)));
    whole_and_cut(device, "relu", case, [&[&src], &[&dst]], &wanted, |n, at| rows::relu(n, at[0], at[1]));
    let in_place = draw(case, 0);
    whole_and_cut(device, "relu in place", case, [&[], &[&in_place]], &wanted, |n, at| rows::relu(n, at[0], at[0]));
    let zeros = exactly((0..case.n).map(|_| 0.0));
    whole_and_cut(device, "relu of NaN", case, [&[&dst], &[&dst]], &zeros, |n, at| rows::relu(n, at[0], at[1]));
}

/// Its derivative times a gradient or tangent, in place and to another place.
pub fn relu_mask<D: Device>(device: &mut D, case: &RowCase) {
    let (a, d) = (draw(case, 0), draw(case, 1));
    let dst = Padded::row(case.n, case.offset, || f64::NAN);
    let pairs = a.values().into_iter().zip(d.values());
    let wanted = exactly(pairs.map(|(a, d)| if a > 0.0 { d } else { 0.0 }));
    let to = |n, at: &[u64]| rows::relu_mask(n, at[0], at[1], at[2]);
    whole_and_cut(device, "relu_mask", case, [&[&a, &d], &[&dst]], &wanted, to);
    let in_place = |n, at: &[u64]| rows::relu_mask(n, at[0], at[1], at[1]);
    whole_and_cut(device, "relu_mask in place", case, [&[&a], &[&d]], &wanted, in_place);
}

/// `y = alpha x + beta y`, and over NaN with beta = 0.
pub fn axpby<D: Device>(device: &mut D, case: &RowCase) {
    let (x, y) = (draw(case, 0), draw(case, 1));
    let nan = Padded::row(case.n, case.offset, || f64::NAN);
    for (beta, y) in [(0.7f32, &y), (1.0, &y), (0.0, &nan)] {
        let alpha = -0.3f32;
        let terms = |x| [(alpha.into(), x)].into_iter();
        let one = |(x, y)| truth::product(precision::<f32>(), terms(x), 1.0, beta.into(), y, None);
        let wanted = vec![x.values().into_iter().zip(y.values()).map(one).collect()];
        let call = |n, at: &[u64]| rows::axpby(n, alpha, at[0], beta, at[1]);
        whole_and_cut(device, "axpby", case, [&[&x], &[y]], &wanted, call);
    }
}

/// SGD with momentum and weight decay, with a gradient and without one.
pub fn sgd<D: Device>(device: &mut D, case: &RowCase) {
    let (g, v, w) = (draw(case, 0), draw(case, 1), draw(case, 2));
    let factors = [0.05f32, 0.9, 0.01];
    for with_gradient in [true, false] {
        let gradient = |i| if with_gradient { g.at(0, i) } else { 0.0 };
        let one = |i| truth::sgd(precision::<f32>(), factors.map(f64::from), gradient(i), v.at(0, i), w.at(0, i));
        let wanted: Vec<[Wanted; 2]> = (0..case.n).map(one).collect();
        let wanted = [0, 1].map(|o| wanted.iter().map(|x| x[o]).collect());
        let call = |n, at: &[u64]| {
            let g = if with_gradient { at[0] } else { 0 };
            rows::sgd(Updated::Dense(n), factors, g, at[1], at[2]).unwrap()
        };
        whole_and_cut(device, "sgd", case, [&[&g], &[&v, &w]], &wanted, call);
    }
}

/// AdamW's settings at its tenth step.
fn adamw_step() -> (AdamwStep<f32>, truth::Adamw) {
    let (c1, c2) = (1.0 / (1.0 - 0.9f64.powi(10)), 1.0 / (1.0 - 0.999f64.powi(10)));
    let [lr, beta1, beta2, eps, decay, c1, c2] = [0.01, 0.9, 0.999, 1e-8, 0.1, c1, c2].map(|x| x as f32);
    let of = |x: f32| f64::from(x);
    let truth = truth::Adamw {
        lr: of(lr),
        beta1: of(beta1),
        beta2: of(beta2),
        eps: of(eps),
        decay: of(decay),
        correction1: of(c1),
        correction2: of(c2),
    };
    (AdamwStep { lr, beta1, beta2, eps, weight_decay: decay, correction1: c1, correction2: c2 }, truth)
}

/// AdamW, with a gradient and without one.
pub fn adamw<D: Device>(device: &mut D, case: &RowCase) {
    let (g, m, w) = (draw(case, 0), draw(case, 1), draw(case, 2));
    let v: Vec<_> = draw(case, 3).values().into_iter().map(f64::abs).collect();
    let v = Padded::of(&v, case.offset);
    let (step, s) = adamw_step();
    for with_gradient in [true, false] {
        let gradient = |i| if with_gradient { g.at(0, i) } else { 0.0 };
        let one = |i| truth::adamw(precision::<f32>(), &s, gradient(i), m.at(0, i), v.at(0, i), w.at(0, i));
        let wanted: Vec<[Wanted; 3]> = (0..case.n).map(one).collect();
        let wanted = [0, 1, 2].map(|o| wanted.iter().map(|x| x[o]).collect());
        let call = |n, at: &[u64]| {
            let g = if with_gradient { at[0] } else { 0 };
            rows::adamw(Updated::Dense(n), &step, g, [at[1], at[2]], at[3]).unwrap()
        };
        whole_and_cut(device, "adamw", case, [&[&g], &[&m, &v, &w]], &wanted, call);
    }
}

/// Both updates of some rows: those have the bits of a dense update of theirs, the others stay.
pub fn sparse_updates<D: Device>(device: &mut D, seed: u64, (touched, table, width): (usize, usize, usize)) {
    let what = format!("{}/sparse update, {seed}, {touched} of {table} rows of {width}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let mut all: Vec<u32> = (0..table as u32).collect();
    rng.choose_front(&mut all, touched);
    let rows_at = put(device, &all[..touched]);
    let g = Padded::<f32>::matrix(touched, width, 0, 3, || rng.normal());
    let start = [1, 2, 3].map(|offset| Padded::<f32>::matrix(table, width, 0, offset, || rng.normal().abs()));
    let gradient = place(device, &g);
    for adam in [false, true] {
        let call = |of: Updated, g: u64, [m, v, w]: [u64; 3]| match adam {
            true => rows::adamw(of, &adamw_step().0, g, [m, v], w).unwrap(),
            false => rows::sgd(of, [0.05, 0.9, 0.01], g, v, w).unwrap(),
        };
        let (sparse, dense) =
            ([0, 1, 2].map(|i| place(device, &start[i])), [0, 1, 2].map(|i| place(device, &start[i])));
        let at = |x: &[Placed<D::Buffer>; 3], from: usize| [0, 1, 2].map(|i: usize| x[i].at + 4 * from as u64);
        let of = Updated::Sparse { rows: touched, width, at: rows_at.at };
        run(device, &call(of, gradient.at, at(&sparse, 0)), &what);
        for (r, &row) in all[..touched].iter().enumerate() {
            let g = gradient.at + 4 * (r * width) as u64;
            run(device, &call(Updated::Dense(width), g, at(&dense, row as usize * width)), &what);
        }
        for i in 0..3 {
            let [sparse, dense] = [&sparse[i], &dense[i]].map(|x| fetch(device, x, &start[i], &what));
            assert!(sparse.bits() == dense.bits(), "{what}: adam {adam}, array {i}");
        }
    }
}

/// Column sums with a gap between the rows, and without one.
pub fn col_sum<D: Device>(device: &mut D, seed: u64, case: &(usize, usize, usize, f64, f64)) {
    let &(m, n, gap, alpha, beta) = case;
    let what = format!("{}/col_sum, {seed}, {case:?}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    for (gap, beta) in [(gap, beta), (0, 0.0)] {
        let src = Padded::<f32>::matrix(m, n, gap, gap + 1, || rng.normal());
        let old = Padded::<f32>::row(n, 3, || if beta == 0.0 { f64::NAN } else { rng.normal() });
        let one = |j: usize| {
            let before = if beta == 0.0 { 0.0 } else { old.at(0, j) };
            truth::product(precision::<f32>(), (0..m).map(|i| (1.0, src.at(i, j))), alpha, beta, before, None)
        };
        let wanted: Vec<Wanted> = (0..n).map(one).collect();
        let (from, to) = (place(device, &src), place(device, &old));
        let (alpha, beta, ld) = (alpha as f32, beta as f32, n + gap);
        let mut bits = vec![];
        let calls = [Some(rows::col_sum(m, n, alpha, (from.at, ld), beta, to.at))]
            .into_iter()
            .chain([(gap == 0 && beta == 0.0).then(|| rows::sum_rows(m, n, m, alpha, from.at, to.at))]);
        for call in calls.flatten() {
            run(device, &call.unwrap(), &what);
            let found = fetch(device, &to, &old, &what);
            assert_met(&what, &wanted, &found.values());
            bits.push(found.bits());
        }
        assert!(bits.iter().all(|b| *b == bits[0]), "{what}: other bits from sum_rows");
        if gap == 0 && beta == 0.0 {
            by_groups(device, (m, n, 3), &src, &what);
        }
    }
}

/// Sums of groups of rows: each has the bits of its rows' own sum.
fn by_groups<D: Device>(device: &mut D, (m, n, group): (usize, usize, usize), src: &Padded<f32>, what: &str) {
    let groups = m.div_ceil(group).max(1);
    let like = Padded::<f32>::matrix(groups, n, 0, 5, || f64::NAN);
    let (from, [at_once, alone]) = (place(device, src), [0, 1].map(|_| place(device, &like)));
    run(device, &rows::sum_rows(m, n, group, 0.5, from.at, at_once.at).unwrap(), what);
    for g in 0..groups {
        let count = group.min(m - g * group);
        let (src, dst) = (from.at + (4 * g * group * n) as u64, alone.at + (4 * g * n) as u64);
        run(device, &rows::col_sum(count, n, 0.5, (src, n), 0.0, dst).unwrap(), what);
    }
    let [at_once, alone] = [at_once, alone].map(|x| fetch(device, &x, &like, what));
    assert!(at_once.bits() == alone.bits(), "{what}: sums of {groups} groups");
}

/// What a softmax case should give.
pub fn softmax_wanted(z: &[f64], target: usize, scale: f32) -> (Vec<Wanted>, Vec<Wanted>, Wanted) {
    let prec = precision::<f32>();
    let (softmax, loss) = truth::softmax_xent(prec, z, target);
    let scale = f64::from(scale);
    let of = |(i, p): (usize, &Wanted)| {
        let value = scale * (p.value - f64::from(u8::from(i == target)));
        Wanted { value, slack: scale * (p.slack + prec.eps) + prec.tiny }
    };
    let gradient = softmax.iter().enumerate().map(of).collect();
    (softmax, gradient, loss)
}

/// Softmax, loss and gradient of a row; in place of the logits the same bits; then the R-operator at that softmax, in place
/// and not.
pub fn softmax_xent<D: Device>(device: &mut D, case: &SoftmaxCase) {
    let what = format!("{}/softmax_xent, {case:?}", device.arch());
    let (z, n) = (Padded::<f32>::of(&case.draw(), case.offset), case.n);
    let scale = case.scale as f32;
    let (softmax, gradient, loss) = softmax_wanted(&z.values(), case.target, scale);
    let targets = put(device, &[case.target as u32]);
    let nan = |n, offset| Padded::<f32>::row(n, offset, || f64::NAN);
    let (p, dz, losses) = (nan(n, (case.offset + 3) % 8), nan(n, (case.offset + 5) % 8), nan(1, 2));
    let mut first: Option<[Padded<f32>; 3]> = None;
    for in_place in [false, true] {
        let [from, p_at, dz_at] = [&z, &p, &dz].map(|x| place(device, x));
        let losses_at = place(device, &losses);
        let (dz_to, dz_like) = if in_place { (&from, &z) } else { (&dz_at, &dz) };
        let (targets, p_to, losses_to) = (targets.at, p_at.at, losses_at.at);
        let s = Softmax { m: 1, n, z: (from.at, n), targets, scale, p: p_to, dz: dz_to.at, losses: losses_to };
        run(device, &rows::softmax_xent(&s).unwrap(), &what);
        let found = [(&p_at, &p), (dz_to, dz_like), (&losses_at, &losses)].map(|(at, x)| fetch(device, at, x, &what));
        for (found, wanted) in found.iter().zip([&softmax, &gradient, &vec![loss]]) {
            assert_met(&what, wanted, &found.values());
        }
        let same = |first: &[Padded<f32>; 3]| first.iter().zip(&found).all(|(a, b)| a.bits() == b.bits());
        assert!(first.as_ref().is_none_or(same), "{what}: other bits in place");
        first = Some(found);
    }
    rop(device, case, &softmax, &what);
}

fn rop<D: Device>(device: &mut D, case: &SoftmaxCase, softmax: &[Wanted], what: &str) {
    let p: Vec<f64> = softmax.iter().map(|w| w.value).collect();
    let p = Padded::<f32>::of(&p, case.offset);
    let mut rng = Rng::new(case.seed, 1, 0, Purpose::Data);
    let rz = Padded::<f32>::row(case.n, (case.offset + 1) % 8, || rng.normal());
    let (scale, nan) = (case.scale as f32, Padded::<f32>::row(case.n, 5, || f64::NAN));
    let wanted = truth::softmax_xent_rop(precision::<f32>(), &p.values(), &rz.values(), scale.into());
    let [p_at, rz_at, nan_at] = [&p, &rz, &nan].map(|x| place(device, x));
    for (to, like) in [(&nan_at, &nan), (&rz_at, &rz)] {
        run(device, &rows::softmax_xent_rop(1, case.n, p_at.at, rz_at.at, scale, to.at).unwrap(), what);
        assert_met(what, &wanted, &fetch(device, to, like, what).values());
    }
}

/// A block of rows with a gap between them, and the R-operator of all.
pub fn softmax_block<D: Device>(device: &mut D, seed: u64, case: &(usize, usize, usize)) {
    let &(m, n, gap) = case;
    let what = format!("{}/softmax_xent of rows, {seed}, {case:?}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let z = Padded::<f32>::matrix(m, n, gap, 1, || 3.0 * rng.normal());
    let rz = Padded::<f32>::row(m * n, 2, || rng.normal());
    let targets: Vec<u32> = (0..m).map(|_| rng.below(n) as u32).collect();
    let scale = 1.0 / 75.0f32;
    let outputs = [(m * n, 5), (m * n, 6), (m, 1)].map(|(n, offset)| Padded::<f32>::row(n, offset, || f64::NAN));
    let [p, dz, losses] = [0, 1, 2].map(|i| place(device, &outputs[i]));
    let ([from, tangent], classes) = ([&z, &rz].map(|x| place(device, x)), put(device, &targets));
    let s = Softmax { m, n, z: (from.at, n + gap), targets: classes.at, scale, p: p.at, dz: dz.at, losses: losses.at };
    run(device, &rows::softmax_xent(&s).unwrap(), &what);
    run(device, &rows::softmax_xent_rop(m, n, p.at, tangent.at, scale, tangent.at).unwrap(), &what);
    let found = [&p, &dz, &losses].into_iter().zip(&outputs).map(|(at, like)| fetch(device, at, like, &what));
    let found: Vec<_> = found.map(|x| x.values()).collect();
    let rdz = fetch(device, &tangent, &rz, &what).values();
    for (i, &target) in targets.iter().enumerate() {
        let row: Vec<f64> = (0..n).map(|j| z.at(i, j)).collect();
        let (softmax, gradient, loss) = softmax_wanted(&row, target as usize, scale);
        let own = i * n..(i + 1) * n;
        assert_met(&what, &softmax, &found[0][own.clone()]);
        assert_met(&what, &gradient, &found[1][own.clone()]);
        assert_met(&what, &[loss], &found[2][i..=i]);
        let (p, rz) = (&found[0][own.clone()], &rz.values()[own.clone()]);
        assert_met(&what, &truth::softmax_xent_rop(precision::<f32>(), p, rz, scale.into()), &rdz[own]);
    }
}

/// Gathered rows of a table stored in `S`: the case's bag, an empty one, and the first entries of it once more.
pub fn bag<D: Device, S: Stored<f32>>(device: &mut D, case: &GatherCase) {
    let what = format!("{}/bag, {:?}, {case:?}", device.arch(), S::STORED);
    let mut rng = Rng::new(case.seed, 0, 0, Purpose::Data);
    let offsets = [0, case.len, case.len, case.len + case.len / 2].map(|x| x as i32);
    let entries = case.len + case.len / 2;
    let index: Vec<u32> = (0..entries).map(|_| rng.below(case.rows) as u32).collect();
    let mut number = || case.fill.draw(&mut rng) as f32;
    let table: Vec<S> = (0..case.rows * case.n).map(|_| S::narrow(number())).collect();
    let weights: Vec<f32> = (0..entries).map(|_| number()).collect();
    let init = Padded::<f32>::row(case.n, 5, || number().into());
    let dst = Padded::<f32>::matrix(3, case.n, 0, case.gap, || f64::NAN);
    let one = |bag: usize, h: usize| {
        let mut sum = Sum::default();
        if case.init {
            sum.add(1.0, init.at(0, h));
        }
        for e in offsets[bag] as usize..offsets[bag + 1] as usize {
            sum.add(weights[e].into(), table[index[e] as usize * case.n + h].widen().into());
        }
        sum.wanted(precision::<f32>())
    };
    let wanted: Vec<Wanted> = (0..3).flat_map(|bag| (0..case.n).map(move |h| one(bag, h))).collect();
    let (offsets_at, tokens, weights_at) = (put(device, &offsets), put(device, &index), put(device, &weights));
    let (table_at, init_at, to) = (put(device, &table), place(device, &init), place(device, &dst));
    let bags = BagsAt { offsets: offsets_at.at, tokens: tokens.at, weights: weights_at.at };
    let start = if case.init { init_at.at } else { 0 };
    run(device, &rows::bag(3, case.n, &bags, (table_at.at, S::STORED), start, to.at).unwrap(), &what);
    assert_met(&what, &wanted, &fetch(device, &to, &dst, &what).values());
}

/// What an episode's Gram matrix should hold, if `dot` adds the products of a row of A and one of B.
fn gram_wanted(
    a: std::ops::Range<usize>,
    b: std::ops::Range<usize>,
    dot: impl Fn(&mut Sum, usize, usize),
) -> Vec<Wanted> {
    let one = |i, j| {
        let mut sum = Sum::default();
        dot(&mut sum, i, j);
        sum.add(1.0, 1.0);
        sum.wanted(precision::<f32>())
    };
    a.flat_map(|i| b.clone().map(move |j| (i, j))).map(|(i, j)| one(i, j)).collect()
}

/// Gram matrices of episodes of these numbers of rows of A and B; each row has room for the most of B, and a gap.
fn grams<D: Device>(
    device: &mut D,
    what: &str,
    sizes: &[(usize, usize)],
    call: impl FnOnce(&Grams) -> Call,
    dot: impl Fn(&mut Sum, usize, usize),
) {
    let bounds = |of: fn(&(usize, usize)) -> usize| {
        let ends = sizes.iter().scan(0, |sum, size| {
            *sum += of(size) as i32;
            Some(*sum)
        });
        [0].into_iter().chain(ends).collect::<Vec<i32>>()
    };
    let (a, b) = (bounds(|s| s.0), bounds(|s| s.1));
    let most = [sizes.iter().map(|s| s.0).max().unwrap_or(0), sizes.iter().map(|s| s.1).max().unwrap_or(0)];
    let ld = most[1] + 3;
    let dst = Padded::<f32>::matrix(sizes.iter().map(|s| s.0).sum(), ld, 0, 3, || f64::NAN);
    let (to, a_at, b_at) = (place(device, &dst), put(device, &a), put(device, &b));
    run(device, &call(&Grams { episodes: sizes.len(), bounds: [a_at.at, b_at.at], most, dst: to.at, ld }), what);
    let found = fetch(device, &to, &dst, what).values();
    for (t, &(_, n)) in sizes.iter().enumerate() {
        for i in a[t] as usize..a[t + 1] as usize {
            let own = &found[i * ld..][..ld];
            assert_met(what, &gram_wanted(i..i + 1, b[t] as usize..b[t + 1] as usize, &dot), &own[..n]);
            assert!(own[n..].iter().all(|x| x.is_nan()), "{what}: written behind row {i} of episode {t}");
        }
    }
}

/// Dense Gram matrices.
pub fn gram<D: Device>(device: &mut D, seed: u64, sizes: &[(usize, usize)], width: usize) {
    let what = format!("{}/gram, {seed}, {sizes:?}, width {width}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let mut rows_of = |n: usize| Padded::<f32>::matrix(n, width, 0, 1, || rng.normal());
    let (a, b) = (rows_of(sizes.iter().map(|s| s.0).sum()), rows_of(sizes.iter().map(|s| s.1).sum()));
    let (a_at, b_at) = (place(device, &a), place(device, &b));
    let dot = |sum: &mut Sum, i: usize, j: usize| (0..width).for_each(|p| sum.add(a.at(i, p), b.at(j, p)));
    grams(device, &what, sizes, |g| rows::gram(g, a_at.at, b_at.at, width).unwrap(), dot);
}

/// Gram matrices of bags of these lengths out of a vocabulary, taken in turn.
pub fn gram_bags<D: Device>(device: &mut D, seed: u64, sizes: &[(usize, usize)], lengths: &[usize], vocabulary: usize) {
    let what = format!("{}/gram_bags, {seed}, {sizes:?}, {lengths:?} of {vocabulary}", device.arch());
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let mut side = |rows: usize, skip: usize| {
        let lengths: Vec<_> = lengths.iter().copied().cycle().skip(skip).take(rows).collect();
        random_bags::<f32>(&mut rng, &lengths, vocabulary)
    };
    let (a, b) = (side(sizes.iter().map(|s| s.0).sum(), 0), side(sizes.iter().map(|s| s.1).sum(), 1));
    let mut placed = [&a, &b].map(|(tokens, weights, offsets)| {
        let offsets: Vec<i32> = offsets.iter().map(|&x| x as i32).collect();
        [put(device, &offsets), put(device, tokens), put(device, weights)]
    });
    let [a_at, b_at] = placed.each_mut().map(|[o, t, w]| BagsAt { offsets: o.at, tokens: t.at, weights: w.at });
    let dot = |sum: &mut Sum, i: usize, j: usize| {
        for x in a.2[i]..a.2[i + 1] {
            if let Ok(y) = b.0[b.2[j]..b.2[j + 1]].binary_search(&a.0[x]) {
                sum.add(a.1[x].into(), b.1[b.2[j] + y].into());
            }
        }
    };
    grams(device, &what, sizes, |g| rows::gram_bags(g, &a_at, &b_at).unwrap(), dot);
}
