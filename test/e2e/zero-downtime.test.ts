import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type Balancer, startBalancer } from '../support/balancer.ts'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { startRedisSentinel } from '../support/redis-sentinel.ts'
import { requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { startViewers, type Tally, type Viewers } from '../support/viewers.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TOPIC = 'playback.events'
/** Of every user: what the stub of the identity service names. */
const LIMIT = 4
const KEYS = { old: 'the old key of the playback tokens of 32 bytes', new: 'the new key of the playback tokens of 32 bytes' }
const TOKEN_LIFE_MS = 6_000
/** The runbook's "seconds" for a failover. */
const FAILOVER_MS = 15_000

const kidOf = (token: string): string => JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()).kid

/** Holds a stretch of load against the promise that nobody notices, and says what was measured. */
function unnoticed (t: Test, name: string, { requests, kinds, failures }: Tally): void {
  t.ok(requests > 100, `${name}: ${requests} requests are a load`)
  t.same(kinds, {}, `${name}: no request failed`)
  t.comment(`measured ${name}: ${failures.length} of ${requests} requests failed`)
}
/** Load goes on until this many more requests were answered. */
async function more (viewers: Viewers, sessions: number): Promise<void> {
  const before = viewers.counts.ended
  await waitFor('further sessions', () => viewers.counts.ended >= before + sessions, 60_000)
}

/** Replaces every instance by one with `env`: the new one up and ready, then SIGTERM for the old one. */
async function roll (t: Test, balancer: Balancer, instances: ServiceProcess[], env: Record<string, string>): Promise<ServiceProcess[]> {
  const fresh: ServiceProcess[] = []
  for (const old of instances) {
    const instance = await startService({ ...env, SHUTDOWN_DELAY: '500ms' })
    t.teardown(async () => { await instance.close() })
    fresh.push(instance)
    balancer.add(instance.url)
    await waitFor('the new instance to be ready', () => balancer.ready().includes(instance.url), 30_000)
    old.signal('SIGTERM')
    t.same(await old.exited, { code: 0, signal: null }, 'the old instance ended by itself')
    t.notOk(balancer.ready().includes(old.url), 'and was out of the balancer by then')
  }
  return fresh
}

