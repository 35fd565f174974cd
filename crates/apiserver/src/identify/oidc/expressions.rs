//! Expressions over claims and users, in CEL.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use gantry_api::field::{Error as Fault, Path};
use gantry_cel::{Data, Env, ListKind, Program, Type, Value, limits, typed, untyped};
use regex::Regex;
use serde_json::Value as Json;

use super::super::config::Jwt;

/// `claims`
static CLAIMS: LazyLock<Env> = LazyLock::new(|| Env::new().variable("claims", Type::map(Type::Dyn)));

/// What rules on users see.
static USER: LazyLock<Data> = LazyLock::new(|| {
    let text = || Arc::new(Data::string(None, None));
    let list = || Arc::new(Data::list(text(), None, ListKind::Atomic));
    let fields = BTreeMap::from([
        ("username".to_owned(), text()),
        ("uid".to_owned(), text()),
        ("groups".to_owned(), list()),
        ("extra".to_owned(), Arc::new(Data::map(list(), None))),
    ]);
    Data::object("kubernetes.UserInfo", fields, &[])
});

/// `user`
static USERS: LazyLock<Env> =
    LazyLock::new(|| Env::new().variable("user", USER.ty.clone().unwrap_or(Type::Dyn)));

/// A use of the claim `email`, but not of `email_verified`.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| pattern("email"));
static VERIFIED: LazyLock<Regex> = LazyLock::new(|| pattern("email_verified"));

fn pattern(claim: &str) -> Regex {
    let source = format!(r"\bclaims\s*\.\s*\??\s*{claim}\b");
    Regex::new(&source).expect("the pattern is fixed")
}

/// One expression.
pub(in super::super) struct Expression {
    source: String,
    message: String,
    program: Program,
}

impl Expression {
    fn compile(
        source: &str,
        message: &str,
        env: &Env,
        truth: bool,
        path: &Path,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        match Program::compile(source, env) {
            Ok(program) if truth && !matches!(program.output(), Type::Bool) => {
                faults.push(Fault::invalid(path, source, "must evaluate to bool"));
                None
            }
            Ok(program) => Some(Self { source: source.to_owned(), message: message.to_owned(), program }),
            Err(issues) => {
                faults.push(Fault::invalid(path, source, issues.complaint()));
                None
            }
        }
    }

    fn value<'a>(&'a self, name: &str, value: Value<'a>) -> Result<Value<'a>, String> {
        let done = self.program.eval(&[(name, value)], limits::PER_CALL);
        done.result.map_err(|error| format!("expression '{}' resulted in error: {error}", self.source))
    }

    fn text(&self, claims: &Json, what: &str) -> Result<String, String> {
        let value = self.value("claims", untyped(claims))?;
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("{what} claim expression must return a string"))
    }

    /// A text or a list of texts; what is empty does not count.
    fn texts(&self, claims: &Json) -> Result<Vec<String>, String> {
        let bad = || "expression must return a string or a list of strings".to_owned();
        let value = self.value("claims", untyped(claims))?;
        let mut texts = match value {
            Value::Null => Vec::new(),
            Value::List(list) => {
                let values = list.to_vec().map_err(|e| e.to_string())?;
                let text = |v: &Value<'_>| v.as_str().map(str::to_owned).ok_or_else(bad);
                values.iter().map(text).collect::<Result<Vec<_>, _>>()?
            }
            other => vec![other.as_str().map(str::to_owned).ok_or_else(bad)?],
        };
        texts.retain(|text| !text.is_empty());
        Ok(texts)
    }

    fn check(&self, name: &str, value: Value<'_>) -> Result<(), String> {
        // The program outlives the value, not the other way round.
        let done = self.program.eval(&[(name, value)], limits::PER_CALL);
        let result =
            done.result.map_err(|e| format!("expression '{}' resulted in error: {e}", self.source))?;
        match result.as_bool() {
            Some(true) => Ok(()),
            Some(false) => Err(format!("validation expression '{}' failed: {}", self.source, self.message)),
            None => Err("validation expression must return a boolean".to_owned()),
        }
    }
}

/// All expressions of one issuer.
#[derive(Default)]
pub(in super::super) struct Expressions {
    username: Option<Expression>,
    groups: Option<Expression>,
    uid: Option<Expression>,
    extra: Vec<(String, Expression)>,
    claim_rules: Vec<Expression>,
    user_rules: Vec<Expression>,
}

