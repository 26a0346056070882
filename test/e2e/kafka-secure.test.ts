import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Redis } from 'ioredis'
import { Kafka, logLevel } from 'kafkajs'
import t, { type Test } from 'tap'
import { track } from '../support/children.ts'
import { requireKafka } from '../support/kafka-broker.ts'
import { freePort, startRedis } from '../support/redis-server.ts'
import { requirePrograms, requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const { skip: noOpenssl } = requirePrograms('openssl')
const TOPIC = 'playback.events'
const USER = 'viewing'
const PASSWORD = 'kafka-password-for-tests-0123'
const JAVA = ['-Xms64m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']

interface SecureBroker { address: string, ca: string, strangerCa: string, read: () => string[] }

/** A real broker that lets nobody in without TLS and a password, and one plain listener to set it up by. */
async function startSecureKafka (t: Test): Promise<SecureBroker> {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-kafka-secure-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => { execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' }) }
  for (const ca of ['ca', 'stranger']) openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-days', '2', '-subj', '/CN=Platform CA', '-addext', 'basicConstraints=critical,CA:TRUE')
  openssl('req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'broker.key', '-out', 'broker.csr', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost')
  openssl('x509', '-req', '-in', 'broker.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy', '-out', 'broker.pem')
  // Kafka reads key and certificate from one file.
  copyFileSync(path('broker.key'), path('keystore.pem'))
  appendFileSync(path('keystore.pem'), execFileSync('openssl', ['x509', '-in', path('broker.pem')]))

  const [secure, plain, controller] = [await freePort(), await freePort(), await freePort()]
  const jaas = (login: string): string => `org.apache.kafka.common.security.${login}`
  writeFileSync(path('log4j2.properties'), 'status = off\nappender.out.type = Console\nappender.out.name = out\nappender.out.layout.type = PatternLayout\nappender.out.layout.pattern = %m%n\nrootLogger.level = WARN\nrootLogger.appenderRef.out.ref = out\nlogger.server.name = kafka.server.KafkaRaftServer\nlogger.server.level = INFO\n')
  writeFileSync(path('server.properties'), Object.entries({
    'process.roles': 'broker,controller',
    'node.id': 1,
    'controller.quorum.voters': `1@127.0.0.1:${controller}`,
    listeners: `SASL_SSL://localhost:${secure},PLAINTEXT://127.0.0.1:${plain},CONTROLLER://127.0.0.1:${controller}`,
    'advertised.listeners': `SASL_SSL://localhost:${secure},PLAINTEXT://127.0.0.1:${plain}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'inter.broker.listener.name': 'PLAINTEXT',
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
    'listener.name.sasl_ssl.plain.sasl.jaas.config': `${jaas('plain.PlainLoginModule')} required user_${USER}="${PASSWORD}";`,
    'listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config': `${jaas('scram.ScramLoginModule')} required;`,
    'listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config': `${jaas('scram.ScramLoginModule')} required;`,
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': path('keystore.pem'),
    'log.dirs': path('data'),
    'auto.create.topics.enable': false,
    'offsets.topic.num.partitions': 1,
    'offsets.topic.replication.factor': 1,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1
  }).map(([name, value]) => `${name}=${value}`).join('\n'))
  const java = (...args: string[]): string[] => [...JAVA, `-Dlog4j2.configurationFile=${path('log4j2.properties')}`, '-cp', join(kafkaPart.library, '*'), ...args]
  const scram = [256, 512].flatMap(bits => ['--add-scram', `SCRAM-SHA-${bits}=[name=${USER},password=${PASSWORD}]`])
  execFileSync('java', java('kafka.tools.StorageTool', 'format', '-t', 'MkU3OEVBNTcwNTJENDM2Qk', '-c', path('server.properties'), ...scram), { stdio: 'pipe' })
  const child = spawn('java', java('kafka.Kafka', path('server.properties')), { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
  track(child)
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  })
  const tail: string[] = []
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', line => {
      tail.push(line)
      if (line.includes('Kafka Server started')) resolve()
    })
    child.once('exit', () => { reject(new Error(`Kafka ended: ${tail.slice(-20).join('\n')}`)) })
  })
  const admin = new Kafka({ clientId: 'test', brokers: [`127.0.0.1:${plain}`], logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic: TOPIC, numPartitions: 3 }] })
  await admin.disconnect()
  return {
    address: `localhost:${secure}`,
    ca: path('ca.pem'),
    strangerCa: path('stranger.pem'),
    // Read the same secured way, by a client that shares no code with ours.
    read: () => {
      const { stdout, status, stderr } = spawnSync('kcat', ['-C', '-b', `localhost:${secure}`, '-t', TOPIC, '-e', '-q', '-o', 'beginning', '-X', 'security.protocol=SASL_SSL', '-X', `ssl.ca.location=${path('ca.pem')}`,
        '-X', 'sasl.mechanism=PLAIN', '-X', `sasl.username=${USER}`, '-X', `sasl.password=${PASSWORD}`], { encoding: 'utf8', maxBuffer: 2 ** 28 })
      if (status !== 0) throw new Error(`kcat: ${stderr}`)
      return stdout.split('\n').filter(line => line !== '')
    }
  }
}

/** One viewing from its start to its stop; gives the session's id. */
async function watch (t: Test, { url }: ServiceProcess, user: string): Promise<string> {
  const post = async (path: string, body: object, token = ''): Promise<{ status: number, body: { session?: { session_id: string }, playback_token?: string } }> => {
    const response = await fetch(`${url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` }, body: JSON.stringify(body) })
    return { status: response.status, body: Object(await response.json()) }
  }
  const started = await post('/session', { user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'd' })
  t.equal(started.status, 201, `${user}: start`)
  const id = started.body.session?.session_id ?? ''
  t.equal((await post(`/session/${id}/heartbeat`, { position: 5 }, started.body.playback_token)).status, 200, `${user}: heartbeat`)
  t.equal((await post(`/session/${id}/stop`, { position: 6 }, started.body.playback_token)).status, 200, `${user}: stop`)
  return id
}

t.test('Kafka with SASL over TLS', { skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip !== false ? kafkaPart.skip : noOpenssl }, async t => {
  const redis = await startRedis({ program: redisPart.program })
  t.teardown(async () => { await redis.close() })
  const upstream = await startStubUpstream()
  t.teardown(async () => { await upstream.close() })
  const kafka = await startSecureKafka(t)
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const outboxes = async (): Promise<number> => (await store.keys('outbox:*')).length
  const told = (id: string): string[] => kafka.read().map(line => Object(JSON.parse(line))).filter(event => event.session_id === id && event.event_type !== 'playback.heartbeat').map(event => String(event.event_type))
  const run = async (t: Test, env: Record<string, string>): Promise<ServiceProcess> => {
    const service = await startService({
      REDIS_URL: redis.url,
      IDENTITY_URL: upstream.identityUrl,
      CONTENT_URL: upstream.contentUrl,
      UPSTREAM_DEADLINE: '5s',
      SWEEP_INTERVAL: '500ms',
      KAFKA_BROKERS: kafka.address,
      KAFKA_TLS: 'true',
      KAFKA_SASL_MECHANISM: 'scram-sha-512',
      KAFKA_SASL_USERNAME: USER,
      KAFKA_SASL_PASSWORD: PASSWORD,
      NODE_EXTRA_CA_CERTS: kafka.ca,
      ...env
    })
    t.teardown(async () => { await service.close() })
    return service
  }
  const healthOf = async ({ url }: ServiceProcess): Promise<{ status: number, body: object }> => {
    const response = await fetch(`${url}/health/ready`)
    return { status: response.status, body: Object(await response.json()) }
  }

  for (const mechanism of ['scram-sha-512', 'scram-sha-256', 'plain']) {
    await t.test(`events arrive by ${mechanism}`, async t => {
      const service = await run(t, { KAFKA_SASL_MECHANISM: mechanism })
      await waitFor('the sink to connect', async () => Object((await healthOf(service)).body).dependencies.events.status === 'up', 60_000)
      const id = await watch(t, service, `user-${mechanism}`)
      await waitFor('the outbox to be empty', async () => await outboxes() === 0, 60_000)
      t.same(told(id), ['playback.started', 'playback.stopped'])
      t.notOk(JSON.stringify(service.lines).includes(PASSWORD), 'the password is not in the log')
    })
  }

  const waiting: string[] = []
  /** What is wrong, the secret that must not be logged, and the reason that the log gives. */
  const WRONG: Array<[string, Record<string, string>, string, RegExp]> = [
    ['a wrong password', { KAFKA_SASL_PASSWORD: 'not-the-password' }, 'not-the-password', /authentication failed/i],
    ['a wrong user', { KAFKA_SASL_USERNAME: 'nobody' }, PASSWORD, /authentication failed/i],
    ['an authority that is not trusted', { NODE_EXTRA_CA_CERTS: kafka.strangerCa }, PASSWORD, /certificate/],
    ['a name that is not in the certificate', { KAFKA_BROKERS: kafka.address.replace('localhost', '127.0.0.1') }, PASSWORD, /altnames/],
    ['no TLS', { KAFKA_TLS: 'false' }, PASSWORD, /connection/i],
    ['no user', { KAFKA_SASL_MECHANISM: '', KAFKA_SASL_USERNAME: '', KAFKA_SASL_PASSWORD: '' }, PASSWORD, /connection/i]
  ]
  for (const [name, env, secret, reason] of WRONG) {
    await t.test(`${name}: the service serves, its events wait in the outbox`, async t => {
      const service = await run(t, { ...env, LOG_LEVEL: 'debug' })
      const before = await outboxes()
      const id = await watch(t, service, `user-${waiting.length}`)
      waiting.push(id)
      const said = await waitFor('the log to say that Kafka is away', () => service.lines.find(({ msg }) => String(msg).startsWith('Kafka is away')), 60_000)
      t.match(said.reason, reason)
      t.match(await healthOf(service), { status: 200, body: { status: 'degraded', dependencies: { events: { status: 'degraded' } } } })
      t.ok(await outboxes() > before, 'they wait in Redis')
      t.same(told(id), [], 'none has arrived')
      t.notOk(JSON.stringify(service.lines).includes(secret), 'the password is not in the log')
    })
  }

  await t.test('what waited arrives once the settings are right', async t => {
    await run(t, {})
    await waitFor('the outbox to be empty', async () => await outboxes() === 0, 120_000)
    for (const id of waiting) t.same(told(id), ['playback.started', 'playback.stopped'])
  })
})
