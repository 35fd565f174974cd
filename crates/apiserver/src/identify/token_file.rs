//! `--token-auth-file`: tokens in a file of comma-separated values, `token,user,uid[,"group1,group2"]`.

use std::collections::HashMap;
use std::path::Path;

use async_trait::async_trait;
use gantry_base::{Error, Result};
use sha2::{Digest, Sha256};

use super::User;
use super::bearer::AnyAudience;

/// Knows the tokens of a file, by their hash: looking one up takes as long whatever it is.
pub(super) struct TokenFile {
    users: HashMap<[u8; 32], User>,
}

impl TokenFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::from(e).while_doing(format!("--token-auth-file {}", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    pub(super) fn parse(text: &str, name: &str) -> Result<Self> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let columns = columns(line);
            let [token, user, uid, rest @ ..] = columns.as_slice() else {
                return Err(Error::invalid(format!(
                    "token file '{name}' must have at least 3 columns (token, user name, user uid), found {}",
                    columns.len()
                )));
            };
            if token.is_empty() {
                tracing::warn!(
                    "empty token has been found in token file '{name}', record number '{}'",
                    number + 1
                );
                continue;
            }
            let groups = rest.first().map(String::as_str).unwrap_or("");
            let mut known = User::new(user.as_str(), groups.split(',').filter(|g| !g.is_empty()));
            known.uid = uid.as_str().into();
            if users.insert(Sha256::digest(token).into(), known).is_some() {
                tracing::warn!(
                    "duplicate token has been found in token file '{name}', record number '{}'",
                    number + 1
                );
            }
        }
        Ok(Self { users })
    }
}

/// One line of RFC 4180; double quotes hold commas, and two of them stand for one.
fn columns(line: &str) -> Vec<String> {
    let (mut all, mut current, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                current.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    all.push(current);
    all
}

#[async_trait]
impl AnyAudience for TokenFile {
    async fn whose(&self, token: &str) -> Result<Option<User>, String> {
        let key: [u8; 32] = Sha256::digest(token).into();
        Ok(self.users.get(&key).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_a_user() {
        let file =
            TokenFile::parse("t1,joe,1,\"a,b\"\n\nt2,\"o\"\"neil\",2\n,empty,3\n", "f").expect("a file");
        let mut joe = User::new("joe", ["a", "b"]);
        joe.uid = "1".into();
        assert_eq!(file.whose("t1").await, Ok(Some(joe)));
        assert_eq!(
            file.whose("t2").await.expect("fine").map(|u| u.name.to_string()),
            Some("o\"neil".to_owned())
        );
        assert_eq!((file.whose("t3").await, file.whose("").await), (Ok(None), Ok(None)));
        let error = TokenFile::parse("t1,joe", "f").err().expect("an error").to_string();
        assert!(
            error.ends_with("must have at least 3 columns (token, user name, user uid), found 2"),
            "{error}"
        );
    }
}
