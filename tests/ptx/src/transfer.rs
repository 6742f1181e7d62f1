//! Decoding of what moves data or joins threads: memory, barriers, warp and matrix operations.

use crate::decode::Decoder;
use crate::inst::*;
use crate::operand::Parsed;
use crate::types::Ty;

/// Modifiers that say how strong or how cached an access is; the interpreter runs warps in turn, so all are strong.
const ORDERING: [&str; 24] = [
    "weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "mmio", "cta", "cluster", "gpu", "sys", "ca", "cg",
    "cs", "lu", "cv", "wb", "wt", "nc", "sc", "noftz", "aligned", "sync", "mio",
];

const REDUCE: [(&str, Reduce); 6] = [
    ("add", Reduce::Add),
    ("min", Reduce::Min),
    ("max", Reduce::Max),
    ("and", Reduce::And),
    ("or", Reduce::Or),
    ("xor", Reduce::Xor),
];

impl Decoder<'_> {
    pub(crate) fn transfer(&mut self, head: &str) -> Parsed<Op> {
        match head {
            "ld" | "ldu" | "st" => self.load_store(head),
            "atom" | "red" => self.atomic(head),
            "cvta" => self.cvta(),
            "bar" | "barrier" => self.bar(),
            "fence" if self.take("proxy") => self.proxy_fence(),
            "membar" | "fence" | "prefetch" | "prefetchu" | "griddepcontrol" | "nanosleep" | "setmaxnreg"
            | "pmevent" => {
                self.drop_prefixed(&[""]);
                Ok(Op::Nop)
            }
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => self.warp_wide(head),
            "mma" | "ldmatrix" | "stmatrix" => self.matrix(head),
            "cp" => self.cp_async(),
            "wgmma" => self.wgmma(),
            "mbarrier" => self.mbarrier(),
            _ => Err(format!("unknown opcode `{head}`")),
        }
    }

    fn proxy_fence(&mut self) -> Parsed<Op> {
        self.take_one(&[("async", ()), ("async::shared::cta", ())]).ok_or("unknown proxy")?;
        self.drop_all(&["shared::cta", "global"]);
        Ok(Op::ProxyFence)
    }

    fn space(&mut self) -> Space {
        self.take_one(&[
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("const", Space::Global),
        ])
        .unwrap_or(Space::Generic)
    }

    fn load_store(&mut self, head: &str) -> Parsed<Op> {
        let ty = self.ty()?;
        let space = self.space();
        self.drop_all(&ORDERING);
        self.drop_prefixed(&["L1::", "L2::", "level::"]);
        let n = self.take_one(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        if head == "st" {
            let (a, from) = (self.addr(0)?, self.srcs(1, ty)?);
            return if from.len() == n { Ok(Op::St { space, ty, a, from }) } else { Err("a vector's size".into()) };
        }
        let slots = self.dsts(0)?;
        let d: Vec<_> = slots.iter().map(|&s| (s, self.keep(s))).collect();
        if d.len() == n { Ok(Op::Ld { space, ty, d, a: self.addr(1)? }) } else { Err("a vector's size".into()) }
    }

    fn atomic(&mut self, head: &str) -> Parsed<Op> {
        let ty = self.ty()?;
        let space = self.space();
        self.drop_all(&ORDERING);
        let table = [
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("exch", AtomOp::Exch),
            ("cas", AtomOp::Cas),
            ("inc", AtomOp::Inc),
            ("dec", AtomOp::Dec),
        ];
        let op = self.take_one(&table).ok_or("unknown atomic operation")?;
        if matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::F16 | Ty::Bf16) {
            return Err("atomics of 16-bit floats are not supported".into());
        }
        let first = usize::from(head == "atom");
        let d = if head == "atom" { Some(self.dst(0)?) } else { None };
        let (a, b) = (self.addr(first)?, self.src(first + 1, ty)?);
        Ok(Op::Atom { space, op, ty, d, a, b, c: self.optional(first + 2, ty)? })
    }

    fn cvta(&mut self) -> Parsed<Op> {
        self.ty()?;
        let to = self.take("to");
        let space = self.space();
        Ok(Op::Cvta { d: self.dst(0)?, a: self.src(1, Ty::B64)?, space, to })
    }

    fn bar(&mut self) -> Parsed<Op> {
        self.take("cta");
        if self.take("warp") {
            self.take("sync");
            return Ok(Op::WarpSync { members: self.src(0, Ty::B32)? });
        }
        self.drop_all(&["aligned", "sync"]);
        if self.take("red") {
            let kind = self
                .take_one(&[("popc", Vote::Ballot), ("and", Vote::All), ("or", Vote::Any)])
                .ok_or("no operation")?;
            self.ty()?;
            let d = self.dst(0)?;
            let last = self.count() - 1;
            let (p, negate) = self.pred(last)?;
            let count = if last == 3 { Some(self.src(2, Ty::U32)?) } else { None };
            return Ok(Op::Bar { id: self.src(1, Ty::U32)?, count, red: Some((kind, d, p, negate)), arrive: false });
        }
        let arrive = self.take("arrive");
        Ok(Op::Bar { id: self.src(0, Ty::U32)?, count: self.optional(1, Ty::U32)?, red: None, arrive })
    }

    fn warp_wide(&mut self, head: &str) -> Parsed<Op> {
        self.take("sync");
        if head == "elect" {
            let (d, p) = self.dst_pair(0)?;
            return Ok(Op::Elect { d, p: p.ok_or("no predicate")?, members: self.src(1, Ty::B32)? });
        }
        let ty = self.ty()?;
        match head {
            "shfl" => {
                let table =
                    [("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Bfly), ("idx", Shuffle::Idx)];
                let kind = self.take_one(&table).ok_or("no shuffle mode")?;
                let (d, p) = self.dst_pair(0)?;
                let (a, b, c) = (self.src(1, ty)?, self.src(2, Ty::B32)?, self.src(3, Ty::B32)?);
                Ok(Op::Shfl { kind, d, p, a, b, c, members: self.src(4, Ty::B32)? })
            }
            "vote" => {
                let table = [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uni), ("ballot", Vote::Ballot)];
                let kind = self.take_one(&table).ok_or("no vote mode")?;
                let (a, negate) = self.pred(1)?;
                Ok(Op::Vote { kind, d: self.dst(0)?, a, negate, members: self.src(2, Ty::B32)? })
            }
            "match" => {
                let all = self.take("all");
                self.take("any");
                let (d, p) = self.dst_pair(0)?;
                Ok(Op::Match { all, ty, d, p, a: self.src(1, ty)?, members: self.src(2, Ty::B32)? })
            }
            "redux" => {
                let op = self.take_one(&REDUCE).ok_or("no operation")?;
                Ok(Op::Redux { op, ty, d: self.dst(0)?, a: self.src(1, ty)?, members: self.src(2, Ty::B32)? })
            }
            _ => Ok(Op::ActiveMask { d: self.dst(0)? }),
        }
    }

    /// `m16n8k16` to columns and depth.
    fn shape(&mut self, rows: &str) -> Parsed<(u32, u32)> {
        let at = self.mods_position(|m| m.starts_with(rows)).ok_or("unknown matrix shape")?;
        let text = self.remove(at);
        let parse = || -> Option<(u32, u32)> {
            let (n, k) = text.strip_prefix(rows)?.split_once('k')?;
            Some((n.parse().ok()?, k.parse().ok()?))
        };
        parse().ok_or_else(|| format!("unknown matrix shape `{text}`"))
    }

    fn matrix(&mut self, head: &str) -> Parsed<Op> {
        if head == "mma" {
            return self.mma();
        }
        self.drop_all(&["sync", "aligned", "shared", "shared::cta", "m8n8"]);
        let n = self.take_one(&[("x1", 1), ("x2", 2), ("x4", 4)]).ok_or("no matrix count")?;
        let trans = self.take("trans");
        self.take("b16");
        let wrong = "as many registers as matrices";
        if head == "ldmatrix" {
            let (d, a) = (self.dsts(0)?, self.addr(1)?);
            return if d.len() == n { Ok(Op::Ldmatrix { d, trans, a }) } else { Err(wrong.into()) };
        }
        let (a, from) = (self.addr(0)?, self.srcs(1, Ty::B32)?);
        if from.len() == n { Ok(Op::Stmatrix { from, trans, a }) } else { Err(wrong.into()) }
    }

    fn mma(&mut self) -> Parsed<Op> {
        let (c_ty, b_ty, a_ty, d_ty) = (self.ty()?, self.ty()?, self.ty()?, self.ty()?);
        let (n, k) = self.shape("m16n")?;
        self.drop_all(&["sync", "aligned"]);
        if !(self.take("row") && self.take("col")) || a_ty != b_ty || c_ty != d_ty {
            return Err("unknown form of mma".into());
        }
        let half_accumulator = d_ty == Ty::F16;
        let fits = match a_ty {
            Ty::F16 => matches!(k, 8 | 16),
            Ty::Bf16 => matches!(k, 8 | 16) && !half_accumulator,
            Ty::Tf32 => matches!(k, 4 | 8) && !half_accumulator,
            _ => false,
        };
        if n != 8 || !fits || !matches!(d_ty, Ty::F16 | Ty::F32) {
            return Err("unknown form of mma".into());
        }
        let shape = MmaShape { n, k, ty: a_ty, half_accumulator };
        let (d, a, b, c) = (self.dsts(0)?, self.srcs(1, Ty::B32)?, self.srcs(2, Ty::B32)?, self.srcs(3, Ty::F32)?);
        // 32 lanes hold 16 x k and k x 8 elements, 4 bytes a register.
        let words = k * a_ty.bytes() / 8;
        let accumulators = if half_accumulator { 2 } else { 4 };
        let counts = [d.len(), c.len(), a.len(), b.len()];
        if counts != [accumulators, accumulators, words as usize, words as usize / 2] {
            return Err("a fragment's size".into());
        }
        Ok(Op::Mma { shape, d, a, b, c })
    }

    fn cp_async(&mut self) -> Parsed<Op> {
        if !self.take("async") {
            return Err("unknown form of cp".into());
        }
        if self.take("commit_group") {
            return Ok(Op::CpCommit);
        }
        if self.take("wait_all") {
            return Ok(Op::CpWait { pending: None });
        }
        if self.take("wait_group") {
            return Ok(Op::CpWait { pending: Some(self.number(0)?) });
        }
        let whole = self.take("cg");
        self.drop_all(&["ca", "shared", "shared::cta", "global"]);
        self.drop_prefixed(&["L2::"]);
        let size = self.number(2)?;
        if !(matches!(size, 4 | 8) && !whole || size == 16) {
            return Err(format!("{size} bytes in cp.async"));
        }
        Ok(Op::CpAsync { size, source_size: self.optional(3, Ty::U32)?, dst: self.addr(0)?, src: self.addr(1)? })
    }

    fn wgmma(&mut self) -> Parsed<Op> {
        self.drop_all(&["sync", "aligned"]);
        if self.take("fence") {
            return Ok(Op::WgmmaFence);
        }
        if self.take("commit_group") {
            return Ok(Op::WgmmaCommit);
        }
        if self.take("wait_group") {
            return Ok(Op::WgmmaWait { pending: self.number(0)? });
        }
        let (b_ty, ty, d_ty) = (self.ty()?, self.ty()?, self.ty()?);
        let (n, k) = self.shape("m64n")?;
        let depth = 32 / ty.bytes();
        if !self.take("mma_async") || b_ty != ty || d_ty != Ty::F32 || k != depth || n % 8 != 0 || n > 256 {
            return Err("unknown form of wgmma".into());
        }
        if !matches!(ty, Ty::F16 | Ty::Bf16 | Ty::Tf32) {
            return Err("unknown element type of wgmma".into());
        }
        let d = self.dsts(0)?;
        let a = if self.arg(1)?.starts_with('{') { self.srcs(1, Ty::B32)? } else { vec![self.src(1, Ty::B64)?] };
        if d.len() != n as usize / 2 || !matches!(a.len(), 1 | 4) {
            return Err("a fragment's size".into());
        }
        let sign = |i: usize| Ok::<_, String>(self.count() > i && self.number(i)? == u32::MAX);
        let (negate_a, negate_b) = (sign(4)?, sign(5)?);
        // A in registers has no order in memory: then one number is left, for B.
        let flag = |i: usize| Ok::<_, String>(self.count() > i && self.number(i)? != 0);
        let transposed = if a.len() == 1 { [flag(6)?, flag(7)?] } else { [false, flag(6)?] };
        if transposed != [false; 2] && ty == Ty::Tf32 {
            return Err("only 16-bit operands may be transposed".into());
        }
        let (b, scale_d) = (self.src(2, Ty::B64)?, self.src(3, Ty::Pred)?);
        let shape = MmaShape { n, k, ty, half_accumulator: false };
        Ok(Op::Wgmma(Box::new(Wgmma { shape, d, a, b, scale_d, negate_a, negate_b, transposed })))
    }

    fn mbarrier(&mut self) -> Parsed<Op> {
        self.drop_all(&["shared", "shared::cta", "b64", "release", "acquire", "relaxed", "cta"]);
        if self.take("init") {
            return Ok(Op::MbarInit { a: self.addr(0)?, count: self.src(1, Ty::U32)? });
        }
        if self.take("inval") {
            return Ok(Op::Nop);
        }
        if self.take("arrive") {
            let count = self.optional(2, Ty::U32)?.unwrap_or(Src::Imm(1));
            let d = self.dst(0)?;
            return Ok(Op::MbarArrive { d: Some(d), a: self.addr(1)?, count });
        }
        if (self.take("try_wait") || self.take("test_wait")) && self.take("parity") {
            return Ok(Op::MbarTest { p: self.dst(0)?, a: self.addr(1)?, parity: self.src(2, Ty::U32)? });
        }
        Err("unknown form of mbarrier".into())
    }
}
