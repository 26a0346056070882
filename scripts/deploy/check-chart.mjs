// What must hold for the chart beyond being well-formed: rendered objects against the schemas of Kubernetes and of the custom resources, assertions
// on them, nonsense that the values' schema refuses, effects of single values.
//
//     check-chart.mjs HELM KUBERNETES_VALIDATE CRD…
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { checkObjects } from './chart-objects.mjs'
import { customResources } from './custom-resources.mjs'
import { ROOT, read } from './environment.mjs'
import { check, finish, same } from './verdict.mjs'

const CHART = `${ROOT}helm/viewing-service`
/** The oldest that the chart admits, and the newest that the validator knows. */
const KUBERNETES = ['1.30', '1.37']
const [, , helm, kubernetesValidate, ...crdFiles] = process.argv
const crds = customResources(crdFiles)
const work = mkdtempSync(join(tmpdir(), 'viewing-chart-'))
process.on('exit', () => { rmSync(work, { recursive: true, force: true }) })

const run = (...args) => spawnSync(helm, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
function render (...args) {
  const { status, stdout, stderr } = run('template', 'release', CHART, '--namespace', 'playback', '--kube-version', KUBERNETES.at(-1), ...args)
  if (status !== 0) throw new Error(`helm template ${args.join(' ')}: ${stderr}`)
  return parseAllDocuments(stdout).map(document => document.toJS()).filter(object => object !== null)
}

/** Those of the objects that Kubernetes itself defines, held against its schemas. @returns what is wrong. */
function kubernetesFaults (objects, version) {
  const file = join(work, 'objects.yaml')
  // JSON, which is YAML of any version: the validator's would take a plain yes for true.
  writeFileSync(file, objects.map(object => JSON.stringify(object)).join('\n---\n'))
  const { status, stdout, stderr } = spawnSync(kubernetesValidate, ['--strict', '-k', version, file], { encoding: 'utf8' })
  const lines = `${stdout}${stderr}`.split('\n').filter(line => line !== '')
  const passed = lines.filter(line => / passed for resource /.test(line)).length
  // What it has no schema for is only a warning to it.
  return status === 0 && passed === objects.length ? [] : lines.filter(line => !/ passed for resource /.test(line))
}

function checkSchemas (file, objects) {
  const custom = objects.filter(({ apiVersion }) => /^(monitoring\.coreos\.com|gateway\.networking\.k8s\.io|keda\.sh)\//.test(apiVersion))
  const own = objects.filter(object => !custom.includes(object))
  for (const version of KUBERNETES) same(kubernetesFaults(own, version), [], `${file}: against Kubernetes ${version}`)
  for (const object of custom) {
    const validate = crds.get(`${object.apiVersion}/${object.kind}`)
    check(validate?.(object), `${file}: ${object.kind}: ${validate === undefined ? 'no schema' : (validate.errors ?? []).map(({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`).join('; ')}`)
  }
  return custom.map(({ kind }) => kind)
}

/** The validators themselves must be able to fail. */
function checkValidators () {
  const [deployment] = render().filter(({ kind }) => kind === 'Deployment')
  const broken = structuredClone(deployment)
  broken.spec.template.spec.containers[0].imagePulPolicy = 'Always'
  for (const version of KUBERNETES) check(kubernetesFaults([broken], version).length > 0, `a misspelt field passes as Kubernetes ${version}`)
  const objects = ['httproute', 'keda'].flatMap(name => render('-f', `${CHART}/ci/${name}-values.yaml`))
  for (const [kind, spoil] of [
    ['HTTPRoute', spec => { spec.rules[0].backendRef = [] }],
    ['PodMonitor', spec => { spec.podMetricsEndpoints[0].intervall = '1s' }],
    ['PrometheusRule', spec => { spec.groups[0].rules = {} }],
    ['ServiceMonitor', spec => { delete spec.selector }],
    ['ScaledObject', spec => { spec.maxReplicaCount = 'many' }]
  ]) {
    const object = structuredClone(objects.find(object => object.kind === kind))
    spoil(object.spec)
    check(crds.get(`${object.apiVersion}/${kind}`)(object) === false, `a spoilt ${kind} passes`)
  }
}

/** Every object of the schema says which keys it has, and no others are let through. */
function checkClosed () {
  const open = []
  const walk = (node, path) => {
    if (node.properties !== undefined && node.type === 'object' && node.additionalProperties !== false) open.push(path)
    for (const [name, child] of Object.entries(node.properties ?? {})) walk(child, `${path}.${name}`)
  }
  walk(JSON.parse(read('helm/viewing-service/values.schema.json')), 'values')
  same(open, [], 'values.schema.json: takes unknown keys at')
}

/** Nonsense that must not render, and what the message must name. */
function checkRefusals () {
  const cases = [
    [['replicaCount=x'], 'replicaCount'],
    [['replicas=3'], 'replicas'],
    [['image.tga=1'], 'tga'],
    [['image.digest=sha256:1'], 'digest'],
    [['config.SESION_TIMEOUT=9s'], 'SESION_TIMEOUT'],
    [['config.SESSION_TIMEOUT=soon'], 'SESSION_TIMEOUT'],
    [['config.JWT_SECRET=abc'], 'JWT_SECRET'],
    [['config.KAFKA_SASL_PASSWORD=abc'], 'KAFKA_SASL_PASSWORD'],
    [['config.REDIS_URL=redis://:pass@redis'], 'REDIS_URL'],
    [['secret.values.JWT_SECRT=abc'], 'JWT_SECRT'],
    [['config.AUTH_MODE=none'], 'AUTH_MODE'],
    [['config.AUTH_MODE=jwt'], 'AUTH_ISSUER'],
    [['config.IDENTITY_URL='], 'IDENTITY_URL'],
    [['config.MAX_CONCURRENT_STREAMS=0'], 'MAX_CONCURRENT_STREAMS'],
    [['config.REDIS_CLUSTER=a:1\\,b:2'], 'REDIS_CLUSTER'],
    [['config.SHUTDOWN_DELAY=1h'], 'SHUTDOWN_DELAY'],
    [['config.PORT=80'], 'PORT'],
    [['service.port=99999'], 'port'],
    [['resources.limits.memry=1Gi'], 'memry'],
    [['resources.limits.memory=lots'], 'memory'],
    [['ingress.enabled=true'], 'hosts'],
    [['httpRoute.enabled=true'], 'parentRefs'],
    [['autoscaling.enabled=true', 'keda.enabled=true'], 'only one'],
    [['autoscaling.minReplicas=20'], 'maxReplicas'],
    [['metrics.serviceMonitor.enabled=true', 'metrics.podMonitor.enabled=true'], 'only one'],
    [['secret.existingSecret=a', 'secret.values.JWT_SECRET=b'], 'only one'],
    [['terminationGracePeriodSeconds=5'], 'terminationGracePeriodSeconds'],
    [['probes.readiness.path=/metrics'], 'path']
  ]
  for (const [sets, named] of cases) {
    const { status, stderr } = run('template', 'release', CHART, '--kube-version', KUBERNETES.at(-1), ...sets.flatMap(set => ['--set', set]))
    check(status !== 0 && stderr.includes(named), `${sets.join(', ')}: ${status === 0 ? 'is rendered' : `refused without naming ${named}: ${stderr}`}`)
  }
  const old = run('template', 'release', CHART, '--kube-version', '1.29')
  check(old.status !== 0 && old.stderr.includes('kubeVersion'), `Kubernetes 1.29 is taken: ${old.stderr}`)
}

/** Effects of single values. */
function checkOptions () {
  const deployment = (...sets) => render(...sets.flatMap(set => ['--set', set])).find(({ kind }) => kind === 'Deployment')
  const annotations = (...sets) => deployment(...sets).spec.template.metadata.annotations
  check(annotations('config.LOG_LEVEL=debug')['checksum/config'] !== annotations()['checksum/config'], 'a changed variable starts no new pods')
  check(annotations('secret.values.JWT_SECRET=a')['checksum/secret'] !== annotations('secret.values.JWT_SECRET=b')['checksum/secret'], 'a changed secret starts no new pods')
  same(deployment('config.SHUTDOWN_DELAY=40s', 'preStopSeconds=3').spec.template.spec.terminationGracePeriodSeconds, 63, 'the grace period does not follow SHUTDOWN_DELAY')
  const digest = `sha256:${'0'.repeat(64)}`
  same(deployment(`image.digest=${digest}`, 'image.tag=1.0.0').spec.template.spec.containers[0].image, `viewing-service@${digest}`, 'the digest wins over the tag')
  const policy = render('-f', `${CHART}/values-prod.yaml`).find(({ kind }) => kind === 'NetworkPolicy').spec
  same(policy.policyTypes, ['Ingress', 'Egress'], 'the network policy covers both directions')
  check(policy.ingress.every(({ from }) => from?.length > 0), 'production lets everyone in')
  check([6379, 9092, 4318, 443, 53].every(port => policy.egress.some(({ ports }) => ports.some(entry => entry.port === port))), 'production cannot reach what it needs')
  const paths = render('-f', `${CHART}/ci/ingress-values.yaml`).find(({ kind }) => kind === 'Ingress').spec.rules.flatMap(({ http }) => http.paths.map(({ path }) => path))
  same(paths, ['/api/playback', '/.well-known/jwks.json'], 'what the world may call')
}

const files = ['values.yaml', 'values-prod.yaml', ...readdirSync(`${CHART}/ci`).sort().map(name => `ci/${name}`)]
const customKinds = new Set()
for (const file of files) {
  const lint = run('lint', '--strict', '--kube-version', KUBERNETES.at(-1), '-f', `${CHART}/${file}`, CHART)
  check(lint.status === 0, `${file}: helm lint --strict: ${lint.stdout}${lint.stderr}`)
  const objects = render('-f', `${CHART}/${file}`)
  checkObjects(file, objects)
  for (const kind of checkSchemas(file, objects)) customKinds.add(kind)
}
same([...customKinds].sort(), ['HTTPRoute', 'PodMonitor', 'PrometheusRule', 'ScaledObject', 'ServiceMonitor'], 'custom resources that some values file renders')
checkValidators()
checkClosed()
checkRefusals()
checkOptions()
same(read('helm/viewing-service/files/rules.yml') === read('deploy/prometheus/rules.yml'), true, 'helm/viewing-service/files/rules.yml is a copy of deploy/prometheus/rules.yml')
finish()
