//! From JSON to protobuf in one pass over the text, without a type or a tree of its own for each kind: LIST and WATCH
//! derive this form from the bytes they keep.
//!
//! JSON names its fields in alphabetical order, a message in the order of their numbers, so a message is put together
//! from its fields' bytes once all of them are there. What Go embeds, JSON shows flat; here it becomes a message again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::Json;
use super::wire::{Unreadable, put_key, put_varint, set_varint, varint_len};
use super::{Error, MAX_DEPTH, special};
use crate::schema::{Field, Type, TypeDef};

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// Writes messages; keeps its buffers from one to the next.
#[derive(Default)]
pub struct Encoder {
    pub(super) out: Vec<u8>,
    parts: Vec<Part>,
    sorted: Vec<u8>,
    depth: usize,
}

/// The bytes of one field, key included.
#[derive(Clone, Copy)]
struct Part {
    /// The numbers of the field's path, so that they compare as one.
    order: u64,
    path: &'static [u16],
    from: usize,
    to: usize,
}

impl Part {
    fn new(path: &'static [u16], from: usize, to: usize) -> Self {
        // No path is longer than three; a fourth would only sort less well.
        let numbers = path.iter().chain(std::iter::repeat(&0)).take(3);
        let order = numbers.fold(0, |order, number| order << 16 | u64::from(*number));
        Self { order, path, from, to }
    }
}

impl Encoder {
    /// The message of `def` that says what the object `json` says; what the type does not know is left out.
    ///
    /// # Errors
    /// A field does not hold what its type says.
    pub fn message(&mut self, def: &'static TypeDef, json: &[u8]) -> Result<&[u8], Error> {
        self.out.clear();
        self.parts.clear();
        self.depth = 0;
        self.fields(def, &mut Json::new(json))?;
        Ok(&self.out)
    }

    /// Lets go of what an unusually large object needed.
    pub(super) fn shrink(&mut self) {
        const KEPT: usize = 256 << 10;
        for buffer in [&mut self.out, &mut self.sorted] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
    }

    /// Writes the fields of an object in the order of their numbers.
    pub(super) fn fields(&mut self, def: &'static TypeDef, json: &mut Json<'_>) -> Result<(), Error> {
        if self.depth > MAX_DEPTH {
            return Err(Error::Malformed(format!("messages lie deeper than {MAX_DEPTH} in each other")));
        }
        self.depth += 1;
        let (start, base) = (self.out.len(), self.parts.len());
        let mut inside = json.enter(b'{')?;
        let mut expected = 0;
        while json.more(&mut inside)? {
            let key = json.key()?;
            let found = position(&def.fields, expected, &key);
            expected = found.map_or(expected, |at| at + 1);
            match found.map(|at| &def.fields[at]).filter(|f| !f.tag.is_empty()) {
                Some(field) if !json.null()? => {
                    let from = self.out.len();
                    self.field(field, json)?;
                    self.parts.push(Part::new(&field.tag, from, self.out.len()));
                }
                Some(_) => {}
                None => json.skip()?,
            }
        }
        self.assemble(start, base);
        self.depth -= 1;
        Ok(())
    }

    /// Puts the parts since `base`, which lie from `start` on, into the order of their numbers.
    fn assemble(&mut self, start: usize, base: usize) {
        let parts = &mut self.parts[base..];
        if !parts.is_sorted_by_key(|p| p.order) || parts.iter().any(|p| p.path.len() > 1) {
            parts.sort_unstable_by_key(|p| p.order);
            self.sorted.clear();
            gather(parts, 0, &self.out, &mut self.sorted);
            self.out.truncate(start);
            self.out.extend_from_slice(&self.sorted);
        }
        self.parts.truncate(base);
    }

    fn field(&mut self, field: &'static Field, json: &mut Json<'_>) -> Result<(), Error> {
        let number = field.tag.last().copied().unwrap_or_default();
        match field.ty {
            Type::Array(item) => self.elements(number, item, json),
            Type::Map(value) => {
                let mut inside = json.enter(b'{')?;
                while json.more(&mut inside)? {
                    let key = json.key()?;
                    put_key(&mut self.out, number, BYTES);
                    self.nested(|out| {
                        out.bytes(1, &key);
                        out.value(2, value, json)
                    })?;
                }
                Ok(())
            }
            ref ty => self.value(number, ty, json),
        }
    }

    fn elements(&mut self, number: u16, item: &'static Type, json: &mut Json<'_>) -> Result<(), Error> {
        let mut inside = json.enter(b'[')?;
        while json.more(&mut inside)? {
            self.value(number, item, json)?;
        }
        Ok(())
    }

