//! A module: variables and kernels with their decoded instructions.

use std::collections::HashMap;

use crate::Error;
use crate::decode::{Decoder, Fixup};
use crate::inst::{Inst, Op, Special};
use crate::operand::literal;
use crate::statement::{Form, Statement, split};
use crate::symbols::{Symbol, Symbols};
use crate::types::Ty;

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    pub(crate) globals: Vec<Vec<u8>>,
    pub(crate) kernels: Vec<Kernel>,
    /// Shared memory one block may have.
    pub(crate) shared_limit: u32,
}

/// A kernel.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    /// Offset and size of each parameter.
    pub(crate) params: Vec<(u32, u32)>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) static_shared: u32,
    pub(crate) dynamic_align: u32,
    pub(crate) local_bytes: u32,
    pub(crate) registers: u32,
    pub(crate) code: Vec<Inst>,
    pub(crate) text: Vec<String>,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of each parameter in bytes.
    pub fn param_sizes(&self) -> Vec<u32> {
        self.params.iter().map(|p| p.1).collect()
    }

    /// Shared memory it declares itself.
    pub fn static_shared(&self) -> u32 {
        self.static_shared
    }
}

impl Module {
    /// Decodes PTX text.
    ///
    /// # Errors
    /// The first statement that isn't understood: an unknown opcode, modifier, register or label.
    pub fn parse(ptx: &str) -> Result<Self, Error> {
        let statements = split(ptx)?;
        let mut out = Self { globals: Vec::new(), kernels: Vec::new(), shared_limit: 227 * 1024 };
        let mut names = HashMap::new();
        let mut shared = Vec::new();
        let mut at = 0;
        while let Some(statement) = statements.get(at) {
            let fail = |reason: String| error(statement, reason);
            let Form::Text(text) = &statement.form else { return Err(fail("outside of a kernel".into())) };
            at += 1;
            if text.split_whitespace().take(3).any(|w| w == ".entry") {
                let end = scope_end(&statements, at).ok_or_else(|| fail("a kernel without a body".into()))?;
                let kernel = kernel(text, &statements[at..end], &names, &shared).map_err(|(i, reason)| match i {
                    Some(i) => error(&statements[at + i], reason),
                    None => fail(reason),
                })?;
                out.kernels.push(kernel);
                at = end;
            } else if text.starts_with(".target") {
                let old = ["sm_80", "sm_87"].iter().any(|t| text.contains(t));
                out.shared_limit = if old { 163 } else { 227 } * 1024;
            } else if let Some(variable) = Variable::parse(text).map_err(fail)? {
                let symbol = match variable.space {
                    "shared" => {
                        shared.push(variable.clone());
                        Symbol::ModuleShared
                    }
                    _ => {
                        out.globals.push(variable.image().map_err(fail)?);
                        Symbol::Special(Special::Global(out.globals.len() - 1))
                    }
                };
                names.insert(variable.name.to_string(), symbol);
            } else if ![".version", ".address_size", ".file", ".pragma"].iter().any(|d| text.starts_with(d)) {
                return Err(fail("not supported at module level".into()));
            }
        }
        Ok(out)
    }

    /// The kernels in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }
}

fn error(statement: &Statement, reason: String) -> Error {
    let text = match &statement.form {
        Form::Open => "{".into(),
        Form::Close => "}".into(),
        Form::Label(name) | Form::Text(name) => name.clone(),
    };
    Error { line: statement.line, text, reason }
}

/// Index behind the scope that opens at `at`.
fn scope_end(statements: &[Statement], at: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, s) in statements.iter().enumerate().skip(at) {
        match s.form {
            Form::Open => depth += 1,
            Form::Close => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (s.form == Form::Close).then_some(i + 1);
        }
    }
    None
}

/// A declared variable.
#[derive(Debug, Clone)]
struct Variable<'a> {
    space: &'a str,
    name: &'a str,
    ty: Ty,
    align: u32,
    /// Elements; 0 where the launch gives the size.
    length: u32,
    init: Option<&'a str>,
}