t.test('viewers notice neither a rolling restart, nor a key rotation, nor a Kafka outage', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const [redis, kafka, upstream, balancer] = await Promise.all([startRedis({ program: redisPart.program }), startKafka(kafkaPart.library), startStubUpstream(), startBalancer()])
  t.teardown(async () => { await Promise.all([balancer.close(), redis.close(), kafka.close(), upstream.close()]) })
  await kafka.createTopic(TOPIC, 3)
  const env = {
    REDIS_URL: redis.url,
    IDENTITY_URL: upstream.identityUrl,
    CONTENT_URL: upstream.contentUrl,
    KAFKA_BROKERS: kafka.addresses,
    // A busy machine is no failure of ours.
    UPSTREAM_DEADLINE: '10s',
    REDIS_COMMAND_TIMEOUT: '10s',
    HEARTBEAT_INTERVAL: '1s',
    JWT_EXPIRATION: `${TOKEN_LIFE_MS}ms`,
    JWT_SECRET: KEYS.old,
    IDEMPOTENCY_SECRET: 'the secret of the idempotency keys of 32 bytes'
  }
  let instances: ServiceProcess[] = await Promise.all([startService({ ...env, SHUTDOWN_DELAY: '500ms' }), startService({ ...env, SHUTDOWN_DELAY: '500ms' })])
  for (const instance of instances) {
    t.teardown(async () => { await instance.close() })
    balancer.add(instance.url)
  }
  await waitFor('both instances to be ready', () => balancer.ready().length === 2)
  const url = (): string => balancer.url
  const viewers = startViewers({ name: 'some', url, loops: 9, restMs: 50, beats: 3 })
  // These watch through everything, with whatever token they have.
  const film = startViewers({ name: 'film', url, loops: 3, restMs: 200, beats: Infinity })
  t.teardown(async () => { await Promise.all([viewers.stop(), film.stop()]) })
  const take = (): Tally => {
    const [some, others] = [viewers.take(), film.take()]
    const kinds = { ...some.kinds }
    for (const [kind, count] of Object.entries(others.kinds)) kinds[kind] = (kinds[kind] ?? 0) + count
    return { requests: some.requests + others.requests, failures: [...some.failures, ...others.failures], windowMs: 0, kinds }
  }
  await more(viewers, 20)
  unnoticed(t, 'before anything', take())

  instances = await roll(t, balancer, instances, env)
  await more(viewers, 10)
  for (const { url } of instances) t.ok((balancer.given.get(url) ?? 0) > 20, 'the new instances had their share')
  unnoticed(t, 'rolling restart of two instances', take())

  const token = async (): Promise<string> => {
    const response = await fetch(`${balancer.url}/api/playback/session`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user_id: `kid-${performance.now()}`, profile_id: 'p', content_id: 'content789', device_id: 'd' }) })
    return (await response.json() as { playback_token: string }).playback_token
  }
  const ofOldKey = await token()
  instances = await roll(t, balancer, instances, { ...env, JWT_SECRETS_ACCEPTED: KEYS.new })
  t.equal(kidOf(await token()), kidOf(ofOldKey), 'first the new key is only accepted')
  instances = await roll(t, balancer, instances, { ...env, JWT_SECRET: KEYS.new, JWT_SECRETS_ACCEPTED: KEYS.old })
  const swappedMs = performance.now()
  t.not(kidOf(await token()), kidOf(ofOldKey), 'then it signs')
  await waitFor('the tokens of the old key to be past their life', () => performance.now() - swappedMs > TOKEN_LIFE_MS, 60_000)
  instances = await roll(t, balancer, instances, { ...env, JWT_SECRET: KEYS.new })
  await more(viewers, 10)
  const refused = await fetch(`${balancer.url}/api/playback/token/validate`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ token: ofOldKey }) })
  t.match(await refused.json(), { valid: false, reason: 'unknown-key' }, 'at last the old key is gone')
  unnoticed(t, 'key rotation in three deployments', take())

  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const waiting = async (): Promise<number> => (await Promise.all((await store.keys('outbox:*')).map(async key => await store.xlen(key)))).reduce((sum, length) => sum + length, 0)
  await kafka.brokers[0]?.kill()
  await more(viewers, 60)
  t.ok(await waiting() > 100, 'events wait in Redis: Kafka is away')
  await kafka.brokers[0]?.restart()
  await more(viewers, 10)
  unnoticed(t, 'Kafka outage', take())

  const [, films] = await Promise.all([viewers.stop(), film.stop()])
  t.same([...viewers.lost, ...film.lost], [], 'no session was lost')
  t.equal(film.counts.started, 3, 'and the films ran from the beginning to the end')
  for (const [id, token] of films) {
    t.equal((await fetch(`${balancer.url}/api/playback/session/${id}`, { headers: { authorization: `Bearer ${token}` } })).status, 200)
  }
  t.ok(viewers.mostOfOneUser() <= LIMIT && viewers.counts.refused > 0, `at most ${viewers.mostOfOneUser()} sessions of a user, ${viewers.counts.refused} starts refused at the limit`)
  await waitFor('every outbox to be empty', async () => await waiting() === 0, 60_000)
  const events: Array<{ event_id: string, event_type: string }> = readTopic(kafka.addresses, TOPIC).map(({ payload }) => JSON.parse(payload))
  const ids = (type: string): number => new Set(events.filter(event => event.event_type === type).map(event => event.event_id)).size
  // The three tokens above are starts as well.
  t.equal(ids('playback.started'), viewers.counts.started + film.counts.started + 3, 'every start is in Kafka')
  t.ok(ids('playback.stopped') >= viewers.counts.ended, 'and every end')
})

/** A Redis whose master can change. */
interface Store {
  env: Record<string, string>
  /** Who is master now; of a cluster, of one slot. */
  master: () => Promise<RedisServer>
  faults: Array<[name: string, fault: () => Promise<unknown>]>
  slotsOf: (user: string) => Promise<number>
}

