//! A server that runs no containers, and a node on another machine that joins it. The server's network has no route to
//! pods and services: what it wants of them goes through the node's kubelet.
//!
//! The node's certificates come from the certificates API, as an administrator would make them. There is one node, so
//! nothing here depends on routes between the pods of several.

use gantry_lab::clients::script;
use gantry_lab::cluster::Cluster;
use gantry_lab::netns::{NODE_IP, OTHER_IP};
use gantry_lab::wait::until;
use serde_json::json;

const IMAGE: &str = "gantry.test/busybox:1";
const USER: &str = "system:node:node-2";
/// A page of the pod `web` through the server.
const POD_PAGE: &str = "/api/v1/namespaces/default/pods/web:8080/proxy/";

/// A key and a certificate for `node-2`, as files of this name in the server's folder.
struct Issued {
    key: String,
    certificate: String,
}

/// Makes a key with openssl, and has a signer issue a certificate. `config` is whoever asks for it.
fn issue(server: &Cluster, name: &str, signer: &str, usages: &[&str], extra: &str, config: &str) -> Issued {
    let folder = server.data().display();
    let (key, certificate) = (format!("{folder}/{name}.key"), format!("{folder}/{name}.crt"));
    let script = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} \
         -subj /O=system:nodes/CN={USER} {extra} | base64 -w0"
    );
    let request = server.run("sh", &["-c", &script], None);
    assert!(request.ok(), "openssl: {request:?}");
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": request.out, "signerName": signer, "usages": usages},
    });
    let asked =
        server.run("kubectl", &["--kubeconfig", config, "create", "-f", "-"], Some(&object.to_string()));
    assert!(asked.ok(), "{asked:?}");
    server.kubectl_ok(&["certificate", "approve", name]);
    let issued = until("the certificate is issued", || {
        let path = "jsonpath={.status.certificate}";
        let found = server.kubectl_ok(&["get", "csr", name, "-o", path]);
        if found.is_empty() { Err(server.kubectl_ok(&["get", "csr"])) } else { Ok(found) }
    });
    let decoded = server.run("base64", &["-d"], Some(&issued));
    std::fs::write(&certificate, decoded.out).expect("a file");
    Issued { key, certificate }
}

