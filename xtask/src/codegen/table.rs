//! Writes the two generated files: the table as text that can be reviewed, the descriptions compressed.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::openapi::TypeDef;

const TYPES: &str = "types.txt";
const DESCRIPTIONS: &str = "descriptions.zz";

/// The table: one line for a type, one for each of its fields.
pub fn types(types: &[TypeDef]) -> String {
    let mut out = String::new();
    for def in types {
        let name = def.name.strip_prefix("io.k8s.").unwrap_or(&def.name);
        write!(out, "{name}").expect("a string takes text");
        if let Some((group, version, kind)) = &def.gvk {
            write!(out, " gvk={group}/{version}/{kind}").expect("a string takes text");
        }
        markers(&mut out, &def.markers);
        out.push('\n');
        for field in &def.fields {
            write!(out, " {} {}", field.name, field.ty).expect("a string takes text");
            if field.required {
                out.push_str(" required");
            }
            let mut rest = field.markers.clone();
            let pointer = if rest.remove("pointer").is_some() { "*" } else { "" };
            if let Some(tag) = rest.remove("tag") {
                write!(out, " tag={}{pointer}", tag.join(".")).expect("a string takes text");
            }
            markers(&mut out, &rest);
            out.push('\n');
        }
    }
    out
}

fn markers(out: &mut String, markers: &std::collections::BTreeMap<String, Vec<String>>) {
    for (name, values) in markers {
        write!(out, " {name}={}", values.join(",")).expect("a string takes text");
    }
}

/// Every description in the table's order, each ended by a zero byte.
pub fn descriptions(types: &[TypeDef]) -> String {
    let mut out = String::new();
    for def in types {
        for text in std::iter::once(&def.description).chain(def.fields.iter().map(|f| &f.description)) {
            out.push_str(text);
            out.push('\0');
        }
    }
    out
}

/// Writes both files.
pub fn write(folder: &Path, table: &str, descriptions: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(TYPES), table)?;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(descriptions.as_bytes())?;
    std::fs::write(folder.join(DESCRIPTIONS), encoder.finish()?)?;
    Ok(())
}

/// Fails when the files on disk say something else. Compressed bytes may differ between versions of the
/// compressor, so the contents are compared.
pub fn compare(folder: &Path, table: &str, descriptions: &str) -> anyhow::Result<()> {
    let found = std::fs::read_to_string(folder.join(TYPES)).context(TYPES)?;
    let mut unpacked = String::new();
    let packed = std::fs::read(folder.join(DESCRIPTIONS)).context(DESCRIPTIONS)?;
    flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_string(&mut unpacked)?;
    if found != table || unpacked != descriptions {
        bail!("{} is stale: run `cargo xtask codegen`", folder.display());
    }
    Ok(())
}
