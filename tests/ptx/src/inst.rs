//! Decoded instructions.

use crate::types::Ty;

/// A register: its place in a warp's file.
pub(crate) type Slot = u32;

/// Values the hardware or the launch provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Laneid,
    Warpid,
    Nwarpid,
    LanemaskEq,
    LanemaskLt,
    LanemaskLe,
    LanemaskGt,
    LanemaskGe,
    Clock,
    /// Size of the dynamic shared memory.
    DynamicSize,
    /// Where the dynamic shared memory starts.
    DynamicShared,
    /// Address of a module-level `.global` or `.const` variable.
    Global(usize),
}

/// A source operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Src {
    Reg(Slot),
    Imm(u64),
    Special(Special),
}

/// `[base + offset]`
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addr {
    pub base: Src,
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero (tf32 only).
    Away,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int1 {
    Neg,
    Abs,
    Not,
    Cnot,
    Popc,
    Clz,
    Brev,
    Bfind,
    BfindShift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int2 {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLo,
    MulHi,
    MulWide,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int3 {
    MadLo,
    MadHi,
    MadWide,
    Sad,
    Bfe,
    Prmt,
    Lop3(u8),
    ShfLeftWrap,
    ShfLeftClamp,
    ShfRightWrap,
    ShfRightClamp,
    Dp4a,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float1 {
    Neg,
    Abs,
    Sqrt,
    Rsqrt,
    Rcp,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    Copysign,
}

/// Modifiers of floating-point arithmetic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatMode {
    pub ty: Ty,
    pub round: Round,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Lo,
    Ls,
    Hi,
    Hs,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduce {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// `cvt`: the value of `from`, perhaps rounded to an integer, as `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convert {
    pub to: Ty,
    pub from: Ty,
    pub round: Round,
    /// Round to an integral value (`rni`, `rzi`, `rmi`, `rpi`).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    /// The bits of the destination register.
    pub keep: u64,
}

/// The shape and element types of `mma.sync` and `wgmma`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MmaShape {
    pub n: u32,
    pub k: u32,
    pub ty: Ty,
    /// Accumulators are f16 pairs, else f32.
    pub half_accumulator: bool,
}

/// The operands of a `wgmma.mma_async`.
#[derive(Debug, Clone)]
pub(crate) struct Wgmma {
    pub shape: MmaShape,
    pub d: Vec<Slot>,
    /// A descriptor, or four registers.
    pub a: Vec<Src>,
    pub b: Src,
    pub scale_d: Src,
    pub negate_a: bool,
    pub negate_b: bool,
    /// Whether A and B lie in shared memory with neighbouring rows (columns of B) side by side.
    pub transposed: [bool; 2],
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Mov {
        d: Slot,
        a: Src,
        keep: u64,
    },
    Pack {
        d: Slot,
        parts: Vec<Src>,
        bits: u32,
    },
    Unpack {
        d: Vec<Slot>,
        a: Src,
        bits: u32,
    },
    Int1 {
        op: Int1,
        ty: Ty,
        d: Slot,
        a: Src,
    },
    Int2 {
        op: Int2,
        ty: Ty,
        d: Slot,
        a: Src,
        b: Src,
    },
    Int3 {
        op: Int3,
        ty: Ty,
        d: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Bfi {
        ty: Ty,
        d: Slot,
        a: Src,
        b: Src,
        start: Src,
        length: Src,
    },
    Float1 {
        op: Float1,
        mode: FloatMode,
        d: Slot,
        a: Src,
    },
    Float2 {
        op: Float2,
        mode: FloatMode,
        d: Slot,
        a: Src,
        b: Src,
    },
    Float3 {
        op: Float2,
        mode: FloatMode,
        d: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Fma {
        mode: FloatMode,
        d: Slot,
        a: Src,
        b: Src,
        c: Src,
    },
    Testp {
        test: fn(f64) -> bool,
        ty: Ty,
        d: Slot,
        a: Src,
    },
    /// `d = (a cmp b) logic c`, `q = !(a cmp b) logic c`
    Setp {
        cmp: Cmp,
        ty: Ty,
        ftz: bool,
        logic: Option<(Logic, Src, bool)>,
        d: Slot,
        q: Option<Slot>,
        a: Src,
        b: Src,
    },
    /// Like `Setp` with a value: all ones or 1.0 for true.
    Set {
        cmp: Cmp,
        ty: Ty,
        ftz: bool,
        yes: u64,
        d: Slot,
        a: Src,
        b: Src,
    },
    Selp {
        d: Slot,
        a: Src,
        b: Src,
        p: Src,
        keep: u64,
    },
    Slct {
        d: Slot,
        a: Src,
        b: Src,
        c: Src,
        by: Ty,
        keep: u64,
    },
    Cvt {
        how: Convert,
        d: Slot,
        a: Src,
        upper: Option<Src>,
    },
    Cvta {
        d: Slot,
        a: Src,
        space: Space,
        to: bool,
    },
    Ld {
        space: Space,
        ty: Ty,
        d: Vec<(Slot, u64)>,
        a: Addr,
    },
    St {
        space: Space,
        ty: Ty,
        a: Addr,
        from: Vec<Src>,
    },
    Atom {
        space: Space,
        op: AtomOp,
        ty: Ty,
        d: Option<Slot>,
        a: Addr,
        b: Src,
        c: Option<Src>,
    },
    Bra {
        target: u32,
    },
    BrxIdx {
        index: Src,
        targets: Vec<u32>,
    },
    Exit,
    Trap,
    Nop,
    Bar {
        id: Src,
        count: Option<Src>,
        red: Option<(Vote, Slot, Src, bool)>,
        arrive: bool,
    },
    WarpSync {
        members: Src,
    },
    Shfl {
        kind: Shuffle,
        d: Slot,
        p: Option<Slot>,
        a: Src,
        b: Src,
        c: Src,
        members: Src,
    },
    Vote {
        kind: Vote,
        d: Slot,
        a: Src,
        negate: bool,
        members: Src,
    },
    Match {
        all: bool,
        ty: Ty,
        d: Slot,
        p: Option<Slot>,
        a: Src,
        members: Src,
    },
    Redux {
        op: Reduce,
        ty: Ty,
        d: Slot,
        a: Src,
        members: Src,
    },
    Elect {
        d: Slot,
        p: Slot,
        members: Src,
    },
    ActiveMask {
        d: Slot,
    },
    Mma {
        shape: MmaShape,
        d: Vec<Slot>,
        a: Vec<Src>,
        b: Vec<Src>,
        c: Vec<Src>,
    },
    Ldmatrix {
        d: Vec<Slot>,
        trans: bool,
        a: Addr,
    },
    Stmatrix {
        from: Vec<Src>,
        trans: bool,
        a: Addr,
    },
    CpAsync {
        size: u32,
        source_size: Option<Src>,
        dst: Addr,
        src: Addr,
    },
    CpCommit,
    /// Wait until at most so many groups are open; `None`: for everything.
    CpWait {
        pending: Option<u32>,
    },
    /// `fence.proxy.async`: what was written may be read by the asynchronous proxy.
    ProxyFence,
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        pending: u32,
    },
    Wgmma(Box<Wgmma>),
    MbarInit {
        a: Addr,
        count: Src,
    },
    MbarArrive {
        d: Option<Slot>,
        a: Addr,
        count: Src,
    },
    MbarTest {
        p: Slot,
        a: Addr,
        parity: Src,
    },
}

/// An instruction with its guard.
#[derive(Debug, Clone)]
pub(crate) struct Inst {
    pub op: Op,
    /// Predicate, and whether it is negated.
    pub guard: Option<(Slot, bool)>,
    /// Line of the PTX text.
    pub line: u32,
    /// Every register the text names.
    pub names: Box<[Slot]>,
}
