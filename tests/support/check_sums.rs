//! Softmax cross-entropy, gathered sums, column sums and bag products of every table against the truth.

use metaglot::backend::BagIndex;
use metaglot::cpu::{KernelElement, StoredElement};
use metaglot::{Bags, Element, MatRef, Purpose, Rng};

use super::cases::{GatherCase, SoftmaxCase};
use super::padded::Padded;
use super::tables::{Tables, assert_met, label};
use super::truth::{self, Sum, Wanted, precision};

/// Softmax, loss and gradient; in place of the logits the same bits; then the R-operator at that softmax.
pub fn softmax_xent<T: KernelElement>(tables: &mut Tables<T>, case: &SoftmaxCase) {
    let z = Padded::<T>::of(&case.draw(), case.offset);
    let prec = precision::<T>();
    let (softmax, loss) = truth::softmax_xent(prec, &z.values(), case.target);
    let scale = T::from_f64(case.scale);
    let dz_of = |(i, p): (usize, &Wanted)| {
        let value = scale.to_f64() * (p.value - f64::from(u8::from(i == case.target)));
        Wanted { value, slack: scale.to_f64() * (p.slack + prec.eps) + prec.tiny }
    };
    let gradient: Vec<Wanted> = softmax.iter().enumerate().map(dz_of).collect();
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "softmax_xent", case);
        let mut p = Padded::<T>::row(case.n, (case.offset + 3) % 8, || f64::NAN);
        let mut dz = Padded::<T>::row(case.n, (case.offset + 5) % 8, || f64::NAN);
        let found = lane.softmax_xent(z.slice(), case.target, scale, p.slice_mut(), dz.slice_mut()).unwrap();
        p.assert_frame(&what);
        dz.assert_frame(&what);
        assert_met(&what, &[loss], &[found.to_f64()]);
        assert_met(&what, &softmax, &p.values());
        assert_met(&what, &gradient, &dz.values());
        let (mut p2, mut dz2) = (p.clone(), z.clone());
        let again = lane.softmax_xent_in_place(case.target, scale, p2.slice_mut(), dz2.slice_mut()).unwrap();
        let same = again == found && p2.bits() == p.bits() && dz2.bits() == dz.bits();
        assert!(same, "{what}: other bits in place");
    }
    rop(tables, case, &softmax);
}

fn rop<T: KernelElement>(tables: &mut Tables<T>, case: &SoftmaxCase, softmax: &[Wanted]) {
    let p: Vec<f64> = softmax.iter().map(|w| w.value).collect();
    let p = Padded::<T>::of(&p, case.offset);
    let mut rng = Rng::new(case.seed, 1, 0, Purpose::Data);
    let rz = Padded::<T>::row(case.n, (case.offset + 1) % 8, || rng.normal());
    let scale = T::from_f64(case.scale);
    let wanted = truth::softmax_xent_rop(precision::<T>(), &p.values(), &rz.values(), scale.to_f64());
    for (isa, lane) in &mut tables.lanes {
        let (mut rdz, what) = (rz.clone(), label::<T>(*isa, 1, "softmax_xent_rop", case));
        lane.softmax_xent_rop(p.slice(), scale, rdz.slice_mut()).unwrap();
        rdz.assert_frame(&what);
        assert_met(&what, &wanted, &rdz.values());
    }
}

/// A block of rows: each row has the bits it has alone, the loss is the sum of the rows' losses.
pub fn softmax_block<T: KernelElement>(tables: &mut Tables<T>, seed: u64, case: &(usize, usize, usize)) {
    let &(m, n, gap) = case;
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let z = Padded::<T>::matrix(m, n, gap, 1, || 3.0 * rng.normal());
    let rz = Padded::<T>::row(m * n, 2, || rng.normal());
    let targets: Vec<u32> = (0..m).map(|_| rng.below(n) as u32).collect();
    let prec = precision::<T>();
    let mut loss = Wanted::exactly(0.0);
    for (i, &target) in targets.iter().enumerate() {
        let row: Vec<f64> = (0..n).map(|j| z.at(i, j)).collect();
        let (_, one) = truth::softmax_xent(prec, &row, target as usize);
        loss.value += one.value;
        loss.slack += one.slack + (m + 2) as f64 * prec.eps * one.value;
    }
    let scale = T::from_f64(1.0 / 75.0);
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "softmax_xent_rows", &(seed, case));
        let [mut p, mut dz] = [5, 6].map(|offset| Padded::<T>::row(m * n, offset, || f64::NAN));
        let mut rdz = rz.clone();
        let found = lane.softmax_xent_rows(z.view(), &targets, scale, p.slice_mut(), dz.slice_mut()).unwrap();
        lane.softmax_xent_rop_rows(n, p.slice(), scale, rdz.slice_mut()).unwrap();
        [&p, &dz, &rdz].into_iter().for_each(|x| x.assert_frame(&what));
        assert_met(&what, &[loss], &[found.to_f64()]);
        for (i, &target) in targets.iter().enumerate() {
            let (own, mut p1, mut dz1) = (i * n..(i + 1) * n, vec![T::ZERO; n], vec![T::ZERO; n]);
            let mut rdz1 = rz.slice()[own.clone()].to_vec();
            lane.softmax_xent(z.view().row(i), target as usize, scale, &mut p1, &mut dz1).unwrap();
            lane.softmax_xent_rop(&p1, scale, &mut rdz1).unwrap();
            for (alone, block) in [(&p1, &p), (&dz1, &dz), (&rdz1, &rdz)] {
                assert!(alone[..] == block.slice()[own.clone()], "{what}: row {i} has other bits alone");
            }
        }
    }
}

