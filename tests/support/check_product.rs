//! Matrix products of every table against the truth, and the rule that a product may be cut anywhere.

use std::ops::Range;

use metaglot::backend::{self, Finish, Form, Lane, Mask, Team};
use metaglot::cpu::{Isa, KernelElement, StoredElement};
use metaglot::{Element, MatMut, MatRef, Purpose, Result, Rng};

use super::cases::{Fused, Masked, Product, ProductCase};
use super::padded::Padded;
use super::tables::{Tables, assert_met, label};
use super::truth::{self, Wanted, precision};

/// The operands of a case.
pub struct Operands<T> {
    pub a: Padded<T>,
    pub b: Padded<T>,
    pub bias: Padded<T>,
    /// The old result; NaN where it must not be read.
    pub c: Padded<T>,
}

/// Whether the first operand is read transposed.
fn turns_a(product: Product) -> bool {
    product == Product::Tn
}

/// Whether the second operand is read transposed.
fn turns_b(product: Product) -> bool {
    !matches!(product, Product::Nn | Product::Tn)
}

/// alpha, beta and the old value's part, as the entry point has it.
fn factors(case: &ProductCase) -> (f64, f64) {
    match case.product {
        Product::Nn | Product::Nt | Product::Tn => (case.alpha, case.beta),
        _ => (1.0, 0.0),
    }
}

impl<T: Element> Operands<T> {
    /// Random operands.
    pub fn new(case: &ProductCase) -> Self {
        let mut rng = Rng::new(case.seed, 0, 0, Purpose::Data);
        let (m, n, k, gap) = (case.m, case.n, case.k, case.gap);
        let (ar, ac) = if turns_a(case.product) { (k, m) } else { (m, k) };
        let (br, bc) = if turns_b(case.product) { (n, k) } else { (k, n) };
        let a = Padded::matrix(ar, ac, gap, 1 + gap, || case.fill.draw(&mut rng));
        let b = Padded::matrix(br, bc, (gap + 1) % 4, 3, || case.fill.draw(&mut rng));
        let bias = Padded::row(n, 5, || case.fill.draw(&mut rng));
        let read = factors(case).1 != 0.0;
        let c = Padded::matrix(m, n, (gap + 2) % 5, 7, || if read { case.fill.draw(&mut rng) } else { f64::NAN });
        Self { a, b, bias, c }
    }

    /// The truth, with what is fused to it; the old values are those of `c`, and without a mask `mask` is not looked at.
    fn wanted(&self, case: &ProductCase, fused: &Fused, mask: &Padded<T>) -> Vec<Wanted> {
        self.wanted_beside(case, fused, mask, &[])
    }

    /// The same of the sum of this product and `others`, of which only the factors count.
    fn wanted_beside(
        &self,
        case: &ProductCase,
        fused: &Fused,
        mask: &Padded<T>,
        others: &[Operands<T>],
    ) -> Vec<Wanted> {
        let p = precision::<T>();
        let (alpha, beta) = factors(case);
        let (alpha, beta) = (T::from_f64(alpha).to_f64(), T::from_f64(beta).to_f64());
        let one = |i: usize, j: usize| {
            let a = |o: &Self, q| if turns_a(case.product) { o.a.at(q, i) } else { o.a.at(i, q) };
            let b = |o: &Self, q| if turns_b(case.product) { o.b.at(j, q) } else { o.b.at(q, j) };
            let bias = match case.product {
                Product::Gram => Some(1.0),
                _ => fused.bias.then(|| self.bias.at(0, j)),
            };
            let old = if beta == 0.0 { 0.0 } else { self.c.at(i, j) };
            let zero = |masked| fused.mask == Some(masked) && (mask.at(i, j) <= 0.0 || mask.at(i, j).is_nan());
            let k = if zero(Masked::Product) { 0 } else { case.k };
            let parts = std::iter::once(self).chain(others);
            let factors = parts.flat_map(|o| (0..k).map(move |q| (a(o, q), b(o, q))));
            let x = truth::product(p, factors, alpha, beta, old, bias);
            match fused.relu {
                _ if zero(Masked::Result) => Wanted::exactly(0.0),
                true => truth::relu(x),
                false => x,
            }
        };
        (0..case.m).flat_map(|i| (0..case.n).map(move |j| (i, j))).map(|(i, j)| one(i, j)).collect()
    }
}