/** Load through each change of master: 503 for seconds and nothing else, no acknowledged session lost, no user beyond the limit. */
async function failover (t: Test, { env, master, faults, slotsOf }: Store): Promise<void> {
  const upstream = await startStubUpstream()
  t.teardown(async () => { await upstream.close() })
  const own = { ...env, ADMISSION_DURABILITY: 'replicated', IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '10s' }
  const instances = await Promise.all([startService(own), startService(own)])
  t.teardown(async () => { await Promise.all(instances.map(async instance => { await instance.close() })) })
  // Straight to the instances: while all are unready, a balancer would answer by itself.
  let turn = 0
  const viewers = startViewers({ name: 'some', url: () => instances[turn++ % 2]?.url ?? '', loops: 9, restMs: 50, beats: 5 })
  t.teardown(async () => { await viewers.stop() })
  await more(viewers, 20)
  unnoticed(t, 'before the failover', viewers.take())

  for (const [name, fault] of faults) {
    await waitFor('a replica in step', async () => await replicas(await master()) >= 1, 30_000)
    const before = await master()
    await fault()
    const after = await waitFor('another master', async () => await master().then(now => now.port === before.port ? undefined : now, () => undefined), 60_000)
    await waitFor('a replica of it', async () => await replicas(after) >= 1, 60_000)
    await more(viewers, 20)
    const { requests, failures, kinds, windowMs } = viewers.take()
    t.comment(`measured ${name}: ${failures.length} of ${requests} requests failed within ${(windowMs / 1_000).toFixed(1)} s: ${JSON.stringify(kinds)}`)
    t.ok(requests > 100, `${name}: ${requests} requests are a load`)
    t.same(failures.filter(({ what, retryAfter }) => !what.startsWith('503 ') || Number(retryAfter) < 1), [], 'only as 503 with Retry-After')
    t.ok(failures.length === 0 || windowMs < FAILOVER_MS * 2, `for ${(windowMs / 1_000).toFixed(1)} s`)
    t.same(viewers.lost, [], 'no acknowledged session is gone')
  }
  const tokens = await viewers.stop()
  const live = [...viewers.acknowledged.values()].flatMap(ids => [...ids])
  const statuses = await Promise.all(live.map(async id => (await fetch(`${instances[0]?.url}/api/playback/session/${id}`, { headers: { authorization: `Bearer ${tokens.get(id)}` } })).status))
  t.ok(live.length > 0)
  t.same(new Set(statuses), new Set([200]), `all ${live.length} sessions that run are there after all of it`)
  t.ok(viewers.mostOfOneUser() <= LIMIT && viewers.counts.refused > 0, `at most ${viewers.mostOfOneUser()} sessions of a user`)
  for (const user of viewers.acknowledged.keys()) t.ok(await slotsOf(user) <= LIMIT, `${user} is within the limit in Redis`)
}

t.test('a failover by Sentinel is 503 for seconds, and no session that was answered 201 is lost', { skip: redisPart.skip }, async t => {
  const watch = await startRedisSentinel(redisPart.program, { replicas: 2 })
  t.teardown(async () => { await watch.close() })
  const sentinel = new Redis(watch.sentinels[0]?.port ?? 0)
  t.teardown(() => { sentinel.disconnect() })
  await failover(t, {
    env: { REDIS_SENTINELS: watch.nodes },
    master: watch.master,
    faults: [
      ['master killed', async () => { await (await watch.master()).kill() }],
      // With one replica left: where there are more, one may acknowledge what the promoted one never saw.
      ['SENTINEL FAILOVER', async () => await sentinel.call('SENTINEL', 'FAILOVER', watch.name)]
    ],
    slotsOf: async user => await ask(await watch.master(), async client => await client.scard(`concurrency:{${user}}`))
  })
})

t.test('so is one of a cluster by order', { skip: redisPart.skip }, async t => {
  const cluster = await startRedisCluster(redisPart.program)
  t.teardown(async () => { await cluster.close() })
  const client = new Cluster(cluster.servers.map(({ host, port }) => ({ host, port })))
  t.teardown(() => { client.disconnect() })
  const master = async (): Promise<RedisServer> => await cluster.masterOf(0)
  const replicaOf = async ({ port }: RedisServer): Promise<RedisServer> => {
    for (const server of cluster.servers) {
      if ((await ask(server, async own => await own.info('replication')).catch(() => '')).includes(`master_port:${port}`)) return server
    }
    throw new Error('no replica')
  }
  await failover(t, {
    env: { REDIS_CLUSTER: cluster.nodes },
    master,
    faults: [
      ['CLUSTER FAILOVER', async () => await ask(await replicaOf(await master()), async own => await own.call('CLUSTER', 'FAILOVER'))],
      ['back by CLUSTER FAILOVER', async () => await ask(await replicaOf(await master()), async own => await own.call('CLUSTER', 'FAILOVER'))]
    ],
    slotsOf: async user => await client.scard(`concurrency:{${user}}`)
  })
})

async function ask <T> ({ host, port }: RedisServer, question: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis({ host, port, maxRetriesPerRequest: 0, retryStrategy: null })
  client.on('error', () => { /* away */ })
  try {
    return await question(client)
  } finally {
    client.disconnect()
  }
}

async function replicas (server: RedisServer): Promise<number> {
  return await ask(server, async client => [...(await client.info('replication')).matchAll(/^slave\d+:.*state=online/gm)].length).catch(() => 0)
}
