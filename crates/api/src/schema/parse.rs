//! Reads the generated table. It is checked in and compiled in, so a malformed line is our own fault and a panic.

use std::collections::HashMap;

use super::types::{Field, Gvk, ListType, Markers, Type, TypeDef, Zero};

/// All types, in the table's order, which is that of their names.
pub(super) fn parse(text: &'static str) -> Vec<TypeDef> {
    static NONE: Markers = Markers {
        list_type: None,
        list_map_keys: Vec::new(),
        atomic: false,
        granular: false,
        by_value: false,
        patch_strategy: None,
        patch_merge_key: None,
        default: None,
        enumeration: Vec::new(),
        zero: None,
    };
    let heads = text.lines().filter(|l| !l.starts_with(' ')).map(|l| l.split(' ').next().unwrap_or_default());
    let indexes: HashMap<&str, u16> = heads.zip(0u16..).collect();
    let mut types = Types { indexes: &indexes, arrays: HashMap::new() };
    let mut known: HashMap<&'static str, &'static Markers> = HashMap::from([("", &NONE)]);
    let mut defs: Vec<TypeDef> = Vec::with_capacity(indexes.len());
    for (ordinal, line) in (0..).zip(text.lines()) {
        let own = line.strip_prefix(' ');
        let mut words = own.unwrap_or(line).splitn(2, ' ');
        let name = words.next().unwrap_or_default();
        let rest = words.next().unwrap_or_default();
        if own.is_none() {
            let (gvk, rest) = split_word(rest, "gvk=");
            let this = Type::Ref(indexes[name]);
            let markers = markers(&mut known, rest);
            defs.push(TypeDef { name, gvk: gvk.map(parse_gvk), fields: Vec::new(), markers, this, ordinal });
        } else {
            let (ty, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (required, rest) = split_word(rest, "required");
            let (tag, rest) = split_word(rest, "tag=");
            let (tag, pointer) = tag.map_or((Vec::new(), false), parse_tag);
            let markers = markers(&mut known, rest);
            let field =
                Field { name, ty: types.parse(ty), required: required.is_some(), tag, pointer, markers };
            defs.last_mut().expect("a field follows its type").fields.push(field);
        }
    }
    defs
}

/// Takes off the first word, if it begins with `prefix`; returns what follows the prefix.
fn split_word(text: &'static str, prefix: &str) -> (Option<&'static str>, &'static str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    word.strip_prefix(prefix).map_or((None, text), |value| (Some(value), rest))
}

fn parse_gvk(text: &'static str) -> Gvk {
    let mut parts = text.split('/');
    let mut next = || parts.next().expect("group, version and kind");
    Gvk { group: next(), version: next(), kind: next() }
}

/// `2.5*`: the fifth field of what the second embeds; a pointer in Go.
fn parse_tag(text: &'static str) -> (Vec<u16>, bool) {
    let numbers = text.trim_end_matches('*');
    let path = numbers.split('.').map(|n| n.parse().expect("a field's number")).collect();
    (path, numbers.len() < text.len())
}

struct Types<'a> {
    indexes: &'a HashMap<&'static str, u16>,
    arrays: HashMap<&'static str, &'static Type>,
}

impl Types<'_> {
    fn parse(&mut self, text: &'static str) -> Type {
        if let Some(item) = text.strip_prefix("[]") {
            return Type::Array(self.shared(item));
        }
        if let Some(value) = text.strip_prefix("{}") {
            return Type::Map(self.shared(value));
        }
        match text {
            "string" => Type::String,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "double" => Type::Double,
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            name => TypeDef::special(name).unwrap_or_else(|| Type::Ref(self.indexes[name])),
        }
    }

    fn shared(&mut self, text: &'static str) -> &'static Type {
        if let Some(found) = self.arrays.get(text) {
            return found;
        }
        let ty = Box::leak(Box::new(self.parse(text)));
        self.arrays.insert(text, ty);
        ty
    }
}

/// Fields with the same markers share them; most have none.
fn markers(known: &mut HashMap<&'static str, &'static Markers>, text: &'static str) -> &'static Markers {
    known.entry(text).or_insert_with(|| Box::leak(Box::new(parse_markers(text))))
}

fn parse_markers(text: &'static str) -> Markers {
    let mut markers = Markers::default();
    for (name, value) in text.split(' ').filter_map(|word| word.split_once('=')) {
        match name {
            "listType" => {
                markers.list_type = Some(match value {
                    "atomic" => ListType::Atomic,
                    "set" => ListType::Set,
                    "map" => ListType::Map,
                    other => panic!("unknown list type {other}"),
                });
            }
            "listMapKey" => markers.list_map_keys = value.split(',').collect(),
            "mapType" | "structType" => {
                markers.atomic = value == "atomic";
                markers.granular = value == "granular";
            }
            "byValue" => markers.by_value = true,
            "enum" => {
                let word = |word: &str| if word == "-" { String::new() } else { word.replace('_', " ") };
                markers.enumeration = value.split(',').map(word).collect();
            }
            "zero" if value == "omit" => markers.zero = Some(Zero::Omitted),
            "zero" => markers.zero = Some(Zero::Written(value)),
            "patchStrategy" => markers.patch_strategy = Some(value),
            "patchMergeKey" => markers.patch_merge_key = Some(value),
            "default" => markers.default = Some(serde_json::from_str(value).expect("a default is JSON")),
            other => panic!("unknown marker {other}"),
        }
    }
    markers
}
