//! What kubectl does with objects: creating, applying, reading, changing, deleting.

use serde_json::{Value, json};

use crate::tool::*;

pub fn create_makes_every_kind(k: &Kubectl<'_>) {
    assert_eq!(k.ok("create configmap cm --from-literal=a=b"), "configmap/cm created\n");
    assert_eq!(k.get("cm/cm")["data"], json!({"a": "b"}));
    k.ok("create secret generic s --from-literal=password=hunter2");
    assert_eq!(k.get("secret/s")["data"]["password"], "aHVudGVyMg==");
    k.ok("create serviceaccount robot");
    k.ok("create role reader --verb=get,list --resource=pods");
    k.ok(&format!("create rolebinding readers --role=reader --serviceaccount={}:robot", k.namespace));
    k.ok("create clusterrole kubectl-nodes --verb=get --resource=nodes");
    k.ok(&format!(
        "create clusterrolebinding kubectl-nodes --clusterrole=kubectl-nodes --serviceaccount={}:robot",
        k.namespace
    ));
    let role = k.get("clusterrole/kubectl-nodes");
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]));
    k.ok("delete clusterrole,clusterrolebinding kubectl-nodes");

    k.ok(&format!("create deployment d --image={IMAGE} --replicas=0 --port=80"));
    let deployment = k.get("deployment/d");
    assert_eq!(deployment["spec"]["replicas"], 0);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["name"], "busybox");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(container.get("stdin"), None, "Go's zero is absence");
    k.ok("expose deployment d --port=80 --target-port=8080 --name=exposed");
    k.ok("create service clusterip plain --tcp=80:8080");
    k.ok("create service nodeport open --tcp=80:web");
    assert_eq!(k.get("service/open")["spec"]["ports"][0]["targetPort"], "web");
    k.ok(&format!("create job greet --image={IMAGE} -- echo greetings"));
    k.ok(&format!("run once --image={IMAGE} --restart=Never -- true"));
    k.ok("wait job/greet --for=condition=Complete --timeout=120s");
    assert_eq!(k.ok("logs job/greet"), "greetings\n");
    until("the pod has ended", || {
        let phase = k.ok("get pod once -o jsonpath={.status.phase}");
        if phase == "Succeeded" { Ok(()) } else { Err(phase) }
    });
    assert_eq!(k.ok("create configmap dry --from-literal=a=b --dry-run=server -o name"), "configmap/dry\n");
    has(&k.refused("get cm dry"), &["Error from server (NotFound): configmaps \"dry\" not found"]);
}

pub fn apply_creates_configures_and_leaves_alone(k: &Kubectl<'_>) {
    assert_eq!(k.apply(&config_map(&json!({"a": "1", "b": "1"}))), "configmap/cm created\n");
    assert_eq!(k.apply(&config_map(&json!({"a": "1", "b": "1"}))), "configmap/cm unchanged\n");
    let diff = k.input("diff -f -", &config_map(&json!({"a": "2"})));
    assert_eq!(diff.code, Some(1));
    has(&diff.out, &["-  a: \"1\"", "+  a: \"2\"", "-  b: \"1\""]);
    assert_eq!(k.apply(&config_map(&json!({"a": "2"}))), "configmap/cm configured\n");
    assert_eq!(k.get("cm/cm")["data"], json!({"a": "2"}), "what left the manifest left the object");

    k.ok("delete cm cm");
    let server =
        |data, flags: &str| k.input(&format!("apply --server-side {flags} -f -"), &config_map(&data));
    let other = server(json!({"c": "1", "d": "1"}), "--field-manager=other");
    assert_eq!(other.out, "configmap/cm serverside-applied\n");
    let conflict = server(json!({"c": "2"}), "--field-manager=third");
    has(&conflict.err, &["Apply failed with 1 conflict: conflict with \"other\": .data.c"]);
    assert!(server(json!({"c": "2"}), "--field-manager=third --force-conflicts").ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"c": "2", "d": "1"}));
    assert!(server(json!({"c": "1"}), "--field-manager=other --force-conflicts").ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"c": "1"}), "what its only manager leaves out goes");
    assert!(k.input("replace -f -", &config_map(&json!({"r": "1"}))).ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"r": "1"}));
}

