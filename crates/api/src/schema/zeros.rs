//! What Go writes for fields that are absent, and which empty ones it leaves out.
//!
//! Upstream's types write some optional fields even when nobody set them: structs held by value, times of conditions,
//! and whatever lacks `omitempty`. Clients see `"lastProbeTime": null` and `"availableReplicas": 0`. The types of
//! k8s-openapi leave such fields out, so the JSON that they write is gone through once and completed.
//!
//! The other way round, Go forgets whether a list, map, text or number that it may leave out was empty or absent; our
//! types do not. What a client sends is therefore tidied before it is read.

use std::sync::OnceLock;

use memchr::{memchr2, memchr3};

use super::table;
use super::types::{Field, Type, TypeDef};

/// What has to be looked at in objects of a type.
#[derive(Default)]
struct Plan {
    /// The fields that are always written, and what for an absent one.
    always: Vec<(&'static str, String)>,
    /// The fields with such fields somewhere below them.
    deep: Vec<(&'static str, Type)>,
}

impl Plan {
    fn is_idle(&self) -> bool {
        self.always.is_empty() && self.deep.is_empty()
    }
}

/// A struct with more fields that are always written does not exist: they are counted in the bits of a word.
const MAX_ALWAYS: usize = 64;
/// How deep structs without an end of their own (a JSON schema) are looked into for a zero.
const MAX_DEPTH: usize = 8;

fn plans() -> &'static [Plan] {
    static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();
    PLANS.get_or_init(|| {
        let defs = &table().defs;
        let mut plans: Vec<Plan> =
            defs.iter().map(|def| Plan { always: always(def), deep: Vec::new() }).collect();
        let mut busy: Vec<bool> = plans.iter().map(|plan| !plan.always.is_empty()).collect();
        // A type is busy if something below it is: until nothing changes any more.
        let mut changed = true;
        while changed {
            changed = false;
            for (i, def) in defs.iter().enumerate() {
                if !busy[i] && def.fields.iter().any(|f| leads_to(f.ty, &busy)) {
                    busy[i] = true;
                    changed = true;
                }
            }
        }
        for (plan, def) in plans.iter_mut().zip(defs) {
            let deep = def.fields.iter().filter(|f| leads_to(f.ty, &busy));
            plan.deep = deep.map(|f| (f.name, f.ty)).collect();
        }
        plans
    })
}

/// Whether values of the type hold objects that may have to be completed.
fn leads_to(ty: Type, busy: &[bool]) -> bool {
    match ty {
        Type::Ref(index) => busy[usize::from(index)],
        Type::Array(item) | Type::Map(item) => leads_to(*item, busy),
        _ => false,
    }
}

/// What our types leave out and Go writes. (They write whatever is required.)
fn always(def: &TypeDef) -> Vec<(&'static str, String)> {
    let missing = def.fields.iter().filter(|field| !field.required);
    missing.filter_map(|field| Some((field.name, zero_of(field, MAX_DEPTH)?))).take(MAX_ALWAYS).collect()
}

fn zero_of(field: &Field, depth: usize) -> Option<String> {
    let zero = field.zero()?;
    let def = field.ty.definition().filter(|_| zero == "{}" && depth > 0);
    let Some(def) = def else { return Some(zero.to_owned()) };
    let fields = def.fields.iter().filter_map(|f| Some(format!("\"{}\":{}", f.name, zero_of(f, depth - 1)?)));
    Some(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")))
}

/// Completes the JSON of an object of the type `def`.
pub(crate) fn fill(json: Vec<u8>, def: &TypeDef) -> Vec<u8> {
    let Type::Ref(root) = def.this else { return json };
    let mut filler = Filler { plans: plans(), input: &json, at: 0, copied: 0, out: Vec::new() };
    // What is no JSON stays as it is.
    if filler.value(Type::Ref(root)).is_none() || filler.out.is_empty() {
        return json;
    }
    let Filler { mut out, copied, .. } = filler;
    out.extend_from_slice(&json[copied..]);
    out
}

/// The JSON of an object of the type `def` without what Go would not write again; `None` if nothing has to go.
pub fn tidied(json: &[u8], def: &TypeDef) -> Option<Vec<u8>> {
    let mut filler = Filler { plans: &[], input: json, at: 0, copied: 0, out: Vec::new() };
    filler.tidy(def.this)?;
    if filler.copied == 0 {
        return None;
    }
    let Filler { mut out, copied, .. } = filler;
    out.extend_from_slice(&json[copied..]);
    Some(out)
}

/// Whether Go leaves the field out when its value is `json`, which is how a value begins.
fn is_left_out(field: &Field, json: &[u8]) -> bool {
    // The empty list of managers is a wish: that nobody owns anything.
    if field.zero().is_some() || field.name == "managedFields" {
        return false;
    }
    if json.starts_with(b"null") {
        return true;
    }
    let bracketed = |open: u8, close: u8| {
        json.first() == Some(&open) && json[1..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&close)
    };
    match field.ty {
        Type::Array(_) => bracketed(b'[', b']'),
        Type::Map(_) => bracketed(b'{', b'}'),
        Type::Bytes => json.starts_with(b"\"\""),
        _ if field.pointer => false,
        Type::String => json.starts_with(b"\"\""),
        Type::Bool => json.starts_with(b"false"),
        Type::Int32 | Type::Int64 => {
            json.first() == Some(&b'0')
                && json.get(1).is_none_or(|b| matches!(b, b',' | b'}') || b.is_ascii_whitespace())
        }
        _ => false,
    }
}

struct Filler<'a> {
    plans: &'static [Plan],
    input: &'a [u8],
    at: usize,
    copied: usize,
    out: Vec<u8>,
}

impl<'a> Filler<'a> {
    fn peek(&mut self) -> Option<u8> {
        while self.input.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.input.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn tidy(&mut self, ty: Type) -> Option<()> {
        match (self.peek()?, ty) {
            (b'{', Type::Ref(index)) => self.tidy_object(&table().defs[usize::from(index)]),
            (b'{', Type::Map(item)) => self.entries(|filler, _| filler.tidy_item(*item)).map(drop),
            (b'[', Type::Array(item)) => self.list(|filler| filler.tidy_item(*item)),
            _ => self.skip(),
        }
    }

    /// An element of a list or map: it is there, and null is its zero.
    fn tidy_item(&mut self, ty: Type) -> Option<()> {
        self.peek()?;
        let zero: &[u8] = match ty {
            _ if !self.input[self.at..].starts_with(b"null") => return self.tidy(ty),
            Type::String => b"\"\"",
            Type::Bool => b"false",
            Type::Int32 | Type::Int64 => b"0",
            Type::Ref(_) => b"{}",
            _ => return self.skip(),
        };
        let from = self.at;
        self.skip()?;
        self.cut(from, self.at);
        self.out.extend_from_slice(zero);
        Some(())
    }

    fn tidy_object(&mut self, def: &TypeDef) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        let mut has_kept = false;
        let mut before = self.at;
        loop {
            self.peek()?;
            let from = self.at;
            let name = self.text()?;
            self.take(b':')?;
            self.peek()?;
            let field = std::str::from_utf8(name).ok().and_then(|name| def.field(name));
            let goes = field.is_some_and(|field| is_left_out(field, &self.input[self.at..]));
            match field.filter(|_| !goes) {
                Some(field) => self.tidy(field.ty)?,
                None => self.skip()?,
            }
            let to = self.at;
            let is_last = self.take(b'}').is_some();
            // The comma goes with it: the one before, if there is something before.
            match (goes, has_kept) {
                (true, true) => self.cut(before, to),
                (true, false) if is_last => self.cut(from, to),
                _ => {}
            }
            if is_last {
                return Some(());
            }
            self.peek()?;
            if !goes || has_kept {
                before = self.at;
            }
            self.take(b',')?;
            if goes && !has_kept {
                self.cut(from, self.at);
            }
            has_kept |= !goes;
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.out.extend_from_slice(&self.input[self.copied..from]);
        self.copied = to;
    }

    fn value(&mut self, ty: Type) -> Option<()> {
        match (self.peek()?, ty) {
            (b'{', Type::Ref(index)) => self.object(usize::from(index)),
            (b'{', Type::Map(item)) => self.entries(|filler, _| filler.value(*item)).map(drop),
            (b'[', Type::Array(item)) => self.list(|filler| filler.value(*item)),
            _ => self.skip(),
        }
    }

    fn object(&mut self, index: usize) -> Option<()> {
        let plan = &self.plans[index];
        if plan.is_idle() {
            return self.skip();
        }
        let mut seen = 0u64;
        let is_empty = self.entries(|filler, name| {
            if let Some(i) = plan.always.iter().position(|(always, _)| always.as_bytes() == name) {
                seen |= 1 << i;
            }
            match plan.deep.iter().find(|(deep, _)| deep.as_bytes() == name) {
                Some((_, ty)) => filler.value(*ty),
                None => filler.skip(),
            }
        })?;
        if seen.count_ones() as usize == plan.always.len() {
            return Some(());
        }
        // Before the brace that was just read.
        let end = self.at - 1;
        self.out.extend_from_slice(&self.input[self.copied..end]);
        self.copied = end;
        let mut comma = !is_empty;
        for (_, (name, zero)) in plan.always.iter().enumerate().filter(|(i, _)| seen & (1 << i) == 0) {
            if std::mem::replace(&mut comma, true) {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"\":");
            self.out.extend_from_slice(zero.as_bytes());
        }
        Some(())
    }

    /// Goes through an object; returns whether it is empty.
    fn entries(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<bool> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(true);
        }
        loop {
            self.peek()?;
            let name = self.text()?;
            self.take(b':')?;
            each(self, name)?;
            if self.take(b'}').is_some() {
                return Some(false);
            }
            self.take(b',')?;
        }
    }

