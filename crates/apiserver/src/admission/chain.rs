//! The two passes of mutation: a plugin that changed an object may ask that all plugins see it once more
//! (`reinvocationPolicy`).

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_api::status::Result;
use gantry_kinds::AnyObject;
use parking_lot::Mutex;

use super::metrics::Step;
use super::{AdmissionPlugin, AdmissionRequest, Body};

/// What plugins remember from the first pass of one write to the second.
#[derive(Default)]
pub struct Passes {
    again: AtomicBool,
    wanted: AtomicBool,
    notes: Mutex<HashMap<&'static str, Box<dyn Any + Send>>>,
}

impl Passes {
    /// Whether this is the second pass.
    pub fn is_second(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Asks for a second pass.
    pub fn ask_for_second(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// The notes that the plugin of this name keeps; empty ones at first.
    ///
    /// # Panics
    /// Two plugins of one name keep notes of different types.
    pub fn notes<T: Default + Send + 'static, R>(
        &self,
        plugin: &'static str,
        with: impl FnOnce(&mut T) -> R,
    ) -> R {
        let mut notes = self.notes.lock();
        let slot = notes.entry(plugin).or_insert_with(|| Box::<T>::default());
        with(slot.downcast_mut().unwrap_or_else(|| panic!("the notes of {plugin} are of another type")))
    }

    fn begin_second(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && !self.again.swap(true, Ordering::Relaxed)
    }
}

/// Lets all plugins change `object`, and once more if one of them asks for that.
pub(crate) async fn mutate(
    plugins: &[&dyn AdmissionPlugin],
    request: &AdmissionRequest<'_>,
    object: &mut dyn AnyObject,
    old: Option<&dyn AnyObject>,
) -> Result<()> {
    let mut step = Step::begin(request, "admit");
    loop {
        for plugin in plugins {
            let outcome = plugin.mutate(request, object, old).await;
            step.decided(plugin.name(), outcome.is_err());
            outcome?;
        }
        if !request.passes.begin_second() {
            step.passed();
            return Ok(());
        }
    }
}

/// Lets all plugins refuse it.
pub(crate) async fn validate(
    plugins: &[&dyn AdmissionPlugin],
    request: &AdmissionRequest<'_>,
    object: Option<&dyn AnyObject>,
    old: Option<&dyn AnyObject>,
) -> Result<()> {
    let mut step = Step::begin(request, "validate");
    for plugin in plugins {
        let outcome = plugin.validate(request, object, old).await;
        step.decided(plugin.name(), outcome.is_err());
        outcome?;
    }
    step.passed();
    Ok(())
}

/// The same for a body of its own kind; then all may refuse it.
pub(crate) async fn admit_body(
    plugins: &[&dyn AdmissionPlugin],
    request: &AdmissionRequest<'_>,
    body: &mut Body,
) -> Result<()> {
    let mut step = Step::begin(request, "admit");
    loop {
        for plugin in plugins {
            let outcome = plugin.mutate_body(request, body).await;
            step.decided(plugin.name(), outcome.is_err());
            outcome?;
        }
        if !request.passes.begin_second() {
            break;
        }
    }
    step.passed();
    let mut step = Step::begin(request, "validate");
    for plugin in plugins {
        let outcome = plugin.validate_body(request, body).await;
        step.decided(plugin.name(), outcome.is_err());
        outcome?;
    }
    step.passed();
    Ok(())
}