impl Expressions {
    /// Compiles those of `jwt`; what is wrong goes into `faults`.
    pub(in super::super) fn compile(jwt: &Jwt, path: &Path, faults: &mut Vec<Fault>) -> Self {
        let mappings = path.child("claimMappings");
        let one = |source: &str, path: &Path, faults: &mut Vec<Fault>| {
            let path = path.child("expression");
            (!source.is_empty())
                .then(|| Expression::compile(source, "", &CLAIMS, false, &path, faults))
                .flatten()
        };
        let maps = &jwt.claim_mappings;
        let mut this = Self {
            username: one(&maps.username.expression, &mappings.child("username"), faults),
            groups: one(&maps.groups.expression, &mappings.child("groups"), faults),
            uid: one(&maps.uid.expression, &mappings.child("uid"), faults),
            ..Self::default()
        };
        for (i, extra) in maps.extra.iter().enumerate().filter(|(_, e)| !e.value_expression.is_empty()) {
            let path = mappings.child("extra").index(i).child("valueExpression");
            let compiled = Expression::compile(&extra.value_expression, "", &CLAIMS, false, &path, faults);
            this.extra.extend(compiled.map(|expression| (extra.key.clone(), expression)));
        }
        for (i, rule) in
            jwt.claim_validation_rules.iter().enumerate().filter(|(_, r)| !r.expression.is_empty())
        {
            let path = path.child("claimValidationRules").index(i).child("expression");
            let (source, message) = (&rule.expression, &rule.message);
            this.claim_rules.extend(Expression::compile(source, message, &CLAIMS, true, &path, faults));
        }
        for (i, rule) in
            jwt.user_validation_rules.iter().enumerate().filter(|(_, r)| !r.expression.is_empty())
        {
            let path = path.child("userValidationRules").index(i).child("expression");
            let (source, message) = (&rule.expression, &rule.message);
            this.user_rules.extend(Expression::compile(source, message, &USERS, true, &path, faults));
        }
        this.check_email(&mappings, faults);
        this
    }

    /// Who takes the name from an address has to look whether it was verified.
    fn check_email(&self, mappings: &Path, faults: &mut Vec<Fault>) {
        let Some(name) = self.username.as_ref().filter(|e| EMAIL.is_match(&e.source)) else { return };
        let extra = self.extra.iter().map(|(_, e)| e);
        let mut looking = std::iter::once(name).chain(extra).chain(&self.claim_rules);
        if looking.any(|e| VERIFIED.is_match(&e.source)) {
            return;
        }
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        faults.push(Fault::invalid(
            &mappings.child("username").child("expression"),
            name.source.as_str(),
            why,
        ));
    }

    /// The name, if an expression says it.
    pub(super) fn username(&self, claims: &Json) -> Option<Result<String, String>> {
        let wrong = |why| format!("oidc: error evaluating username claim expression: {why}");
        let name = self.username.as_ref()?.text(claims, "username").map_err(wrong);
        Some(name.and_then(|name| match name.as_str() {
            "" => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
            _ => Ok(name),
        }))
    }

    /// The groups, if an expression says them.
    pub(super) fn groups(&self, claims: &Json) -> Option<Result<Vec<String>, String>> {
        let wrong = |why| format!("oidc: error evaluating group claim expression: {why}");
        Some(self.groups.as_ref()?.texts(claims).map_err(wrong))
    }

    /// The UID, if an expression says it.
    pub(super) fn uid(&self, claims: &Json) -> Option<Result<String, String>> {
        let wrong = |why| format!("oidc: error evaluating uid claim expression: {why}");
        Some(self.uid.as_ref()?.text(claims, "uid").map_err(wrong))
    }

    /// What else is known of the user.
    pub(super) fn extra(&self, claims: &Json) -> Result<Vec<(String, Vec<String>)>, String> {
        let mut all = Vec::new();
        for (key, expression) in &self.extra {
            let texts = expression.texts(claims).map_err(|why| {
                format!("oidc: error evaluating extra claim expression: {}: {why}", expression.source)
            })?;
            if !texts.is_empty() {
                all.push((key.clone(), texts));
            }
        }
        Ok(all)
    }

    /// Whether the rules on the claims hold.
    pub(super) fn check_claims(&self, claims: &Json) -> Result<(), String> {
        let wrong = |why| format!("oidc: error evaluating claim validation expression: {why}");
        self.claim_rules.iter().try_for_each(|rule| rule.check("claims", untyped(claims))).map_err(wrong)
    }

    /// Whether the rules on the user hold.
    pub(super) fn check_user(&self, user: &Json) -> Result<(), String> {
        let wrong = |why: String| format!("oidc: error evaluating user info validation rule: {why}");
        for rule in &self.user_rules {
            let value = typed(user, &USER).map_err(|e| wrong(e.to_string()))?;
            rule.check("user", value).map_err(wrong)?;
        }
        Ok(())
    }
}