    fn list(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.take(b']').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    /// The inside of a string, as written.
    fn text(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let from = self.at;
        loop {
            self.at += memchr2(b'"', b'\\', self.input.get(self.at..)?)?;
            if self.input[self.at] == b'"' {
                self.at += 1;
                return Some(&self.input[from..self.at - 1]);
            }
            self.at += 2;
        }
    }

    fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.text().map(drop),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                self.at += memchr3(b',', b'}', b']', &self.input[self.at..])?;
                Some(())
            }
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.input.get(self.at)? {
                b'"' => {
                    self.text()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::fill;
    use crate::schema::lookup_kind;

    fn filled(group: &str, version: &str, kind: &str, object: &Value) -> Value {
        let def = lookup_kind(group, version, kind).expect("a kind");
        serde_json::from_slice(&fill(object.to_string().into_bytes(), def)).expect("JSON")
    }

    #[test]
    fn what_go_always_writes_is_written() {
        let node = filled("", "v1", "Node", &json!({"metadata": {"name": "a,\"}{"}, "spec": {}}));
        assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        assert_eq!(node["status"]["nodeInfo"]["bootID"], "");
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}, {"name": "d", "resources": {}}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}]}});
        let pod = filled("", "v1", "Pod", &pod);
        assert_eq!(
            pod["spec"]["containers"],
            json!([{"name": "c", "resources": {}}, {"name": "d", "resources": {}}])
        );
        let times =
            json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null});
        assert_eq!(pod["status"]["conditions"][0], times);
        let hpa =
            filled("autoscaling", "v2", "HorizontalPodAutoscaler", &json!({"metadata": {}, "spec": {}}));
        assert_eq!(hpa["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    }

    #[test]
    fn what_go_leaves_out_goes() {
        let def = lookup_kind("", "v1", "Pod").expect("a kind");
        let text = r#"{ "metadata":{"labels":{} , "name":"a","annotations":null},"spec":{"nodeName":"","containers":
            [{"args":[ ],"name":"c","env":[{"name":"A","value":""}],"stdin":false},{"name":"d","resources":{}}],
            "hostNetwork":false,"priority":0,"enableServiceLinks":false,"volumes":[{"emptyDir":{},"name":"v"}]},"status":{}}"#;
        let tidy = super::tidied(text.as_bytes(), def).expect("changes");
        let tidy: Value = serde_json::from_slice(&tidy).expect("JSON");
        let expected = json!({"metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "c", "env": [{"name": "A"}]}, {"name": "d", "resources": {}}], "priority": 0,
            "enableServiceLinks": false, "volumes": [{"emptyDir": {}, "name": "v"}]}, "status": {}});
        assert_eq!(tidy, expected);
        let nulls = r#"{"metadata":{"labels":{"a":null}},"spec":{"containers":[null ,{"args":["x",null]}]}}"#;
        assert_eq!(
            super::tidied(nulls.as_bytes(), def).as_deref(),
            Some(&br#"{"metadata":{"labels":{"a":""}},"spec":{"containers":[{},{"args":["x",""]}]}}"#[..]),
        );
        for text in ["{", r#"{"metadata":{"name":"a"}}"#, "[]", r#"{"metadata":{"labels":{}"#] {
            assert_eq!(super::tidied(text.as_bytes(), def), None, "{text}");
        }
        for text in [r#"{"metadata":{"labels":{}}}"#, r#"{"metadata":{"labels":{},"annotations":{}}}"#] {
            assert_eq!(
                super::tidied(text.as_bytes(), def).as_deref(),
                Some(&br#"{"metadata":{}}"#[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_complete_or_no_json_stays() {
        let def = lookup_kind("", "v1", "ConfigMap").expect("a kind");
        for text in [r#"{"metadata":{},"data":{"a":"\\"}}"#, "{", "", "[]", r#"{"metadata":"#] {
            assert_eq!(fill(text.as_bytes().to_vec(), def), text.as_bytes(), "{text}");
        }
    }
}
