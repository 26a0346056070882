import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { startService } from '../support/service-process.ts'

const { program, skip } = requireRedis()
const PER_MINUTE = 60
const INTERVAL_US = 60e6 / PER_MINUTE
interface Clock { time: () => Promise<Array<string | number>>, get: (key: string) => Promise<string | null> }

const nowUs = async (client: Clock): Promise<number> => {
  const [seconds, micros] = (await client.time()).map(Number) as [number, number]
  return seconds * 1e6 + micros
}

/**
 * Many requests at once of each user, over two processes, then more of them for as long as it takes to see some of them pass again. Exact without
 * any sleep or time limit: as long as a user is never idle, each request that passes moves his key by one interval from the time of his first.
 */
async function race (t: Test, env: Record<string, string>, users: number, clockOf: (user: string) => Promise<Clock>): Promise<void> {
  const services = await Promise.all([startService({ ...env, USER_RATE_LIMIT: String(PER_MINUTE) }), startService({ ...env, USER_RATE_LIMIT: String(PER_MINUTE) })])
  t.teardown(async () => { await Promise.all(services.map(async service => { await service.close() })) })
  let turn = 0
  const ask = async (user: string): Promise<number> => {
    const response = await fetch(`${services[turn++ % 2]?.url}/api/playback/concurrency/${user}`)
    await response.body?.cancel()
    return response.status
  }
  const names = Array.from({ length: users }, (_, at) => `racer-${process.pid}-${at}`)
  await Promise.all(names.map(async user => {
    const clock = await clockOf(user)
    const before = await nowUs(clock)
    const statuses = await Promise.all(Array.from({ length: 2 * PER_MINUTE }, async () => await ask(user)))
    const after = await nowUs(clock)
    const passed = () => statuses.filter(status => status === 200).length
    t.same([...new Set(statuses)].sort(), [200, 429], `${user}: some pass, some do not`)
    t.ok(passed() >= PER_MINUTE && passed() <= PER_MINUTE + Math.ceil((after - before) / INTERVAL_US), `${user}: ${passed()} of ${statuses.length} pass in ${Math.round((after - before) / 1e3)} ms`)
    while (passed() < PER_MINUTE + 3) statuses.push(await ask(user))
    const began = Number(await clock.get(`rate:{${user}}`)) - passed() * INTERVAL_US
    t.ok(began >= before && began <= after, `${user}: ${passed()} passed, and the clock of Redis has counted each of them once`)
    t.ok(await nowUs(clock) - began >= 3 * INTERVAL_US, `${user}: each one after the burst has waited for its interval`)
  }))
}

t.test('parallel requests of a user over two processes: the burst passes, then one per interval', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const store = new Redis({ port: redis.port })
  t.teardown(() => { store.disconnect() })
  await race(t, { REDIS_URL: redis.url }, 3, async () => store)
})

t.test('the same in a cluster, with the users of a tick in many slots', { skip }, async t => {
  const cluster = await startRedisCluster(program, { replicas: false })
  t.teardown(async () => { await cluster.close() })
  const stores = cluster.servers.map(({ port }) => new Redis({ port }))
  t.teardown(() => { for (const store of stores) store.disconnect() })
  const ports = new Set<number>()
  await race(t, { REDIS_CLUSTER: cluster.nodes, REDIS_COMMAND_TIMEOUT: '5s' }, 9, async user => {
    const { port } = await cluster.masterOf(Number(await stores[0]?.cluster('KEYSLOT', `rate:{${user}}`)))
    ports.add(port)
    return stores[cluster.servers.findIndex(server => server.port === port)] as Redis
  })
  t.equal(ports.size, 3, 'users on every master')
})
