// The npm client against a cluster: what its users rely on, from create to cp.
//
// Each function is one area, in a namespace of its own; all run, and those that failed are named at the end.
// Usage: client.mjs [AREA…], with KUBECONFIG in the environment.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';

// The packages are not beside this file but where `cargo xtask clients` put them.
const packages = createRequire(path.join(process.env.GANTRY_NODE_PACKAGES, 'package.json'));
const k8s = await import(pathToFileURL(packages.resolve('@kubernetes/client-node')));

const IMAGE = 'gantry.test/busybox:1';
const PATIENCE = 120_000; // milliseconds for whatever another process does

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const customs = config.makeApiClient(k8s.CustomObjectsApi);
const any = k8s.KubernetesObjectApi.makeApiClient(config);

/** Fails unless `promise` settles in time. */
function inTime(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not after ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Looks until `look` returns something true. */
async function until(what, look) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not after ${PATIENCE} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** What must be refused. */
async function refused(code, reason, promise) {
  try {
    await promise;
  } catch (error) {
    const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, status?.reason], [code, reason], String(error));
    return status;
  }
  throw new Error(`refused with ${code} ${reason}: it was not`);
}

/** A stream's text, and waiting for a part of it. */
class Text extends PassThrough {
  text = '';
  constructor() {
    super();
    this.setEncoding('utf8');
    this.on('data', (more) => {
      this.text += more;
      this.emit('more');
    });
  }
  has(part) {
    return inTime(`${JSON.stringify(part)} in the output`, new Promise((resolve) => {
      const look = () => {
        if (this.text.includes(part)) resolve(this.text);
        else this.once('more', look);
      };
      look();
    }));
  }
}

const configMap = (name, data, labels = { app: 'x' }) => ({ metadata: { name, labels }, data });
const podSpec = (script) => ({
  terminationGracePeriodSeconds: 0,
  containers: [{ name: 'main', image: IMAGE, command: ['sh', '-c', script] }],
});

/** Creates a pod and waits, with a watch, until it is ready. */
async function run(namespace, name, script, labels = {}, readinessProbe = undefined) {
  const spec = podSpec(script);
  spec.containers[0].readinessProbe = readinessProbe;
  await core.createNamespacedPod({ namespace, body: { metadata: { name, labels }, spec } });
  const watch = new k8s.Watch(config);
  await inTime(`${name} is ready`, new Promise((resolve, reject) => {
    watch.watch(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector: `metadata.name=${name}` }, (_, pod) => {
      const conditions = pod.status?.conditions ?? [];
      if (conditions.some((c) => c.type === 'Ready' && c.status === 'True')) resolve(undefined);
    }, (error) => reject(error ?? new Error('the watch ended'))).then((abort) => {
      run.aborts.push(abort);
    }, reject);
  })).finally(() => run.aborts.splice(0).forEach((abort) => abort.abort()));
}
run.aborts = [];

