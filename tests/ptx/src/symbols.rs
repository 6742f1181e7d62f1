//! What a name stands for: registers, variables, parameters, in nested scopes.

use std::collections::HashMap;

use crate::inst::{Slot, Special, Src};
use crate::types::Ty;

/// A named thing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Symbol {
    Reg(Slot),
    /// `n` registers `name0`, `name1`, ...
    Family {
        first: Slot,
        n: u32,
    },
    /// An address, or a constant.
    Value(u64),
    Special(Special),
    /// A shared variable of the module, which gets its place in each kernel that names it.
    ModuleShared,
}

#[derive(Debug, Default)]
struct Scope {
    names: HashMap<String, Symbol>,
    labels: HashMap<String, u32>,
    parent: Option<usize>,
}

/// All scopes of one kernel, and its register file as it grows.
#[derive(Debug)]
pub(crate) struct Symbols {
    scopes: Vec<Scope>,
    current: usize,
    /// Width in bits of each register; predicates have 1.
    pub widths: Vec<u8>,
}

impl Symbols {
    /// The outermost scope holds `names`.
    pub fn new(names: HashMap<String, Symbol>) -> Self {
        Self { scopes: vec![Scope { names, ..Scope::default() }], current: 0, widths: Vec::new() }
    }

    pub fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    /// False for the outermost scope.
    pub fn close(&mut self) -> bool {
        let parent = self.scopes[self.current].parent;
        self.current = parent.unwrap_or(0);
        parent.is_some()
    }

    pub fn scope(&self) -> usize {
        self.current
    }

    pub fn define(&mut self, name: &str, symbol: Symbol) {
        self.scopes[self.current].names.insert(name.to_string(), symbol);
    }

    pub fn label(&mut self, name: &str, pc: u32) -> bool {
        self.scopes[self.current].labels.insert(name.to_string(), pc).is_none()
    }

    /// Where a label seen from `scope` points.
    pub fn target(&self, name: &str, scope: usize) -> Option<u32> {
        let mut at = Some(scope);
        while let Some(i) = at {
            if let Some(&pc) = self.scopes[i].labels.get(name) {
                return Some(pc);
            }
            at = self.scopes[i].parent;
        }
        None
    }

    /// New registers of a type.
    pub fn registers(&mut self, ty: Ty, n: u32) -> Slot {
        let first = self.widths.len() as Slot;
        let width = if ty == Ty::Pred { 1 } else { ty.bits() as u8 };
        self.widths.extend(std::iter::repeat_n(width, n as usize));
        first
    }

    pub fn find(&self, name: &str) -> Option<Symbol> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let mut at = Some(self.current);
        while let Some(i) = at {
            let scope = &self.scopes[i];
            if let Some(&symbol) = scope.names.get(name) {
                return Some(symbol);
            }
            if let (Some(&Symbol::Family { first, n }), Ok(k)) =
                (scope.names.get(stem), name[stem.len()..].parse::<u32>())
                && k < n
            {
                return Some(Symbol::Reg(first + k));
            }
            at = scope.parent;
        }
        None
    }
}

/// A special register by its name.
pub(crate) fn special(name: &str) -> Option<Src> {
    let (stem, axis) = match name.rsplit_once('.') {
        Some((stem, "x")) => (stem, 0),
        Some((stem, "y")) => (stem, 1),
        Some((stem, "z")) => (stem, 2),
        Some(_) => return None,
        None => (name, 3),
    };
    let special = match (stem, axis) {
        ("%tid", 0..3) => Special::Tid(axis),
        ("%ntid", 0..3) => Special::Ntid(axis),
        ("%ctaid", 0..3) => Special::Ctaid(axis),
        ("%nctaid", 0..3) => Special::Nctaid(axis),
        ("%laneid", 3) => Special::Laneid,
        ("%warpid", 3) => Special::Warpid,
        ("%nwarpid", 3) => Special::Nwarpid,
        ("%lanemask_eq", 3) => Special::LanemaskEq,
        ("%lanemask_lt", 3) => Special::LanemaskLt,
        ("%lanemask_le", 3) => Special::LanemaskLe,
        ("%lanemask_gt", 3) => Special::LanemaskGt,
        ("%lanemask_ge", 3) => Special::LanemaskGe,
        ("%clock" | "%clock64" | "%globaltimer", 3) => Special::Clock,
        ("%dynamic_smem_size", 3) => Special::DynamicSize,
        ("WARP_SZ", 3) => return Some(Src::Imm(32)),
        _ => return None,
    };
    Some(Src::Special(special))
}
