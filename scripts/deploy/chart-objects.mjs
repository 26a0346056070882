import { accepted, isSecretSetting, isSetting } from './environment.mjs'
import { check, same } from './verdict.mjs'

/** What holds for every set of values. */
export function checkObjects (file, objects) {
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
  check(Object.keys(config).every(name => isSetting(name) && !isSecretSetting(name)), `${file}: the config map holds what is unknown or secret`)
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
