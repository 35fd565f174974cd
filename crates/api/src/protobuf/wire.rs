//! The wire format: numbered fields of four forms. Specification: protobuf.dev/programming-guides/encoding.

use crate::schema::Type;

/// Bytes that do not follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

const WRONG_FORM: Unreadable = Unreadable("wrong wireType");
const END: Unreadable = Unreadable("unexpected EOF");

impl<'a> Raw<'a> {
    /// What a map's value is when it is not written.
    pub(super) fn zero(ty: &Type) -> Self {
        match ty {
            Type::Int32 | Type::Int64 | Type::Bool => Raw::Varint(0),
            Type::Double => Raw::Fixed64(0),
            _ => Raw::Bytes(&[]),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Unreadable> {
        if let Raw::Bytes(bytes) = self { Ok(bytes) } else { Err(WRONG_FORM) }
    }

    pub(super) fn text(self) -> Result<String, Unreadable> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Unreadable("invalid UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Negative numbers are written as 64 bits in two's complement.
    pub(super) fn integer(self) -> Result<i64, Unreadable> {
        if let Raw::Varint(value) = self { Ok(value.cast_signed()) } else { Err(WRONG_FORM) }
    }

    pub(super) fn double(self) -> Result<f64, Unreadable> {
        match self {
            Raw::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Raw::Fixed32(bits) => Ok(f64::from(f32::from_bits(bits))),
            _ => Err(WRONG_FORM),
        }
    }
}

/// Walks over the fields of a message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u16, Raw<'a>)>, Unreadable> {
        loop {
            if self.is_empty() {
                return Ok(None);
            }
            let key = self.varint()?;
            let value = match key & 7 {
                0 => Raw::Varint(self.varint()?),
                1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
                2 => {
                    let length = usize::try_from(self.varint()?).map_err(|_| END)?;
                    Raw::Bytes(self.take(length)?)
                }
                5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
                _ => return Err(Unreadable("illegal wireType")),
            };
            if key >> 3 == 0 {
                return Err(Unreadable("illegal tag 0"));
            }
            // No type of the API has a number that large: passed over as any unknown field.
            if let Ok(number) = u16::try_from(key >> 3) {
                return Ok(Some((number, value)));
            }
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable("integer overflow"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(END)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (head, tail) = self.0.split_first_chunk().ok_or(END)?;
        self.0 = tail;
        Ok(*head)
    }
}

/// How many bytes a varint takes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

/// Fills `to`, which is as long as [`varint_len`] says, with a varint.
pub(super) fn set_varint(to: &mut [u8], mut value: u64) {
    let last = to.len().saturating_sub(1);
    for (i, byte) in to.iter_mut().enumerate() {
        *byte = low_bits(value) | if i < last { 0x80 } else { 0 };
        value >>= 7;
    }
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Appends a field's number and the form of its value.
pub(super) fn put_key(out: &mut Vec<u8>, number: u16, form: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(form));
}