/// The form of a product.
fn form(product: Product) -> Form {
    match product {
        Product::Nn => Form::Nn,
        Product::Tn => Form::Tn,
        _ => Form::Nt,
    }
}

/// What a layer's entry point fuses to its product.
fn of_entry(product: Product) -> Fused {
    let relu = product == Product::LinearRelu;
    Fused { old: false, bias: relu || product == Product::Linear, relu, mask: None }
}

/// Compares with the truth, but that ReLU may turn NaN into 0.
fn assert_met_with_relu(what: &str, wanted: &[Wanted], found: &[f64], relu: bool) {
    assert_eq!(wanted.len(), found.len(), "{what}");
    let allowed = |(w, &f): (&Wanted, &f64)| {
        if relu && w.value.is_nan() && f == 0.0 { Wanted::exactly(0.0) } else { *w }
    };
    let wanted: Vec<Wanted> = wanted.iter().zip(found).map(allowed).collect();
    assert_met(what, &wanted, found);
}

/// One product through a lane.
pub fn call<T: KernelElement>(
    lane: &mut Lane<T>,
    case: &ProductCase,
    a: MatRef<T>,
    b: MatRef<T>,
    bias: &[T],
    c: MatMut<T>,
) -> Result<()> {
    let (alpha, beta) = (T::from_f64(case.alpha), T::from_f64(case.beta));
    match case.product {
        Product::Nn => lane.gemm_nn(alpha, a, b, beta, c),
        Product::Nt => lane.gemm_nt(alpha, a, b, beta, c),
        Product::Tn => lane.gemm_tn(alpha, a, b, beta, c),
        Product::Linear => lane.linear(a, b, bias, false, c),
        Product::LinearRelu => lane.linear(a, b, bias, true, c),
        Product::Gram => lane.gram(a, b, c),
    }
}

/// alpha and beta of a case, as what is done with its result.
fn scaled<T: KernelElement>(case: &ProductCase) -> Finish<'static, T> {
    let (alpha, beta) = factors(case);
    Finish::scaled(T::from_f64(alpha), T::from_f64(beta))
}

/// A product on all threads of a team; `None` for those it has not.
fn call_team<T: KernelElement>(team: &mut Team<T>, case: &ProductCase, o: &Operands<T>) -> Option<Padded<T>> {
    let mut c = o.c.clone();
    let (a, b, bias, finish) = (o.a.view(), o.b.view(), o.bias.slice(), scaled::<T>(case));
    match case.product {
        Product::Nn | Product::Nt => team.product(form(case.product), a, b, c.view_mut(), finish),
        Product::Tn => team.gemm_tn(finish.alpha, a, b, finish.beta, c.view_mut()),
        Product::Linear => team.linear(a, b, bias, c.view_mut()),
        Product::LinearRelu => {
            team.product(Form::Nt, a, b, c.view_mut(), Finish { bias: Some(bias), relu: true, ..finish })
        }
        Product::Gram => return None,
    }
    .unwrap();
    Some(c)
}

/// All tables and teams against the truth; each team against its lane bit for bit.
pub fn product<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase) {
    let o = Operands::<T>::new(case);
    let fused = of_entry(case.product);
    let wanted = o.wanted(case, &fused, &o.c);
    let mut of_lane = vec![];
    for (isa, lane) in &mut tables.lanes {
        let (mut c, what) = (o.c.clone(), label::<T>(*isa, 1, "product", case));
        call(lane, case, o.a.view(), o.b.view(), o.bias.slice(), c.view_mut()).unwrap();
        c.assert_frame(&what);
        assert_met_with_relu(&what, &wanted, &c.values(), fused.relu);
        of_lane.push((*isa, c.bits()));
    }
    for (isa, threads, team) in &mut tables.teams {
        if let Some(c) = call_team(team, case, &o) {
            let what = label::<T>(*isa, *threads, "product", case);
            c.assert_frame(&what);
            let (_, whole) = of_lane.iter().find(|(i, _)| i == isa).unwrap();
            assert!(*whole == c.bits(), "{what}: other bits than on one lane");
        }
    }
}

