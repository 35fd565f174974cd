//! One line that says which images may run and where they are pulled from.
//!
//! `allow registry.corp/*, deny docker.example/*, mirror docker.io=registry.corp/hub, deny *`: the first `allow` or
//! `deny` whose pattern an image matches decides, and what matches none may run; the first `mirror` whose left side
//! begins the image's name gives the name that it is pulled by. Names are compared in their long form, with and
//! without tag and digest; `*` stands for anything, slashes too.

use std::str::FromStr;

use super::{normalize, repository};
use crate::{Error, Result};

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    rules: Vec<Rule>,
    mirrors: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    pattern: String,
}

impl FromStr for ImagePolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut policy = Self::default();
        for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            policy.add(rule)?;
        }
        Ok(policy)
    }
}

impl ImagePolicy {
    fn add(&mut self, rule: &str) -> Result<()> {
        let wrong = |why: &str| Error::invalid(format!("image policy: {rule:?}: {why}"));
        let (verb, what) = rule.split_once(char::is_whitespace).map_or((rule, ""), |(v, w)| (v, w.trim()));
        if what.is_empty() || what.contains(char::is_whitespace) {
            return Err(wrong("write `allow <pattern>`, `deny <pattern>` or `mirror <from>=<to>`"));
        }
        match verb {
            "allow" | "deny" => {
                self.rules.push(Rule { allow: verb == "allow", pattern: what.to_owned() });
            }
            "mirror" => {
                let (from, to) = what.split_once('=').ok_or_else(|| wrong("write `mirror <from>=<to>`"))?;
                let (from, to) = (from.trim_end_matches('/'), to.trim_end_matches('/'));
                if from.is_empty() || to.is_empty() {
                    return Err(wrong("neither side may be empty"));
                }
                self.mirrors.push((from.to_owned(), to.to_owned()));
            }
            _ => return Err(wrong("it begins with neither allow, deny nor mirror")),
        }
        Ok(())
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.mirrors.is_empty()
    }

    /// Whether an image may run.
    ///
    /// # Errors
    /// The rule that denies it.
    pub fn check(&self, image: &str) -> Result<(), String> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let name = normalize(image);
        let repository = repository(&name);
        let matching = |rule: &&Rule| matches(&rule.pattern, &name) || matches(&rule.pattern, repository);
        match self.rules.iter().find(matching) {
            Some(rule) if !rule.allow => {
                Err(format!("image {image:?} is denied by the image policy: deny {}", rule.pattern))
            }
            _ => Ok(()),
        }
    }

    /// The name that an image is pulled by; `None` if that is its own.
    pub fn mirrored(&self, image: &str) -> Option<String> {
        if self.mirrors.is_empty() {
            return None;
        }
        let name = normalize(image);
        self.mirrors.iter().find_map(|(from, to)| {
            let rest = name.strip_prefix(from.as_str())?;
            // Only whole parts of the name are replaced.
            rest.starts_with(['/', ':', '@']).then(|| format!("{to}{rest}"))
        })
    }
}

/// Whether `text` is what `pattern` says, where `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy: ImagePolicy =
            "allow registry.corp/*, deny docker.example/*, deny docker.io/library/busybox:1.*, allow docker.io/*, deny *"
                .parse()
                .expect("a policy");
        for (image, rule) in [
            ("registry.corp/team/app:1", ""),
            ("docker.example/app", "deny docker.example/*"),
            ("busybox:1.36", "deny docker.io/library/busybox:1.*"),
            ("busybox:2", ""),
            ("quay.example/app@sha256:00", "deny *"),
        ] {
            let denied = policy.check(image).err().unwrap_or_default();
            let expected = match rule {
                "" => String::new(),
                rule => format!("image {image:?} is denied by the image policy: {rule}"),
            };
            assert_eq!(denied, expected);
        }
        assert_eq!(ImagePolicy::default().check("anything"), Ok(()));
    }

    #[test]
    fn mirrors_replace_the_beginning_of_a_name() {
        let policy: ImagePolicy =
            "mirror docker.io=registry.corp/hub, mirror quay.example/a=b.example/".parse().expect("a policy");
        let mirrored = |image: &str| policy.mirrored(image).unwrap_or_default();
        assert_eq!(mirrored("busybox:1"), "registry.corp/hub/library/busybox:1");
        assert_eq!(mirrored("quay.example/a:2"), "b.example:2");
        assert_eq!(mirrored("quay.example/ab:2"), "");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["permit x", "deny", "mirror a", "mirror =b", "allow a b"] {
            assert!(text.parse::<ImagePolicy>().is_err(), "{text}");
        }
        assert!("".parse::<ImagePolicy>().expect("nothing").is_empty());
    }
}
