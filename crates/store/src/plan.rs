//! Decides what a group of batches writes: checks expectations and gives out revisions. Nothing becomes visible
//! here; a plan that is not applied has only used up revisions.

use std::collections::HashMap;

use crate::index::Index;
use crate::store::{Batch, Committed, Event, Key, KeyValue, Op, OpResult, Revision};
use crate::{Result, StoreError};

/// A group under way.
pub(crate) struct Plan<'a> {
    index: &'a Index,
    next: Revision,
    /// What this group leaves in each key it writes.
    finals: HashMap<Key, Option<KeyValue>>,
    events: Vec<Event>,
}

impl<'a> Plan<'a> {
    /// An empty group on top of what `index` shows, whose first write gets revision `next`.
    pub(crate) fn new(index: &'a Index, next: Revision) -> Self {
        Self { index, next, finals: HashMap::new(), events: Vec::new() }
    }

    /// Adds a batch that has been validated; a batch whose expectations do not hold leaves no trace.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<Committed> {
        let before = batch
            .ops
            .iter()
            .enumerate()
            .map(|(index, op)| self.expected(index, op))
            .collect::<Result<Vec<_>>>()?;
        let results = batch.ops.iter().zip(before).map(|(op, previous)| self.write(op, previous)).collect();
        Ok(Committed { results })
    }

    /// The revision the write after this group gets.
    pub(crate) fn next_revision(&self) -> Revision {
        self.next
    }

    /// What the group leaves in each key it writes, and its events in revision order.
    pub(crate) fn finish(self) -> (HashMap<Key, Option<KeyValue>>, Vec<Event>) {
        (self.finals, self.events)
    }

    fn expected(&self, index: usize, op: &Op) -> Result<Option<KeyValue>> {
        let current = match self.finals.get(op.key()) {
            Some(planned) => planned.clone(),
            None => self.index.latest(op.key()),
        };
        if op.expect().holds(current.as_ref().map(|kv| kv.modified)) {
            return Ok(current);
        }
        Err(StoreError::Conflict { index, key: op.key().clone(), current: current.map(Box::new) })
    }

    fn write(&mut self, op: &Op, previous: Option<KeyValue>) -> OpResult {
        match (op, previous) {
            (Op::Put { key, value, .. }, previous) => {
                let revision = self.take_revision();
                // The key as it is stored already, so that equal names share their bytes.
                let key = previous.as_ref().map_or(key, |kv| &kv.key).clone();
                let created = previous.as_ref().map_or(revision, |kv| kv.created);
                let value = value.at_revision(revision);
                let current = KeyValue { key: key.clone(), value, created, modified: revision };
                self.record(key, revision, Some(current.clone()), previous.clone());
                OpResult::Put { current, previous }
            }
            (Op::Delete { .. }, Some(previous)) => {
                let revision = self.take_revision();
                self.record(previous.key.clone(), revision, None, Some(previous.clone()));
                OpResult::Deleted { previous, revision }
            }
            (Op::Delete { .. }, None) => OpResult::Absent,
        }
    }

    fn record(
        &mut self,
        key: Key,
        revision: Revision,
        current: Option<KeyValue>,
        previous: Option<KeyValue>,
    ) {
        self.finals.insert(key.clone(), current.clone());
        self.events.push(Event { key, revision, current, previous });
    }

    fn take_revision(&mut self) -> Revision {
        let revision = self.next;
        self.next += 1;
        revision
    }
}