impl<'a> Variable<'a> {
    /// `[.extern|.visible|.weak] .space [.align n] .type name[n][m] [= init]`; `None` if it is no declaration.
    fn parse(text: &'a str) -> Result<Option<Self>, String> {
        let (head, init) = match text.split_once('=') {
            Some((head, init)) => (head, Some(init.trim())),
            None => (text, None),
        };
        let mut words = head.split_whitespace().peekable();
        let (mut space, mut ty, mut align) = (None, None, None);
        while let Some(word) = words.next_if(|w| w.starts_with('.')) {
            match &word[1..] {
                "extern" | "visible" | "weak" | "common" | "ptr" => {}
                s @ ("shared" | "global" | "const" | "local" | "param") => space = space.or(Some(s)),
                "align" => align = words.next().and_then(|n| n.parse().ok()),
                name => match Ty::parse(name) {
                    Some(t) => ty = Some(t),
                    None if space.is_none() => return Ok(None),
                    None => return Err(format!("unknown directive `{word}`")),
                },
            }
        }
        let Some(space) = space else { return Ok(None) };
        let ty = ty.ok_or("a variable without a type")?;
        let rest = head[words.peek().map_or(head.len(), |w| w.as_ptr() as usize - head.as_ptr() as usize)..].trim();
        let (name, extent) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        let mut length = 1u32;
        for n in extent.split(['[', ']']).map(str::trim).skip(1).step_by(2) {
            let n = if n.is_empty() { 0 } else { n.parse().map_err(|_| format!("no array size: `{n}`"))? };
            length = length.checked_mul(n).ok_or("an array too large")?;
        }
        if name.is_empty() || name.contains(',') {
            return Err("one variable in a declaration, please".into());
        }
        Ok(Some(Self { space, name: name.trim(), ty, align: align.unwrap_or(ty.bytes()), length, init }))
    }

    fn bytes(&self) -> u32 {
        self.ty.bytes() * self.length
    }

    /// Its first contents.
    fn image(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for value in self.init.unwrap_or("").split([',', '{', '}']).map(str::trim).filter(|v| !v.is_empty()) {
            let value = literal(value, self.ty).ok_or_else(|| format!("no constant: `{value}`"))?;
            out.extend_from_slice(&value.to_le_bytes()[..self.ty.bytes() as usize]);
        }
        out.resize(self.bytes() as usize, 0);
        Ok(out)
    }
}

/// A failure: the statement to blame, counted from the body's `{`, or the head.
type Failed = (Option<usize>, String);

