//! The interpreter sees what may go wrong in a kernel: bugs of each kind, planted into the text of real kernels, for every
//! architecture, each found as what it is.

use crate::support::edit::{in_seven_lanes, lines, shifted, without};
use crate::support::simulator::{Memory, Simulator};
use bytemuck::{Pod, cast_slice};
use metaglot::Result;
use metaglot::cuda::rows::{self, Grams, Softmax};
use metaglot::cuda::{Device, Form, Gemm, Operand, Precision, Tiling};

/// Numbers on the device, in a buffer that is no longer than they are.
fn put<T: Pod>(device: &mut Simulator, values: &[T]) -> (Memory, u64) {
    let mut memory = device.alloc(size_of_val(values)).unwrap();
    device.upload(&mut memory, 0, cast_slice(values)).unwrap();
    let at = device.address(&memory);
    (memory, at)
}

/// Room for `n` f32 that nothing has written.
fn room(device: &mut Simulator, n: usize) -> (Memory, u64) {
    let memory = device.alloc(4 * n).unwrap();
    let at = device.address(&memory);
    (memory, at)
}

fn relu(device: &mut Simulator) -> Result<()> {
    let ((_src, src), (_dst, dst)) = (put(device, &[1f32; 300]), room(device, 300));
    // SAFETY: both hold 300 numbers.
    unsafe { rows::relu(300, src, dst).run(device) }
}

fn scale(device: &mut Simulator) -> Result<()> {
    let ((_x, x), (_y, y)) = (put(device, &[1f32; 64]), room(device, 64));
    // SAFETY: both hold 64 numbers; beta is 0, so y is not read.
    unsafe { rows::axpby(64, 2.0, x, 0.0, y).run(device) }
}

/// A matrix of several tiles, the inputs of several slices.
fn gram(device: &mut Simulator) -> Result<()> {
    let ((_x, x), (_dst, dst)) = (put(device, &vec![1f32; 40 * 70]), room(device, 40 * 40));
    let (_bounds, bounds) = put(device, &[0i32, 40]);
    let grams = Grams { episodes: 1, bounds: [bounds; 2], most: [40; 2], dst, ld: 40 };
    // SAFETY: one episode of 40 rows of 70 numbers, against itself.
    unsafe { rows::gram(&grams, x, x, 70)?.run(device) }
}

fn softmax(device: &mut Simulator) -> Result<()> {
    let ((_z, z), (_targets, targets)) = (put(device, &[0.5f32; 80]), put(device, &[3u32, 39]));
    let ((_p, p), (_dz, dz), (_losses, losses)) = (room(device, 80), room(device, 80), room(device, 2));
    let s = Softmax { m: 2, n: 40, z: (z, 40), targets, scale: 1.0, p, dz, losses };
    // SAFETY: two rows of 40 numbers, targets below 40.
    unsafe { rows::softmax_xent(&s)?.run(device) }
}

fn product_by(device: &mut Simulator, tiling: Tiling) -> Result<()> {
    let ((_x, x), (_c, c)) = (put(device, &vec![half::bf16::ONE; 64 * 192]), room(device, 64 * 64));
    let operand = |address, ld| Operand { address, ld, stride: 0 };
    let gemm = Gemm {
        form: Form::Nt,
        precision: Precision::Bf16,
        m: 64,
        n: 64,
        k: 192,
        batch: 1,
        alpha: 1.0,
        beta: 0.0,
        a: operand(x, 192),
        b: operand(x, 192),
        c: operand(c, 64),
        bias: 0,
        relu: false,
    };
    let launch = gemm.plan_with(tiling, device.arch())?;
    // SAFETY: A and B are the same 64 rows of 192 numbers, c is 64 x 64.
    unsafe { device.launch(&launch, &gemm.args()) }
}

fn product(device: &mut Simulator) -> Result<()> {
    product_by(device, Tiling::Small)
}

fn warpgroups(device: &mut Simulator) -> Result<()> {
    product_by(device, Tiling::Warpgroup)
}

