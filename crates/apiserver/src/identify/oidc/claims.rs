//! From the claims of a token to the user that it stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::User;
use super::super::certificates::CREDENTIAL_ID;
use super::super::config::Jwt;
use super::Expressions;

/// Claims under the mappings and rules of their issuer.
pub(in super::super) struct Mapped<'a> {
    pub(in super::super) config: &'a Jwt,
    pub(in super::super) expressions: &'a Expressions,
    pub(in super::super) claims: &'a Value,
}

impl Mapped<'_> {
    /// The user, if the rules hold.
    pub(in super::super) fn user(&self) -> Result<User, String> {
        let name = self.name()?;
        let groups = self.groups()?;
        let mut user = User::new(name, groups.iter().map(String::as_str));
        let uid = &self.config.claim_mappings.uid.claim;
        if !uid.is_empty() {
            user.uid = self.text(uid).map_err(|why| format!("oidc: parse uid claim {uid:?}: {why}"))?.into();
        } else if let Some(uid) = self.expressions.uid(self.claims) {
            user.uid = uid?.into();
        }
        let mut extra: BTreeMap<String, Vec<String>> =
            self.expressions.extra(self.claims)?.into_iter().collect();
        if let Some(Value::String(id)) = self.claims.get("jti").filter(|v| **v != "") {
            extra.entry(CREDENTIAL_ID.to_owned()).or_insert_with(|| vec![format!("JTI={id}")]);
        }
        user.extra = Arc::new(extra);
        self.check_rules()?;
        self.expressions.check_claims(self.claims)?;
        let groups: Vec<&str> = user.groups.iter().map(|g| &**g).collect();
        self.expressions.check_user(&serde_json::json!({
            "username": &*user.name, "uid": &*user.uid, "groups": groups, "extra": &*user.extra,
        }))?;
        Ok(user)
    }

    fn text(&self, claim: &str) -> Result<&str, String> {
        match self.claims.get(claim) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err("the claim is no text".to_owned()),
            None => Err("claim not present".to_owned()),
        }
    }

    fn name(&self) -> Result<String, String> {
        if let Some(name) = self.expressions.username(self.claims) {
            return name;
        }
        let mapping = &self.config.claim_mappings.username;
        let claim = &mapping.claim;
        let name = self.text(claim).map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
        if claim == "email" {
            match self.claims.get("email_verified") {
                None | Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) => return Err("oidc: email not verified".to_owned()),
                Some(_) => return Err("oidc: parse 'email_verified' claim: it is no boolean".to_owned()),
            }
        }
        Ok(format!("{}{name}", mapping.prefix.as_deref().unwrap_or("")))
    }

    fn groups(&self) -> Result<Vec<String>, String> {
        if let Some(groups) = self.expressions.groups(self.claims) {
            return groups;
        }
        let mapping = &self.config.claim_mappings.groups;
        let claim = &mapping.claim;
        let prefix = mapping.prefix.as_deref().unwrap_or("");
        let broken =
            || format!("oidc: parse groups claim {claim:?}: it is neither a text nor a list of texts");
        match self.claims.get(claim).filter(|_| !claim.is_empty()) {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![format!("{prefix}{one}")]),
            Some(Value::Array(list)) => list
                .iter()
                .map(|group| group.as_str().map(|g| format!("{prefix}{g}")).ok_or_else(broken))
                .collect(),
            Some(_) => Err(broken()),
        }
    }

    fn check_rules(&self) -> Result<(), String> {
        for rule in &self.config.claim_validation_rules {
            let (claim, wanted) = (&rule.claim, &rule.required_value);
            if claim.is_empty() {
                continue;
            }
            if self.claims.get(claim).is_none() {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let is = self.text(claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if is != wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {is}, want = {wanted}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(mappings: Value, rules: Value) -> Jwt {
        serde_json::from_value(json!({
            "issuer": {"url": "https://i", "audiences": ["a"]},
            "claimMappings": mappings,
            "claimValidationRules": rules,
        }))
        .expect("a configuration")
    }

    fn user(config: &Jwt, claims: &Value) -> Result<User, String> {
        let mut faults = Vec::new();
        let expressions = Expressions::compile(config, &gantry_api::field::Path::new("jwt"), &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        Mapped { config, expressions: &expressions, claims }.user()
    }

    #[test]
    fn claims_become_a_user() {
        let mappings = json!({
            "username": {"claim": "sub", "prefix": "oidc:"},
            "groups": {"claim": "roles", "prefix": "r:"},
            "uid": {"claim": "id"},
        });
        let config = config(mappings, json!([{"claim": "hd", "requiredValue": "acme"}]));
        let claims = json!({"sub": "jane", "roles": ["a", "b"], "id": "7", "hd": "acme", "jti": "x"});
        let jane = user(&config, &claims).expect("a user");
        assert_eq!((&*jane.name, &*jane.uid), ("oidc:jane", "7"));
        assert!(jane.is_in("r:a") && jane.is_in("r:b"));
        assert_eq!(jane.extra[CREDENTIAL_ID], ["JTI=x"]);
        let one = json!({"sub": "jane", "roles": "a", "id": "7", "hd": "acme"});
        assert!(user(&config, &one).expect("a user").is_in("r:a"));
        let why = |claims: Value| user(&config, &claims).expect_err("refused");
        assert_eq!(why(json!({"sub": "jane", "id": "7"})), "oidc: required claim hd not present in ID token");
        assert_eq!(
            why(json!({"sub": "jane", "id": "7", "hd": "other"})),
            "oidc: required claim hd value does not match. Got = other, want = acme"
        );
        assert_eq!(why(json!({"id": "7"})), "oidc: parse username claims \"sub\": claim not present");
    }

    #[test]
    fn an_address_must_be_verified() {
        let config = config(json!({"username": {"claim": "email", "prefix": ""}}), json!([]));
        assert!(user(&config, &json!({"email": "a@b"})).is_ok());
        assert!(user(&config, &json!({"email": "a@b", "email_verified": true})).is_ok());
        let why = user(&config, &json!({"email": "a@b", "email_verified": false}));
        assert_eq!(why, Err("oidc: email not verified".to_owned()));
    }

    #[test]
    fn expressions_map_and_judge() {
        let mut config = config(
            json!({
                "username": {"expression": "'x:' + claims.sub"},
                "groups": {"expression": "claims.roles.split(',')"},
                "uid": {"expression": "claims.id"},
                "extra": [{"key": "acme.io/team", "valueExpression": "claims.?team.orValue('')"}],
            }),
            json!([{"expression": "claims.exp - claims.nbf <= 86400", "message": "too long"}]),
        );
        config.user_validation_rules = serde_json::from_value(json!([
            {"expression": "!user.username.startsWith('system:')", "message": "reserved"},
            {"expression": "user.groups.all(g, g != 'root')", "message": "no root"},
        ]))
        .expect("rules");
        let good = json!({"sub": "jane", "roles": "a,b", "id": "7", "exp": 100, "nbf": 1, "team": "t"});
        let jane = user(&config, &good).expect("a user");
        assert_eq!((&*jane.name, &*jane.uid, jane.is_in("b")), ("x:jane", "7", true));
        assert_eq!(jane.extra["acme.io/team"], ["t"]);
        let why = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            user(&config, &claims).expect_err("refused")
        };
        assert_eq!(
            why("exp", json!(1_000_000)),
            "oidc: error evaluating claim validation expression: validation expression 'claims.exp - claims.nbf <= 86400' failed: too long"
        );
        assert_eq!(
            why("roles", json!("root")),
            "oidc: error evaluating user info validation rule: validation expression 'user.groups.all(g, g != 'root')' failed: no root"
        );
        assert_eq!(
            why("id", json!(7)),
            "oidc: error evaluating uid claim expression: uid claim expression must return a string"
        );
    }
}
