//! Answers of the authorizer to what expressions ask, remembered for one request.

use std::collections::HashMap;

use gantry_api::LabelSelector;
use gantry_api::selector::FieldSelector;
use gantry_cel::{ErrorKind, EvalError, Outcome, Question, Target};
use parking_lot::Mutex;

use crate::authorize::{Attributes, Authorizer, Decision};
use crate::identify::User;

/// What is known, and what somebody wants to know.
#[derive(Default)]
pub(in crate::admission) struct Answers {
    known: Mutex<HashMap<Asked, Outcome>>,
    wanted: Mutex<Vec<Asked>>,
}

/// A question.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    service_account: Option<(String, String)>,
    verb: String,
    target: About,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum About {
    Path(String),
    Resource(gantry_cel::ResourceCheck),
}

impl gantry_cel::Authorizer for Answers {
    fn check(&self, question: &Question<'_>) -> Result<Outcome, EvalError> {
        let asked = Asked {
            service_account: question.service_account.map(|(ns, name)| (ns.to_owned(), name.to_owned())),
            verb: question.verb.to_owned(),
            target: match question.target {
                Target::Path(path) => About::Path(path.to_owned()),
                Target::Resource(check) => About::Resource(check.clone()),
            },
        };
        if let Some(outcome) = self.known.lock().get(&asked) {
            return Ok(outcome.clone());
        }
        self.wanted.lock().push(asked);
        Err(EvalError::new(ErrorKind::Pending, "the authorizer must be asked"))
    }
}

impl Answers {
    /// Asks what is wanted.
    pub(super) async fn find_out(&self, authorizer: &dyn Authorizer, user: &User) {
        let wanted = std::mem::take(&mut *self.wanted.lock());
        for asked in wanted {
            let outcome = ask(authorizer, user, &asked).await;
            self.known.lock().insert(asked, outcome);
        }
    }
}

async fn ask(authorizer: &dyn Authorizer, user: &User, asked: &Asked) -> Outcome {
    let account = asked.service_account.as_ref().map(|(namespace, name)| {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let name = format!("system:serviceaccount:{namespace}:{name}");
        User::new(name, groups.iter().map(String::as_str))
    });
    let user = account.as_ref().unwrap_or(user);
    let decision = match &asked.target {
        About::Path(path) => authorizer.authorize(&Attributes::on_path(user, &asked.verb, path)).await,
        About::Resource(check) => {
            // A selector that cannot be read restricts nothing.
            let fields = FieldSelector::parse(&check.field_selector).ok().filter(|s| !s.is_everything());
            let labels = LabelSelector::parse(&check.label_selector).ok().filter(|s| !s.is_everything());
            authorizer
                .authorize(&Attributes {
                    version: "*",
                    subresource: &check.subresource,
                    namespace: &check.namespace,
                    name: &check.name,
                    fields: fields.as_ref(),
                    labels: labels.as_ref(),
                    ..Attributes::on_resource(user, &asked.verb, &check.group, &check.resource)
                })
                .await
        }
    };
    match decision {
        Decision::Allow(reason) => Outcome { allowed: true, reason, error: None },
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Outcome { allowed: false, reason, error: None }
        }
        Decision::Failed(why) | Decision::DenyFailed(why) => {
            Outcome { allowed: false, reason: String::new(), error: Some(why) }
        }
    }
}