/// A product with what is fused to it, on all tables, against the truth. Values that must not be read are NaN: old ones
/// where beta is 0, and the result where the old values lie elsewhere.
pub fn fused<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase, fused: &Fused) {
    let o = Operands::<T>::new(case);
    let mut rng = Rng::new(case.seed, 1, 0, Purpose::Data);
    let kinds = [0.0, -0.0, f64::NAN, 1e-40, 1.0, f64::INFINITY, -1.0];
    let mask = Padded::<T>::matrix(case.m, case.n, (case.gap + 4) % 3, 2, || kinds[rng.below(kinds.len())]);
    let unread = Padded::<T>::matrix(case.m, case.n, (case.gap + 3) % 4, 4, || f64::NAN);
    let wanted = o.wanted(case, fused, &mask);
    let finish = Finish {
        alpha: T::from_f64(case.alpha),
        beta: T::from_f64(case.beta),
        old: fused.old.then(|| o.c.view()),
        bias: fused.bias.then(|| o.bias.slice()),
        relu: fused.relu,
        mask: fused.mask.map(|masked| match masked {
            Masked::Product => Mask::Product(mask.view()),
            Masked::Result => Mask::Result(mask.view()),
        }),
    };
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "fused product", &(case, fused));
        let mut c = if fused.old { unread.clone() } else { o.c.clone() };
        lane.product(form(case.product), o.a.view(), o.b.view(), c.view_mut(), finish).unwrap();
        c.assert_frame(&what);
        assert_met_with_relu(&what, &wanted, &c.values(), fused.relu);
        for (_, threads, team) in tables.teams.iter_mut().filter(|(of, ..)| of == isa) {
            let what = label::<T>(*isa, *threads, "fused product", &(case, fused));
            let mut found = if fused.old { unread.clone() } else { o.c.clone() };
            team.product(form(case.product), o.a.view(), o.b.view(), found.view_mut(), finish).unwrap();
            assert!(found.bits() == c.bits(), "{what}: other bits than on one lane");
        }
    }
}

/// Products of one form as one batch, on all teams against the truth and against their lanes, bit for bit.
pub fn batch<T: KernelElement>(tables: &mut Tables<T>, cases: &[ProductCase]) {
    let operands: Vec<Operands<T>> = cases.iter().map(Operands::new).collect();
    let form = form(cases[0].product);
    for (isa, threads, team) in &mut tables.teams {
        let mut found: Vec<Padded<T>> = operands.iter().map(|o| o.c.clone()).collect();
        let of_case = cases.iter().zip(&operands).zip(&mut found);
        let mut batch: Vec<backend::Product<T>> = of_case
            .map(|((case, o), c)| {
                let (a, b, c) = (o.a.view(), o.b.view(), c.view_mut());
                backend::Product { a, b, c, finish: scaled(case) }
            })
            .collect();
        team.product_batch(form, &mut batch).unwrap();
        let (_, lane) = tables.lanes.iter_mut().find(|(of, _)| of == isa).unwrap();
        for ((case, o), found) in cases.iter().zip(&operands).zip(&found) {
            let what = label::<T>(*isa, *threads, "product of a batch", case);
            found.assert_frame(&what);
            assert_met(&what, &o.wanted(case, &Fused::number(0), &o.c), &found.values());
            let mut alone = o.c.clone();
            lane.product(form, o.a.view(), o.b.view(), alone.view_mut(), scaled(case)).unwrap();
            assert!(found.bits() == alone.bits(), "{what}: other bits than alone");
        }
    }
}

/// A product of operands stored in `A` and `B`, with what is fused to it: the bits of the product of their widened copies, which
/// is compared with the truth; on all tables.
pub fn stored<A: StoredElement<f32>, B: StoredElement<f32>>(
    tables: &mut Tables<f32>,
    case: &ProductCase,
    fused: &Fused,
) {
    let mut o = Operands::<f32>::new(case);
    let (a, b) = (o.a.stored::<A>(), o.b.stored::<B>());
    (o.a, o.b) = (o.a.widened(&a), o.b.widened(&b));
    let wanted = o.wanted(case, fused, &o.c);
    let bias = fused.bias.then(|| o.bias.slice());
    let finish = Finish { bias, relu: fused.relu, ..Finish::scaled(case.alpha as f32, case.beta as f32) };
    for (isa, lane) in &mut tables.lanes {
        let what = label::<f32>(*isa, 1, "stored product", &(A::STORED, B::STORED, case, fused));
        let [mut found, mut plain] = [o.c.clone(), o.c.clone()];
        lane.product(form(case.product), o.a.view_of(&a), o.b.view_of(&b), found.view_mut(), finish).unwrap();
        lane.product(form(case.product), o.a.view(), o.b.view(), plain.view_mut(), finish).unwrap();
        found.assert_frame(&what);
        assert!(found.bits() == plain.bits(), "{what}: other bits than of the widened operands");
        assert_met_with_relu(&what, &wanted, &found.values(), fused.relu);
    }
}

