//! Unified diffs of two texts, line for line what Python's `difflib` (and its port in Go) make of them.
//!
//! Clients see these lines in refusals of updates. The algorithm is Ratcliff and Obershelp's, with difflib's rule
//! that lines which are frequent in a long text start no match.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Texts of at least so many lines have frequent lines.
const LONG: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Equal,
    Replace,
    Delete,
    Insert,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    tag: Tag,
    old: (usize, usize),
    new: (usize, usize),
}

/// The difference between `old` and `new`; empty if there is none.
pub fn of(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.split('\n').collect();
    let new: Vec<&str> = new.split('\n').collect();
    let mut text = String::new();
    for group in groups(&steps(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let ranges = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "@@ -{} +{} @@", ranges.0, ranges.1);
        for step in group {
            let mut lines = |mark: char, list: &[&str]| {
                for line in list {
                    text.push(mark);
                    text.push_str(line);
                    text.push('\n');
                }
            };
            match step.tag {
                Tag::Equal => lines(' ', &old[step.old.0..step.old.1]),
                _ => {
                    lines('-', &old[step.old.0..step.old.1]);
                    lines('+', &new[step.new.0..step.new.1]);
                }
            }
        }
    }
    text
}

fn range(start: usize, stop: usize) -> String {
    match stop - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    for (at_old, at_new, length) in matches(old, new) {
        let tag = match (i < at_old, j < at_new) {
            (true, true) => Some(Tag::Replace),
            (true, false) => Some(Tag::Delete),
            (false, true) => Some(Tag::Insert),
            (false, false) => None,
        };
        if let Some(tag) = tag {
            steps.push(Step { tag, old: (i, at_old), new: (j, at_new) });
        }
        (i, j) = (at_old + length, at_new + length);
        if length > 0 {
            steps.push(Step { tag: Tag::Equal, old: (at_old, i), new: (at_new, j) });
        }
    }
    steps
}

/// Runs of equal lines in order, and an empty one at the end.
fn matches(old: &[&str], new: &[&str]) -> Vec<(usize, usize, usize)> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(j);
    }
    if new.len() >= LONG {
        let most = new.len() / 100 + 1;
        places.retain(|_, list| list.len() <= most);
    }
    let mut found = Vec::new();
    let mut queue = vec![(0, old.len(), 0, new.len())];
    while let Some((from_old, to_old, from_new, to_new)) = queue.pop() {
        let (i, j, k) = longest(old, new, &places, (from_old, to_old), (from_new, to_new));
        if k == 0 {
            continue;
        }
        found.push((i, j, k));
        if from_old < i && from_new < j {
            queue.push((from_old, i, from_new, j));
        }
        if i + k < to_old && j + k < to_new {
            queue.push((i + k, to_old, j + k, to_new));
        }
    }
    found.sort_unstable();
    let mut joined: Vec<(usize, usize, usize)> = Vec::new();
    for (i, j, k) in found {
        match joined.last_mut() {
            Some(last) if last.0 + last.2 == i && last.1 + last.2 == j => last.2 += k,
            _ => joined.push((i, j, k)),
        }
    }
    joined.push((old.len(), new.len(), 0));
    joined
}

fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (from_old, to_old): (usize, usize),
    (from_new, to_new): (usize, usize),
) -> (usize, usize, usize) {
    let (mut best_i, mut best_j, mut best) = (from_old, from_new, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in old.iter().enumerate().take(to_old).skip(from_old) {
        let mut next: HashMap<usize, usize> = HashMap::new();
        for &j in places.get(line).map(Vec::as_slice).unwrap_or_default() {
            if j < from_new {
                continue;
            }
            if j >= to_new {
                break;
            }
            let length = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or(0) + 1;
            next.insert(j, length);
            if length > best {
                (best_i, best_j, best) = (i + 1 - length, j + 1 - length, length);
            }
        }
        lengths = next;
    }
    // Frequent lines extend a match, if they do not start one.
    while best_i > from_old && best_j > from_new && old[best_i - 1] == new[best_j - 1] {
        (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
    }
    while best_i + best < to_old && best_j + best < to_new && old[best_i + best] == new[best_j + best] {
        best += 1;
    }
    (best_i, best_j, best)
}

/// The steps in groups, each with its context.
fn groups(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut steps = steps.to_vec();
    if let Some(first) = steps.first_mut().filter(|s| s.tag == Tag::Equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut().filter(|s| s.tag == Tag::Equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Step> = Vec::new();
    for mut step in steps {
        if step.tag == Tag::Equal && step.old.1 - step.old.0 > 2 * CONTEXT {
            let end = (step.old.1.min(step.old.0 + CONTEXT), step.new.1.min(step.new.0 + CONTEXT));
            group.push(Step { old: (step.old.0, end.0), new: (step.new.0, end.1), ..step });
            groups.push(std::mem::take(&mut group));
            step.old.0 = step.old.1.saturating_sub(CONTEXT).max(step.old.0);
            step.new.0 = step.new.1.saturating_sub(CONTEXT).max(step.new.0);
        }
        group.push(step);
    }
    let idle = matches!(group.as_slice(), [only] if only.tag == Tag::Equal);
    if !group.is_empty() && !idle {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_three_lines_around() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni";
        assert_eq!(of(old, old), "");
        assert_eq!(of(old, "a\nb\nc\nd\nE\nf\ng\nh\ni"), "@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n");
        assert_eq!(of("a", "a\nb"), "@@ -1 +1,2 @@\n a\n+b\n");
        assert_eq!(of("a\nb", "b"), "@@ -1,2 +1 @@\n-a\n b\n");
    }

    #[test]
    fn distant_changes_are_apart() {
        let lines: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let mut changed = lines.clone();
        changed[3] = "x".into();
        changed[35] = "y".into();
        let text = of(&lines.join("\n"), &changed.join("\n"));
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
        assert!(text.starts_with("@@ -1,7 +1,7 @@\n 0\n 1\n 2\n-3\n+x\n 4\n"), "{text}");
    }
}