/// Gathered rows of a table stored in `S`, whole and cut at a column; the truth is that of the widened table.
pub fn gather_sum<T: KernelElement, S: StoredElement<T>>(tables: &mut Tables<T>, case: &GatherCase) {
    let mut rng = Rng::new(case.seed, 0, 0, Purpose::Data);
    let index: Vec<u32> = (0..case.len).map(|_| rng.below(case.rows) as u32).collect();
    let cut = rng.below(case.n + 1);
    // The gaps between the rows, and what is around them, are NaN.
    let (ld, offset) = (case.n + case.gap, case.gap + 1);
    let mut stored = vec![S::narrow(T::from_f64(f64::NAN)); offset + case.rows * ld + 1];
    for row in stored[offset..].chunks_mut(ld.max(1)).take(case.rows) {
        row[..case.n].iter_mut().for_each(|x| *x = S::narrow(T::from_f64(case.fill.draw(&mut rng))));
    }
    let part =
        |c: std::ops::Range<usize>| MatRef::with_ld(&stored[offset + c.start..], case.rows, c.len(), ld).unwrap();
    let entry = |i: u32, h: usize| part(0..case.n).row(i as usize)[h].widen().to_f64();
    let weights = Padded::<T>::row(case.len, 3, || case.fill.draw(&mut rng));
    let init = Padded::<T>::row(case.n, 5, || case.fill.draw(&mut rng));
    let one = |h: usize| {
        let mut sum = Sum::default();
        if case.init {
            sum.add(1.0, init.at(0, h));
        }
        index.iter().enumerate().for_each(|(j, &i)| sum.add(weights.at(0, j), entry(i, h)));
        sum.wanted(precision::<T>())
    };
    let wanted: Vec<Wanted> = (0..case.n).map(one).collect();
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "gather_sum", &(S::STORED, case));
        let whole = Padded::<T>::row(case.n, case.gap, || f64::NAN);
        let [mut dst, mut parts] = [whole.clone(), whole];
        let start = case.init.then(|| init.slice());
        lane.gather_sum(&index, weights.slice(), part(0..case.n), start, dst.slice_mut()).unwrap();
        dst.assert_frame(&what);
        assert_met(&what, &wanted, &dst.values());
        for cols in [0..cut, cut..case.n] {
            let start = case.init.then(|| &init.slice()[cols.clone()]);
            let (table, dst) = (part(cols.clone()), &mut parts.slice_mut()[cols]);
            lane.gather_sum(&index, weights.slice(), table, start, dst).unwrap();
        }
        assert!(parts.bits() == dst.bits(), "{what}: other bits when cut at column {cut}");
    }
}

/// Column sums, whole and cut at a column.
pub fn col_sum<T: KernelElement>(tables: &mut Tables<T>, seed: u64, case: &(usize, usize, usize, f64, f64)) {
    let &(m, n, gap, alpha, beta) = case;
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let cut = rng.below(n + 1);
    let src = Padded::<T>::matrix(m, n, gap, gap + 1, || rng.normal());
    let old = Padded::<T>::row(n, 3, || if beta == 0.0 { f64::NAN } else { rng.normal() });
    let one = |j: usize| {
        let before = if beta == 0.0 { 0.0 } else { old.at(0, j) };
        truth::product(precision::<T>(), (0..m).map(|i| (1.0, src.at(i, j))), alpha, beta, before, None)
    };
    let wanted: Vec<Wanted> = (0..n).map(one).collect();
    let (alpha, beta) = (T::from_f64(alpha), T::from_f64(beta));
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "col_sum", &(seed, case));
        let [mut dst, mut parts] = [old.clone(), old.clone()];
        lane.col_sum(alpha, src.view(), beta, dst.slice_mut()).unwrap();
        dst.assert_frame(&what);
        assert_met(&what, &wanted, &dst.values());
        for cols in [0..cut, cut..n] {
            lane.col_sum(alpha, src.part(0..m, cols.clone()), beta, &mut parts.slice_mut()[cols]).unwrap();
        }
        assert!(parts.bits() == dst.bits(), "{what}: other bits when cut at column {cut}");
    }
}

