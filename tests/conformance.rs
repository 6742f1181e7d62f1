//! Every kernel of every table, through the checked entry points, against the truth under the contract's tolerance.

mod support;

use metaglot::backend::Team;
use metaglot::cpu::{Cpu, KernelElement, StoredElement};
use metaglot::{MatMut, MatRef, bf16, f16};
use support::cases::{self, Fill, Fused, Product, ProductCase};
use support::tables::Tables;
use support::{check_product, check_rows, check_sums};

/// A test for each element type.
macro_rules! for_both_types {
    ($($name:ident)*) => {
        mod f32 {
            $(#[test] fn $name() { super::$name::<f32>(); })*
        }
        mod f64 {
            $(#[test] fn $name() { super::$name::<f64>(); })*
        }
    };
}

for_both_types! {
    products_equal_the_truth
    products_may_be_cut_anywhere
    fused_products_equal_the_truth
    added_products_equal_the_truth_however_cut
    products_with_few_columns_equal_the_truth
    thin_products_equal_the_truth
    sums_of_two_products_equal_the_truth
    products_have_the_same_bits_on_any_number_of_threads
    batches_of_products_equal_the_truth
    symmetric_products_have_the_bits_of_general_ones
    row_operations_equal_the_truth
    softmax_cross_entropy_equals_the_truth
    blocks_of_logits_have_the_bits_of_their_rows
    column_sums_equal_the_truth
    bag_products_equal_the_truth
    bag_layers_equal_the_truth
}

fn products_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[1, 3]);
    cases::products().iter().for_each(|case| check_product::product(&mut tables, case));
}

fn products_may_be_cut_anywhere<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for (m, n, k) in [(13, 35, 300), (70, 20, 40), (66, 18, 257), (15, 35, 1025), (3, 5, 0), (25, 67, 5)] {
        for (seed, product) in Product::ALL.into_iter().enumerate() {
            // Old values that are added as they are, or not at all, are what kernels for thin products take.
            for beta in [-0.5, 0.0, 1.0] {
                let (seed, alpha, fill) = (seed as u64, 0.7, Fill::Uniform);
                let case = ProductCase { seed, product, m, n, k, gap: 2, alpha, beta, fill };
                check_product::product_cut_anywhere(&mut tables, &case);
            }
        }
    }
}

fn fused_products_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[3]);
    cases::fused().iter().for_each(|(case, fused)| check_product::fused(&mut tables, case, fused));
}

/// Operands stored in `A` and `B`.
fn stored_products_equal_the_truth<A: StoredElement<f32>, B: StoredElement<f32>>() {
    let mut tables = Tables::<f32>::new(&[]);
    for (case, fused) in &cases::stored() {
        check_product::stored::<A, B>(&mut tables, case, fused);
    }
}

#[test]
fn products_equal_the_truth_in_every_storage() {
    stored_products_equal_the_truth::<f16, f16>();
    stored_products_equal_the_truth::<bf16, bf16>();
    stored_products_equal_the_truth::<f32, f16>();
    stored_products_equal_the_truth::<bf16, f32>();
    stored_products_equal_the_truth::<f16, bf16>();
}

fn added_products_equal_the_truth_however_cut<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[1, 2, 3]);
    // Around the sizes where blocks begin to join parts (96), the blocks of steps (256, 384) and tiles' tails.
    for (seed, (m, n, k)) in
        [(0, 5, 3), (7, 5, 0), (5, 9, 20), (95, 96, 60), (96, 96, 401), (97, 131, 130), (14, 200, 30), (300, 100, 40)]
            .into_iter()
            .enumerate()
    {
        let (seed, product, alpha, beta) = (seed as u64, Product::Tn, 1.0, 1.0);
        let fill = if seed == 5 { Fill::Special } else { Fill::Uniform };
        check_product::added(&mut tables, &ProductCase { seed, product, m, n, k, gap: 2, alpha, beta, fill });
    }
}

#[test]
#[should_panic = "part 0 has another size than before"]
fn a_part_that_changes_its_size_is_refused() {
    let numbers = [1.0f32; 64];
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let part_of = |_| {
        let cols = if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 { 4 } else { 8 };
        (MatRef::new(&numbers, 8, cols).unwrap(), MatRef::new(&numbers, 8, 8).unwrap())
    };
    let mut c = [0.0; 32];
    let _ = Team::new(&Cpu::new()).add_products(1, part_of, MatMut::new(&mut c, 4, 8).unwrap());
}

fn products_with_few_columns_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    cases::few_columns().iter().for_each(|case| check_product::few_columns(&mut tables, case));
}

