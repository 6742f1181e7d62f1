//! Row and element kernels on a device: every one, for every architecture, through the engine's own launch code, on the
//! interpreter and on a GPU where there is one, at the cases the CPU's kernels are tried at.

use crate::support::cases::{self, Fill, RowCase};
use crate::support::check_device as check;
use crate::support::simulator::simulators;
use metaglot::cuda::{Cuda, Device, images};
use metaglot::{bf16, f16};

/// The files whose kernels are tried here, and those that have a test file of their own: `tests/cuda/gemm.rs`,
/// `tests/cuda/grouped.rs`, `tests/cuda/meta_step.rs` and `tests/cuda/bench.rs`.
const HERE: [&str; 6] = ["activation", "bag", "gram", "reduce", "softmax_xent", "update"];
const ELSEWHERE: [&str; 6] = ["gemm", "gemm.sm_90a", "grouped", "episode", "peak", "peak.sm_90a"];

/// Element-wise operations: every `stride`-th case, and one that all blocks of a launch walk over more than once.
fn elements<D: Device>(device: &mut D, stride: usize) {
    let long = RowCase { seed: 5, n: 256 * 4096 + 77, offset: 3, fill: Fill::Uniform };
    for case in cases::rows().iter().step_by(stride) {
        check::relu(device, case);
        check::relu_mask(device, case);
        check::axpby(device, case);
        check::sgd(device, case);
        check::adamw(device, case);
    }
    check::relu_mask(device, &long);
}

fn updates_of_rows<D: Device>(device: &mut D) {
    for (seed, case) in (0..).zip([(0, 3, 5), (1, 1, 1), (3, 50, 7), (8, 8, 33), (20, 64, 128)]) {
        check::sparse_updates(device, seed, case);
    }
}

fn column_sums<D: Device>(device: &mut D, stride: usize) {
    for (seed, case) in (0..).zip(&cases::column_sums()).step_by(stride) {
        check::col_sum(device, seed, case);
    }
}

fn softmaxes<D: Device>(device: &mut D, stride: usize) {
    cases::softmaxes().iter().step_by(stride).for_each(|case| check::softmax_xent(device, case));
    for (seed, case) in (0..).zip(&cases::softmax_blocks()).step_by(stride) {
        check::softmax_block(device, seed, case);
    }
}

fn bags<D: Device>(device: &mut D, stride: usize) {
    for case in cases::gathers().iter().step_by(stride) {
        check::bag::<D, f32>(device, case);
        check::bag::<D, f16>(device, case);
        check::bag::<D, bf16>(device, case);
    }
}

/// Episodes of different sizes, empty ones among them, around the tile of 32 x 32 and its 32 columns of the inputs.
fn grams<D: Device>(device: &mut D) {
    let sizes = [&[(5, 5), (0, 3), (3, 0), (33, 31)][..], &[(75, 25), (1, 1)], &[(32, 64)], &[(0, 0)], &[]];
    for (seed, sizes) in (0..).zip(sizes) {
        for width in [0, 1, 31, 32, 33, 70] {
            check::gram(device, seed, sizes, width);
        }
        for &(a, b, vocabulary) in &cases::BAG_DOTS[..6] {
            check::gram_bags(device, seed, sizes, &[a, b, 0, a.min(1)], vocabulary);
        }
    }
}

#[test]
fn row_kernels_equal_the_truth_on_every_architecture() {
    std::thread::scope(|scope| {
        for mut simulator in simulators() {
            scope.spawn(move || {
                elements(&mut simulator, 61);
                updates_of_rows(&mut simulator);
                column_sums(&mut simulator, 1);
                softmaxes(&mut simulator, 13);
                bags(&mut simulator, 5);
                grams(&mut simulator);
                simulator.assert_all_launched(&HERE);
            });
        }
    });
}

#[test]
fn row_kernels_equal_the_truth_on_a_gpu() {
    match Cuda::new(0) {
        Ok(mut cuda) => {
            elements(&mut cuda, 1);
            updates_of_rows(&mut cuda);
            column_sums(&mut cuda, 1);
            softmaxes(&mut cuda, 1);
            bags(&mut cuda, 1);
            grams(&mut cuda);
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

/// A file of kernels that no test names would not be tried at all.
#[test]
fn every_file_of_kernels_has_its_test() {
    for image in images() {
        assert!(HERE.contains(&image.stem) || ELSEWHERE.contains(&image.stem), "{}.cu is tried nowhere", image.stem);
    }
}
