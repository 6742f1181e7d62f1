//! Every kernel of every instruction set against the truth under the contract's tolerance, as in
//! `tests/conformance.rs`, with sizes, offsets and values made from the fuzzer's bytes.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use metaglot::cpu::KernelElement;
use metaglot::{bf16, f16};
use support::cases::{Fill, Fused, GatherCase, Logits, Product, ProductCase, RowCase, SoftmaxCase};
use support::tables::Tables;
use support::{check_product, check_rows, check_sums};

/// Numbers read off the input; 0 when it is used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.byte() | self.byte() << 8) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() % from.len()]
    }
}

fn product<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64, fill: Fill) {
    let (product, gap) = (bytes.pick(&Product::ALL), bytes.below(9));
    // Now and then more than one block of steps of every table.
    let longest = bytes.pick(&[320, 320, 320, 1100]);
    let (m, n, k) = (bytes.below(80), bytes.below(80), bytes.below(longest));
    let (alpha, beta) = (bytes.pick(&[1.0, -0.3, 0.0]), bytes.pick(&[0.0, 1.0, -0.5]));
    let case = ProductCase { seed, product, m, n, k, gap, alpha, beta, fill };
    check_product::product(tables, &case);
    if matches!(product, Product::Nn | Product::Nt | Product::Tn) {
        check_product::fused(tables, &case, &Fused::number(bytes.below(24)));
    }
    if product == Product::Nt {
        check_product::few_columns(tables, &ProductCase { n: n % 10, m: m % 16, ..case });
        check_product::pair(tables, &ProductCase { n: n % 10, ..case });
    }
    let few = ProductCase { k: k % 12, ..case };
    if matches!(product, Product::Nn | Product::Tn) {
        check_product::fused(tables, &few, &Fused::number(bytes.below(2)));
        check_product::pair(tables, &few);
    }
}

/// Products added up, around the sizes where blocks begin to hold steps of several.
fn added<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64, fill: Fill) {
    let (m, n, k, gap) = (bytes.below(130), bytes.below(130), bytes.below(500), bytes.below(9));
    let (product, alpha, beta) = (Product::Tn, 1.0, 1.0);
    check_product::added(tables, &ProductCase { seed, product, m, n, k, gap, alpha, beta, fill });
}

/// A product of operands stored in half precision.
fn stored(bytes: &mut Bytes, tables: &mut Tables<f32>) {
    let (seed, gap) = (bytes.below(1 << 16) as u64, bytes.below(9));
    let (product, fill) = (bytes.pick(&[Product::Nn, Product::Nt, Product::Tn]), bytes.pick(&Fill::ALL));
    let (m, n, k) = (bytes.below(80), bytes.below(80), bytes.below(320));
    let (alpha, beta) = (bytes.pick(&[1.0, -0.5]), bytes.pick(&[0.0, 1.0, -0.5]));
    let fused = Fused { old: false, bias: bytes.pick(&[false, true]), relu: bytes.pick(&[false, true]), mask: None };
    let check = bytes.pick(&[check_product::stored::<f16, f16>, check_product::stored::<bf16, bf16>]);
    check(tables, &ProductCase { seed, product, m, n, k, gap, alpha, beta, fill }, &fused);
}

fn row<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64, fill: Fill) {
    let case = RowCase { seed, n: bytes.below(600), offset: bytes.below(8), fill };
    let checks: [fn(&mut Tables<T>, &RowCase); 7] = [
        check_rows::relu,
        check_rows::relu_mask,
        check_rows::relu_mask_to,
        check_rows::axpby,
        check_rows::axpy,
        check_rows::sgd,
        check_rows::adamw,
    ];
    bytes.pick(&checks)(tables, &case);
}

fn softmax<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64) {
    let kinds = [Logits::Usual, Logits::Equal, Logits::Extreme, Logits::OneFinite, Logits::Wide, Logits::Denormal];
    let (logits, n) = (bytes.pick(&kinds), 1 + bytes.below(600));
    let (target, scale, offset) = (bytes.below(n), bytes.pick(&[1.0, 0.01]), bytes.below(8));
    check_sums::softmax_xent(tables, &SoftmaxCase { seed, n, target, scale, offset, logits });
}

fn gather<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64, fill: Fill) {
    let (len, rows, n) = (bytes.below(100), 1 + bytes.below(50), bytes.below(300));
    let (gap, init) = (bytes.below(9), bytes.pick(&[true, false]));
    check_sums::gather_sum::<T, T>(tables, &GatherCase { seed, len, rows, n, gap, init, fill });
}

fn sums<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>, seed: u64) {
    let case = (bytes.below(100), bytes.below(200), bytes.below(5), 0.25, bytes.pick(&[0.0, 1.0, -0.5]));
    check_sums::col_sum(tables, seed, &case);
    let vocabulary = 1 + bytes.below(300);
    check_sums::bag_gram::<T>(seed, &(bytes.below(vocabulary + 1), bytes.below(vocabulary + 1), vocabulary));
}

fn one<T: KernelElement>(bytes: &mut Bytes, tables: &mut Tables<T>) {
    let seed = bytes.below(1 << 16) as u64;
    let fill = bytes.pick(&Fill::ALL);
    match bytes.byte() % 6 {
        0 => product(bytes, tables, seed, fill),
        1 => row(bytes, tables, seed, fill),
        2 => softmax(bytes, tables, seed),
        3 => gather(bytes, tables, seed, fill),
        4 => added(bytes, tables, seed, fill),
        _ => sums(bytes, tables, seed),
    }
}

thread_local! {
    static SINGLE: RefCell<Tables<f32>> = RefCell::new(Tables::new(&[1, 2]));
    static DOUBLE: RefCell<Tables<f64>> = RefCell::new(Tables::new(&[1, 2]));
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    match bytes.byte() % 3 {
        0 => SINGLE.with_borrow_mut(|tables| one(&mut bytes, tables)),
        1 => DOUBLE.with_borrow_mut(|tables| one(&mut bytes, tables)),
        _ => SINGLE.with_borrow_mut(|tables| stored(&mut bytes, tables)),
    }
});
