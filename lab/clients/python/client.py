"""The official Python client against a cluster: what its users rely on, from create to leader election.

Each function is one area, in a namespace of its own; all run, and those that failed are named at the end.
Usage: client.py, with KUBECONFIG in the environment.
"""

import base64
import sys
import tempfile
import threading
import time
import traceback
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

IMAGE = "gantry.test/busybox:1"
PATIENCE = 120  # seconds for whatever another process does

config.load_kube_config()
core = client.CoreV1Api()
apps = client.AppsV1Api()
batch = client.BatchV1Api()
extensions = client.ApiextensionsV1Api()
customs = client.CustomObjectsApi()


def refused(status, reason, call, *args, **kwargs):
    """Calls what must be refused, and returns the error."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        body = client.ApiClient().deserialize(error.body, "V1Status", "application/json")
        assert (error.status, body.reason) == (status, reason), (error.status, error.body)
        return body
    raise AssertionError(f"{call.__name__} is refused with {status} {reason}")


def until(what, look):
    """Looks until `look` returns something true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not after {PATIENCE} s")


def config_map(name, **data):
    metadata = client.V1ObjectMeta(name=name, labels={"app": "x"})
    return client.V1ConfigMap(metadata=metadata, data=data)


def pod(name, script, **spec):
    container = client.V1Container(name="main", image=IMAGE, command=["sh", "-c", script])
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0, **spec)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name), spec=spec)


def run(ns, name, script):
    """Creates a pod and waits, by watching, until it is ready."""
    core.create_namespaced_pod(ns, pod(name, script))
    looking = watch.Watch()
    field = f"metadata.name={name}"
    for event in looking.stream(core.list_namespaced_pod, ns, field_selector=field, timeout_seconds=PATIENCE):
        conditions = event["object"].status.conditions or []
        if any(c.type == "Ready" and c.status == "True" for c in conditions):
            looking.stop()
            return
    raise AssertionError(f"{name} is not ready")


def objects(ns):
    created = core.create_namespaced_config_map(ns, config_map("a", k="1"))
    assert created.metadata.uid and created.metadata.creation_timestamp.tzinfo
    assert core.read_namespaced_config_map("a", ns).data == {"k": "1"}
    error = refused(409, "AlreadyExists", core.create_namespaced_config_map, ns, config_map("a"))
    assert error.message == 'configmaps "a" already exists', error.message
    error = refused(404, "NotFound", core.read_namespaced_config_map, "none", ns)
    assert (error.details.kind, error.details.name) == ("configmaps", "none")
    created.data["k"] = "2"
    replaced = core.replace_namespaced_config_map("a", ns, created)
    assert replaced.metadata.resource_version != created.metadata.resource_version
    refused(409, "Conflict", core.replace_namespaced_config_map, "a", ns, created)
    dry = core.create_namespaced_config_map(ns, config_map("dry"), dry_run="All")
    assert dry.metadata.uid
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", ns)
    generated = client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="gen-"), binary_data={
        "b": base64.b64encode(bytes(range(256))).decode()})
    generated = core.create_namespaced_config_map(ns, generated)
    assert generated.metadata.name.startswith("gen-") and len(generated.metadata.name) == 9
    assert base64.b64decode(generated.binary_data["b"]) == bytes(range(256))
    # The client itself refuses fields that it does not know, so a patch says what it does not look into.
    strict = {"metadata": {"nonsense": "1"}}
    error = refused(422, "Invalid", core.patch_namespaced_config_map, "a", ns, strict, field_validation="Strict")
    assert 'unknown field "metadata.nonsense"' in error.message, error.message
    answer = core.patch_namespaced_config_map_with_http_info("a", ns, strict, field_validation="Warn")
    headers = answer[2]
    assert headers["Warning"] == '299 - "unknown field \\"metadata.nonsense\\""', headers
    error = refused(422, "Invalid", core.create_namespaced_config_map, ns, config_map("Not_A_Name"))
    assert error.details.causes[0].field == "metadata.name"