pub fn get_prints_every_form(k: &Kubectl<'_>) {
    k.apply(&config_map(&json!({"a": "1"})));
    k.ok("create configmap other --from-literal=x=y");
    k.ok("label configmap other kind=other");
    assert_eq!(k.ok("get cm -l kind=other -o name"), "configmap/other\n");
    assert_eq!(
        k.ok("get cm -l kind!=other,!missing --field-selector=metadata.name=cm -o name"),
        "configmap/cm\n"
    );
    assert_eq!(k.ok("get cm cm -o jsonpath={.data.a}"), "1");
    assert_eq!(k.ok("get cm cm -o go-template={{.metadata.name}}"), "cm");
    let columns = k.ok("get cm --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,X:.data.x");
    assert_eq!(
        columns,
        "NAME               X\ncm                 <none>\nkube-root-ca.crt   <none>\nother              y\n"
    );
    has(&k.ok("get cm cm -o yaml"), &["apiVersion: v1\n", "data:\n  a: \"1\"\n", "kind: ConfigMap\n"]);
    has(&k.ok("get cm --show-labels"), &["LABELS", "kind=other"]);
    has(&k.ok("get cm -L kind"), &["KIND"]);
    has(
        &k.ok("get nodes -o wide"),
        &["INTERNAL-IP", "CONTAINER-RUNTIME", "node-1", "Ready", "containerd://"],
    );
    has(&k.ok("get all,cm -A"), &["NAMESPACE", "service/kubernetes", "configmap/other"]);
    let list: Value = serde_json::from_str(&k.ok("get cm,sa -o json")).expect("a list");
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
    let chunked = k.ok("get cm --chunk-size=1 -o name");
    assert_eq!(chunked.lines().count(), 3);
    has(&k.ok("get --raw /readyz"), &["ok"]);
}

