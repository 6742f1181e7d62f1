//! One instruction's text to an [`Inst`]. A modifier nobody takes is an error, so nothing is ignored by accident.

use crate::inst::*;
use crate::operand::{self, Parsed};
use crate::symbols::Symbols;
use crate::types::{Ty, ones};

/// A property of a number.
type Test = fn(f64) -> bool;

/// A branch whose label is looked up once all are known.
#[derive(Debug)]
pub(crate) struct Fixup {
    pub pc: u32,
    pub label: String,
    pub scope: usize,
}

pub(crate) struct Decoder<'a> {
    symbols: &'a mut Symbols,
    pc: u32,
    pub fixups: Vec<Fixup>,
    mods: Vec<String>,
    args: Vec<String>,
}

impl<'a> Decoder<'a> {
    pub fn new(symbols: &'a mut Symbols, pc: u32) -> Self {
        Self { symbols, pc, fixups: Vec::new(), mods: Vec::new(), args: Vec::new() }
    }

    pub fn instruction(&mut self, text: &str, line: u32) -> Parsed<Inst> {
        let (guard, body) = self.guard(text)?;
        let (opcode, args) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
        let mut words = opcode.split('.').map(str::to_string);
        let head = words.next().unwrap_or_default();
        self.mods = words.collect();
        self.args = operand::split(args).into_iter().map(str::to_string).collect();
        let op = self.op(&head)?;
        if !self.mods.is_empty() {
            return Err(format!("unknown modifier `.{}` in `{opcode}`", self.mods.join(".")));
        }
        let names = self.names(args);
        Ok(Inst { op, guard, line, names })
    }

