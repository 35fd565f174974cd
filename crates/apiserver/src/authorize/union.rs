//! Several authorizers, one after the other: the first yes or no holds.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Asked, Attributes, Authorizer, Decision, Rules};
use crate::identify::{MASTERS, User};

/// Asks authorizers in order. Members of `system:masters` may do everything, whatever the others say.
pub struct Union {
    links: ArcSwap<Vec<Arc<dyn Authorizer>>>,
}

/// What those said who had no opinion.
#[derive(Default)]
struct Heard {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Heard {
    /// A yes or no; anything else is noted.
    fn decided(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::Allow(_) | Decision::Deny(_) | Decision::DenyFailed(_) => return Some(decision),
            Decision::NoOpinion(why) if why.is_empty() => {}
            Decision::NoOpinion(why) => self.reasons.push(why),
            Decision::Failed(why) => self.errors.push(why),
        }
        None
    }

    fn verdict(self) -> Decision {
        match self.errors.as_slice() {
            [] => Decision::NoOpinion(self.reasons.join("\n")),
            [one] => Decision::Failed(one.clone()),
            several => Decision::Failed(format!("[{}]", several.join(", "))),
        }
    }
}

impl Union {
    /// Asks `links` in this order.
    pub fn new(links: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { links: ArcSwap::from_pointee(links) }
    }

    /// Asks `links` from now on.
    pub(crate) fn replace(&self, links: Vec<Arc<dyn Authorizer>>) {
        self.links.store(Arc::new(links));
    }
}

impl Authorizer for Union {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a> {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new()).into();
        }
        let mut heard = Heard::default();
        let links = self.links.load();
        for (i, link) in links.iter().enumerate() {
            let Asked::Now(Some(decision)) = link.authorize(attributes) else {
                // This one has to wait, and the rest with it: they are kept alive meanwhile.
                let links = Arc::clone(&links);
                return Asked::Later(Box::pin(async move {
                    for link in &links[i..] {
                        if let Some(decision) = heard.decided(link.authorize(attributes).await) {
                            return decision;
                        }
                    }
                    heard.verdict()
                }));
            };
            if let Some(decision) = heard.decided(decision) {
                return decision.into();
            }
        }
        heard.verdict().into()
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for link in self.links.load().iter() {
            let rules = link.rules_for(user, namespace);
            all.resources.extend(rules.resources);
            all.paths.extend(rules.paths);
            all.incomplete |= rules.incomplete;
            all.errors.extend(rules.errors);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Decision, bool);

    impl Authorizer for Says {
        fn authorize<'a>(&'a self, _attributes: &'a Attributes<'a>) -> Asked<'a> {
            if self.1 { Asked::Later(Box::pin(async { self.0.clone() })) } else { self.0.clone().into() }
        }

        fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
            Rules::default()
        }
    }

    #[tokio::test]
    async fn the_first_opinion_holds_and_errors_are_told_if_there_is_none() {
        let none = |why: &str| Decision::NoOpinion(why.into());
        let (yes, no) = (Decision::Allow("y".into()), Decision::Deny("n".into()));
        let failed = Decision::Failed("e".into());
        let rows = [
            (vec![none("a"), none(""), none("b")], none("a\nb")),
            (vec![none("a"), yes.clone(), no.clone()], yes.clone()),
            (vec![no.clone(), yes.clone()], no),
            (vec![failed.clone(), yes.clone()], yes),
            (vec![none("a"), failed.clone()], failed),
        ];
        let user = User::anonymous();
        for late in [false, true] {
            for (said, wanted) in &rows {
                let links = said.iter().map(|s| Arc::new(Says(s.clone(), late)) as Arc<dyn Authorizer>);
                let union = Union::new(links.collect());
                let attributes = Attributes::on_resource(&user, "get", "", "pods");
                assert_eq!(&union.authorize(&attributes).await, wanted);
            }
        }
        let union = Union::new(vec![Arc::new(Says(Decision::Deny("n".into()), false))]);
        let master = User::apiserver();
        assert!(union.authorize(&Attributes::on_path(&master, "get", "/x")).await.is_allowed());
    }
}
