//! `Accept` headers, read and sorted as upstream does (github.com/munnerz/goautoneg).

/// One media range.
#[derive(Debug, PartialEq)]
pub(crate) struct Clause<'a> {
    pub(super) kind: &'a str,
    pub(super) subtype: &'a str,
    pub(crate) parameters: Vec<(&'a str, &'a str)>,
    quality: f64,
}

impl Clause<'_> {
    /// Whether a media type is in the range.
    pub(crate) fn matches(&self, kind: &str, subtype: &str) -> bool {
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (own, "*") => own == kind,
            (own, sub) => own == kind && sub == subtype,
        }
    }

    /// Whether it asks for this kind of this version of a group.
    pub(crate) fn asks_for(&self, group: &str, version: &str, kind: &str) -> bool {
        [("g", group), ("v", version), ("as", kind)].iter().all(|asked| self.parameters.contains(asked))
    }

    fn goes_before(&self, other: &Self) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }
}

/// The clauses, the preferred ones first. What makes no sense is left out.
pub(crate) fn parse(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(|part| clause(part.trim())).collect();
    // The order is no total one (`*/*` beats nothing, whatever its quality), so the way of sorting matters.
    for i in 1..clauses.len() {
        let mut j = i;
        while j > 0 && clauses[j].goes_before(&clauses[j - 1]) {
            clauses.swap(j, j - 1);
            j -= 1;
        }
    }
    clauses
}

fn clause(part: &str) -> Option<Clause<'_>> {
    let mut pieces = part.split(';');
    let range = pieces.next()?;
    let (kind, subtype) = match range.split_once('/') {
        Some((_, subtype)) if subtype.contains('/') => return None,
        Some((kind, subtype)) => (kind.trim(), subtype.trim()),
        None if range.trim() == "*" => ("*", "*"),
        None => return None,
    };
    let mut clause = Clause { kind, subtype, parameters: Vec::new(), quality: 1.0 };
    for piece in pieces {
        let Some((name, value)) = piece.split_once('=') else { continue };
        if value.is_empty() || value.contains('=') {
            continue;
        }
        match name.trim() {
            "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
            name => clause.parameters.push((name, value.trim())),
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_goes_before_order() {
        let order =
            |header: &'static str| -> Vec<&'static str> { parse(header).iter().map(|c| c.subtype).collect() };
        assert_eq!(order("a/x, a/y"), ["x", "y"]);
        assert_eq!(order("a/x;q=0.5, a/y , a/z;q=0.7"), ["y", "z", "x"]);
        assert_eq!(order("*/*;q=0.9, a/x;q=0.8"), ["x", "*"]);
        assert_eq!(order("nonsense, a/b/c, *"), ["*"]);
        assert_eq!(parse("a/x;as=Table;v = v1; g=meta.k8s.io")[0].parameters.len(), 3);
    }
}
