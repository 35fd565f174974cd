//! Commands that are used every day but belong to no area, and those that read the whole cluster.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::tool::*;

pub fn manifests_are_replaced_pruned_and_built(k: &Kubectl<'_>) {
    let map = |name: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": value},
            "metadata": {"name": name, "labels": {"set": "pruned"}}})
        .to_string()
    };
    k.apply(&map("one", "1"));
    let applied: Value = serde_json::from_str(&k.ok("apply view-last-applied cm/one -o json")).expect("JSON");
    assert_eq!(applied["data"], json!({"a": "1"}));
    let file = k.file("one.json", map("one", "2"));
    assert_eq!(k.ok(&format!("apply set-last-applied -f {}", file.display())), "configmap/one configured\n");
    has(&k.ok("apply view-last-applied cm one"), &["a: \"2\""]);
    let first = k.get("cm/one")["metadata"]["uid"].clone();
    let forced = k.ok(&format!("replace --force -f {}", file.display()));
    has(&forced, &["configmap \"one\" deleted", "configmap/one replaced"]);
    assert_ne!(k.get("cm/one")["metadata"]["uid"], first);

    let both = format!("{}\n{}\n", map("one", "1"), map("two", "1"));
    k.apply(&both);
    let flags = match k.is_old {
        true => "--prune-whitelist=core/v1/ConfigMap",
        false => "--prune-allowlist=core/v1/ConfigMap",
    };
    let pruned = k.input(&format!("apply --prune -l set=pruned {flags} -f -"), &map("two", "1"));
    assert!(pruned.ok(), "{pruned:?}");
    has(&pruned.out, &["configmap/two unchanged", "configmap/one pruned"]);
    has(&k.refused("get cm one"), &["NotFound"]);

    let folder = k.file(
        "kustomization.yaml",
        "namePrefix: built-\nresources: [map.yaml]\nconfigMapGenerator:\n- name: made\n  literals: [x=y]\n",
    );
    k.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {k: v}\n");
    let folder = folder.parent().expect("a folder").display().to_string();
    has(&k.ok(&format!("apply -k {folder}")), &["configmap/built-map created", "configmap/built-made-"]);
    has(&k.ok(&format!("kustomize {folder}")), &["name: built-map"]);
    let unchanged = k.run(&format!("diff -k {folder}"));
    assert_eq!((unchanged.code, unchanged.out.as_str()), (Some(0), ""), "{unchanged:?}");
    has(&k.ok(&format!("delete -k {folder}")), &["configmap \"built-map\" deleted"]);

    let edited = k.cluster.run(
        "env",
        &[
            "KUBE_EDITOR=sed -i /^..a:/s/1/edited/",
            &k.program.to_string_lossy(),
            "-n",
            &k.namespace,
            "edit",
            "cm",
            "two",
        ],
        None,
    );
    assert!(edited.ok(), "{edited:?}");
    assert_eq!(k.get("cm/two")["data"]["a"], "edited");
}

pub fn everyday_commands(k: &Kubectl<'_>) {
    k.apply(&web(1));
    assert_eq!(
        k.ok("autoscale deployment web --min=1 --max=3 --cpu-percent=80"),
        "horizontalpodautoscaler.autoscaling/web autoscaled\n"
    );
    let scaler = k.get("horizontalpodautoscalers.v2.autoscaling/web");
    assert_eq!(scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(
        k.get("horizontalpodautoscalers.v1.autoscaling/web")["spec"]["targetCPUUtilizationPercentage"],
        80
    );
    has(&k.ok("get hpa"), &["Deployment/web", "MINPODS"]);
    has(&k.ok("describe hpa web"), &["Reference:", "Deployment/web", "80%"]);
    k.ok("set serviceaccount deployment web default");
    k.ok("expose deployment web --port=80 --target-port=8080 --type=NodePort");
    assert_eq!(k.ok("set selector service web app=web,tier=a"), "service/web selector updated\n");
    assert_eq!(k.get("service/web")["spec"]["selector"], json!({"app": "web", "tier": "a"}));
    k.ok("create role r --verb=get --resource=pods");
    k.ok("create serviceaccount robot");
    k.ok("create rolebinding b --role=r --user=ada");
    k.ok(&format!("set subject rolebinding b --serviceaccount={}:robot", k.namespace));
    assert_eq!(k.get("rolebinding/b")["subjects"].as_array().map(Vec::len), Some(2));
    k.ok("create quota q --hard=pods=7,configmaps=9");
    until("the quota is counted", || {
        let quota = k.get("quota/q");
        if quota["status"]["used"]["pods"] == "1" { Ok(()) } else { Err(quota["status"].to_string()) }
    });
    has(&k.ok("describe quota q"), &["configmaps", "pods"]);
    k.ok("create ingress in --rule=example.com/*=web:80");
    has(&k.ok("get ingress in"), &["example.com"]);
    has(&k.ok("describe ingress in"), &["example.com", "web:80"]);
    k.ok("create priorityclass everyday --value=7 --dry-run=server");
    if !k.is_old {
        // The old one knows these by versions that no server has any more.
        k.ok("create poddisruptionbudget keep --selector=app=web --min-available=1");
        has(&k.ok("get pdb"), &["keep", "MIN AVAILABLE"]);
        k.ok(&format!("create cronjob c --image={IMAGE} --schedule=@hourly -- true"));
        k.ok("create job once --from=cronjob/c");
        k.ok("wait job/once --for=condition=complete --timeout=120s");
    }
    k.ok("create secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p");
    assert_eq!(k.get("secret/pull")["type"], "kubernetes.io/dockerconfigjson");
    let config = k.file("config", "");
    let set = |line: &str| {
        let line = format!("config --kubeconfig={} {line}", config.display());
        let ran = k.cluster.run(k.program, &line.split(' ').collect::<Vec<_>>(), None);
        assert!(ran.ok(), "{line}: {ran:?}");
        ran.out
    };
    set("set-cluster c --server=https://127.0.0.1:6443");
    set("set-context x --cluster=c --namespace=n");
    set("use-context x");
    assert_eq!(set("current-context"), "x\n");
    has(&set("get-contexts"), &["x", "c", "n"]);
    has(&k.ok("config view"), &["client-certificate-data"]);
    has(&k.ok("get componentstatuses"), &["NAME"]);
}

/// Everything that can be listed, as JSON.
pub fn the_cluster_is_dumped(k: &Kubectl<'_>) {
    let folder = k.file("x", "").with_file_name("dump").display().to_string();
    k.ok(&format!("cluster-info dump --namespaces={},kube-system --output-directory={folder}", k.namespace));
    let nodes = std::fs::read_to_string(format!("{folder}/nodes.json")).expect("a dump of the nodes");
    has(&nodes, &["\"kind\": \"NodeList\"", "node-1"]);
    let mut listed = String::new();
    for resource in k.ok("api-resources --verbs=list -o name").lines() {
        write!(listed, "{}{resource}", if listed.is_empty() { "" } else { "," }).expect("it has room");
    }
    has(
        &k.ok(&format!("get {listed} -A --ignore-not-found")),
        &["node-1", "kube-root-ca.crt", "cluster-admin"],
    );
}