def pages(ns):
    for i in range(7):
        core.create_namespaced_config_map(ns, config_map(f"page-{i}"))
    names, token, remaining = [], None, []
    while True:
        page = core.list_namespaced_config_map(ns, label_selector="app=x", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        remaining.append(page.metadata.remaining_item_count)
        token = page.metadata._continue
        if not token:
            break
        # What comes later is not in the snapshot of the first page.
        core.create_namespaced_config_map(ns, config_map(f"page-9{len(names)}"))
    assert names == [f"page-{i}" for i in range(7)], names
    # Upstream counts what remains only for lists without a selector.
    assert remaining == [None, None, None], remaining
    page = core.list_namespaced_config_map(ns, limit=1)
    assert page.metadata.remaining_item_count == 9, page.metadata
    exact = core.list_namespaced_config_map(ns, resource_version=page.metadata.resource_version,
                                            resource_version_match="Exact")
    assert len(exact.items) == 10
    one = core.list_namespaced_config_map(ns, field_selector="metadata.name=page-3", resource_version="0")
    assert [item.metadata.name for item in one.items] == ["page-3"]
    refused(400, "BadRequest", core.list_namespaced_config_map, ns, field_selector="data.a=b")


def watching(ns):
    listed = core.list_namespaced_config_map(ns, label_selector="app=x")
    start = listed.metadata.resource_version

    def change():
        core.create_namespaced_config_map(ns, config_map("w", n="1"))
        core.patch_namespaced_config_map("w", ns, {"data": {"n": "2"}})
        core.patch_namespaced_config_map("w", ns, {"metadata": {"labels": {"app": "y"}}})
        core.patch_namespaced_config_map("w", ns, {"metadata": {"labels": {"app": "x"}}})
        core.delete_namespaced_config_map("w", ns)

    changes = threading.Thread(target=change)
    changes.start()
    seen, looking = [], watch.Watch()
    for event in looking.stream(core.list_namespaced_config_map, ns, label_selector="app=x",
                                resource_version=start, timeout_seconds=PATIENCE):
        seen.append((event["type"], event["object"].data["n"]))
        if len(seen) == 5:
            looking.stop()
    changes.join()
    # An object that leaves the selection is deleted for the watcher.
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2"), ("ADDED", "2"), ("DELETED", "2")], seen

    # A streaming list: the objects, then the bookmark that says that these are all.
    core.create_namespaced_config_map(ns, config_map("s", n="1"))
    looking = watch.Watch()
    streamed = []
    for event in looking.stream(core.list_namespaced_config_map, ns, label_selector="app=x", timeout_seconds=30,
                                send_initial_events=True, allow_watch_bookmarks=True,
                                resource_version_match="NotOlderThan"):
        streamed.append(event["type"])
        if event["type"] == "BOOKMARK":
            annotations = event["raw_object"]["metadata"]["annotations"]
            assert annotations == {"k8s.io/initial-events-end": "true"}, annotations
            looking.stop()
    assert streamed == ["ADDED", "BOOKMARK"], streamed


def watching_from_the_past(ns):
    """What is older than the server remembers is Gone; a new list goes on."""
    old = core.create_namespaced_config_map(ns, config_map("old", n="0")).metadata.resource_version
    for i in range(20):
        core.patch_namespaced_config_map("old", ns, {"data": {"n": str(i), "large": str(i % 10) * 1_000_000}})
    try:
        for event in watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=old,
                                          timeout_seconds=PATIENCE):
            raise AssertionError(f"events from {old}: {event['type']}")
        raise AssertionError(f"a watch from {old} ended without an error")
    except ApiException as error:
        assert error.status == 410 and error.reason.startswith("Expired: too old resource version: "), error
    listed = core.list_namespaced_config_map(ns, field_selector="metadata.name=old")
    core.patch_namespaced_config_map("old", ns, {"data": {"n": "after", "large": None}})
    looking = watch.Watch()
    for event in looking.stream(core.list_namespaced_config_map, ns, timeout_seconds=PATIENCE,
                                resource_version=listed.metadata.resource_version):
        assert (event["type"], event["object"].data["n"]) == ("MODIFIED", "after"), event["type"]
        looking.stop()