#[test]
fn a_node_joins_from_another_machine() {
    let (server, agent) = Cluster::prepare_two().expect("two places");
    server.launch_as(&["server", "--no-agent", "--node-name", "server", "--node-ip", NODE_IP]);
    until("the server answers", || {
        server.check_alive();
        let ready = server.kubectl(&["get", "--raw", "/readyz"]);
        if ready.out == "ok" { Ok(()) } else { Err(format!("{ready:?}")) }
    });
    assert_eq!(server.kubectl_ok(&["get", "nodes", "-o", "name"]), "", "a server alone is no node");

    let admin = server.data().join("admin.kubeconfig").display().to_string();
    let usages = &["digital signature", "client auth"];
    let node = issue(&server, "node-2", "kubernetes.io/kube-apiserver-client-kubelet", usages, "", &admin);
    let config = server.data().join("node-2.kubeconfig").display().to_string();
    let address = format!("https://{NODE_IP}:6443");
    let authority = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let authority = server.kubectl_ok(&["config", "view", "--raw", "-o", authority]);
    let pem = server.run("base64", &["-d"], Some(&authority)).out;
    let ca = server.data().join("ca.crt");
    std::fs::write(&ca, pem).expect("a file");
    let set = |words: &[&str]| {
        let mut all = vec!["--kubeconfig", config.as_str(), "config"];
        all.extend_from_slice(words);
        server.kubectl_ok(&all);
    };
    let ca = format!("--certificate-authority={}", ca.display());
    set(&["set-cluster", "c", &format!("--server={address}"), &ca, "--embed-certs"]);
    let (key, certificate) =
        (format!("--client-key={}", node.key), format!("--client-certificate={}", node.certificate));
    set(&["set-credentials", "node", &key, &certificate, "--embed-certs"]);
    set(&["set-context", "x", "--cluster=c", "--user=node"]);
    set(&["use-context", "x"]);
    let who = server.kubectl_ok(&[
        "--kubeconfig",
        &config,
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo.username}",
    ]);
    assert_eq!(who, USER);

    // The node itself asks for the certificate of its server.
    let names = format!("-addext subjectAltName=IP:{OTHER_IP},DNS:node-2");
    let usages = &["digital signature", "server auth"];
    let serving = issue(&server, "serving", "kubernetes.io/kubelet-serving", usages, &names, &config);

    let arguments = [
        "agent",
        "--node-name",
        "node-2",
        "--node-ip",
        OTHER_IP,
        "--kubeconfig",
        &config,
        "--tls-certificate",
        &serving.certificate,
        "--tls-key",
        &serving.key,
    ];
    agent.launch_as(&arguments);
    until("the node has come", || {
        agent.check_alive();
        let nodes = server.kubectl_ok(&["get", "nodes", "-o", "name"]);
        if nodes == "node/node-2\n" { Ok(()) } else { Err(format!("{nodes}\n{}", agent.log_tail(20))) }
    });
    server.wait_node("node-2");
    agent.load_images(&[IMAGE]);
    pods_run_and_answer(&server);
    the_server_reaches_pods_and_services(&server);

    // The node lives on without its agent's process, and its agent finds everything again.
    agent.kill();
    let gone = server.kubectl(&["get", "--raw", POD_PAGE]);
    let reason =
        "through the kubelet of node \"node-2\": dial tcp 192.168.77.2:10250: connect: connection refused";
    assert!(gone.err.contains(reason), "{gone:?}");
    agent.launch_as(&arguments);
    until("the agent answers again", || {
        let ran = server.kubectl(&["exec", "web", "--", "cat", "/www/index.html"]);
        if ran.out == "from node-2\n" { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    assert_eq!(server.kubectl_ok(&["get", "pod", "web", "-o", restarts]), "0");
}

fn pods_run_and_answer(server: &Cluster) {
    let script =
        "mkdir /www; echo from node-2 > /www/index.html; echo started; exec httpd -f -p 8080 -h /www";
    server.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}]},
        })
        .to_string(),
    );
    server.kubectl_ok(&["wait", "pod/web", "--for=condition=Ready", "--timeout=120s"]);
    let wide = server.kubectl_ok(&["get", "pod", "web", "-o", "wide"]);
    assert!(wide.contains("node-2"), "{wide}");
    assert_eq!(server.kubectl_ok(&["logs", "web"]), "started\n");
    assert_eq!(server.kubectl_ok(&["exec", "web", "--", "echo", "hello"]), "hello\n");
    let forward = "kubectl port-forward pod/web 18080:8080 >/dev/null & p=$!; \
                   for i in $(seq 100); do curl -s --max-time 20 http://127.0.0.1:18080/ && break; sleep 0.1; done; kill $p";
    assert_eq!(server.run("sh", &["-c", forward], None).out, "from node-2\n");
    // Names, service addresses, and the way from a pod to the server.
    server.kubectl_ok(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    let address = server.kubectl_ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let found = format!(
        "nslookup web.default.svc.cluster.local >&2 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {address} 80 | tail -n 1"
    );
    until("the service has a name and answers", || {
        let ran = server.kubectl(&["exec", "web", "--", "sh", "-c", &found]);
        if ran.out == "from node-2\n" { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let server_up = server.kubectl(&["exec", "web", "--", "nc", "-w", "20", "10.43.0.1", "443"]);
    assert!(server_up.ok(), "{server_up:?}");
    let stats = server.kubectl_ok(&["get", "--raw", "/api/v1/nodes/node-2/proxy/stats/summary"]);
    assert!(
        stats.contains("\"nodeName\":\"node-2\"") || stats.contains("\"nodeName\": \"node-2\""),
        "{stats}"
    );
}

/// `proxy`, a webhook and an aggregated API, all in pods of the other machine.
fn the_server_reaches_pods_and_services(server: &Cluster) {
    let direct = server.run("nc", &["-z", "-w", "5", &pod_ip(server, "web"), "8080"], None);
    assert!(!direct.ok(), "the server's own network leads to the pod: this test shows nothing");
    let page = |path: &str| server.kubectl_ok(&["get", "--raw", path]);
    assert_eq!(page(POD_PAGE), "from node-2\n");
    assert_eq!(page("/api/v1/namespaces/default/services/web:80/proxy/index.html"), "from node-2\n");

    let authority = start_extension(server);
    let greeting = "{\"from\": \"node-2\"}";
    assert_eq!(page("/api/v1/namespaces/default/services/https:extension:443/proxy/"), greeting);
    server.apply(
        &json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1.extension.gantry.test"},
            "spec": {"group": "extension.gantry.test", "version": "v1", "groupPriorityMinimum": 1000,
                "versionPriority": 10, "caBundle": authority,
                "service": {"namespace": "default", "name": "extension", "port": 443}},
        })
        .to_string(),
    );
    server.kubectl_ok(&[
        "wait",
        "apiservice/v1.extension.gantry.test",
        "--for=condition=Available",
        "--timeout=60s",
    ]);
    let list = "{\"kind\": \"GreetingList\", \"from\": \"node-2\"}";
    assert_eq!(page("/apis/extension.gantry.test/v1/greetings"), list);

    server.apply(
        &json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "extension"},
            "webhooks": [{"name": "extension.gantry.test", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "objectSelector": {"matchLabels": {"asked": "yes"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                "clientConfig": {"caBundle": authority,
                    "service": {"namespace": "default", "name": "extension", "path": "/validate"}}}],
        })
        .to_string(),
    );
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "asked", "labels": {"asked": "yes"}}});
    let refusal = "admission webhook \"extension.gantry.test\" denied the request: said on node-2";
    until("the webhook is asked", || {
        let asked =
            server.run("kubectl", &["create", "--dry-run=server", "-f", "-"], Some(&object.to_string()));
        if asked.err.contains(refusal) { Ok(()) } else { Err(format!("{asked:?}")) }
    });
}

