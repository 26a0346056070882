import { readFileSync, readdirSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Ajv } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { parse, parseAllDocuments } from 'yaml'
import { ConfigError, loadConfig } from '../src/config.ts'
import { SettingsSchema } from '../src/config/settings.ts'

/**
 * What must hold for the chart and the compose file, beyond being well-formed. Called by check-deploy.sh:
 *
 *     check-chart.mjs chart <helm> [crd file …]      rendered objects, schema of the values, drift from the settings
 *     check-chart.mjs compose [schema file]          the compose file against the specification and the settings
 */
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CHART = `${ROOT}helm/viewing-service`
const read = path => readFileSync(`${ROOT}${path}`, 'utf8')
const failures = []
let held = 0

function check (holds, what) {
  if (holds) held++
  else failures.push(what)
}

function same (actual, expected, what) {
  check(JSON.stringify(actual) === JSON.stringify(expected), `${what}: ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`)
}

const settings = Object.keys(SettingsSchema.properties)

/** Variables as the process would get them; keys it was promised by a Secret that only the cluster knows are made up. */
function accepted (env, where) {
  const key = () => randomBytes(48).toString('base64')
  const secrets = { JWT_SECRET: key(), ...(env.AUTH_MODE === 'gateway' ? { AUTH_GATEWAY_SECRET: key() } : {}) }
  try {
    loadConfig({ ...(env.NODE_ENV === 'production' ? secrets : {}), ...env })
    held++
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    failures.push(`${where}: the service would refuse its environment: ${error.problems.join('; ')}`)
  }
}