def patches(ns):
    core.create_namespaced_config_map(ns, config_map("p", a="1", b="2"))
    patch = core.patch_namespaced_config_map
    changed = patch("p", ns, [{"op": "replace", "path": "/data/a", "value": "3"}],
                    _content_type="application/json-patch+json")
    assert changed.data == {"a": "3", "b": "2"}
    changed = patch("p", ns, {"data": {"b": None, "c": "4"}}, _content_type="application/merge-patch+json")
    assert changed.data == {"a": "3", "c": "4"}
    error = refused(422, "Invalid", patch, "p", ns, [{"op": "test", "path": "/data/a", "value": "9"}],
                    _content_type="application/json-patch+json")
    assert error.message == "the server rejected our request due to an error in our request", error.message

    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "d"}),
                                        spec=pod("d", "exec sleep 3600").spec)
    deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=client.V1DeploymentSpec(
        replicas=0, selector=client.V1LabelSelector(match_labels={"app": "d"}), template=template))
    apps.create_namespaced_deployment(ns, deployment)
    side = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": IMAGE}]}}}}
    merged = apps.patch_namespaced_deployment("d", ns, side, _content_type="application/strategic-merge-patch+json")
    assert sorted(c.name for c in merged.spec.template.spec.containers) == ["main", "side"]
    scaled = apps.patch_namespaced_deployment_scale("d", ns, {"spec": {"replicas": 1}},
                                                    _content_type="application/merge-patch+json")
    assert (scaled.kind, scaled.spec.replicas) == ("Scale", 1)
    assert apps.read_namespaced_deployment_scale("d", ns).spec.replicas == 1
    status = {"status": {"conditions": [{"type": "Mine", "status": "True"}]}}
    patched = apps.patch_namespaced_deployment_status("d", ns, status)
    assert "Mine" in [c.type for c in patched.status.conditions]

    apply = "application/apply-patch+yaml"
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1", "b": "1"}}
    patch("applied", ns, mine, _content_type=apply, field_manager="one")
    theirs = {**mine, "data": {"a": "2"}}
    error = refused(409, "Conflict", patch, "applied", ns, theirs, _content_type=apply, field_manager="two")
    assert error.details.causes[0].field == ".data.a", error
    taken = patch("applied", ns, theirs, _content_type=apply, field_manager="two", force=True)
    assert sorted(m.manager for m in taken.metadata.managed_fields) == ["one", "two"]
    again = patch("applied", ns, theirs, _content_type=apply, field_manager="two")
    assert again.metadata.resource_version == taken.metadata.resource_version
    left = patch("applied", ns, {**mine, "data": {}}, _content_type=apply, field_manager="one")
    assert left.data == {"a": "2"}, "what its only manager leaves out goes"


def deletions(ns):
    def job(name):
        template = pod(name, "exec sleep 3600", restart_policy="Never").spec
        spec = client.V1JobSpec(template=client.V1PodTemplateSpec(spec=template))
        return client.V1Job(metadata=client.V1ObjectMeta(name=name), spec=spec)

    def pods(name):
        return core.list_namespaced_pod(ns, label_selector=f"job-name={name}").items

    def gone(name):
        try:
            batch.read_namespaced_job(name, ns)
        except ApiException as error:
            return error.status == 404
        return False

    for name in ["orphan", "foreground", "background"]:
        batch.create_namespaced_job(ns, job(name))
    for name in ["orphan", "foreground", "background"]:
        until(f"the pod of {name} exists", lambda name=name: pods(name))
    batch.delete_namespaced_job("orphan", ns, propagation_policy="Orphan")
    until("orphan is deleted", lambda: gone("orphan"))
    until("its pod has no owner", lambda: not pods("orphan")[0].metadata.owner_references)
    # A finalizer that nobody takes off any more would keep the pod, and its namespace, for ever.
    until("its pod is let go", lambda: not pods("orphan")[0].metadata.finalizers)
    options = client.V1DeleteOptions(propagation_policy="Foreground")
    batch.delete_namespaced_job("foreground", ns, body=options)
    until("foreground is deleted", lambda: gone("foreground"))
    assert not pods("foreground"), "the pods went first"
    uid = batch.read_namespaced_job("background", ns).metadata.uid
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=str(uuid.uuid4())))
    refused(409, "Conflict", batch.delete_namespaced_job, "background", ns, body=wrong)
    right = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=uid), propagation_policy="Background")
    batch.delete_namespaced_job("background", ns, body=right)
    until("the pods of background are deleted", lambda: not pods("background"))

    held = config_map("held")
    held.metadata.finalizers = ["example.com/hold"]
    core.create_namespaced_config_map(ns, held)
    core.delete_namespaced_config_map("held", ns)
    assert core.read_namespaced_config_map("held", ns).metadata.deletion_timestamp
    core.patch_namespaced_config_map("held", ns, {"metadata": {"finalizers": None}},
                                     _content_type="application/merge-patch+json")
    refused(404, "NotFound", core.read_namespaced_config_map, "held", ns)
    for i in range(3):
        core.create_namespaced_config_map(ns, config_map(f"many-{i}"))
    core.delete_collection_namespaced_config_map(ns, label_selector="app=x")
    assert not core.list_namespaced_config_map(ns, label_selector="app=x").items


