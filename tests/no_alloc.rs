//! A steady-state meta-step allocates nothing, nor does a batch of products.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use metaglot::backend::{Finish, Form, Product, Team};
use metaglot::cpu::Cpu;
use metaglot::meta::{GramSpace, InnerLoop, Limits, MetaGradient, Order};
use metaglot::model::InputKind;
use metaglot::{MatMut, MatRef};
use support::{LossKind, Problem, shape};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of 20 meta-steps after two to warm up.
fn allocations(kind: InputKind, loss: LossKind, cpu: &Cpu) -> usize {
    let outputs = if loss == LossKind::Lists { 1 } else { 3 };
    let p = Problem::random(11, shape(kind, &[40, 33, 17, outputs]), loss, 9, 25, 30);
    let params = p.params::<f32>();
    p.with_batch::<f32, _>(|batch| {
        let inner = InnerLoop::sgd(3, 0.1, Order::Second);
        let limits = Limits::of(batch, &inner);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let mut gram = GramSpace::new(cpu, &p.shape, limits).unwrap();
        cpu.install(|| {
            let mut step = || gram.run(&params, batch, &inner, &mut gradient).unwrap();
            (0..2).for_each(|_| step());
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            (0..20).for_each(|_| step());
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
    })
}

/// Allocations of 20 batches of products after two to warm up.
fn batch_allocations(cpu: &Cpu) -> usize {
    let (x, mut results) = ([0.5f32; 600], vec![[0.0f32; 600]; 5]);
    let matrix = |rows, cols| MatRef::new(&x, rows, cols).unwrap();
    let mut batch: Vec<_> = (results.iter_mut())
        .map(|c| {
            let c = MatMut::new(c, 25, 20).unwrap();
            Product { a: matrix(25, 24), b: matrix(24, 20), c, finish: Finish::scaled(1.0, 0.0) }
        })
        .collect();
    let mut team = Team::<f32>::new(cpu);
    cpu.install(|| {
        let mut run = || team.product_batch(Form::Nn, &mut batch).unwrap();
        (0..2).for_each(|_| run());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..20).for_each(|_| run());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

/// A device that does nothing, in memory of the host.
#[cfg(feature = "cuda")]
mod idle {
    use std::ops::Range;

    use metaglot::Result;
    use metaglot::cuda::{Arch, Args, Device, Launch};

    pub struct Idle;

    impl Device for Idle {
        type Buffer = usize;
        type Host = &'static mut [u8];
        type Graph = ();

        fn arch(&self) -> Arch {
            Arch::parse("sm_80").unwrap()
        }
        fn shared_limit(&self) -> u32 {
            1 << 16
        }
        fn alloc(&mut self, bytes: usize) -> Result<usize> {
            Ok(bytes)
        }
        fn alloc_host(&mut self, bytes: usize) -> Result<&'static mut [u8]> {
            Ok(bytemuck::cast_slice_mut(vec![0u64; bytes.div_ceil(8)].leak()))
        }
        fn address(&self, _: &usize) -> u64 {
            0
        }
        fn bytes(&self, buffer: &usize) -> usize {
            *buffer
        }
        fn upload(&mut self, _: &mut usize, _: usize, _: &[u8]) -> Result<()> {
            Ok(())
        }
        fn download(&mut self, _: &usize, _: usize, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
        unsafe fn upload_async(&mut self, _: &mut usize, _: &&'static mut [u8], _: Range<usize>) -> Result<()> {
            Ok(())
        }
        unsafe fn download_async(&mut self, _: &usize, _: Range<usize>, _: &mut &'static mut [u8]) -> Result<()> {
            Ok(())
        }
        unsafe fn launch(&mut self, _: &Launch, _: &Args) -> Result<()> {
            Ok(())
        }
        fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
            work(self)
        }
        unsafe fn replay(&mut self, (): &()) -> Result<()> {
            Ok(())
        }
        fn synchronize(&mut self) -> Result<()> {
            Ok(())
        }
    }
}

/// Allocations on the host of 20 meta-steps on a device after two to warm up.
#[cfg(feature = "cuda")]
fn device_allocations(kind: InputKind, cpu: &Cpu) -> usize {
    let p = Problem::random(11, shape(kind, &[40, 33, 17, 3]), LossKind::Classes, 9, 25, 30);
    let params = p.params::<f32>();
    p.with_batch::<f32, _>(|batch| {
        let inner = InnerLoop::sgd(3, 0.1, Order::Second);
        let limits = Limits::of(batch, &inner);
        let mut gradient = MetaGradient::new(&p.shape, &limits);
        let mut step = metaglot::cuda::MetaStep::new(idle::Idle, &p.shape, limits).unwrap().with_host(cpu);
        cpu.install(|| {
            let mut run = || step.run(&params, batch, &inner, &mut gradient).unwrap();
            (0..2).for_each(|_| run());
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            (0..20).for_each(|_| run());
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
    })
}

/// A program of its own: any other thread, the test harness's too, would be counted.
fn main() {
    let seen = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > seen, "the counter does not count");
    // All pools live until the end: the threads of one that goes allocate while they end.
    let cpus = [1, 2].map(|threads| Cpu::new().threads(threads).unwrap());
    for cpu in &cpus {
        for kind in [InputKind::Dense, InputKind::Bag] {
            for loss in [LossKind::Classes, LossKind::Lists, LossKind::Pairs] {
                let n = allocations(kind, loss, cpu);
                assert_eq!(n, 0, "{cpu:?}, {kind:?}, {loss:?}, seed 11: allocations in 20 steps");
            }
        }
    }
    for cpu in &cpus {
        assert_eq!(batch_allocations(cpu), 0, "{cpu:?}: allocations in 20 batches of products");
    }
    #[cfg(feature = "cuda")]
    for cpu in &cpus {
        for kind in [InputKind::Dense, InputKind::Bag] {
            let n = device_allocations(kind, cpu);
            assert_eq!(n, 0, "{cpu:?}, {kind:?} on a device, seed 11: allocations in 20 steps");
        }
    }
    println!("a_meta_step_allocates_nothing ... ok");
    println!("a_batch_of_products_allocates_nothing ... ok");
}