/// Decodes a kernel; `body` starts with its `{`.
fn kernel(
    head: &str,
    body: &[Statement],
    names: &HashMap<String, Symbol>,
    shared: &[Variable<'_>],
) -> Result<Kernel, Failed> {
    let mut builder = Builder::new(head, names).map_err(|e| (None, e))?;
    builder.module_shared(body, shared);
    for (i, statement) in body.iter().enumerate() {
        builder.statement(statement).map_err(|e| (Some(i), e))?;
        builder.origin.resize(builder.kernel.code.len(), i);
    }
    builder.finish()
}

/// A kernel as it is decoded.
struct Builder {
    kernel: Kernel,
    symbols: Symbols,
    fixups: Vec<Fixup>,
    /// The statement each instruction came from.
    origin: Vec<usize>,
    lists: HashMap<String, (Vec<String>, usize)>,
    last_label: String,
}

impl Builder {
    fn new(head: &str, names: &HashMap<String, Symbol>) -> Result<Self, String> {
        let (_, rest) = head.split_once(".entry").ok_or("no kernel")?;
        let (name, rest) = rest.split_at(rest.find(['(', '.']).unwrap_or(rest.len()));
        let (list, directives) = match rest.trim().strip_prefix('(') {
            Some(rest) => rest.rsplit_once(')').ok_or("no parameter list")?,
            None => ("", rest),
        };
        let mut symbols = Symbols::new(names.clone());
        let mut params = Vec::new();
        let mut end = 0;
        for text in list.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let p = Variable::parse(text)?.ok_or_else(|| format!("no parameter: `{text}`"))?;
            // `.ptr .align n` is about what it points to.
            let align = if text.contains(".ptr") { p.ty.bytes() } else { p.align };
            let offset = end_of(end, align);
            symbols.define(p.name, Symbol::Value(u64::from(offset)));
            params.push((offset, p.bytes()));
            end = offset + p.bytes();
        }
        let kernel = Kernel {
            name: name.trim().to_string(),
            params,
            max_threads: limit(directives, ".maxntid"),
            required_threads: limit(directives, ".reqntid"),
            static_shared: 0,
            dynamic_align: 16,
            local_bytes: 0,
            registers: 0,
            code: Vec::new(),
            text: Vec::new(),
        };
        let (fixups, origin, lists) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { kernel, symbols, fixups, origin, lists, last_label: String::new() })
    }

    /// Places the module's shared variables that the body names.
    fn module_shared(&mut self, body: &[Statement], shared: &[Variable<'_>]) {
        for variable in shared {
            let named = |text: &str| {
                text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).any(|word| word == variable.name)
            };
            if body.iter().any(|s| matches!(&s.form, Form::Text(text) if named(text))) {
                self.place(variable);
            }
        }
    }

    /// Gives a shared or local variable its address.
    fn place(&mut self, variable: &Variable<'_>) {
        let symbol = if variable.space == "local" {
            let at = end_of(self.kernel.local_bytes, variable.align);
            self.kernel.local_bytes = at + variable.bytes();
            Symbol::Value(u64::from(at))
        } else if variable.length == 0 {
            self.kernel.dynamic_align = self.kernel.dynamic_align.max(variable.align);
            Symbol::Special(Special::DynamicShared)
        } else {
            let at = end_of(self.kernel.static_shared, variable.align);
            self.kernel.static_shared = at + variable.bytes();
            Symbol::Value(u64::from(at))
        };
        self.symbols.define(variable.name, symbol);
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        match &statement.form {
            Form::Open => self.symbols.open(),
            Form::Close => {
                self.symbols.close();
            }
            Form::Label(name) => {
                if !self.symbols.label(name, self.kernel.code.len() as u32) {
                    return Err("a label twice".into());
                }
                self.last_label.clone_from(name);
            }
            Form::Text(text) if text.starts_with('.') => self.directive(text)?,
            Form::Text(text) => {
                let mut decoder = Decoder::new(&mut self.symbols, self.kernel.code.len() as u32);
                let inst = decoder.instruction(text, statement.line)?;
                self.fixups.append(&mut decoder.fixups);
                self.kernel.code.push(inst);
                self.kernel.text.push(text.clone());
            }
        }
        Ok(())
    }

    fn directive(&mut self, text: &str) -> Result<(), String> {
        if let Some(rest) = text.strip_prefix(".reg ") {
            return self.registers(rest);
        }
        if let Some(rest) = text.strip_prefix(".branchtargets") {
            let labels = rest.split(',').map(|l| l.trim().to_string()).collect();
            self.lists.insert(self.last_label.clone(), (labels, self.symbols.scope()));
            return Ok(());
        }
        if text == ".loc" || text.starts_with(".loc ") || text.starts_with(".pragma") {
            return Ok(());
        }
        match Variable::parse(text)? {
            Some(v) if v.space == "shared" || v.space == "local" => {
                self.place(&v);
                Ok(())
            }
            _ => Err("not supported in a kernel".into()),
        }
    }

    /// `.type %r<n>, p, q`
    fn registers(&mut self, text: &str) -> Result<(), String> {
        let (ty, names) = text.trim().split_once(char::is_whitespace).ok_or("no register")?;
        let ty = ty.strip_prefix('.').and_then(Ty::parse).ok_or_else(|| format!("unknown type `{ty}`"))?;
        for name in names.split(',').map(str::trim) {
            let symbol = match name.strip_suffix('>').and_then(|n| n.split_once('<')) {
                Some((stem, n)) => {
                    let n = n.parse().map_err(|_| format!("no count: `{n}`"))?;
                    let first = self.symbols.registers(ty, n);
                    self.symbols.define(stem, Symbol::Family { first, n });
                    continue;
                }
                None => Symbol::Reg(self.symbols.registers(ty, 1)),
            };
            self.symbols.define(name, symbol);
        }
        Ok(())
    }

    /// Resolves the branches.
    fn finish(mut self) -> Result<Kernel, Failed> {
        for Fixup { pc, label, scope } in std::mem::take(&mut self.fixups) {
            let at = self.origin.get(pc as usize).copied();
            let find = |label: &str, scope| {
                self.symbols.target(label, scope).ok_or_else(|| (at, format!("no label `{label}`")))
            };
            match &mut self.kernel.code[pc as usize].op {
                Op::Bra { target } => *target = find(&label, scope)?,
                Op::BrxIdx { targets, .. } => {
                    let (labels, scope) = self.lists.get(&label).ok_or_else(|| (at, format!("no list `{label}`")))?;
                    *targets = labels.iter().map(|l| find(l, *scope)).collect::<Result<_, _>>()?;
                }
                _ => {}
            }
        }
        self.kernel.registers = self.symbols.widths.len() as u32;
        Ok(self.kernel)
    }
}

/// The first multiple of `align` from `end` on.
pub(crate) fn end_of(end: u32, align: u32) -> u32 {
    end.next_multiple_of(align.max(1))
}

/// `.maxntid x, y, z`
fn limit(directives: &str, name: &str) -> Option<[u32; 3]> {
    let (_, rest) = directives.split_once(name)?;
    let list = rest.split('.').next()?;
    let mut out = [1; 3];
    for (slot, n) in out.iter_mut().zip(list.split(',')) {
        *slot = n.trim().parse().ok()?;
    }
    Some(out)
}