def streams(ns):
    run(ns, "shell", "echo one; echo two; while ! test -e /tmp/go; do sleep 0.1; done; echo three; exec sleep 3600")
    execute = core.connect_get_namespaced_pod_exec
    quick = dict(stderr=True, stdin=False, stdout=True, tty=False)
    said = stream(execute, "shell", ns, command=["sh", "-c", "echo out; echo err >&2"], **quick)
    assert sorted(said.split()) == ["err", "out"], said
    for i in range(10):
        assert stream(execute, "shell", ns, command=["echo", str(i)], **quick) == f"{i}\n"

    shell = stream(execute, "shell", ns, command=["sh"], stderr=True, stdin=True, stdout=True, tty=False,
                   _preload_content=False)
    shell.write_stdin("echo $((6 * 7))\n")
    assert shell.readline_stdout(timeout=PATIENCE) == "42"
    shell.write_stdin("echo oh >&2\n")
    assert shell.readline_stderr(timeout=PATIENCE) == "oh"
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=PATIENCE)
    assert shell.returncode == 3, shell.returncode
    shell.close()

    sent = bytes(range(256)) * 4096
    cat = stream(execute, "shell", ns, command=["sh", "-c", f"head -c {len(sent)} | md5sum"], stderr=True, stdin=True,
                 stdout=True, tty=False, binary=True, _preload_content=False)
    for at in range(0, len(sent), 65536):
        cat.write_stdin(sent[at:at + 65536])
    cat.run_forever(timeout=PATIENCE)
    import hashlib
    assert cat.read_stdout().split()[0].decode() == hashlib.md5(sent).hexdigest()
    large = stream(execute, "shell", ns, command=["head", "-c", "3000000", "/dev/zero"], binary=True, **quick)
    assert large == bytes(3_000_000), len(large)
    terminal = stream(execute, "shell", ns, command=["sh", "-c", "stty size; cat"], stderr=False, stdin=True,
                      stdout=True, tty=True, _preload_content=False)
    terminal.write_channel(4, '{"Width":101,"Height":37}')
    terminal.readline_stdout(timeout=PATIENCE)
    terminal.close()
    attached = stream(core.connect_get_namespaced_pod_attach, "shell", ns, stdout=True, stderr=True, stdin=False,
                      tty=False, _preload_content=False)

    followed = []

    def follow():
        for line in watch.Watch().stream(core.read_namespaced_pod_log, "shell", ns):
            followed.append(line)
            if line == "three":
                return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    until("two lines", lambda: followed == ["one", "two"])
    stream(execute, "shell", ns, command=["touch", "/tmp/go"], **quick)
    following.join(PATIENCE)
    assert followed == ["one", "two", "three"], followed
    assert attached.readline_stdout(timeout=PATIENCE) == "three"
    attached.close()
    assert core.read_namespaced_pod_log("shell", ns, tail_lines=1) == "three\n"
    assert core.read_namespaced_pod_log("shell", ns, limit_bytes=3) == "one"
    stamped = core.read_namespaced_pod_log("shell", ns, timestamps=True).splitlines()[0]
    assert stamped.endswith("Z one"), stamped
    missing = [ApiException, 400]
    try:
        stream(execute, "shell", ns, command=["true"], container="none", **quick)
        raise AssertionError("there is no such container")
    except ApiException as error:
        assert "container none is not valid for pod shell" in str(error) or error.status in missing, error


