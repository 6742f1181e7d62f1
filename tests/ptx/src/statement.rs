//! PTX text to statements: comments off, labels and scopes apart.

use crate::Error;

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{` that opens a scope.
    Open,
    Close,
    /// `name:`
    Label(String),
    /// A directive or an instruction, without its semicolon; the head of a function, up to its `{`.
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub line: u32,
    pub form: Form,
}

/// Directives that end with their line.
const LINE_DIRECTIVES: [&str; 5] = [".version", ".target", ".address_size", ".file", ".loc"];

/// Splits a module. Debug sections, which come last, are left out.
pub(crate) fn split(ptx: &str) -> Result<Vec<Statement>, Error> {
    let text = without_comments(ptx);
    let mut splitter = Splitter::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if splitter.text.trim_end() == ".section" {
            splitter.text.clear();
            break;
        }
        let doubled = c == ':' && chars.peek() == Some(&':');
        if doubled {
            chars.next();
            splitter.text.push_str("::");
        } else {
            splitter.push(c);
        }
    }
    let rest = splitter.text.trim();
    if !rest.is_empty() {
        let (line, text) = (splitter.start, rest.to_string());
        return Err(Error { line, text, reason: "a statement without its end".into() });
    }
    Ok(splitter.out)
}

/// Comments as blanks, with their line ends kept.
fn without_comments(ptx: &str) -> String {
    let mut out = String::with_capacity(ptx.len());
    let mut rest = ptx;
    while let Some(at) = rest.find("/") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.as_bytes().get(1) {
            Some(b'/') => rest.find('\n').unwrap_or(rest.len()),
            Some(b'*') => rest.find("*/").map_or(rest.len(), |n| n + 2),
            _ => {
                out.push('/');
                rest = &rest[1..];
                continue;
            }
        };
        out.extend(rest[..length].chars().filter(|&c| c == '\n'));
        out.push(' ');
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

struct Splitter {
    out: Vec<Statement>,
    text: String,
    line: u32,
    start: u32,
    /// Depth of braces inside the statement: vectors and initialisers.
    braces: u32,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { out: Vec::new(), text: String::new(), line: 1, start: 1, braces: 0 }
    }
}

impl Splitter {
    fn push(&mut self, c: char) {
        if self.text.is_empty() {
            self.start = self.line;
        }
        match c {
            '\n' => self.line_end(),
            '{' if self.text.trim().is_empty() || self.is_head() => {
                self.end();
                self.emit(Form::Open);
            }
            '{' => {
                self.braces += 1;
                self.text.push(c);
            }
            '}' if self.braces == 0 => {
                self.end();
                self.emit(Form::Close);
            }
            '}' => {
                self.braces -= 1;
                self.text.push(c);
            }
            ';' => self.end(),
            ':' => {
                let name = std::mem::take(&mut self.text);
                self.emit(Form::Label(name.trim().to_string()));
            }
            c if c.is_whitespace() && self.text.is_empty() => {}
            c => self.text.push(c),
        }
    }

    fn line_end(&mut self) {
        let word = self.text.split_whitespace().next();
        if word.is_some_and(|w| LINE_DIRECTIVES.contains(&w)) {
            self.end();
        } else if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.line += 1;
    }

    /// The head of a function, which its scope ends.
    fn is_head(&self) -> bool {
        self.text.split_whitespace().take(3).any(|w| w == ".entry" || w == ".func")
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() {
            self.emit(Form::Text(text));
        }
    }

    fn emit(&mut self, form: Form) {
        self.out.push(Statement { line: self.start, form });
        self.start = self.line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_labels_vectors_and_comments() {
        let ptx = ".version 9.0\n.visible .entry k(\n.param .u32 a\n) .maxntid 32, 1, 1\n{ // x;\n$L1: ld.v2.u32 {%r1,\n\
            %r2}, [a]; /* {\n */ { mov.u32 p, 1; }\nfence.acquire::cta; }";
        let got = split(ptx).unwrap();
        let text = |line, t: &str| Statement { line, form: Form::Text(t.into()) };
        let want = [
            text(1, ".version 9.0"),
            text(2, ".visible .entry k( .param .u32 a ) .maxntid 32, 1, 1"),
            Statement { line: 5, form: Form::Open },
            Statement { line: 6, form: Form::Label("$L1".into()) },
            text(6, "ld.v2.u32 {%r1, %r2}, [a]"),
            Statement { line: 8, form: Form::Open },
            text(8, "mov.u32 p, 1"),
            Statement { line: 8, form: Form::Close },
            text(9, "fence.acquire::cta"),
            Statement { line: 9, form: Form::Close },
        ];
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g, w);
        }
        assert_eq!(got.len(), want.len());
    }

    #[test]
    fn an_unfinished_statement_is_an_error() {
        assert_eq!(split(".version 9.0\n.entry k() { mov.u32").unwrap_err().line, 2);
    }
}