/// A product added to the old values part by part, on all teams, against the truth; the same bits wherever its steps are cut.
pub fn added<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase) {
    let o = Operands::<T>::new(case);
    let wanted = o.wanted(case, &of_entry(case.product), &o.c);
    let mut rng = Rng::new(case.seed, 2, 0, Purpose::Data);
    // The steps in one part, and in some of up to 40, empty ones among them.
    let mut cuts = vec![0];
    while *cuts.last().unwrap() < case.k {
        cuts.push(case.k.min(cuts.last().unwrap() + rng.below(41)));
    }
    let parts: Vec<Range<usize>> = cuts.windows(2).map(|w| w[0]..w[1]).collect();
    let whole = 0..case.k;
    let mut of_isa: Vec<(Isa, Vec<u64>)> = vec![];
    for (isa, threads, team) in &mut tables.teams {
        let mut found = |lists: &[&[Range<usize>]], how: &str| {
            let (mut c, what) = (o.c.clone(), label::<T>(*isa, *threads, how, &(case, &cuts)));
            for list in lists {
                let part_of = |i: usize| (o.a.part(list[i].clone(), 0..case.m), o.b.part(list[i].clone(), 0..case.n));
                team.add_products(list.len(), part_of, c.view_mut()).unwrap();
            }
            c.assert_frame(&what);
            assert_met(&what, &wanted, &c.values());
            match of_isa.iter().find(|(i, _)| i == isa) {
                Some((_, bits)) => assert!(*bits == c.bits(), "{what}: other bits than in one part on one thread"),
                None => of_isa.push((*isa, c.bits())),
            }
        };
        found(&[std::slice::from_ref(&whole)], "one part");
        found(&[&parts], "parts");
        let (front, back) = parts.split_at(parts.len() / 2);
        found(&[front, back], "two calls");
    }
}

/// A product with few columns on all tables, with and without a bias, against the truth; cut at any row, the same bits.
pub fn few_columns<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase) {
    let o = Operands::<T>::new(case);
    let (alpha, beta) = (T::from_f64(case.alpha), T::from_f64(case.beta));
    for with_bias in [false, true] {
        let fused = Fused { old: false, bias: with_bias, relu: false, mask: None };
        let wanted = o.wanted(case, &fused, &o.c);
        let bias = with_bias.then(|| o.bias.slice());
        for (isa, lane) in &mut tables.lanes {
            let (mut c, what) = (o.c.clone(), label::<T>(*isa, 1, "few_columns", &(case, with_bias)));
            lane.few_columns(alpha, o.a.view(), o.b.view(), beta, bias, c.view_mut()).unwrap();
            c.assert_frame(&what);
            assert_met(&what, &wanted, &c.values());
            for cut in 0..=case.m {
                let mut parts = o.c.clone();
                for rows in [0..cut, cut..case.m] {
                    let a = o.a.part(rows.clone(), 0..case.k);
                    let c = parts.part_mut(rows, 0..case.n);
                    lane.few_columns(alpha, a, o.b.view(), beta, bias, c).unwrap();
                }
                assert!(parts.bits() == c.bits(), "{what}: other bits when cut at row {cut}");
            }
        }
    }
}