def forwards(ns):
    script = "mkdir /www; echo hello > /www/index.html; httpd -p 8080 -h /www; exec httpd -f -p 8081 -h /www"
    run(ns, "web", script)
    def ask(connection):
        connection.settimeout(PATIENCE)
        connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")

    both = portforward(core.connect_get_namespaced_pod_portforward, "web", ns, ports="8080,8081")
    for port in [8080, 8081]:
        ask(both.socket(port))
        answer = b""
        while not answer.endswith(b"hello\n"):
            answer += both.socket(port).recv(4096)
        assert b" 200 OK\r\n" in answer and both.error(port) is None, answer
    both.close()
    # This protocol says only by closing the connection that a pod has ended its side.
    one = portforward(core.connect_get_namespaced_pod_portforward, "web", ns, ports="8080")
    ask(one.socket(8080))
    answer = b""
    while more := one.socket(8080).recv(4096):
        answer += more
    assert answer.endswith(b"\r\n\r\nhello\n"), answer
    closed = portforward(core.connect_get_namespaced_pod_portforward, "web", ns, ports="9")
    closed.socket(9).settimeout(PATIENCE)
    closed.socket(9).recv(1)
    until("an error", lambda: closed.error(9))
    proxied = core.connect_get_namespaced_pod_proxy_with_path("web:8080", ns, "index.html")
    assert proxied == "hello\n", proxied