fn pod_ip(server: &Cluster, pod: &str) -> String {
    server.kubectl_ok(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

/// Starts `extension.py` in a pod, by the machine's own Python, behind a service. Says who vouches for it, in base64.
fn start_extension(server: &Cluster) -> String {
    let folder = server.data().display();
    let (key, certificate) = (format!("{folder}/extension.key"), format!("{folder}/extension.crt"));
    let make = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -keyout {key} \
         -subj /CN=extension -addext subjectAltName=DNS:extension.default.svc -out {certificate} && base64 -w0 {certificate}"
    );
    let authority = server.run("sh", &["-c", &make], None);
    assert!(authority.ok(), "openssl: {authority:?}");
    let python = server.run("python3", &["-c", "import sys; print(sys.executable, end='')"], None);
    assert!(python.ok(), "python3: {python:?}");
    let script = std::path::absolute(script("python/extension.py")).expect("a current directory");
    let command = [
        "chroot",
        "/machine",
        &python.out,
        "-B",
        &script.to_string_lossy(),
        "8443",
        &certificate,
        &key,
        "node-2",
    ];
    server.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "extension", "labels": {"app": "extension"}},
            "spec": {"terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "machine", "hostPath": {"path": "/"}}],
                "containers": [{"name": "main", "image": IMAGE, "command": command,
                    "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "machine", "mountPath": "/machine", "readOnly": true}]}]},
        })
        .to_string(),
    );
    server.kubectl_ok(&["expose", "pod", "extension", "--port=443", "--target-port=8443"]);
    let ready = server.kubectl(&["wait", "pod/extension", "--for=condition=Ready", "--timeout=120s"]);
    assert!(ready.ok(), "{ready:?}\n{:?}", server.kubectl(&["logs", "extension"]));
    until("the service has an endpoint", || {
        let path = "jsonpath={.subsets[*].addresses[*].ip}";
        let found = server.kubectl_ok(&["get", "endpoints", "extension", "-o", path]);
        if found.is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
    });
    authority.out
}