/// A sum of two products, with and without a mask, and where the form allows with few columns, on all tables against the truth.
pub fn pair<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase) {
    let (o, other) =
        (Operands::<T>::new(case), Operands::<T>::new(&ProductCase { seed: case.seed + 1_000_000, ..*case }));
    let others = std::slice::from_ref(&other);
    let mut rng = Rng::new(case.seed, 3, 0, Purpose::Data);
    let mask = Padded::<T>::matrix(case.m, case.n, 1, 2, || [1.0, 0.0, f64::NAN, -1.0][rng.below(4)]);
    let (alpha, beta) = (T::from_f64(case.alpha), T::from_f64(case.beta));
    let factors = [(o.a.view(), o.b.view()), (other.a.view(), other.b.view())];
    for masked in [None, Some(Masked::Product)] {
        let fused = Fused { old: false, bias: false, relu: false, mask: masked };
        let wanted = o.wanted_beside(case, &fused, &mask, others);
        for (isa, lane) in &mut tables.lanes {
            let (mut c, what) = (o.c.clone(), label::<T>(*isa, 1, "product_pair", &(case, masked)));
            let mask = masked.map(|_| mask.view());
            lane.product_pair(form(case.product), factors, alpha, mask, beta, c.view_mut()).unwrap();
            c.assert_frame(&what);
            assert_met(&what, &wanted, &c.values());
        }
    }
    if !turns_b(case.product) {
        return;
    }
    for with_bias in [false, true] {
        let (case, fused) =
            (ProductCase { alpha: 1.0, beta: 0.0, ..*case }, Fused { bias: with_bias, ..Fused::number(0) });
        let wanted = o.wanted_beside(&case, &fused, &mask, others);
        for (isa, lane) in &mut tables.lanes {
            let (mut c, what) = (o.c.clone(), label::<T>(*isa, 1, "few_columns_pair", &(case, with_bias)));
            lane.few_columns_pair(factors, with_bias.then(|| o.bias.slice()), c.view_mut()).unwrap();
            c.assert_frame(&what);
            assert_met(&what, &wanted, &c.values());
        }
    }
}

/// The product in two parts, cut before a row or a column, has the bits of the whole.
pub fn product_cut_anywhere<T: KernelElement>(tables: &mut Tables<T>, case: &ProductCase) {
    let o = Operands::<T>::new(case);
    for (isa, lane) in &mut tables.lanes {
        let mut whole = o.c.clone();
        call(lane, case, o.a.view(), o.b.view(), o.bias.slice(), whole.view_mut()).unwrap();
        let whole = whole.bits();
        for cut in 0..=case.m {
            let mut c = o.c.clone();
            for rows in [0..cut, cut..case.m] {
                part(lane, case, &o, rows, 0..case.n, &mut c);
            }
            assert!(c.bits() == whole, "{}: other bits when cut at row {cut}", label::<T>(*isa, 1, "product", case));
        }
        for cut in 0..=case.n {
            let mut c = o.c.clone();
            for cols in [0..cut, cut..case.n] {
                part(lane, case, &o, 0..case.m, cols, &mut c);
            }
            assert!(c.bits() == whole, "{}: other bits when cut at column {cut}", label::<T>(*isa, 1, "product", case));
        }
    }
}

/// `a a^T + 1` has the bits of the product that does not know its operands are equal.
pub fn symmetric_gram<T: KernelElement>(tables: &mut Tables<T>, seed: u64, m: usize, k: usize) {
    let mut rng = Rng::new(seed, 0, 0, Purpose::Data);
    let a = Padded::<T>::matrix(m, k, m % 3, 1 + m % 5, || rng.normal());
    for (isa, lane) in &mut tables.lanes {
        let what = label::<T>(*isa, 1, "gram_symmetric", &(seed, m, k));
        let [mut general, mut symmetric] = [0, 1].map(|_| Padded::<T>::matrix(m, m, m % 4, 3, || f64::NAN));
        lane.gram(a.view(), a.view(), general.view_mut()).unwrap();
        lane.gram_symmetric(a.view(), symmetric.view_mut()).unwrap();
        symmetric.assert_frame(&what);
        assert!(symmetric.bits() == general.bits(), "{what}: other bits than the general product");
    }
}

/// Rows and columns of the result, from those parts of the operands they depend on.
fn part<T: KernelElement>(
    lane: &mut Lane<T>,
    case: &ProductCase,
    o: &Operands<T>,
    rows: Range<usize>,
    cols: Range<usize>,
    c: &mut Padded<T>,
) {
    let k = 0..case.k;
    let a = if turns_a(case.product) { o.a.part(k.clone(), rows.clone()) } else { o.a.part(rows.clone(), k.clone()) };
    let b = if turns_b(case.product) { o.b.part(cols.clone(), k) } else { o.b.part(k, cols.clone()) };
    let bias = &o.bias.slice()[cols.clone()];
    call(lane, case, a, b, bias, c.part_mut(rows, cols)).unwrap();
}
