//! Lists of indexes: `1,3-5,7`.

/// How many indexes there are, of a job with so many completions.
///
/// # Errors
/// What is wrong with the list, in upstream's words.
pub(super) fn count(list: &str, completions: i32) -> Result<i32, String> {
    Ok(intervals(list, completions)?.iter().map(|(first, last)| last - first + 1).sum())
}

/// The intervals of a list, in order and apart.
///
/// # Errors
/// What is wrong with the list, in upstream's words.
pub(super) fn intervals(list: &str, completions: i32) -> Result<Vec<(i32, i32)>, String> {
    let mut found: Vec<(i32, i32)> = Vec::new();
    if list.is_empty() {
        return Ok(found);
    }
    for text in list.split(',') {
        let (first, last) = interval(text, completions)?;
        if let Some((_, before)) = found.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        found.push((first, last));
    }
    Ok(found)
}

fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let number = |part: &str| {
        part.parse::<i32>().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))
    };
    let first = number(parts[0])?;
    if first >= completions {
        return Err(format!("too large index: {:?}", parts[0]));
    }
    let Some(end) = parts.get(1) else { return Ok((first, first)) };
    let last = number(end)?;
    if last >= completions {
        return Err(format!("too large index: {end:?}"));
    }
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

/// The first index that both lists hold.
pub(super) fn overlap(one: &[(i32, i32)], other: &[(i32, i32)]) -> Option<i32> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| a.0 <= b.1 && b.0 <= a.1).map(|(a, b)| a.0.max(b.0)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(count("", 9), Ok(0));
        assert_eq!(count("1,3-5,7", 9), Ok(5));
        for (list, why) in [
            ("9", r#"too large index: "9""#),
            ("x", r#"cannot convert string to integer for index: "x""#),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            (
                "1-2-3",
                r#"the fragment "1-2-3" violates the requirement that an index interval can have at most two parts separated by '-'"#,
            ),
        ] {
            assert_eq!(count(list, 9), Err(why.to_owned()));
        }
        assert_eq!(overlap(&[(0, 2), (5, 6)], &[(3, 5)]), Some(5));
    }
}
