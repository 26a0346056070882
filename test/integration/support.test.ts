import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { startRedisSentinel } from '../support/redis-sentinel.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
/** Detection, election and the clients' news of it, on a busy machine. */
const FAILOVER_MS = 30_000

function connect (t: Test, { host, port }: RedisServer, commandTimeout = 2_000): Redis {
  const client = new Redis({ host, port, commandTimeout, maxRetriesPerRequest: 0, retryStrategy: null })
  client.on('error', () => { /* the calls fail */ })
  t.teardown(() => { client.disconnect() })
  return client
}

t.test('a killed server comes back at the same port, with its data if it writes a file', { skip }, async t => {
  const server = await startRedis({ program, args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  t.teardown(server.close)
  await connect(t, server).set('title', 'kept')
  const { port } = server
  const before = server.pid()
  await server.kill()
  await t.rejects(connect(t, server).ping(), 'the fault happened')
  await server.restart()
  t.equal(server.port, port)
  t.ok(server.pid() !== before, 'another process')
  t.equal(await connect(t, server).get('title'), 'kept')
})

t.test('a paused server keeps its connections and answers nothing until it is resumed', { skip }, async t => {
  const server = await startRedis({ program })
  t.teardown(server.close)
  const client = connect(t, server, 100)
  t.equal(await client.ping(), 'PONG')
  server.pause()
  await t.rejects(client.ping(), { message: /timed out/ })
  t.equal(client.status, 'ready')
  server.resume()
  t.equal(await waitFor('an answer', async () => await client.ping().catch(() => undefined)), 'PONG')
})

t.test('a server with a password refuses who does not know it', { skip }, async t => {
  const server = await startRedis({ program, password: 'open-sesame' })
  t.teardown(server.close)
  await t.rejects(connect(t, server).get('title'), { message: /NOAUTH/ })
  const client = new Redis(server.url)
  t.teardown(() => { client.disconnect() })
  t.equal(await client.ping(), 'PONG')
})

t.test('a closed server is gone', { skip }, async t => {
  const server = await startRedis({ program })
  await server.close()
  t.throws(() => process.kill(server.pid(), 0))
})

t.test('a cluster is whole at once, and a replica takes over from a killed master', { skip }, async t => {
  const cluster = await startRedisCluster(program)
  t.teardown(cluster.close)
  for (const server of cluster.servers) {
    t.match(String(await connect(t, server).call('CLUSTER', 'INFO')), /cluster_state:ok/)
  }
  const roles = await Promise.all(cluster.servers.map(async server => await connect(t, server).info('replication')))
  t.equal(roles.filter(role => role.includes('role:master')).length, 3)
  t.equal(roles.filter(role => role.includes('master_link_status:up')).length, 3)

  const killed = await cluster.masterOf(0)
  await killed.kill()
  const successor = await waitFor('a new master of slot 0', async () => {
    const master = await cluster.masterOf(0)
    return master !== killed && master
  }, FAILOVER_MS)
  t.match(await connect(t, successor).info('replication'), /role:master/)
  const client = connect(t, successor)
  // Hash slot 0 is that of the tag `3560`.
  t.equal(await client.cluster('KEYSLOT', '{3560}'), 0)
  t.equal(await waitFor('a write to slot 0', async () => await client.set('{3560}', 'x').catch(() => undefined), FAILOVER_MS), 'OK')
})

t.test('sentinels name a replica as the new master of a killed one', { skip }, async t => {
  const sentinel = await startRedisSentinel(program)
  t.teardown(sentinel.close)
  const killed = await sentinel.master()
  t.equal(killed, sentinel.servers[0])
  await killed.kill()
  const successor = await waitFor('the failover', async () => {
    const master = await sentinel.master().catch(() => undefined)
    return master !== undefined && master !== killed && master
  }, FAILOVER_MS)
  t.match(await connect(t, successor).info('replication'), /role:master/)
  t.equal(await connect(t, successor).set('title', 'x'), 'OK')
})
