import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
interface Answer { status: number, body: { session?: { session_id: string }, playback_token?: string, reason?: string, concurrency?: { active: number } } }
let users = 0
const newUser = (): string => `racer-${users++}`

/** 503 means that an overloaded or failing-over service said so: the call is repeated, as its clients do. */
async function post (service: ServiceProcess | undefined, path: string, body: object, headers: Record<string, string> = {}): Promise<Answer> {
  return await waitFor('an answer other than 503', async () => {
    const answer = await postOnce(service, path, body, headers)
    return answer.status === 503 ? undefined : answer
  }, 30_000)
}
async function postOnce (service: ServiceProcess | undefined, path: string, body: object, headers: Record<string, string>): Promise<Answer> {
  const response = await fetch(`${service?.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
  return { status: response.status, body: await response.json() as Answer['body'] }
}
const start = async (service: ServiceProcess | undefined, user: string, more: object = {}, headers: Record<string, string> = {}): Promise<Answer> =>
  await post(service, '/session', { user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'd', ...more }, headers)
const beat = async (service: ServiceProcess | undefined, { body }: Answer): Promise<Answer> =>
  await post(service, `/session/${body.session?.session_id}/heartbeat`, { position: 1 }, { authorization: `Bearer ${body.playback_token}` })

async function threeInstances (t: Test, env: Record<string, string>): Promise<ServiceProcess[]> {
  const upstream = await startStubUpstream()
  t.teardown(async () => { await upstream.close() })
  upstream.behave('identity', { json: { entitled: true } })
  const all = { IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '10s', SESSION_TIMEOUT: '4s', HEARTBEAT_INTERVAL: '2s', ...env }
  const services = await Promise.all([startService(all), startService(all), startService(all)])
  t.teardown(async () => { await Promise.all(services.map(async service => { await service.close() })) })
  return services
}

/** The races of one store, spread over the instances. */
async function races (t: Test, services: ServiceProcess[], userCount: number): Promise<void> {
  t.test('of 15 simultaneous starts of each user at limit 3 exactly 3 are admitted', async t => {
    const names = Array.from({ length: userCount }, newUser)
    for (let from = 0; from < names.length; from += 20) {
      const answers = await Promise.all(names.slice(from, from + 20).map(async user =>
        await Promise.all(Array.from({ length: 15 }, async (_, index) => await start(services[index % 3], user)))))
      const wrong = answers.filter(own => own.filter(({ status }) => status === 201).length !== 3 || own.filter(({ status }) => status === 409).length !== 12)
      t.same(wrong.map(own => own.map(({ status }) => status)), [], `users ${from} to ${from + 19}`)
      const beats = await Promise.all(answers.flat().filter(({ status }) => status === 201).map(async (answer, index) => await beat(services[index % 3], answer)))
      t.ok(beats.every(({ status }) => status === 200), 'every admitted session lives')
    }
  })

  t.test('60 racing starts with one Idempotency-Key make one session', async t => {
    const user = newUser()
    const answers = await Promise.all(Array.from({ length: 60 }, async (_, index) => await start(services[index % 3], user, {}, { 'idempotency-key': 'one' })))
    t.equal(answers.filter(({ status }) => status === 201).length, 1)
    t.equal(answers.filter(({ status }) => status === 200).length, 59)
    t.equal(new Set(answers.map(({ body }) => body.session?.session_id)).size, 1)
    t.equal(answers.at(-1)?.body.concurrency?.active, 1)
  })

  t.test('of 30 racing take-overs three live, and all others read that they were superseded', async t => {
    const user = newUser()
    const answers = await Promise.all(Array.from({ length: 30 }, async (_, index) => await start(services[index % 3], user, { on_limit: 'supersede_oldest' })))
    t.ok(answers.every(({ status }) => status === 201))
    const beats = await Promise.all(answers.map(async answer => await beat(services[0], answer)))
    t.equal(beats.filter(({ status }) => status === 200).length, 3)
    t.equal(beats.filter(({ status, body }) => status === 410 && body.reason === 'superseded').length, 27)
  })
}

t.test('three instances on one server', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const services = await threeInstances(t, { REDIS_URL: redis.url, SWEEP_INTERVAL: '1s' })
  await races(t, services, 200)

  t.test('the reapers end the silent once each and leave the living alone', async t => {
    const silent = await Promise.all(Array.from({ length: 60 }, async (_, index) => await start(services[index % 3], newUser())))
    const living = await Promise.all(Array.from({ length: 10 }, async (_, index) => await start(services[index % 3], newUser())))
    const ids = new Set(silent.map(({ body }) => body.session?.session_id))
    const ends = () => services.flatMap(({ lines }) => lines).map(({ event }) => Object(event)).filter(event => ids.has(event.session_id) && event.metadata.reason === 'expired')
    await waitFor('the silent to be ended', async () => {
      const beats = await Promise.all(living.map(async (answer, index) => await beat(services[index % 3], answer)))
      if (beats.some(({ status }) => status !== 200)) throw new Error('a living session was ended')
      return ends().length >= 60
    }, 30_000)
    t.equal(ends().length, 60, 'one terminal event each')
    t.equal((await beat(services[0], silent[0] ?? { status: 0, body: {} })).body.reason, 'expired', 'a late heartbeat revives nobody')
    const store = new Redis(redis.url)
    t.teardown(() => { store.disconnect() })
    t.equal((await Promise.all([...ids].map(async id => await store.exists(`session:{${id}}`)))).filter(found => found === 1).length, 0)
  })
})

t.test('silent clients give way inside the next start, without any reaper', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  // No sweep happens within the test, so it is the start itself that sees who is silent.
  const services = await threeInstances(t, { REDIS_URL: redis.url, SWEEP_INTERVAL: '10m' })
  const user = newUser()
  for (let index = 0; index < 3; index++) t.equal((await start(services[index], user)).status, 201)
  t.equal((await start(services[0], user)).status, 409)
  await waitFor('the three to be silent for T', async () => (await start(services[1], user)).status === 201)
  const expired = (): number => services.flatMap(({ lines }) => lines).filter(({ event }) => Object(event).metadata?.reason === 'expired').length
  // The line of the event may reach us after the answer of the start.
  t.ok(await waitFor('the terminal event of who gave way', () => expired() >= 1 && expired()) <= 3)
})

t.test('three instances on a real cluster of six nodes', { skip }, async t => {
  const cluster = await startRedisCluster(program)
  t.teardown(async () => { await cluster.close() })
  const services = await threeInstances(t, { REDIS_CLUSTER: cluster.nodes, SWEEP_INTERVAL: '1s', SESSION_TIMEOUT: '30s', HEARTBEAT_INTERVAL: '10s' })
  const metrics = await (await fetch(`${services[0]?.url}/metrics`)).text()
  t.match(metrics, /viewing_admission_replicated 1/, 'with replicas, starts wait for one')
  await races(t, services, 60)

  t.test('heartbeats of many users in one request reach every shard', async t => {
    const answers = await Promise.all(Array.from({ length: 50 }, async (_, index) => await start(services[index % 3], newUser())))
    const batch = await post(services[0], '/heartbeats', { heartbeats: answers.map(({ body }, position) => ({ playback_token: body.playback_token, position })) })
    const { results } = batch.body as unknown as { results: Array<{ status: number, position: number }> }
    t.ok(results.every(({ status, position }, index) => status === 200 && position === index))
  })

  t.test('what was answered 201 is still there after its master was killed', async t => {
    const user = newUser()
    const answer = await start(services[0], user)
    t.equal(answer.status, 201)
    const slot = await slotOf(cluster.servers[0]?.port ?? 0, `concurrency:{${user}}`)
    const master = await cluster.masterOf(slot)
    await master.kill()
    await waitFor('a replica to be promoted', async () => await cluster.masterOf(slot).then(now => now !== master, () => false), 30_000)
    t.equal((await beat(services[1], answer)).status, 200)
    // A start that no replica confirmed is 503 and may exist; its key finds it again.
    for (const key of ['second', 'third']) t.match(String((await start(services[2], user, {}, { 'idempotency-key': key })).status), /^20[01]$/)
    t.equal((await start(services[2], user, {}, { 'idempotency-key': 'fourth' })).status, 409, 'the limit holds after the failover')
  })
})

async function slotOf (port: number, key: string): Promise<number> {
  const client = new Redis({ port })
  const slot = Number(await client.call('CLUSTER', 'KEYSLOT', key))
  client.disconnect()
  return slot
}