/// Random bags of the given lengths, tokens rising: tokens, weights, offsets.
pub fn random_bags<T: Element>(rng: &mut Rng, lengths: &[usize], vocabulary: usize) -> (Vec<u32>, Vec<T>, Vec<usize>) {
    let (mut tokens, mut weights, mut offsets) = (vec![], vec![], vec![0]);
    for &n in lengths {
        let mut all: Vec<u32> = (0..vocabulary as u32).collect();
        rng.choose_front(&mut all, n);
        all[..n].sort_unstable();
        tokens.extend_from_slice(&all[..n]);
        weights.extend((0..n).map(|_| T::from_f64(rng.normal())));
        offsets.push(tokens.len());
    }
    (tokens, weights, offsets)
}

/// `a . b + 1` of bags in both orders and with themselves: the truth, and the same bits whichever set is indexed.
pub fn bag_gram<T: KernelElement>(seed: u64, case: &(usize, usize, usize)) {
    let &(na, nb, vocabulary) = case;
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let (tokens, weights, offsets) = random_bags::<T>(&mut rng, &[na, nb, na], vocabulary);
    let bags = Bags::new(&tokens, &weights, &offsets, vocabulary).unwrap();
    let one = |i: usize, j: usize| {
        let mut sum = Sum::default();
        let ((ti, wi), (tj, wj)) = (bags.row(i), bags.row(j));
        for (t, w) in ti.iter().zip(wi) {
            if let Ok(at) = tj.binary_search(t) {
                sum.add(w.to_f64(), wj[at].to_f64());
            }
        }
        sum.add(1.0, 1.0);
        sum.wanted(precision::<T>())
    };
    let what = format!("{}/bag_gram, {seed}, {case:?}", T::DTYPE.name());
    let gram = |of: std::ops::Range<usize>, indexed: std::ops::Range<usize>| {
        let (a, b) = (bags.rows_range(of.start, of.end), bags.rows_range(indexed.start, indexed.end));
        // What an earlier index left must not matter.
        let mut memory = vec![u32::MAX; BagIndex::<T>::memory_len(b.nnz())];
        let mut dst = Padded::<T>::matrix(of.len(), indexed.len(), 2, 1, || f64::NAN);
        BagIndex::new(b, &mut memory).unwrap().gram(&a, dst.view_mut()).unwrap();
        dst.assert_frame(&what);
        let wanted: Vec<Wanted> =
            of.flat_map(|i| indexed.clone().map(move |j| (i, j))).map(|(i, j)| one(i, j)).collect();
        assert_met(&what, &wanted, &dst.values());
        dst
    };
    let whole = gram(0..3, 0..3);
    let (part, other) = (gram(0..1, 1..3), gram(1..3, 0..1));
    for j in 0..2 {
        let bits = [whole.at(0, 1 + j), whole.at(1 + j, 0), part.at(0, j), other.at(j, 0)].map(f64::to_bits);
        assert!(bits.iter().all(|&b| b == bits[0]), "{what}: other bits in another order");
    }
}

/// The bag layer of every team against the truth, and against gathered sums on one lane bit for bit.
pub fn bag_linear<T: KernelElement>(tables: &mut Tables<T>, seed: u64, rows: usize, hidden: usize) {
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let lengths: Vec<usize> = (0..rows).map(|_| rng.below(20)).collect();
    let (tokens, weights, offsets) = random_bags::<T>(&mut rng, &lengths, 40);
    let bags = Bags::new(&tokens, &weights, &offsets, 40).unwrap();
    let table = Padded::<T>::matrix(41, hidden, 3, 1, || rng.normal());
    let bias = Padded::<T>::row(hidden, 1, || rng.normal());
    let one = |i: usize, h: usize| {
        let (tokens, weights) = bags.row(i);
        let terms = tokens.iter().zip(weights).map(|(&t, w)| (w.to_f64(), table.at(t as usize, h)));
        truth::product(precision::<T>(), terms, 1.0, 0.0, 0.0, Some(bias.at(0, h)))
    };
    let wanted: Vec<Wanted> = (0..rows * hidden).map(|i| one(i / hidden, i % hidden)).collect();
    for (isa, threads, team) in &mut tables.teams {
        let what = label::<T>(*isa, *threads, "bag_linear", &(seed, rows, hidden));
        let mut dst = Padded::<T>::matrix(rows, hidden, 2, 1, || f64::NAN);
        team.bag_linear(&bags, table.view(), bias.slice(), dst.view_mut()).unwrap();
        dst.assert_frame(&what);
        assert_met(&what, &wanted, &dst.values());
        for i in 0..rows {
            let (tokens, weights) = bags.row(i);
            let mut row = vec![T::ZERO; hidden];
            team.lane().gather_sum(tokens, weights, table.view(), Some(bias.slice()), &mut row).unwrap();
            let same = row.iter().enumerate().all(|(h, x)| x.to_f64().to_bits() == dst.at(i, h).to_bits());
            assert!(same, "{what}: row {i} has other bits than on one lane");
        }
    }
}