async function objects(namespace) {
  const created = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { k: '1' }) });
  assert.ok(created.metadata.uid && created.metadata.creationTimestamp instanceof Date);
  const again = core.createNamespacedConfigMap({ namespace, body: configMap('a') });
  assert.equal((await refused(409, 'AlreadyExists', again)).message, 'configmaps "a" already exists');
  await refused(404, 'NotFound', core.readNamespacedConfigMap({ namespace, name: 'none' }));
  const body = { ...created, data: { k: '2' } };
  await core.replaceNamespacedConfigMap({ namespace, name: 'a', body });
  await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ namespace, name: 'a', body }));
  for (let i = 0; i < 5; i++) {
    await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${i}`) });
  }
  const names = [];
  let _continue;
  do {
    const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'app=x', limit: 2, _continue });
    names.push(...page.items.map((item) => item.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  assert.deepEqual(names, ['a', ...Array.from({ length: 5 }, (_, i) => `page-${i}`)]);
  await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'app=x' });
  assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector: 'app=x' })).items, []);
  const version = await config.makeApiClient(k8s.VersionApi).getCode();
  assert.equal(version.minor, '36');
}

async function patches(namespace) {
  await core.createNamespacedConfigMap({ namespace, body: configMap('p', { a: '1', b: '2' }) });
  const patch = (strategy, body, more = {}) => core.patchNamespacedConfigMap(
    { namespace, name: more.name ?? 'p', body, ...more }, k8s.setHeaderOptions('Content-Type', strategy));
  let now = await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'replace', path: '/data/a', value: '3' }]);
  assert.deepEqual(now.data, { a: '3', b: '2' });
  now = await patch(k8s.PatchStrategy.MergePatch, { data: { b: null, c: '4' } });
  assert.deepEqual(now.data, { a: '3', c: '4' });
  now = await patch(k8s.PatchStrategy.StrategicMergePatch, { metadata: { labels: { app: 'y' } } });
  assert.deepEqual(now.metadata.labels, { app: 'y' });
  const apply = (data, fieldManager, force) => patch(k8s.PatchStrategy.ServerSideApply,
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' }, data },
    { name: 'applied', fieldManager, force });
  await apply({ a: '1', b: '1' }, 'one');
  const conflict = await refused(409, 'Conflict', apply({ a: '2' }, 'two'));
  assert.equal(conflict.details.causes[0].field, '.data.a');
  const taken = await apply({ a: '2' }, 'two', true);
  assert.equal((await apply({ a: '2' }, 'two')).metadata.resourceVersion, taken.metadata.resourceVersion);
  assert.deepEqual((await apply({}, 'one')).data, { a: '2' });
}

async function anyObject(namespace) {
  const [deployment, service] = k8s.loadAllYaml(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: ${namespace}}
spec:
  replicas: 0
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: main, image: "${IMAGE}"}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: ${namespace}}
spec: {ports: [{port: 80, targetPort: http}]}
`);
  assert.equal((await any.create(deployment)).spec.progressDeadlineSeconds, 600);
  assert.ok((await any.create(service)).spec.clusterIP);
  const side = { ...deployment, spec: { template: { spec: { containers: [{ name: 'side', image: IMAGE }] } } } };
  const merged = await any.patch(side, undefined, undefined, undefined, undefined,
    k8s.PatchStrategy.StrategicMergePatch);
  assert.deepEqual(merged.spec.template.spec.containers.map((c) => c.name).sort(), ['main', 'side']);
  const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'd' });
  scale.spec.replicas = 2;
  delete scale.metadata.resourceVersion; // the deployment controller writes as well
  await apps.replaceNamespacedDeploymentScale({ namespace, name: 'd', body: scale });
  assert.equal((await any.read(deployment)).spec.replicas, 2);
  assert.equal((await any.list('v1', 'Service', namespace)).items.length, 1);
  await any.delete(deployment, undefined, undefined, undefined, undefined, 'Foreground');
  await until('the deployment is gone', () => any.read(deployment).then(() => false, (error) => error.code === 404));
  assert.deepEqual((await core.listNamespacedPod({ namespace })).items, []);
}