function chart (helm, crdFiles) {
  const run = (...args) => spawnSync(helm, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
  const render = (...args) => {
    const { status, stdout, stderr } = run('template', 'release', CHART, '--namespace', 'playback', ...args)
    if (status !== 0) throw new Error(`helm template ${args.join(' ')}: ${stderr}`)
    return parseAllDocuments(stdout).map(document => document.toJS()).filter(object => object !== null)
  }
  const crds = customResources(crdFiles)
  const unknown = new Set()
  for (const file of ['values.yaml', 'values-prod.yaml', ...readdirSync(`${CHART}/ci`).sort().map(name => `ci/${name}`)]) {
    const objects = render('-f', `${CHART}/${file}`)
    objectsOf(file, objects)
    for (const object of objects) customResource(file, object, crds, unknown)
  }
  schemaOfValues()
  refusals(run)
  options(render)
  same(read('helm/viewing-service/files/rules.yml'), read('deploy/prometheus/rules.yml'), 'helm/viewing-service/files/rules.yml is not deploy/prometheus/rules.yml; copy it')
  if (unknown.size > 0) process.stdout.write(`UNCHECKED fields of ${[...unknown].sort().join(', ')}: no schema (needs go)\n`)
}

/** What holds for every set of values. */
function objectsOf (file, objects) {
  const find = kind => objects.find(object => object.kind === kind)
  const deployment = find('Deployment')
  const { spec: pod, metadata } = deployment.spec.template
  const container = pod.containers[0]
  const { requests, limits } = container.resources
  check(pod.securityContext.runAsNonRoot === true && pod.securityContext.runAsUser > 0, `${file}: pods must not run as root`)
  same(pod.securityContext.seccompProfile, { type: 'RuntimeDefault' }, `${file}: seccomp`)
  same(container.securityContext, { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] }, readOnlyRootFilesystem: true }, `${file}: securityContext`)
  check(limits.cpu === undefined && requests.cpu !== undefined, `${file}: CPU is requested, not limited`)
  same(limits.memory, requests.memory, `${file}: memory limit and request`)
  check(pod.automountServiceAccountToken === false, `${file}: the pod mounts a service account token`)
  check(find('ServiceAccount')?.automountServiceAccountToken !== true, `${file}: the account mounts its token`)
  check(['startupProbe', 'livenessProbe', 'readinessProbe'].every(name => container[name]?.httpGet.port === 'http'), `${file}: three probes`)
  same(container.livenessProbe.httpGet.path, '/health/live', `${file}: liveness must not depend on Redis`)
  same(container.readinessProbe.httpGet.path, '/health/ready', `${file}: readiness`)
  check(container.volumeMounts.some(mount => mount.mountPath === '/tmp') && pod.volumes.some(volume => volume.name === 'tmp' && volume.emptyDir), `${file}: /tmp`)
  check(Object.keys(metadata.annotations).filter(name => name.startsWith('checksum/')).length === 2, `${file}: checksums`)
  check(deployment.spec.strategy.rollingUpdate.maxUnavailable === 0, `${file}: a rollout takes pods away before it adds some`)

  const config = find('ConfigMap').data
  const secret = find('Secret')?.stringData ?? {}
  check(Object.keys(config).every(name => settings.includes(name) && !SettingsSchema.properties[name].secret), `${file}: the config map holds what is unknown or secret`)
  check(Object.values(config).every(value => typeof value === 'string' && !/^\d\.\d+e\+/.test(value)), `${file}: a number lost its digits`)
  const inline = Object.fromEntries((container.env ?? []).filter(({ value }) => value !== undefined).map(({ name, value }) => [name, value]))
  accepted({ ...config, ...secret, ...inline }, file)
  same(container.ports[0].containerPort, Number(config.PORT), `${file}: port`)
  const stop = Number.parseInt(config.SHUTDOWN_DELAY) + (container.lifecycle?.preStop.sleep.seconds ?? 0)
  check(pod.terminationGracePeriodSeconds >= stop + 15, `${file}: the grace period cuts draining off`)

  const selector = deployment.spec.selector.matchLabels
  const selects = (wanted, labels) => Object.entries(wanted).every(([name, value]) => labels[name] === value)
  check(selects(selector, metadata.labels), `${file}: the Deployment does not select its pods`)
  same(find('Service').spec.selector, selector, `${file}: the Service's pods`)
  check(!selects(selector, find('Pod')?.metadata.labels ?? {}), `${file}: the test pod would get traffic`)
  for (const kind of ['PodDisruptionBudget', 'ServiceMonitor', 'PodMonitor']) {
    const object = find(kind)
    if (object !== undefined) check(selects(object.spec.selector.matchLabels, kind === 'ServiceMonitor' ? find('Service').metadata.labels : metadata.labels), `${file}: the ${kind} selects nothing`)
  }
  const scaled = find('HorizontalPodAutoscaler') ?? find('ScaledObject')
  check((deployment.spec.replicas === undefined) === (scaled !== undefined), `${file}: replicas and autoscaler contradict each other`)
  if (scaled !== undefined) same(scaled.spec.scaleTargetRef.name, deployment.metadata.name, `${file}: what is scaled`)
  for (const object of objects) {
    const labels = object.metadata.labels
    if (labels !== undefined) check(['name', 'instance', 'version', 'managed-by'].every(name => labels[`app.kubernetes.io/${name}`]), `${file}: labels of ${object.kind}`)
  }
  const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`)
  same(names.length, new Set(names).size, `${file}: objects of one name`)
}

/** Each value may be set: the schema's variables are the service's, with the same choices and bounds. */
function schemaOfValues () {
  const { properties } = JSON.parse(read('helm/viewing-service/values.schema.json'))
  const config = properties.config.properties
  const secrets = properties.secret.properties.values.properties
  same([...Object.keys(config), ...Object.keys(secrets)].sort(), [...settings].sort(), 'values.schema.json: variables')
  for (const name of settings) {
    const setting = SettingsSchema.properties[name]
    if (setting.secret) check(name in secrets, `values.schema.json: ${name} is a secret`)
    const value = config[name]
    if (value === undefined) continue
    same(value.description, setting.description, `values.schema.json: description of ${name}`)
    if (setting.enum) same(value.enum.filter(choice => choice !== ''), setting.enum, `values.schema.json: choices of ${name}`)
    const number = value.anyOf?.find(({ type }) => type === 'integer')
    if (number !== undefined) same([number.minimum, number.maximum], [setting.minimum, setting.maximum], `values.schema.json: bounds of ${name}`)
  }
  const open = []
  const walk = (node, path) => {
    if (node.properties !== undefined && node.type === 'object' && node.additionalProperties !== false) open.push(path)
    for (const [name, child] of Object.entries(node.properties ?? {})) walk(child, `${path}.${name}`)
  }
  walk({ properties, type: 'object', additionalProperties: JSON.parse(read('helm/viewing-service/values.schema.json')).additionalProperties }, 'values')
  same(open, [], 'values.schema.json: takes unknown keys at')
}

/** Nonsense that must not render, and what the message must name. */
function refusals (run) {
  const cases = [
    [['replicaCount=x'], 'replicaCount'],
    [['replicas=3'], 'replicas'],
    [['image.tga=1'], 'tga'],
    [['image.digest=sha256:1'], 'digest'],
    [['config.SESION_TIMEOUT=9s'], 'SESION_TIMEOUT'],
    [['config.SESSION_TIMEOUT=soon'], 'SESSION_TIMEOUT'],
    [['config.JWT_SECRET=abc'], 'JWT_SECRET'],
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
    const { status, stderr } = run('template', 'release', CHART, ...sets.flatMap(set => ['--set', set]))
    check(status !== 0 && stderr.includes(named), `${sets.join(', ')}: ${status === 0 ? 'is rendered' : `refused without naming ${named}: ${stderr}`}`)
  }
}

/** Effects of single values. */
function options (render) {
  const deployment = (...sets) => render(...sets.flatMap(set => ['--set', set])).find(({ kind }) => kind === 'Deployment')
  const annotations = (...sets) => deployment(...sets).spec.template.metadata.annotations
  check(annotations('config.LOG_LEVEL=debug')['checksum/config'] !== annotations()['checksum/config'], 'a changed variable starts no new pods')
  check(annotations('secret.values.JWT_SECRET=a')['checksum/secret'] !== annotations('secret.values.JWT_SECRET=b')['checksum/secret'], 'a changed secret starts no new pods')
  same(deployment('config.SHUTDOWN_DELAY=40s', 'preStopSeconds=3').spec.template.spec.terminationGracePeriodSeconds, 63, 'the grace period does not follow SHUTDOWN_DELAY')
  const digest = `sha256:${'0'.repeat(64)}`
  same(deployment(`image.digest=${digest}`, 'image.tag=1').spec.template.spec.containers[0].image, `viewing-service@${digest}`, 'the digest wins over the tag')
  const policy = render('-f', `${CHART}/values-prod.yaml`).find(({ kind }) => kind === 'NetworkPolicy').spec
  same(policy.policyTypes, ['Ingress', 'Egress'], 'the network policy covers both directions')
  check(policy.ingress.every(({ from }) => from?.length > 0), 'production lets everyone in')
  check([6379, 9092, 4318, 443, 53].every(port => policy.egress.some(({ ports }) => ports.some(entry => entry.port === port))), 'production cannot reach what it needs')
  const paths = render('-f', `${CHART}/ci/ingress-values.yaml`).find(({ kind }) => kind === 'Ingress').spec.rules.flatMap(({ http }) => http.paths.map(({ path }) => path))
  same(paths, ['/api/playback', '/.well-known/jwks.json'], 'what the world may call')
}

/** Validators of custom resources, by kind and version, that refuse unknown fields as `kubectl --validate=strict` does. */
function customResources (files) {
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true, logger: false })
  const validators = new Map()
  for (const file of files) {
    for (const { spec } of parseAllDocuments(readFileSync(file, 'utf8')).map(document => document.toJS()).filter(object => object?.kind === 'CustomResourceDefinition')) {
      for (const { name, schema } of spec.versions) validators.set(`${spec.group}/${name}/${spec.names.kind}`, ajv.compile(closed(schema.openAPIV3Schema, true)))
    }
  }
  return validators
}

function closed (schema, top = false) {
  const { properties, items, additionalProperties, pattern, ...rest } = schema
  if (schema['x-kubernetes-int-or-string']) return { type: ['integer', 'string'] }
  const open = schema['x-kubernetes-preserve-unknown-fields'] || properties === undefined
  return {
    ...rest,
    // Some are in Go's dialect, as (?i); those stay unchecked.
    ...(pattern === undefined || pattern.includes('(?') ? {} : { pattern }),
    ...(properties === undefined ? {} : { properties: Object.fromEntries(Object.entries(properties).map(([name, child]) => [name, top && name === 'metadata' ? {} : closed(child)])) }),
    ...(items === undefined ? {} : { items: closed(items) }),
    ...(additionalProperties === undefined ? (open ? {} : { additionalProperties: false }) : { additionalProperties: typeof additionalProperties === 'object' ? closed(additionalProperties) : additionalProperties })
  }
}

function customResource (file, object, validators, unknown) {
  if (!/^(monitoring\.coreos\.com|gateway\.networking\.k8s\.io|keda\.sh)\//.test(object.apiVersion)) return
  const validate = validators.get(`${object.apiVersion}/${object.kind}`)
  if (validate === undefined) unknown.add(object.kind)
  else check(validate(object), `${file}: ${object.kind}: ${(validate.errors ?? []).map(({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`).join('; ')}`)
}

function compose (schemaFile) {
  const file = parse(read('docker-compose.yml'), { merge: true })
  if (schemaFile !== undefined) {
    const validate = new Ajv2020({ strict: false, validateFormats: false, allErrors: true, logger: false }).compile(JSON.parse(readFileSync(schemaFile, 'utf8')))
    check(validate(file), `docker-compose.yml: ${(validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`).join('; ')}`)
  }
  const { services, volumes } = file
  const environment = Object.fromEntries(Object.entries(services.viewing.environment).map(([name, value]) => [name, String(value).replace(/\$\{\w+:-(.*)\}/, '$1')]))
  check(Object.keys(environment).every(name => settings.includes(name)), 'docker-compose.yml: viewing has a variable that the service does not know')
  accepted(environment, 'docker-compose.yml')
  check(services.redis.command.join(' ').includes('--maxmemory-policy noeviction'), 'docker-compose.yml: Redis may evict')
  check(services['kafka-topics'].command.includes('--topic=playback.events'), 'docker-compose.yml: the topic')
  for (const [name, service] of Object.entries(services)) {
    for (const needed of Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {})) {
      check(needed in services, `docker-compose.yml: ${name} waits for ${needed}, which is not there`)
      const condition = service.depends_on[needed]?.condition
      // The image of the service brings its own health check.
      if (condition === 'service_healthy') check(services[needed].healthcheck !== undefined || services[needed].build !== undefined, `docker-compose.yml: ${name} waits for the health of ${needed}, which has none`)
    }
    for (const port of service.ports ?? []) check(port.startsWith('127.0.0.1:'), `docker-compose.yml: ${name} listens to the world at ${port}`)
    for (const volume of service.volumes ?? []) {
      const [source] = volume.split(':')
      if (!source.startsWith('./')) check(source in volumes, `docker-compose.yml: volume ${source}`)
      else check(exists(source), `docker-compose.yml: ${source} is not there`)
    }
    if (service.image !== undefined) check(/:[^:/]+$/.test(service.image) && !service.image.endsWith(':latest'), `docker-compose.yml: ${service.image} has no version`)
  }
}

function exists (path) {
  try {
    readdirSync(`${ROOT}${path}`)
    return true
  } catch (error) {
    return error.code === 'ENOTDIR'
  }
}

const [, , what, ...rest] = process.argv
if (what === 'chart') chart(rest[0], rest.slice(1))
else if (what === 'compose') compose(rest[0])
else throw new Error('chart or compose')
for (const failure of failures) process.stderr.write(`FAILED ${failure}\n`)
process.stdout.write(`${what}: ${held} held, ${failures.length} failed\n`)
process.exitCode = failures.length === 0 ? 0 : 1
