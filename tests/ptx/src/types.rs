//! PTX's fundamental types and how their values lie in a lane's 64-bit register.

/// A type suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ty {
    Pred,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    B8,
    B16,
    B32,
    B64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F32x2,
    F64,
}

impl Ty {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "pred" => Self::Pred,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f32x2" => Self::F32x2,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes in memory.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Pred | Self::U8 | Self::S8 | Self::B8 => 1,
            Self::U16 | Self::S16 | Self::B16 | Self::F16 | Self::Bf16 => 2,
            Self::U64 | Self::S64 | Self::B64 | Self::F64 | Self::F32x2 => 8,
            _ => 4,
        }
    }

    pub fn bits(self) -> u32 {
        self.bytes() * 8
    }

    /// The bits a value of this type can have.
    pub fn mask(self) -> u64 {
        ones(self.bits())
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16 | Self::F16x2 | Self::Bf16 | Self::Bf16x2 | Self::Tf32 | Self::F32 | Self::F32x2 | Self::F64
        )
    }

    /// The value, sign-extended where the type is signed.
    pub fn extend(self, x: u64) -> u64 {
        let shift = 64 - self.bits();
        if self.is_signed() { (((x << shift) as i64) >> shift) as u64 } else { x & self.mask() }
    }
}

/// `n` low bits set.
pub(crate) fn ones(n: u32) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

pub(crate) fn f32_of(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

pub(crate) fn bits_of(x: f32) -> u64 {
    u64::from(x.to_bits())
}