    fn guard<'t>(&self, text: &'t str) -> Parsed<(Option<(Slot, bool)>, &'t str)> {
        let Some(rest) = text.strip_prefix('@') else { return Ok((None, text)) };
        let (name, body) = rest.trim().split_once(char::is_whitespace).ok_or("a guard alone")?;
        match operand::predicate(name, self.symbols)? {
            (Src::Reg(slot), negated) => Ok((Some((slot, negated)), body.trim())),
            _ => Err(format!("`{name}` is no predicate")),
        }
    }

    /// Every register named.
    fn names(&self, args: &str) -> Box<[Slot]> {
        let words = args.split(|c: char| !(c.is_alphanumeric() || "_%$.".contains(c)));
        let slot = |word: &str| match operand::source(word, Ty::B64, self.symbols) {
            Ok(Src::Reg(slot)) => Some(slot),
            _ => None,
        };
        words.filter(|w| !w.is_empty()).filter_map(slot).collect()
    }

    // Modifiers.

    pub(crate) fn take(&mut self, name: &str) -> bool {
        let at = self.mods.iter().position(|m| m == name);
        at.map(|i| self.mods.remove(i)).is_some()
    }

    pub(crate) fn take_one<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        table.iter().find(|(name, _)| self.take(name)).map(|&(_, value)| value)
    }

    pub(crate) fn drop_all(&mut self, names: &[&str]) {
        self.mods.retain(|m| !names.contains(&m.as_str()));
    }

    pub(crate) fn drop_prefixed(&mut self, prefixes: &[&str]) {
        self.mods.retain(|m| !prefixes.iter().any(|p| m.starts_with(p)));
    }

    pub(crate) fn mods_position(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        self.mods.iter().position(|m| is(m))
    }

    pub(crate) fn remove(&mut self, at: usize) -> String {
        self.mods.remove(at)
    }

    /// The last modifier, a type.
    pub(crate) fn ty(&mut self) -> Parsed<Ty> {
        let name = self.mods.pop().ok_or("no type")?;
        Ty::parse(&name).ok_or_else(|| format!("unknown type or modifier `.{name}`"))
    }

    fn round(&mut self) -> Option<Round> {
        use Round::*;
        self.take_one(&[("rn", Nearest), ("rz", Zero), ("rm", Down), ("rp", Up), ("rna", Away)])
    }

    // Operands.

    pub(crate) fn arg(&self, i: usize) -> Parsed<&str> {
        self.args.get(i).map(String::as_str).ok_or_else(|| format!("operand {} is missing", i + 1))
    }

    pub(crate) fn count(&self) -> usize {
        self.args.len()
    }

    pub(crate) fn dst(&mut self, i: usize) -> Parsed<Slot> {
        let name = self.arg(i)?.to_string();
        operand::register(&name, self.symbols)
    }

    /// `d|p`
    pub(crate) fn dst_pair(&mut self, i: usize) -> Parsed<(Slot, Option<Slot>)> {
        let text = self.arg(i)?.to_string();
        match text.split_once('|') {
            Some((d, p)) => {
                Ok((operand::register(d.trim(), self.symbols)?, Some(operand::register(p.trim(), self.symbols)?)))
            }
            None => Ok((operand::register(&text, self.symbols)?, None)),
        }
    }

    pub(crate) fn dsts(&mut self, i: usize) -> Parsed<Vec<Slot>> {
        let text = self.arg(i)?.to_string();
        operand::parts(&text).into_iter().map(|t| operand::register(t, self.symbols)).collect()
    }

    pub(crate) fn src(&self, i: usize, ty: Ty) -> Parsed<Src> {
        operand::source(self.arg(i)?, ty, self.symbols)
    }

    pub(crate) fn srcs(&self, i: usize, ty: Ty) -> Parsed<Vec<Src>> {
        operand::parts(self.arg(i)?).into_iter().map(|t| operand::source(t, ty, self.symbols)).collect()
    }

    pub(crate) fn optional(&self, i: usize, ty: Ty) -> Parsed<Option<Src>> {
        if i < self.args.len() { self.src(i, ty).map(Some) } else { Ok(None) }
    }

    pub(crate) fn pred(&self, i: usize) -> Parsed<(Src, bool)> {
        operand::predicate(self.arg(i)?, self.symbols)
    }

    pub(crate) fn addr(&self, i: usize) -> Parsed<Addr> {
        operand::address(self.arg(i)?, self.symbols)
    }

    pub(crate) fn number(&self, i: usize) -> Parsed<u32> {
        match self.src(i, Ty::U32)? {
            Src::Imm(x) => Ok(x as u32),
            _ => Err(format!("operand {} must be a constant", i + 1)),
        }
    }

    /// The bits a register can hold.
    pub(crate) fn keep(&self, slot: Slot) -> u64 {
        ones(u32::from(self.symbols.widths[slot as usize]))
    }

    fn op(&mut self, head: &str) -> Parsed<Op> {
        match head {
            "mov" => self.mov(),
            "add" | "sub" | "mul" | "div" | "min" | "max" | "mad" | "fma" | "abs" | "neg" | "copysign" => {
                self.arithmetic(head)
            }
            "sqrt" | "rsqrt" | "rcp" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => self.function(head),
            "rem" | "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "popc" | "clz" | "brev" | "bfind"
            | "sad" | "bfe" | "bfi" | "prmt" | "lop3" | "shf" | "dp4a" | "mul24" => self.integer(head),
            "setp" | "set" | "selp" | "slct" | "testp" => self.compare(head),
            "cvt" => self.cvt(),
            "bra" | "brx" | "ret" | "exit" | "trap" => self.control(head),
            _ => self.transfer(head),
        }
    }

    fn mov(&mut self) -> Parsed<Op> {
        let ty = self.ty()?;
        if self.arg(0)?.starts_with('{') {
            let d = self.dsts(0)?;
            let bits = ty.bits() / d.len() as u32;
            return Ok(Op::Unpack { d, a: self.src(1, ty)?, bits });
        }
        let d = self.dst(0)?;
        if self.arg(1)?.starts_with('{') {
            let parts = self.srcs(1, Ty::B64)?;
            let bits = ty.bits() / parts.len() as u32;
            return Ok(Op::Pack { d, parts, bits });
        }
        Ok(Op::Mov { d, a: self.src(1, ty)?, keep: if ty == Ty::Pred { 1 } else { ty.mask() } })
    }

    fn mode(&mut self, ty: Ty) -> Parsed<FloatMode> {
        let round = self.round().unwrap_or(Round::Nearest);
        if round != Round::Nearest && ty != Ty::F32 {
            return Err("only f32 has directed rounding here".into());
        }
        Ok(FloatMode { ty, round, ftz: self.take("ftz"), sat: self.take("sat"), relu: self.take("relu") })
    }

    fn arithmetic(&mut self, head: &str) -> Parsed<Op> {
        let ty = self.ty()?;
        if ty.is_float() { self.float(head, ty) } else { self.integer_arithmetic(head, ty) }
    }

    fn float(&mut self, head: &str, ty: Ty) -> Parsed<Op> {
        self.drop_all(&["approx", "full", "xorsign"]);
        let mode = self.mode(ty)?;
        let nan = self.take("NaN");
        let (d, a) = (self.dst(0)?, self.src(1, ty)?);
        if matches!(head, "abs" | "neg") {
            let op = if head == "abs" { Float1::Abs } else { Float1::Neg };
            return Ok(Op::Float1 { op, mode, d, a });
        }
        let b = self.src(2, ty)?;
        if matches!(head, "fma" | "mad") {
            return Ok(Op::Fma { mode, d, a, b, c: self.src(3, ty)? });
        }
        let op = match (head, nan) {
            ("add", _) => Float2::Add,
            ("sub", _) => Float2::Sub,
            ("mul", _) => Float2::Mul,
            ("div", _) => Float2::Div,
            ("min", false) => Float2::Min,
            ("max", false) => Float2::Max,
            ("min", true) => Float2::MinNan,
            ("max", true) => Float2::MaxNan,
            _ => Float2::Copysign,
        };
        if op == Float2::Div && mode.round != Round::Nearest {
            return Err("a division is rounded to nearest here".into());
        }
        match self.optional(3, ty)? {
            Some(c) => Ok(Op::Float3 { op, mode, d, a, b, c }),
            None => Ok(Op::Float2 { op, mode, d, a, b }),
        }
    }

    fn function(&mut self, head: &str) -> Parsed<Op> {
        use Float1::*;
        let ty = self.ty()?;
        self.take("approx");
        let mode = self.mode(ty)?;
        if mode.round != Round::Nearest {
            return Err("rounded to nearest here".into());
        }
        let table =
            [("sqrt", Sqrt), ("rsqrt", Rsqrt), ("rcp", Rcp), ("ex2", Ex2), ("lg2", Lg2), ("sin", Sin), ("cos", Cos)];
        let op = table.iter().find(|t| t.0 == head).map_or(Tanh, |t| t.1);
        Ok(Op::Float1 { op, mode, d: self.dst(0)?, a: self.src(1, ty)? })
    }

    fn integer_arithmetic(&mut self, head: &str, ty: Ty) -> Parsed<Op> {
        let sat = self.take("sat");
        let half = self.take_one(&[("lo", 0), ("hi", 1), ("wide", 2)]).unwrap_or(0);
        let (d, a) = (self.dst(0)?, self.src(1, ty)?);
        if matches!(head, "abs" | "neg") {
            let op = if head == "abs" { Int1::Abs } else { Int1::Neg };
            return Ok(Op::Int1 { op, ty, d, a });
        }
        let b = self.src(2, ty)?;
        if head == "mad" {
            let (op, c_ty) = match half {
                0 => (Int3::MadLo, ty),
                1 => (Int3::MadHi, ty),
                _ => (Int3::MadWide, Ty::B64),
            };
            return Ok(Op::Int3 { op, ty, d, a, b, c: self.src(3, c_ty)? });
        }
        let op = match (head, half) {
            ("add", _) if sat => Int2::AddSat,
            ("sub", _) if sat => Int2::SubSat,
            ("add", _) => Int2::Add,
            ("sub", _) => Int2::Sub,
            ("mul", 0) => Int2::MulLo,
            ("mul", 1) => Int2::MulHi,
            ("mul", _) => Int2::MulWide,
            ("div", _) => Int2::Div,
            ("min", _) => Int2::Min,
            ("max", _) => Int2::Max,
            _ => return Err(format!("no `{head}` of integers")),
        };
        Ok(Op::Int2 { op, ty, d, a, b })
    }

    fn integer(&mut self, head: &str) -> Parsed<Op> {
        let ty = self.ty()?;
        let d = self.dst(0)?;
        let one = match head {
            "not" => Some(Int1::Not),
            "cnot" => Some(Int1::Cnot),
            "popc" => Some(Int1::Popc),
            "clz" => Some(Int1::Clz),
            "brev" => Some(Int1::Brev),
            "bfind" if self.take("shiftamt") => Some(Int1::BfindShift),
            "bfind" => Some(Int1::Bfind),
            _ => None,
        };
        let a = self.src(1, ty)?;
        if let Some(op) = one {
            return Ok(Op::Int1 { op, ty, d, a });
        }
        let small = matches!(head, "shl" | "shr" | "bfe");
        let b = self.src(2, if small { Ty::U32 } else { ty })?;
        let two = match head {
            "rem" => Some(Int2::Rem),
            "and" => Some(Int2::And),
            "or" => Some(Int2::Or),
            "xor" => Some(Int2::Xor),
            "shl" => Some(Int2::Shl),
            "shr" => Some(Int2::Shr),
            _ => None,
        };
        if let Some(op) = two {
            return Ok(Op::Int2 { op, ty, d, a, b });
        }
        if head == "bfi" {
            return Ok(Op::Bfi { ty, d, a, b, start: self.src(3, Ty::U32)?, length: self.src(4, Ty::U32)? });
        }
        let c = self.src(3, Ty::B32)?;
        let op = match head {
            "sad" => Int3::Sad,
            "bfe" => Int3::Bfe,
            "prmt" => Int3::Prmt,
            "lop3" => Int3::Lop3(self.number(4)? as u8),
            "dp4a" => {
                if self.ty()? != ty {
                    return Err("dp4a of two types".into());
                }
                Int3::Dp4a
            }
            "shf" => self
                .take_one(&[
                    ("l", [Int3::ShfLeftWrap, Int3::ShfLeftClamp]),
                    ("r", [Int3::ShfRightWrap, Int3::ShfRightClamp]),
                ])
                .map(|pair| pair[usize::from(self.take("clamp"))])
                .ok_or("no direction")?,
            _ => return Err(format!("unknown opcode `{head}`")),
        };
        if head == "shf" {
            self.take("wrap");
        }
        Ok(Op::Int3 { op, ty, d, a, b, c })
    }

    fn cmp(&mut self) -> Parsed<Cmp> {
        use Cmp::*;
        let table = [
            ("eq", Eq),
            ("ne", Ne),
            ("lt", Lt),
            ("le", Le),
            ("gt", Gt),
            ("ge", Ge),
            ("lo", Lo),
            ("ls", Ls),
            ("hi", Hi),
            ("hs", Hs),
            ("equ", Equ),
            ("neu", Neu),
            ("ltu", Ltu),
            ("leu", Leu),
            ("gtu", Gtu),
            ("geu", Geu),
            ("num", Num),
            ("nan", Nan),
        ];
        self.take_one(&table).ok_or_else(|| "no comparison".into())
    }

    fn compare(&mut self, head: &str) -> Parsed<Op> {
        let ty = self.ty()?;
        let ftz = self.take("ftz");
        match head {
            "setp" => {
                let cmp = self.cmp()?;
                let logic = self.take_one(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
                let (d, q) = self.dst_pair(0)?;
                let (a, b) = (self.src(1, ty)?, self.src(2, ty)?);
                let logic = match logic {
                    Some(l) => {
                        let (p, negate) = self.pred(3)?;
                        Some((l, p, negate))
                    }
                    None => None,
                };
                Ok(Op::Setp { cmp, ty, ftz, logic, d, q, a, b })
            }
            "set" => {
                let to = self.ty()?;
                let cmp = self.cmp()?;
                let yes = if to == Ty::F32 { 0x3f80_0000 } else { 0xffff_ffff };
                Ok(Op::Set { cmp, ty, ftz, yes, d: self.dst(0)?, a: self.src(1, ty)?, b: self.src(2, ty)? })
            }
            "selp" => {
                let (d, a, b) = (self.dst(0)?, self.src(1, ty)?, self.src(2, ty)?);
                Ok(Op::Selp { d, a, b, p: self.src(3, Ty::Pred)?, keep: ty.mask() })
            }
            "slct" => {
                let to = self.ty()?;
                let (d, a, b) = (self.dst(0)?, self.src(1, to)?, self.src(2, to)?);
                Ok(Op::Slct { d, a, b, c: self.src(3, ty)?, by: ty, keep: to.mask() })
            }
            _ => {
                let tests: [(&str, Test); 6] = [
                    ("finite", f64::is_finite),
                    ("infinite", f64::is_infinite),
                    ("number", |x| !x.is_nan()),
                    ("notanumber", f64::is_nan),
                    ("normal", f64::is_normal),
                    ("subnormal", f64::is_subnormal),
                ];
                let test = self.take_one(&tests).ok_or("no test")?;
                if ty == Ty::F32 && !self.mods.is_empty() {
                    return Err("unknown test".into());
                }
                Ok(Op::Testp { test, ty, d: self.dst(0)?, a: self.src(1, ty)? })
            }
        }
    }

    fn cvt(&mut self) -> Parsed<Op> {
        let from = self.ty()?;
        let to = self.ty()?;
        use Round::*;
        let integral = self.take_one(&[("rni", Nearest), ("rzi", Zero), ("rmi", Down), ("rpi", Up)]);
        let round = integral.or_else(|| self.round()).unwrap_or(Nearest);
        self.take("satfinite");
        let d = self.dst(0)?;
        let how = Convert {
            to,
            from,
            round,
            integral: integral.is_some(),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            relu: self.take("relu"),
            keep: self.keep(d),
        };
        Ok(if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
            Op::Cvt { how, d, a: self.src(2, from)?, upper: Some(self.src(1, from)?) }
        } else {
            Op::Cvt { how, d, a: self.src(1, from)?, upper: None }
        })
    }

    fn control(&mut self, head: &str) -> Parsed<Op> {
        self.take("uni");
        let label = match head {
            "ret" | "exit" => return Ok(Op::Exit),
            "trap" => return Ok(Op::Trap),
            "bra" => self.arg(0)?.to_string(),
            _ => self.arg(1)?.to_string(),
        };
        self.fixups.push(Fixup { pc: self.pc, label, scope: self.symbols.scope() });
        if head == "bra" {
            return Ok(Op::Bra { target: 0 });
        }
        self.take("idx");
        Ok(Op::BrxIdx { index: self.src(0, Ty::U32)?, targets: Vec::new() })
    }
}