pub fn changes_by_patch_label_and_annotation(k: &Kubectl<'_>) {
    k.apply(&web(0));
    let patch = |kind: &str, text: &str| k.ok_with("patch deployment web", &["--type", kind, "-p", text]);
    let container = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"i"}]}}}}"#;
    assert_eq!(patch("strategic", container), "deployment.apps/web patched\n");
    assert_eq!(patch("strategic", container), "deployment.apps/web patched (no change)\n");
    let names = "get deployment web -o jsonpath={.spec.template.spec.containers[*].name}";
    let mut both: Vec<String> = k.ok(names).split(' ').map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["main", "side"], "a strategic merge keeps the other element");
    patch(
        "json",
        r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/metadata/labels/x~1y","value":"1"}]"#,
    );
    patch("merge", r#"{"metadata":{"labels":{"app":null}}}"#);
    assert_eq!(k.get("deployment/web")["metadata"]["labels"], json!({"x/y": "1"}));
    if k.is_old {
        k.ok("scale deployment web --replicas=1");
    } else {
        let scale = k.ok_with(
            "patch deployment web --subresource=scale --type=merge",
            &["-p", r#"{"spec":{"replicas":1}}"#],
        );
        assert_eq!(scale, "scale.autoscaling/web patched\n");
    }
    assert_eq!(k.ok("scale deployment web --replicas=0"), "deployment.apps/web scaled\n");
    has(
        &k.refused("scale deployment web --replicas=3 --current-replicas=7"),
        &["Expected replicas to be 7, was 0"],
    );
    assert_eq!(k.get("deployment/web")["spec"]["replicas"], 0);

    assert_eq!(k.ok("label deployment web tier=a"), "deployment.apps/web labeled\n");
    has(
        &k.refused("label deployment web tier=b"),
        &["'tier' already has a value (a), and --overwrite is false"],
    );
    k.ok("label deployment web tier=b --overwrite");
    let unlabeled = if k.is_old { "labeled" } else { "unlabeled" };
    assert_eq!(k.ok("label deployment web tier-"), format!("deployment.apps/web {unlabeled}\n"));
    k.ok_with("annotate deployment web", &["note=two words"]);
    assert_eq!(k.get("deployment/web")["metadata"]["annotations"]["note"], "two words");
    assert_eq!(k.ok("set image deployment/web side=j"), "deployment.apps/web image updated\n");
    assert_eq!(k.ok("set env deployment/web -c main A=b"), "deployment.apps/web env updated\n");
    k.ok("set resources deployment/web -c main --limits=memory=64Mi --requests=cpu=10m");
    let spec = &k.get("deployment/web")["spec"]["template"]["spec"]["containers"];
    let main = spec.as_array().into_iter().flatten().find(|c| c["name"] == "main").expect("it is there");
    assert_eq!(main["env"], json!([{"name": "A", "value": "b"}]));
    assert_eq!(main["resources"], json!({"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}}));
}

pub fn deletion_follows_its_propagation(k: &Kubectl<'_>) {
    let pods = |what: &str| k.ok(&format!("get {what} -o name")).lines().count();
    let gone =
        |what: &str| until(what, || if pods(what) == 0 { Ok(()) } else { Err(k.ok(&format!("get {what}"))) });
    let ready = || {
        k.apply(&web(1));
        k.ok("rollout status deployment/web --timeout=120s");
    };
    ready();
    assert_eq!(k.ok("delete deployment web --cascade=orphan"), "deployment.apps \"web\" deleted\n");
    assert_eq!((pods("rs"), pods("pods")), (1, 1));
    ready();
    assert_eq!(pods("rs"), 1, "the orphan is adopted");
    k.ok("delete deployment web --cascade=foreground --timeout=60s");
    assert_eq!((pods("rs"), pods("pods")), (0, 0));
    ready();
    k.ok("delete deployment web --cascade=background");
    gone("rs");
    gone("pods");
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    let forced = k.run("delete pod two --force --grace-period=0");
    assert!(forced.ok(), "{forced:?}");
    has(&forced.err, &["Immediate deletion does not wait"]);
    assert_eq!(k.ok("delete pod two --ignore-not-found"), "");
    has(&k.refused("delete pod two"), &["Error from server (NotFound): pods \"two\" not found"]);
    k.ok("create configmap held --from-literal=a=b");
    k.ok_with("patch cm held --type=merge", &["-p", r#"{"metadata":{"finalizers":["example.com/hold"]}}"#]);
    k.ok("delete cm held --wait=false");
    assert!(k.get("cm/held")["metadata"]["deletionTimestamp"].is_string());
    k.ok_with("patch cm held --type=merge", &["-p", r#"{"metadata":{"finalizers":null}}"#]);
    until("it is gone", || match k.run("get cm held") {
        ran if ran.ok() => Err(ran.out),
        _ => Ok(()),
    });
}

pub fn describe_knows_every_kind(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("expose deployment web --port=80 --target-port=8080");
    k.ok("rollout status deployment/web --timeout=120s");
    has(&k.ok("describe deployment web"), &["NewReplicaSet:   web-", "ScalingReplicaSet", "1 available"]);
    has(&k.ok("describe rs"), &["Controlled By:  Deployment/web", "SuccessfulCreate"]);
    has(&k.ok("describe pods"), &["node-1/", "QoS Class:", "BestEffort", "Scheduled", "Started"]);
    has(&k.ok("describe service web"), &["TargetPort:", "8080/TCP", "Endpoints:"]);
    has(&k.ok("describe node node-1"), &["MemoryPressure", "Non-terminated Pods:", "Allocated resources:"]);
    has(&k.ok(&format!("describe namespace {}", k.namespace)), &["Status:       Active"]);
    if !k.is_old {
        has(&k.ok("describe endpointslices"), &["AddressType:  IPv4", "TargetRef:  Pod/web-"]);
    }
    k.ok("create secret generic s --from-literal=a=b");
    has(&k.ok("describe secret s"), &["Type:  Opaque", "a:  1 bytes"]);
    has(&k.ok("describe storageclass local-path"), &["IsDefaultClass:        Yes"]);
    has(&k.ok("describe clusterrole cluster-admin"), &["PolicyRule:", "*.*"]);
    for kind in ["endpoints", "configmaps", "serviceaccounts", "events", "clusterrolebindings"] {
        assert!(!k.ok(&format!("describe {kind}")).is_empty(), "describe {kind}");
    }
    has(&k.ok("describe lease node-1 -n kube-node-lease"), &["Holder Identity:         node-1"]);
}

pub fn bad_input_is_refused_with_the_reason(k: &Kubectl<'_>) {
    let create = |object: &Value| k.input("create -f -", &object.to_string());
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dat": {}});
    if k.is_old {
        // It looks itself, with OpenAPI v2.
        let text = "ValidationError(ConfigMap): unknown field \"dat\" in io.k8s.api.core.v1.ConfigMap";
        has(&create(&unknown).err, &[text]);
        assert!(k.input("create --validate=false -f -", &unknown.to_string()).ok());
    } else {
        has(&create(&unknown).err, &["(BadRequest)", "strict decoding error: unknown field \"dat\""]);
        let warned = k.input("create --validate=warn -f -", &unknown.to_string());
        assert!(warned.ok());
        has(&warned.err, &["Warning: unknown field \"dat\""]);
    }
    let name = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not_A_Name"}});
    has(
        &create(&name).err,
        &["The ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\""],
    );
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}});
    has(&create(&pod).err, &["The Pod \"p\" is invalid: spec.containers: Required value"]);
    k.apply(&config_map(&json!({"a": "1"})));
    let stale =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "resourceVersion": "1"}});
    has(
        &k.input("replace -f -", &stale.to_string()).err,
        &[
            "(Conflict)",
            "the object has been modified; please apply your changes to the latest version and try again",
        ],
    );
    has(
        &create(&serde_json::from_str(&config_map(&json!({}))).expect("JSON")).err,
        &["(AlreadyExists)", "configmaps \"cm\" already exists"],
    );
    let large = config_map(&json!({"a": "a".repeat(3_500_000)}));
    has(&k.input("create -f -", &large).err, &["RequestEntityTooLarge", "limit is 3145728"]);
    let full = config_map(&json!({"a": "a".repeat(1_100_000)}));
    has(&k.input("replace -f -", &full).err, &["Too long: may not be more than 1048576 bytes"]);
    has(&k.refused("get pods --field-selector=spec.foo=1"), &["field label not supported: spec.foo"]);
    has(&k.refused("get pods nothing"), &["Error from server (NotFound): pods \"nothing\" not found"]);
    has(&k.refused("exec nothing -- true"), &["pods \"nothing\" not found"]);
    has(&k.refused("create namespace kube-system"), &["namespaces \"kube-system\" already exists"]);
    has(&k.refused("delete namespace kube-system"), &["this namespace may not be deleted"]);
}

pub fn watches_and_waits(k: &Kubectl<'_>) {
    k.ok("create configmap first --from-literal=a=b");
    let mut watch = k.start("get cm -w -o custom-columns=N:.metadata.name --no-headers --field-selector=metadata.name!=kube-root-ca.crt");
    assert_eq!(watch.line(), "first");
    k.ok("create configmap second --from-literal=a=b");
    assert_eq!(watch.line(), "second");
    if !k.is_old {
        // The old one takes it for an error that there is nothing to wait for any more.
        let mut waiting = k.start("wait cm/first --for=delete --timeout=120s");
        k.ok("delete configmap first");
        let (rest, ended_well) = waiting.rest();
        assert!(ended_well, "{rest}");
    }
    has(
        &k.refused("wait cm/second --for=condition=Never --timeout=1s"),
        &["timed out waiting for the condition"],
    );
    if !k.is_old {
        has(
            &k.refused("wait cm/second --for=jsonpath={.data.a}=c --timeout=1s"),
            &["timed out waiting for the condition"],
        );
        k.ok("wait cm/second --for=jsonpath={.data.a}=b --timeout=30s");
    }
}
