//! Discovery, explanations, and who may do what.

use serde_json::json;

use crate::tool::*;

pub fn discovery_and_explanations(k: &Kubectl<'_>) {
    has(&k.ok("api-versions"), &["apps/v1\n", "batch/v1\n", "rbac.authorization.k8s.io/v1\n", "v1\n"]);
    let namespaced = k.ok("api-resources --namespaced=true -o name");
    has(&namespaced, &["deployments.apps\n", "pods\n"]);
    assert!(!namespaced.contains("nodes\n"));
    let wide = k.ok("api-resources --api-group=apps --verbs=list -o wide");
    has(&wide, &["deploy", "StatefulSet", if k.is_old { "[create delete" } else { "create," }]);
    let (group, containers, seconds) = match k.is_old {
        // From OpenAPI v2.
        true => ("VERSION:  apps/v1", "containers\t<[]Object>", "terminationGracePeriodSeconds\t<integer>"),
        false => (
            "GROUP:      apps",
            "containers\t<[]Container> -required-",
            "terminationGracePeriodSeconds\t<integer>",
        ),
    };
    has(&k.ok("explain deployment.spec.strategy"), &[group, "rollingUpdate"]);
    has(&k.ok("explain pod --recursive"), &[containers, seconds]);
    has(&k.refused("explain pod.spec.nothing"), &["field \"nothing\" does not exist"]);
    has(&k.refused("top pods"), &["Metrics API not available"]);
    has(&k.refused("top nodes"), &["Metrics API not available"]);
    has(&k.ok("cluster-info"), &["Kubernetes control plane"]);
    has(&k.refused("get foo"), &["the server doesn't have a resource type \"foo\""]);
    has(&k.ok("version"), if k.is_old { &["Minor:\"36\""] } else { &["Server Version: v1.36"] });
    if k.is_old {
        return;
    }
    has(&k.ok("explain hpa --api-version=autoscaling/v2"), &["VERSION:    v2"]);
    let plain = k.ok("explain deployment --output=plaintext-openapiv2");
    has(&plain, &["VERSION:  apps/v1", "spec"]);
}

pub fn access_reviews_and_tokens(k: &Kubectl<'_>) {
    assert_eq!(k.ok("auth can-i create pods"), "yes\n");
    k.ok("create serviceaccount robot");
    let robot = format!("system:serviceaccount:{}:robot", k.namespace);
    let refused = k.run(&format!("auth can-i list pods --as={robot}"));
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), "no\n"));
    k.ok("create role reader --verb=get,list --resource=pods");
    k.ok(&format!("create rolebinding readers --role=reader --serviceaccount={}:robot", k.namespace));
    until("the binding counts", || {
        let can = k.run(&format!("auth can-i list pods --as={robot}"));
        if can.out == "yes\n" { Ok(()) } else { Err(format!("{can:?}")) }
    });
    has(&k.ok(&format!("auth can-i --list --as={robot}")), &["pods", "[get list]"]);
    let token = if k.is_old {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/robot/token", k.namespace);
        let made = k.input(&format!("create --raw {path} -f -"), &request.to_string());
        let made: serde_json::Value = serde_json::from_str(&made.out).expect("a TokenRequest");
        made["status"]["token"].as_str().expect("a token").to_owned()
    } else {
        has(&k.ok("auth whoami"), &["Username", "system:masters"]);
        k.ok("create token robot --duration=10m")
    };
    assert_eq!(token.trim().split('.').count(), 3);
    // The token alone, without the administrator's certificate.
    let config = k.file("robot.kubeconfig", "");
    let admin = std::fs::read_to_string(k.cluster.data().join("admin.kubeconfig")).expect("a kubeconfig");
    let server = admin.lines().find_map(|l| l.trim().strip_prefix("server: ")).expect("a server").to_owned();
    let flags = format!(
        "--kubeconfig={} --server={server} --insecure-skip-tls-verify --token={}",
        config.display(),
        token.trim()
    );
    if !k.is_old {
        has(&k.ok(&format!("{flags} auth whoami")), &[&robot]);
    }
    k.ok(&format!("{flags} get pods"));
    let forbidden = k.refused(&format!("{flags} get secrets"));
    has(
        &forbidden,
        &[&format!(
            "secrets is forbidden: User \"{robot}\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{}\"",
            k.namespace
        )],
    );
}

pub fn certificates_are_approved_and_roles_reconciled(k: &Kubectl<'_>) {
    let key = certificate_request(k);
    let name = format!("csr-{}", if k.is_old { "old" } else { "new" });
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": key, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]},
    });
    k.apply(&request.to_string());
    has(&k.ok("get csr"), &[&name, "Pending"]);
    assert_eq!(
        k.ok(&format!("certificate approve {name}")),
        format!("certificatesigningrequest.certificates.k8s.io/{name} approved\n")
    );
    until("the certificate is issued", || {
        let shown = k.ok(&format!("get csr {name}"));
        if shown.contains("Approved,Issued") { Ok(()) } else { Err(shown) }
    });
    has(&k.ok(&format!("describe csr {name}")), &["Status:", "Approved,Issued", "Common Name:    ada"]);
    k.ok(&format!("delete csr {name}"));
    k.apply(&request.to_string());
    k.ok(&format!("certificate deny {name}"));
    has(&k.ok(&format!("get csr {name}")), &["Denied"]);
    k.ok(&format!("delete csr {name}"));

    let role = |verbs: &[&str]| {
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
        let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r", "namespace": k.namespace}, "rules": rules});
        k.input("auth reconcile -f -", &object.to_string())
    };
    has(&role(&["get"]).out, &["role.rbac.authorization.k8s.io/r reconciled"]);
    let more = role(&["list"]);
    has(&(more.out + &more.err), &["missing rules added"]);
    let rules = &k.get("role/r")["rules"];
    let verbs: Vec<_> =
        rules.as_array().into_iter().flatten().flat_map(|r| r["verbs"].as_array()).flatten().collect();
    assert_eq!(verbs, ["get", "list"]);
}

/// A request for a certificate, in base64, made by openssl.
fn certificate_request(k: &Kubectl<'_>) -> String {
    let key = k.file("ada.key", "");
    let script = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {} -subj /CN=ada | base64 -w0",
        key.display()
    );
    let made = k.cluster.run("sh", &["-c", &script], None);
    assert!(made.ok() && made.out.starts_with("LS0t"), "{made:?}");
    made.out
}