fn thin_products_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for case in cases::low_ranks().iter().chain(&cases::few_rows()) {
        // Without a mask, then with one of the product: what a rank-k update knows.
        (0..2).for_each(|number| check_product::fused(&mut tables, case, &Fused::number(number)));
    }
}

fn sums_of_two_products_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    cases::low_ranks().iter().chain(&cases::few_rows()).for_each(|case| check_product::pair(&mut tables, case));
    cases::few_columns().iter().filter(|case| case.k > 11).for_each(|case| check_product::pair(&mut tables, case));
}

fn products_have_the_same_bits_on_any_number_of_threads<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[1, 2, 3, 8]);
    // The last one's rows of B lie across 2 MiB, so few rows of A have it packed.
    for (m, n, k) in [(1, 1, 1), (2, 2, 0), (5, 130, 40), (130, 5, 40), (70, 90, 257), (49, 17, 600), (15, 2049, 257)] {
        for product in Product::ALL {
            let (seed, alpha, beta, fill) = (7, 0.7, -0.5, Fill::Uniform);
            check_product::product(&mut tables, &ProductCase { seed, product, m, n, k, gap: 3, alpha, beta, fill });
        }
    }
}

fn batches_of_products_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[1, 2, 3]);
    let shapes = [(25, 64, 64), (0, 4, 3), (3, 130, 5), (5, 128, 25), (2, 2, 0), (75, 40, 257), (25, 5, 128)];
    for product in [Product::Nn, Product::Nt, Product::Tn] {
        // Not all threads have a product, then some have several.
        for count in [1, 2, 7] {
            let case = |seed: usize| {
                let ((m, n, k), seed, fill) = (shapes[seed], seed as u64, Fill::Uniform);
                ProductCase { seed, product, m, n, k, gap: 1, alpha: 0.7, beta: [0.0, 1.0, -0.5][m % 3], fill }
            };
            check_product::batch(&mut tables, &(0..count).map(case).collect::<Vec<_>>());
        }
    }
}

fn symmetric_products_have_the_bits_of_general_ones<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for m in [0, 1, 5, 6, 7, 13, 14, 15, 25, 31, 33, 48, 49, 75, 100, 193, 260] {
        for (seed, k) in (0..).zip([0, 1, 19, 257]) {
            check_product::symmetric_gram(&mut tables, seed, m, k);
        }
    }
}

fn row_operations_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for case in &cases::rows() {
        check_rows::relu(&mut tables, case);
        check_rows::relu_mask(&mut tables, case);
        check_rows::relu_mask_to(&mut tables, case);
        check_rows::axpy(&mut tables, case);
        check_rows::axpby(&mut tables, case);
        check_rows::sgd(&mut tables, case);
        check_rows::adamw(&mut tables, case);
    }
}

fn softmax_cross_entropy_equals_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    cases::softmaxes().iter().for_each(|case| check_sums::softmax_xent(&mut tables, case));
}

fn blocks_of_logits_have_the_bits_of_their_rows<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for (seed, case) in (0..).zip(&cases::softmax_blocks()) {
        check_sums::softmax_block(&mut tables, seed, case);
    }
}

/// Tables stored in `S`.
fn gathered_sums_equal_the_truth<T: KernelElement, S: StoredElement<T>>() {
    let mut tables = Tables::<T>::new(&[]);
    cases::gathers().iter().for_each(|case| check_sums::gather_sum::<T, S>(&mut tables, case));
}

#[test]
fn gathered_sums_equal_the_truth_in_every_storage() {
    gathered_sums_equal_the_truth::<f64, f64>();
    gathered_sums_equal_the_truth::<f32, f32>();
    gathered_sums_equal_the_truth::<f32, f16>();
    gathered_sums_equal_the_truth::<f32, bf16>();
}

fn column_sums_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[]);
    for (seed, case) in (0..).zip(&cases::column_sums()) {
        check_sums::col_sum(&mut tables, seed, case);
    }
}

fn bag_products_equal_the_truth<T: KernelElement>() {
    for seed in 0..20 {
        cases::BAG_DOTS.iter().for_each(|case| check_sums::bag_gram::<T>(seed, case));
    }
}

fn bag_layers_equal_the_truth<T: KernelElement>() {
    let mut tables = Tables::<T>::new(&[1, 2, 3, 8]);
    for (seed, rows) in (0..).zip([0, 1, 2, 7, 8, 9, 40]) {
        for hidden in [1, 7, 8, 64, 75] {
            check_sums::bag_linear(&mut tables, seed, rows, hidden);
        }
    }
}
