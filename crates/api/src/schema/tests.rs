//! Facts of the API against the table.

use super::*;

#[test]
fn every_reference_resolves() {
    fn resolve(ty: &Type) {
        match ty {
            Type::Array(inner) | Type::Map(inner) => resolve(inner),
            Type::Ref(_) => assert!(ty.definition().is_some()),
            _ => {}
        }
    }
    assert!(all().len() > 700);
    for def in all() {
        assert!(std::ptr::eq(lookup(&def.name()).unwrap(), def));
        assert!(def.fields.windows(2).all(|w| w[0].name < w[1].name), "{}", def.name());
        def.fields.iter().for_each(|f| resolve(&f.ty));
    }
}

#[test]
fn every_merge_key_is_a_field_of_the_element() {
    for def in all() {
        for field in &def.fields {
            let Type::Array(item) = field.ty else {
                assert!(field.markers.list_map_keys.is_empty());
                continue;
            };
            let merge_key = field.markers.patch_merge_key.into_iter();
            for key in field.markers.list_map_keys.iter().copied().chain(merge_key) {
                let element = item.definition().unwrap_or_else(|| panic!("{}.{}", def.name(), field.name));
                assert!(element.field(key).is_some(), "{}.{}: {key}", def.name(), field.name);
            }
            let is_map = field.markers.list_type == Some(ListType::Map);
            assert_eq!(is_map, !field.markers.list_map_keys.is_empty());
        }
    }
}

#[test]
fn known_facts() {
    let pod = lookup_kind("", "v1", "Pod").unwrap();
    assert_eq!(pod.name(), "io.k8s.api.core.v1.Pod");
    assert!(lookup_kind("", "v1", "PodList").is_some());
    let containers = pod.node().child("spec").unwrap().child("containers").unwrap();
    let Shape::List(ListShape::Map(keys)) = containers.shape() else { panic!("containers are a map") };
    assert_eq!(keys.iter().collect::<Vec<_>>(), ["name"]);
    assert_eq!(containers.markers().patch_merge_key, Some("name"));
    let ports = containers.item().child("ports").unwrap();
    let Shape::List(ListShape::Map(keys)) = ports.shape() else { panic!("ports are a map") };
    assert_eq!(keys.iter().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.markers().patch_merge_key, Some("containerPort"));
    assert_eq!(ports.item().default_of("protocol").unwrap().as_ref(), "TCP");
    assert!(ports.item().child("nonsense").is_none());
    let selector = lookup("io.k8s.api.core.v1.ServiceSpec").unwrap().node().child("selector").unwrap();
    assert!(matches!(selector.shape(), Shape::Object { atomic: true }));
    let finalizers = object_meta().child("finalizers").unwrap();
    assert!(matches!(finalizers.shape(), Shape::List(ListShape::Set)));
}

#[test]
fn descriptions_belong_to_their_fields() {
    let texts = Descriptions::load();
    let port = lookup("io.k8s.api.core.v1.ContainerPort").unwrap();
    assert_eq!(texts.of(port), "ContainerPort represents a network port in a single container.");
    let protocol = port.field("protocol").unwrap();
    assert_eq!(
        texts.of_field(port, protocol),
        "Protocol for port. Must be UDP, TCP, or SCTP. Defaults to \"TCP\"."
    );
    let last = all().last().unwrap();
    last.fields.iter().for_each(|f| assert!(!texts.of_field(last, f).contains('\0')));
}
