//! What functions do. One file per library; each finds its functions by name.

mod arithmetic;
pub mod authorizer;
pub mod convert;
mod format;
mod lists;
pub mod net;
mod net_text;
mod optional;
mod quantity;
pub mod regex;
pub mod semver;
mod strings;
pub mod time;
pub mod url;
pub mod validate;

pub(crate) use arithmetic::entries_of;

use crate::error::{EvalError, Result};
use crate::limits;
use crate::value::Value;

/// What a function does with its arguments, the receiver first.
pub type Function = for<'a> fn(&[Value<'a>], &mut Allowance) -> Result<Value<'a>>;

/// How much an evaluation may still allocate.
#[derive(Debug)]
pub struct Allowance(u64);

impl Default for Allowance {
    fn default() -> Self {
        Self(limits::ALLOCATED)
    }
}

impl Allowance {
    /// Takes room for so many elements or characters.
    ///
    /// # Errors
    /// There is not that much left.
    pub fn take(&mut self, count: usize) -> Result<()> {
        let left = self.0.checked_sub(count as u64);
        self.0 = left.ok_or_else(EvalError::too_costly)?;
        Ok(())
    }
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    arithmetic::find(name)
        .or_else(|| convert::find(name))
        .or_else(|| strings::find(name))
        .or_else(|| lists::find(name))
        .or_else(|| optional::find(name))
        .or_else(|| regex::find(name))
        .or_else(|| time::find(name))
        .or_else(|| url::find(name))
        .or_else(|| quantity::find(name))
        .or_else(|| net::find(name))
        .or_else(|| semver::find(name))
        .or_else(|| validate::find(name))
        .or_else(|| authorizer::find(name))
}
