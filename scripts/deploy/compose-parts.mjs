import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Kafka, logLevel } from 'kafkajs'
import { parse } from 'yaml'
import { track } from '../../test/support/children.ts'
import { waitFor } from '../../test/support/wait-for.ts'
import { ROOT, read } from './environment.mjs'
import { runContainer } from './container.mjs'

/** The parts of docker-compose.yml, each as its entry there says, inside `compose-world.sh`. */
const WORLD = process.env.WORLD
const filled = value => String(value).replaceAll(/\$\{\w+:-(.*?)\}/g, '$1')
export const { services } = parse(read('docker-compose.yml'), { merge: true })
export const environment = name => Object.fromEntries(Object.entries(services[name].environment ?? {}).map(([key, value]) => [key, filled(value)]))

function program (file, args, options = {}) {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  track(child)
  const lines = []
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', line => { if (lines.push(line) > 200) lines.shift() })
  const exited = once(child, 'exit')
  return { child, lines, stop: async () => { child.kill('SIGTERM'); await exited } }
}

/** Puts files and folders where the entry mounts them; named volumes are the caller's. */
function mount (name) {
  for (const volume of services[name].volumes) {
    const [source, target] = volume.split(':')
    if (!source.startsWith('./')) continue
    const folder = spawnSync('test', ['-d', join(ROOT, source)]).status === 0
    mkdirSync(folder ? target : join(target, '..'), { recursive: true })
    if (!folder) writeFileSync(target, '')
    const { status, stderr } = spawnSync('mount', ['--bind', '-o', 'ro', join(ROOT, source), target], { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
  }
}

export function startRedis () {
  const [file, ...args] = services.redis.command
  const folder = join(WORLD, 'redis')
  mkdirSync(folder)
  return program(file, args, { cwd: folder })
}
export const redisHealthy = () => spawnSync(services.redis.healthcheck.test[1], services.redis.healthcheck.test.slice(2), { encoding: 'utf8' }).stdout.trim() === 'PONG'

/** The broker by its environment, as its image reads it, from the tests' copy of Kafka; then the topic. */
export async function startKafka (library) {
  const folder = join(WORLD, 'kafka')
  mkdirSync(folder)
  const settings = { ...environment('kafka'), KAFKA_LOG_DIRS: join(folder, 'data') }
  const file = join(folder, 'server.properties')
  writeFileSync(file, Object.entries(settings).map(([name, value]) => `${name.replace('KAFKA_', '').toLowerCase().replaceAll('_', '.')}=${value}`).join('\n'))
  const java = (...args) => ['-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', join(library, '*'), ...args]
  const format = spawnSync('java', java('kafka.tools.StorageTool', 'format', '-t', 'MkU3OEVBNTcwNTJENDM2Qk', '-c', file), { encoding: 'utf8' })
  if (format.status !== 0) throw new Error(`Kafka could not format its storage: ${format.stderr}`)
  const broker = program('java', java('kafka.Kafka', file))
  const argument = name => services['kafka-topics'].command.find(word => word.startsWith(`--${name}=`))?.slice(name.length + 3)
  const admin = new Kafka({ brokers: [argument('bootstrap-server')], logLevel: logLevel.NOTHING, retry: { retries: 2 } }).admin()
  await waitFor('Kafka', async () => {
    if (broker.child.exitCode !== null) throw new Error(`Kafka ended: ${broker.lines.join('\n')}`)
    return await admin.connect().then(() => true, () => false)
  }, 60_000)
  const [configName, configValue] = argument('config').split('=')
  await admin.createTopics({
    waitForLeaders: true,
    topics: [{ topic: argument('topic'), numPartitions: Number(argument('partitions')), replicationFactor: Number(argument('replication-factor')), configEntries: [{ name: configName, value: configValue }] }]
  })
  await admin.disconnect()
  return broker
}

const NAMES = { '/etc/hosts': '/etc/hosts', '/etc/resolv.conf': '/etc/resolv.conf' }

/** One instance of the service. In a network of its own it would listen on all addresses; here it has one to itself. */
export async function startInstance (image, address) {
  const container = await runContainer(image, { env: { ...environment('viewing'), HEARTBEAT_MIN_GAP: '0', HOST: address }, binds: NAMES })
  await waitFor(`the instance at ${address}`, async () => await fetch(`http://${address}:8080/health/ready`).then(({ ok }) => ok, () => false), 30_000)
  return container
}

/** The addresses that the name `viewing` has from now on. */
export function publish (addresses) {
  writeFileSync(join(WORLD, 'instances'), addresses.map(address => `${address} viewing\n`).join(''))
  process.kill(Number(readFileSync(join(WORLD, 'dnsmasq.pid'), 'utf8')), 'SIGHUP')
}

export async function startEngagement (image) {
  const { command, volumes, tmpfs, healthcheck } = services.engagement
  const container = await runContainer(image, {
    command,
    env: environment('engagement'),
    binds: { ...NAMES, ...Object.fromEntries(volumes.map(volume => volume.split(':')).map(([source, target]) => [target, join(ROOT, source)])) },
    tmpfs: Object.fromEntries(tmpfs.map(text => text.split(':')).map(([target, options]) => [target, options.split(',')]))
  })
  const healthy = () => container.exec(image.config.User, ...healthcheck.test.slice(1)).status === 0
  await waitFor('the consumer', healthy, 30_000)
  return container
}

export async function startProxy (caddy) {
  mount('proxy')
  const proxy = program(caddy, ['run', '--config', '/etc/caddy/Caddyfile', '--adapter', 'caddyfile'])
  await waitFor('the proxy', async () => {
    if (proxy.child.exitCode !== null) throw new Error(proxy.lines.join('\n'))
    return await fetch('http://127.0.0.1:80/metrics').then(({ status }) => status === 404, () => false)
  })
  return proxy
}

export async function startPrometheus (prometheus) {
  mount('prometheus')
  const data = join(WORLD, 'prometheus')
  const running = program(prometheus, services.prometheus.command.map(argument => argument.replace('=/prometheus', `=${data}`)))
  await waitFor('Prometheus', async () => {
    if (running.child.exitCode !== null) throw new Error(running.lines.join('\n'))
    return await fetch('http://127.0.0.1:9090/-/ready').then(({ ok }) => ok, () => false)
  }, 30_000)
  return running
}

/** In Jaeger's place: takes what comes by OTLP over HTTP. */
export async function startReceiver () {
  const paths = []
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      paths.push(request.url)
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  }).listen(4318)
  await once(server, 'listening')
  return { paths, close: () => { server.close(); server.closeAllConnections() } }
}