    /// One value with its key.
    fn value(&mut self, number: u16, ty: &Type, json: &mut Json<'_>) -> Result<(), Error> {
        if json.null()? {
            // In a list or map, where Go has the zero of the element.
            self.zero(number, ty);
            return Ok(());
        }
        match ty {
            Type::String => self.bytes(number, &json.string()?),
            Type::Int32 | Type::Int64 => self.varint(number, json.integer()?.cast_unsigned()),
            Type::Bool => self.varint(number, u64::from(json.bool()?)),
            Type::Double => {
                put_key(&mut self.out, number, FIXED64);
                self.out.extend_from_slice(&json.double()?.to_le_bytes());
            }
            Type::Bytes => self.base64(number, &json.string()?)?,
            Type::Ref(_) => {
                let def = ty.definition().ok_or(Unreadable("a type without a definition"))?;
                put_key(&mut self.out, number, BYTES);
                self.nested(|out| out.fields(def, json))?;
            }
            // A list in a map lies in a message of its own.
            Type::Array(item) => {
                put_key(&mut self.out, number, BYTES);
                self.nested(|out| out.elements(1, item, json))?;
            }
            Type::Map(_) => return Err(Unreadable("a map in a map").into()),
            special => {
                put_key(&mut self.out, number, BYTES);
                self.nested(|out| special::encode(special, json, out))?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, number: u16, ty: &Type) {
        match ty {
            Type::Int32 | Type::Int64 | Type::Bool => self.varint(number, 0),
            Type::Double => {
                put_key(&mut self.out, number, FIXED64);
                self.out.extend_from_slice(&0f64.to_le_bytes());
            }
            _ => self.bytes(number, b""),
        }
    }

    /// Runs `write` and puts the length of what it wrote before it.
    pub(super) fn nested(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let start = self.out.len();
        write(self)?;
        let end = self.out.len();
        let length = (end - start) as u64;
        let width = varint_len(length);
        self.out.resize(end + width, 0);
        self.out.copy_within(start..end, start + width);
        set_varint(&mut self.out[start..start + width], length);
        Ok(())
    }

    pub(super) fn bytes(&mut self, number: u16, bytes: &[u8]) {
        put_key(&mut self.out, number, BYTES);
        put_varint(&mut self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn varint(&mut self, number: u16, value: u64) {
        put_key(&mut self.out, number, VARINT);
        put_varint(&mut self.out, value);
    }

    /// One field that is a message.
    pub(super) fn submessage(
        &mut self,
        number: u16,
        def: &'static TypeDef,
        json: &mut Json<'_>,
    ) -> Result<(), Error> {
        put_key(&mut self.out, number, BYTES);
        self.nested(|out| out.fields(def, json))
    }

    fn base64(&mut self, number: u16, text: &[u8]) -> Result<(), Error> {
        let padding = text.iter().rev().take_while(|b| **b == b'=').count();
        let length = (text.len() / 4 * 3).saturating_sub(padding);
        put_key(&mut self.out, number, BYTES);
        put_varint(&mut self.out, length as u64);
        let start = self.out.len();
        self.out.resize(start + length, 0);
        let written = STANDARD.decode_slice(text, &mut self.out[start..]);
        match written {
            Ok(written) if written == length => Ok(()),
            _ => Err(Error::Malformed("illegal base64 data".to_owned())),
        }
    }
}

/// Where the field of a name is: mostly at or after `expected`, for JSON has the order of the table.
fn position(fields: &[Field], expected: usize, key: &[u8]) -> Option<usize> {
    let last = key.last();
    // Length and last letter tell nearly all names apart, without a call.
    let is_it = |field: &&Field| {
        let name = field.name.as_bytes();
        name.len() == key.len() && name.last() == last && name == key
    };
    let (before, after) = fields.split_at(expected.min(fields.len()));
    after
        .iter()
        .position(|f| is_it(&f))
        .map(|at| before.len() + at)
        .or_else(|| before.iter().position(|f| is_it(&f)))
}

/// Copies sorted parts; those that share the number of an embedded message become that message.
fn gather(parts: &[Part], depth: usize, from: &[u8], to: &mut Vec<u8>) {
    let mut rest = parts;
    while let Some(first) = rest.first() {
        if first.path.len() == depth + 1 {
            to.extend_from_slice(&from[first.from..first.to]);
            rest = &rest[1..];
            continue;
        }
        let number = first.path[depth];
        let (group, after) = rest.split_at(rest.partition_point(|p| p.path[depth] <= number));
        put_key(to, number, BYTES);
        put_varint(to, size(group, depth + 1) as u64);
        gather(group, depth + 1, from, to);
        rest = after;
    }
}

/// How long `gather` makes the parts.
fn size(parts: &[Part], depth: usize) -> usize {
    let mut rest = parts;
    let mut total = 0;
    while let Some(first) = rest.first() {
        if first.path.len() == depth + 1 {
            total += first.to - first.from;
            rest = &rest[1..];
            continue;
        }
        let number = first.path[depth];
        let (group, after) = rest.split_at(rest.partition_point(|p| p.path[depth] <= number));
        let inner = size(group, depth + 1);
        total += varint_len(u64::from(number) << 3) + varint_len(inner as u64) + inner;
        rest = after;
    }
    total
}
