//! VolumeAttributesClass: what a volume is like, changeable while it is in use.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::storage::VolumeAttributesClass;
use serde_json::Value;

use super::parameters;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct VolumeAttributesClassKind;

impl Kind for VolumeAttributesClassKind {
    type Object = VolumeAttributesClass;
    const NAMES: Names = Names {
        singular: "volumeattributesclass",
        short: &["vac"],
        categories: &[],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn validate(class: &VolumeAttributesClass) -> Errors {
        let mut errors = Errors::new();
        parameters::validate_provisioner(&class.driver_name, &Path::new("driverName"), &mut errors);
        parameters::validate(class.parameters.as_ref(), true, &Path::new("parameters"), &mut errors);
        errors
    }

    fn validate_update(new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> Errors {
        let mut errors = Errors::new();
        if new.driver_name != old.driver_name {
            errors.push(Error::forbidden(&Path::new("driverName"), "updates to driverName are forbidden."));
        }
        if new.parameters != old.parameters {
            errors.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[Column::new("DriverName", "string", "Name of the CSI driver This field is immutable."), AGE];
        COLUMNS
    }

    fn cells(class: &VolumeAttributesClass, now: SystemTime) -> Vec<Value> {
        vec![class.driver_name.as_str().into(), age(&class.metadata, now)]
    }
}