async function informers(namespace) {
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'app=x' });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'app=x');
  const seen = [];
  let wake = () => {};
  for (const verb of ['add', 'update', 'delete']) {
    informer.on(verb, (object) => {
      seen.push(`${verb} ${object.data.n}`);
      wake();
    });
  }
  informer.on('error', (error) => seen.push(`error ${error}`));
  const count = (n) => inTime(`${n} events`, new Promise((resolve) => {
    wake = () => seen.length >= n && resolve(undefined);
    wake();
  }));
  await core.createNamespacedConfigMap({ namespace, body: configMap('first', { n: '0' }) });
  await informer.start();
  await count(1);
  assert.equal(informer.get('first', namespace).data.n, '0');
  const patch = (body) => core.patchNamespacedConfigMap({ namespace, name: 'second', body },
    k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch));
  await core.createNamespacedConfigMap({ namespace, body: configMap('second', { n: '1' }) });
  await patch({ data: { n: '2' } });
  await patch({ metadata: { labels: { app: 'y' } } });
  await patch({ metadata: { labels: { app: 'x' } } });
  await core.deleteNamespacedConfigMap({ namespace, name: 'second' });
  await count(6);
  assert.deepEqual(seen, ['add 0', 'add 1', 'update 2', 'delete 2', 'add 2', 'delete 2']);
  assert.equal(informer.list(namespace).length, 1);
  await informer.stop();

  const old = informer.latestResourceVersion();
  const large = 'x'.repeat(1_000_000);
  for (let i = 0; i < 20; i++) {
    await core.patchNamespacedConfigMap({ namespace, name: 'first', body: { data: { n: `${i}`, large } } },
      k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch));
  }
  const gone = await inTime('an answer to a watch from the past', new Promise((resolve) => {
    new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/configmaps`, { resourceVersion: old },
      (type, object) => resolve(type === 'ERROR' ? object : type), (error) => resolve(error ?? 'the end'));
  }));
  assert.equal(gone.code ?? gone.statusCode, 410, JSON.stringify(gone));
  // An informer that has to begin anew.
  await informer.start();
  await until('the informer has caught up', () => informer.get('first', namespace)?.data.n === '19');
  await informer.stop();
}

async function streams(namespace) {
  const script = 'echo one; while ! test -e /tmp/go; do sleep 0.1; done; echo two; cat; exec sleep 3600';
  await core.createNamespacedPod({ namespace, body: { metadata: { name: 'shell' }, spec: {
    ...podSpec(script), containers: [{ ...podSpec(script).containers[0], stdin: true }] } } });
  await until('the shell runs', async () => {
    const pod = await core.readNamespacedPod({ namespace, name: 'shell' });
    return pod.status?.phase === 'Running';
  });
  const exec = new k8s.Exec(config);
  const command = async (words, input) => {
    const [out, err] = [new Text(), new Text()];
    const status = await inTime(words.join(' '), new Promise((resolve, reject) => {
      exec.exec(namespace, 'shell', 'main', words, out, err, input ?? null, false, resolve).catch(reject);
    }));
    return { out: out.text, err: err.text, status };
  };
  for (let i = 0; i < 10; i++) {
    const done = await command(['sh', '-c', `echo out ${i}; echo err ${i} >&2`]);
    assert.deepEqual([done.out, done.err, done.status.status], [`out ${i}\n`, `err ${i}\n`, 'Success']);
  }
  const failed = await command(['sh', '-c', 'exit 7']);
  assert.equal(failed.status.reason, 'NonZeroExitCode');
  assert.deepEqual(failed.status.details.causes, [{ reason: 'ExitCode', message: '7' }]);
  const input = new PassThrough();
  const bytes = randomBytes(1_000_000);
  const sum = command(['md5sum'], input);
  input.end(bytes);
  assert.equal((await sum).out.split(' ')[0], createHash('md5').update(bytes).digest('hex'));
  await assert.rejects(exec.exec(namespace, 'none', 'main', ['true'], null, null, null, false),
    (event) => /Unexpected server response: 404/.test(event.message));

  const attached = new Text();
  const typed = new PassThrough();
  const socket = await new k8s.Attach(config).attach(namespace, 'shell', 'main', attached, new Text(), typed, false);
  const followed = new Text();
  await new k8s.Log(config).log(namespace, 'shell', 'main', followed, { follow: true });
  await followed.has('one\n');
  await command(['touch', '/tmp/go']);
  await followed.has('one\ntwo\n');
  await attached.has('two\n');
  typed.write('through attach\n');
  await attached.has('through attach\n');
  await followed.has('through attach\n');
  socket.close();
  const tail = await core.readNamespacedPodLog({ namespace, name: 'shell', tailLines: 1 });
  assert.equal(tail, 'through attach\n');
}

async function copies(namespace) {
  await run(namespace, 'files', 'exec sleep 3600');
  const folder = await mkdtemp(path.join(tmpdir(), 'gantry-node-'));
  try {
    const bytes = randomBytes(2_000_000);
    await mkdir(path.join(folder, 'sent'));
    await mkdir(path.join(folder, 'back'));
    await writeFile(path.join(folder, 'sent/data.bin'), bytes);
    const cp = new k8s.Cp(config);
    await cp.cpToPod(namespace, 'files', 'main', path.join(folder, 'sent'), '/tmp');
    // It does not say when it is done.
    const exec = new k8s.Exec(config);
    await until('the copy is in the pod', async () => {
      const out = new Text();
      await inTime('stat', new Promise((resolve, reject) => {
        exec.exec(namespace, 'files', 'main', ['stat', '-c', '%s', '/tmp/data.bin'], out, new Text(), null, false,
          resolve).catch(reject);
      }));
      return out.text === `${bytes.length}\n`;
    });
    await cp.cpFromPod(namespace, 'files', 'main', 'data.bin', path.join(folder, 'back'), '/tmp');
    await until('the copy is back', async () => {
      const back = await readFile(path.join(folder, 'back/data.bin')).catch(() => Buffer.alloc(0));
      return back.equals(bytes);
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function forwards(namespace) {
  const script = 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www';
  await run(namespace, 'web', script, { app: 'web' }, { httpGet: { path: '/index.html', port: 8080 }, periodSeconds: 1 });
  await core.createNamespacedService({ namespace, body: { metadata: { name: 'web' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] } } });
  const forward = new k8s.PortForward(config);
  const ask = async (open) => {
    const [out, err, input] = [new Text(), new Text(), new PassThrough()];
    const socket = await open(out, err, input);
    input.write('GET /index.html HTTP/1.0\r\n\r\n');
    const answer = await out.has('hello\n');
    assert.match(answer, /^HTTP\/1\.[01] 200 OK/);
    await inTime('the end', new Promise((resolve) => {
      if (socket.readyState === socket.CLOSED) resolve(undefined);
      else socket.on('close', resolve);
    }));
  };
  await ask((...streams) => forward.portForward(namespace, 'web', [8080], ...streams));
  await ask((...streams) => forward.portForwardService(namespace, 'web', [8080], ...streams));
  const err = new Text();
  await forward.portForward(namespace, 'web', [9], new Text(), err, new PassThrough());
  await err.has('error forwarding port 9 to pod');
}

async function customResources(namespace) {
  const group = 'node.example.com';
  const definition = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition',
    metadata: { name: `boxes.${group}` }, spec: { group, scope: 'Namespaced',
      names: { kind: 'Box', plural: 'boxes' }, versions: [{ name: 'v1', served: true, storage: true,
        schema: { openAPIV3Schema: { type: 'object', properties: {
          spec: { type: 'object', properties: { size: { type: 'integer' } } } } } } }] } };
  await any.create(definition);
  await until('the definition is established', async () => {
    const conditions = (await any.read(definition)).status?.conditions ?? [];
    return conditions.some((c) => c.type === 'Established' && c.status === 'True');
  });
  const here = { group, version: 'v1', namespace, plural: 'boxes' };
  const box = { apiVersion: `${group}/v1`, kind: 'Box', metadata: { name: 'b', namespace }, spec: { size: 1 } };
  await until('boxes are served', () => customs.createNamespacedCustomObject({ ...here, body: box }).catch((error) => {
    if (error.code !== 404) throw error;
  }));
  const listed = await customs.listNamespacedCustomObject(here);
  assert.deepEqual(listed.items.map((item) => item.spec.size), [1]);
  await customs.patchNamespacedCustomObject({ ...here, name: 'b', body: [{ op: 'add', path: '/spec/size', value: 2 }] });
  assert.equal((await customs.getNamespacedCustomObject({ ...here, name: 'b' })).spec.size, 2);
  await any.delete(definition);
}

async function users(namespace) {
  await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'robot' } } });
  const { status } = await core.createNamespacedServiceAccountToken({ namespace, name: 'robot',
    body: { spec: { audiences: [], expirationSeconds: 600 } } });
  const theirs = new k8s.KubeConfig();
  theirs.loadFromClusterAndUser(config.getCurrentCluster(), { name: 'robot', token: status.token });
  const who = await theirs.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
  assert.equal(who.status.userInfo.username, `system:serviceaccount:${namespace}:robot`);
  await refused(403, 'Forbidden', theirs.makeApiClient(k8s.CoreV1Api).listNamespacedPod({ namespace }));
}

const AREAS = { objects, patches, anyObject, informers, streams, copies, forwards, customResources, users };

const failed = [];
const only = process.argv.slice(2);
for (const [area, check] of Object.entries(AREAS).filter(([area]) => !only.length || only.includes(area))) {
  const name = `node-${area.toLowerCase()}`;
  const start = Date.now();
  try {
    await core.createNamespace({ body: { metadata: { name } } });
    await check(name);
  } catch (error) {
    console.error(error);
    failed.push(area);
  } finally {
    await core.deleteNamespace({ name });
  }
  console.log(`--- ${area}: ${((Date.now() - start) / 1000).toFixed(1)} s`);
}
console.log(failed.length ? `failed: ${failed.join(', ')}` : 'all passed');
// Sockets that the client leaves open are no reason to stay.
process.exit(failed.length ? 1 : 0);