def definition(group):
    schema = {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "blue"}}},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"boxes.{group}"},
            "spec": {"group": group, "scope": "Namespaced",
                     "names": {"kind": "Box", "plural": "boxes", "singular": "box", "shortNames": ["bx"]},
                     "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                   "schema": {"openAPIV3Schema": schema}}]}}


def established(name):
    def look():
        conditions = extensions.read_custom_resource_definition(name).status.conditions or []
        return any(c.type == "Established" and c.status == "True" for c in conditions)
    until(f"{name} is established", look)


def custom_resources(ns):
    group = "python.example.com"
    extensions.create_custom_resource_definition(definition(group))
    established(f"boxes.{group}")
    here = (group, "v1", ns, "boxes")
    box = {"apiVersion": f"{group}/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"size": 1}}
    created = until("boxes are served", lambda: attempt(customs.create_namespaced_custom_object, *here, box))
    assert created["spec"] == {"size": 1, "color": "blue"}
    error = refused(422, "Invalid", customs.create_namespaced_custom_object, *here,
                    {**box, "metadata": {"name": "c"}, "spec": {"size": 0}})
    assert "spec.size: Invalid value: 0" in error.message, error.message
    looking = watch.Watch()
    for event in looking.stream(customs.list_namespaced_custom_object, *here, timeout_seconds=PATIENCE):
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")
        looking.stop()
    customs.patch_namespaced_custom_object_status(*here, "b", {"status": {"ready": True}, "spec": {"size": 5}})
    read = customs.get_namespaced_custom_object(*here, "b")
    assert read["status"] == {"ready": True} and read["spec"]["size"] == 1
    assert read["metadata"]["generation"] == 1
    customs.patch_namespaced_custom_object(*here, "b", {"spec": {"size": 2}})
    assert customs.get_namespaced_custom_object(*here, "b")["metadata"]["generation"] == 2
    customs.delete_namespaced_custom_object(*here, "b")
    assert customs.list_namespaced_custom_object(*here)["items"] == []
    extensions.delete_custom_resource_definition(f"boxes.{group}")


def attempt(call, *args):
    """None while the path is not there yet."""
    try:
        return call(*args)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def dynamic_client(ns):
    with tempfile.TemporaryDirectory() as folder:
        found = dynamic.DynamicClient(client.ApiClient(), cache_file=f"{folder}/discovery.json")
        maps = found.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": "1"}}
        assert maps.create(body=body, namespace=ns).data.a == "1"
        applied = maps.server_side_apply(body={**body, "data": {"b": "2"}}, namespace=ns, field_manager="dynamic")
        assert applied.data.to_dict() == {"a": "1", "b": "2"}
        try:
            maps.server_side_apply(body={**body, "data": {"b": "3"}}, namespace=ns, field_manager="other")
            raise AssertionError("a conflict")
        except ConflictError as error:
            assert 'conflict with "dynamic"' in error.summary(), error.summary()
        for event in maps.watch(namespace=ns, name="d", timeout=30):
            assert event["type"] == "ADDED" and event["object"].metadata.name == "d"
            break
        deployments = found.resources.get(short_names=["deploy"], api_version="apps/v1")
        assert deployments.kind == "Deployment" and "scale" in deployments.subresources
        group = "dynamic.example.com"
        definitions = found.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
        definitions.create(body=definition(group))
        established(f"boxes.{group}")
        boxes = until("boxes are discovered", lambda: discovered(found, group))
        box = {"apiVersion": f"{group}/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"size": 3}}
        assert boxes.create(body=box, namespace=ns).spec.color == "blue"
        boxes.patch(body={"spec": {"size": 4}}, name="b", namespace=ns, content_type="application/merge-patch+json")
        assert boxes.get(name="b", namespace=ns).spec["size"] == 4
        boxes.status.patch(body={"status": {"ready": True}}, name="b", namespace=ns,
                           content_type="application/merge-patch+json")
        boxes.delete(name="b", namespace=ns)
        try:
            boxes.get(name="b", namespace=ns)
            raise AssertionError("it is deleted")
        except NotFoundError:
            pass
        definitions.delete(name=f"boxes.{group}")
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: from-yaml}\nspec: {ports: [{port: 80}]}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        utils.create_from_yaml(client.ApiClient(), file.name, namespace=ns)
    assert core.read_namespaced_service("from-yaml", ns).spec.cluster_ip


def discovered(found, group):
    found.resources.invalidate_cache()
    matches = found.resources.search(api_version=f"{group}/v1", kind="Box")
    return matches[0] if matches else None


def leaders(ns):
    led = threading.Event()
    lock = LeaseLock("leader", ns, "me")
    election = electionconfig.Config(lock, lease_duration=17, renew_deadline=15, retry_period=2,
                                     onstarted_leading=led.set, onstopped_leading=lambda: None)
    threading.Thread(target=leaderelection.LeaderElection(election).run, daemon=True).start()
    assert led.wait(PATIENCE), "nobody leads"
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", ns)
    assert lease.spec.holder_identity == "me" and lease.spec.renew_time, lease.spec


def access(ns):
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="create", resource="pods", namespace=ns)))
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
    core.create_namespaced_service_account(ns, {"metadata": {"name": "robot"}})
    asked = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("robot", ns, asked).status.token
    robot = client.Configuration.get_default_copy()
    robot.cert_file, robot.key_file = None, None
    robot.api_key = {"authorization": f"Bearer {token}"}
    theirs = client.CoreV1Api(client.ApiClient(robot))
    error = refused(403, "Forbidden", theirs.list_namespaced_pod, ns)
    assert error.message.startswith(f'pods is forbidden: User "system:serviceaccount:{ns}:robot" cannot list'), error
    who = client.AuthenticationV1Api(client.ApiClient(robot)).create_self_subject_review({})
    assert who.status.user_info.username == f"system:serviceaccount:{ns}:robot"
    budget = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
    core.create_namespaced_pod(ns, pod("evicted", "exec sleep 3600"))
    core.create_namespaced_pod_eviction("evicted", ns, budget)
    until("it is evicted", lambda: not core.list_namespaced_pod(ns).items)
    assert client.VersionApi().get_code().minor == "36"
    assert "apps" in [g.name for g in client.ApisApi().get_api_versions().groups]


AREAS = [objects, pages, watching, watching_from_the_past, patches, deletions, streams, forwards, custom_resources,
         dynamic_client, leaders, access]


def main():
    failed = []
    only = sys.argv[1:]
    for area in AREAS:
        if only and area.__name__ not in only:
            continue
        name = area.__name__.replace("_", "-")
        ns = f"python-{name}"
        start = time.monotonic()
        try:
            core.create_namespace({"metadata": {"name": ns}})
            area(ns)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        finally:
            core.delete_namespace(ns)
        print(f"--- {name}: {time.monotonic() - start:.1f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print("all passed")


main()
