"""A small operator as people write them with kopf: a Greeting makes a ConfigMap, and its status says so.

Run with `kopf run`, from outside the cluster. The test makes, changes and deletes Greetings and looks at what comes of
it: handlers with their finalizer, retries, fields, timers, daemons, an index, status patches, events, owner references.
"""

import asyncio

import kopf
import kubernetes

GROUP = ("example.com", "v1", "greetings")


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    kubernetes.config.load_kube_config()
    settings.persistence.finalizer = "example.com/greeting-operator"
    settings.posting.loggers = True  # as events: warnings and worse, beside what the handlers say themselves
    settings.posting.level = 30


def put(namespace, config_map):
    """Creates what may be there already: a handler may run again although it has succeeded."""
    try:
        kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, config_map)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise


@kopf.index(*GROUP)
def by_language(spec, name, **_):
    return {spec.get("language", "en"): name}


@kopf.on.create(*GROUP, backoff=0.1)
def create(spec, name, namespace, body, retry, patch, **_):
    if spec.get("flaky") and retry == 0:
        raise kopf.TemporaryError("not yet", delay=0.1)
    if spec["text"] == "forbidden":
        raise kopf.PermanentError("this is not said here")
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": spec["text"]}}
    kopf.adopt(config_map)
    put(namespace, config_map)
    kopf.event(body, type="Normal", reason="Greeted", message=f"said {spec['text']}")
    patch.status["said"] = spec["text"]
    return {"configMap": name}


@kopf.on.field(*GROUP, field="spec.text")
def change(old, new, name, namespace, patch, **_):
    if old is None:
        return
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"text": new}})
    patch.status["said"] = new


@kopf.on.delete(*GROUP)
def delete(name, namespace, **_):
    put(namespace, {"metadata": {"name": f"farewell-{name}"}})


@kopf.timer(*GROUP, interval=0.5)
def tick(status, patch, **_):
    patch.status["ticks"] = min(status.get("ticks", 0) + 1, 3)


@kopf.daemon(*GROUP, cancellation_timeout=1)
async def watch_over(stopped, **_):
    while not stopped:
        await asyncio.sleep(0.2)


@kopf.on.event("", "v1", "configmaps", labels={"greeted": kopf.PRESENT})
def labelled(event, name, namespace, by_language: kopf.Index, **_):
    if event["type"] == "DELETED":
        return
    names = sorted(n for names in by_language.values() for n in names)
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(
        name, namespace, {"metadata": {"labels": {"greeted": None}}, "data": {"names": ",".join(names)}})