/// The comparisons with 0 that decide whether old values are read, turned round, in whichever way they are written.
fn reads_the_old(ptx: &str) -> String {
    ptx.replace("setp.eq.f32", "setp.ne.f32").replace("setp.neu.f32", "setp.equ.f32")
}

/// A bug, where it is planted, and what it has to be found as.
struct Planted {
    what: &'static str,
    run: fn(&mut Simulator) -> Result<()>,
    edit: fn(&str) -> String,
    kind: &'static str,
}

const fn planted(
    what: &'static str,
    run: fn(&mut Simulator) -> Result<()>,
    edit: fn(&str) -> String,
    kind: &'static str,
) -> Planted {
    Planted { what, run, edit, kind }
}

const EVERYWHERE: [Planted; 15] = [
    planted("a read before its buffer", relu, |ptx| shifted(ptx, "ld.global", -4), "OutOfBounds"),
    planted("a write past its buffer", relu, |ptx| shifted(ptx, "st.global", 4), "OutOfBounds"),
    planted("a write past shared memory", gram, |ptx| shifted(ptx, "st.shared", 1 << 16), "OutOfBounds"),
    planted("half a number on", relu, |ptx| shifted(ptx, "ld.global", 2), "Misaligned"),
    planted("half a number on in shared memory", gram, |ptx| shifted(ptx, "ld.shared", 2), "Misaligned"),
    planted("half a row of a matrix on", product, |ptx| shifted(ptx, "ldmatrix", 8), "Misaligned"),
    planted("old values that are not there", scale, reads_the_old, "UninitializedGlobal"),
    planted("a slice nobody stored", gram, |ptx| without(ptx, "st.shared", |_| true), "UninitializedShared"),
    planted("no barrier before a slice is stored", gram, |ptx| without(ptx, "bar.sync", |i| i == 0), "Race"),
    planted("no wait for copies", product, |ptx| without(ptx, "cp.async.wait_group", |_| true), "MissingAsyncWait"),
    planted("a shuffle of some lanes", softmax, |ptx| in_seven_lanes(ptx, "shfl.sync"), "DivergentSync"),
    planted("a matrix load of some lanes", product, |ptx| in_seven_lanes(ptx, "ldmatrix"), "DivergentSync"),
    planted("a matrix product of some lanes", product, |ptx| in_seven_lanes(ptx, "mma.sync"), "DivergentSync"),
    planted("a barrier of some lanes", gram, |ptx| in_seven_lanes(ptx, "bar.sync"), "DivergentSync"),
    planted(
        "a barrier of more threads than there are",
        gram,
        |ptx| lines(ptx, "bar.sync", |_, line| line.replace(';', ", 288;")),
        "Deadlock",
    ),
];

const ON_HOPPER: [Planted; 3] = [
    planted("copies not fenced", warpgroups, |ptx| without(ptx, "fence.proxy", |_| true), "MissingFence"),
    planted("products not waited for", warpgroups, |ptx| without(ptx, "wgmma.wait", |_| true), "MissingAsyncWait"),
    planted("a product of some lanes", warpgroups, |ptx| in_seven_lanes(ptx, "wgmma.mma_async"), "DivergentSync"),
];

#[test]
fn each_kind_of_bug_is_found_as_what_it_is() {
    for arch in ["sm_80", "sm_90a", "sm_100"] {
        let own = ON_HOPPER.iter().filter(|_| arch == "sm_90a");
        for Planted { what, run, edit, kind } in EVERYWHERE.iter().chain(own) {
            let unchanged = run(&mut Simulator::new(arch));
            assert!(unchanged.is_ok(), "{arch}: without {what}: {unchanged:?}");
            let found = run(&mut Simulator::with_edit(arch, *edit));
            let found = found.map_err(|e| e.to_string()).expect_err(&format!("{arch}: {what} was not found"));
            assert!(found.contains(&format!("kind: {kind},")), "{arch}: {what} is {kind} but was found as {found}");
        }
    }
}
