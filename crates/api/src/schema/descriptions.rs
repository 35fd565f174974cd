//! The descriptions of types and fields, which only OpenAPI reads: kept compressed, unpacked while a document is
//! built, and let go.

use std::io::Read as _;

use super::types::{Field, TypeDef};

/// The unpacked descriptions (about 1 MB).
pub struct Descriptions {
    text: String,
    starts: Vec<u32>,
}

impl Descriptions {
    /// Unpacks them, in a few milliseconds.
    pub fn load() -> Self {
        let mut text = String::new();
        let packed: &[u8] = include_bytes!("generated/descriptions.zz");
        flate2::read::ZlibDecoder::new(packed)
            .read_to_string(&mut text)
            .expect("the embedded text is intact");
        let ends = text.bytes().zip(0u32..).filter(|(b, _)| *b == 0).map(|(_, i)| i + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Self { text, starts }
    }

    /// What a type is for.
    pub fn of(&self, def: &TypeDef) -> &str {
        self.line(def.ordinal as usize)
    }

    /// What a field of the type is for.
    pub fn of_field(&self, def: &TypeDef, field: &Field) -> &str {
        let index = def.fields.iter().position(|f| f.name == field.name);
        index.map_or("", |i| self.line(def.ordinal as usize + 1 + i))
    }

    fn line(&self, index: usize) -> &str {
        let (from, to) = (self.starts[index] as usize, self.starts[index + 1] as usize - 1);
        &self.text[from..to]
    }
}
