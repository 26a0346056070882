import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { freePort, type RedisServer, startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
const PASSWORD = 'password-for-tests/0123456789'
const ADMIN = 'user admin on >admin allkeys allchannels +@all'
const USERS = readFileSync(new URL('../../deploy/redis/users.acl', import.meta.url), 'utf8')
/** The file as it is deployed: each user that may come in has a password put behind his rules. */
const OWN = USERS.trim().split('\n').filter(line => line.includes(' on ')).map(line => `${line} >${PASSWORD}`).join('\n')
const LOCKED = `${USERS.split('\n').filter(line => !line.includes(' on ')).join('\n')}${OWN}\n${ADMIN}\n`
const OPEN = `user default on nopass allkeys allchannels +@all\n${OWN}\n`
/** ASKING is for the moment in which a slot moves, the others for nodes that become a replica or a master. */
const CLUSTER_CHANGES = ['asking', 'readonly', 'readwrite']
const CLUSTER_ONLY = ['cluster|slots', 'cluster|info', ...CLUSTER_CHANGES]
const QUICK = { SESSION_TIMEOUT: '4s', HEARTBEAT_INTERVAL: '2s', SWEEP_INTERVAL: '300ms', UPSTREAM_DEADLINE: '10s', USER_RATE_LIMIT: '60000' }

interface Answer { status: number, body: { code?: string, reason?: string, valid?: boolean, results?: Array<{ status: number }>, session?: { session_id: string, status: string }, playback_token?: string } }

/** A client with all rights, or the given user's. */
function connect (t: Test, { host, port }: RedisServer, username = 'admin', password = 'admin'): Redis {
  const client = new Redis({ host, port, username, password, disableClientInfo: true, retryStrategy: null })
  client.on('error', () => { /* each command says its own */ })
  t.teardown(() => { client.disconnect() })
  return client
}

/** Servers come up with everybody let in, since the support code looks whether they answer; then the file counts. */
function aclFile (t: Test): { args: string[], lock: (servers: readonly RedisServer[]) => Promise<void> } {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-acl-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const file = join(folder, 'users.acl')
  writeFileSync(file, OPEN)
  return {
    args: ['--aclfile', file, '--masteruser', 'replica', '--masterauth', PASSWORD],
    lock: async servers => {
      writeFileSync(file, LOCKED)
      for (const server of servers) {
        // The default user's own connection is the one that survives being locked out.
        await connect(t, server, 'default', '').acl('LOAD')
        const admin = connect(t, server)
        await admin.call('SCRIPT', 'FLUSH')
        await admin.config('RESETSTAT')
      }
    }
  }
}

async function call (url: string, method: string, path: string, token?: string, body?: object, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(`${url}/api/playback${path}`, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return { status: response.status, body: Object(await response.json()) }
}
const viewer = (user: string, device: string, more: object = {}): object => ({ user_id: user, profile_id: 'p', content_id: 'content789', device_id: device, ...more })

/** Every operation of the API that touches Redis, then silence until the reaper has ended a session. */
async function mainFlow (t: Test, { url, lines }: ServiceProcess): Promise<void> {
  const begin = async (user: string, device: string, more: object = {}, headers: Record<string, string> = {}): Promise<{ id: string, token: string }> => {
    const answer = await call(url, 'POST', '/session', undefined, viewer(user, device, more), headers)
    t.ok(answer.status === 201 || answer.status === 200, `start on ${device}: ${answer.status} ${answer.body.code ?? ''}`)
    return { id: answer.body.session?.session_id ?? '', token: answer.body.playback_token ?? '' }
  }
  const status = async (...args: Parameters<typeof call> extends [string, ...infer Rest] ? Rest : never): Promise<number> => (await call(url, ...args)).status
  await waitFor('a start', async () => await status('POST', '/session', undefined, viewer('user-warm', 'd')) === 201, 30_000)
  const tv = await begin('user123', 'tv', {}, { 'idempotency-key': 'evening-1' })
  t.equal((await begin('user123', 'tv', {}, { 'idempotency-key': 'evening-1' })).id, tv.id, 'the same key is the same session')
  const phone = await begin('user123', 'phone')
  const tablet = await begin('user123', 'tablet')
  t.match(await call(url, 'POST', '/session', undefined, viewer('user123', 'laptop')), { status: 409, body: { code: 'concurrency-limit-reached' } })
  const laptop = await begin('user123', 'laptop', { on_limit: 'supersede_oldest' })
  t.match(await call(url, 'POST', `/session/${tv.id}/heartbeat`, tv.token, { position: 1 }), { status: 410, body: { reason: 'superseded' } })
  t.equal(await status('POST', `/session/${phone.id}/heartbeat`, phone.token, { position: 10 }), 200)
  const batch = await call(url, 'POST', '/heartbeats', undefined, { heartbeats: [phone, tablet].map(({ token }) => ({ playback_token: token, position: 20 })) })
  t.same(batch.body.results?.map(({ status }) => status), [200, 200], 'a batch of heartbeats')
  t.equal(await status('POST', `/session/${phone.id}/pause`, phone.token, {}), 200)
  t.equal(await status('POST', `/session/${phone.id}/resume`, phone.token, {}), 200)
  t.equal(await status('GET', `/session/${phone.id}`, phone.token), 200)
  t.equal(await status('GET', '/concurrency/user123'), 200)
  t.match(await call(url, 'POST', '/token/validate', undefined, { token: phone.token }), { status: 200, body: { valid: true } })
  t.equal(await status('POST', '/token/refresh', undefined, { token: phone.token }), 200)
  t.equal(await status('POST', `/session/${phone.id}/stop`, phone.token, { position: 30 }), 200)
  t.equal(await status('POST', `/session/${tablet.id}/complete`, tablet.token, { position: 5_400 }), 200)
  t.equal(await status('DELETE', '/concurrency/user123'), 200, 'sign-out')
  t.equal(await status('GET', `/session/${laptop.id}`, laptop.token), 410)
  t.equal((await fetch(`${url}/health/ready`)).status, 200)

  const silent = await begin('user-silent', 'tv')
  await waitFor('the silent session to be ended by the reaper', () => lines.some(({ event }) => Object(event).session_id === silent.id && Object(event).metadata.reason === 'expired'), 60_000)
  const types = new Set(lines.map(({ event }) => Object(event).event_type))
  for (const type of ['started', 'heartbeat', 'paused', 'resumed', 'stopped', 'completed']) t.ok(types.has(`playback.${type}`), `an event playback.${type}`)
}

async function wrongPassword (t: Test, env: Record<string, string>): Promise<void> {
  const stranger = await startService(env)
  t.teardown(async () => { await stranger.close() })
  t.equal((await fetch(`${stranger.url}/health/ready`)).status, 503)
  t.equal((await call(stranger.url, 'POST', '/session', undefined, viewer('user123', 'tv'))).status, 503)
  t.ok(stranger.lines.some(line => JSON.stringify(line).includes('WRONGPASS')), 'the log says why')
  t.same(stranger.lines.filter(line => JSON.stringify(line).includes('not-the-password')).map(({ msg }) => msg), [], 'the password is not in the log')
}

/** Which commands the server has run, as `INFO commandstats` names them. */
async function commandsOf (admin: Redis): Promise<string[]> {
  return [...(await admin.info('commandstats')).matchAll(/^cmdstat_([a-z|]+):calls=\d+/gm)].map(([, name]) => name ?? '')
}

t.test('the service does all of its work with the rights of deploy/redis/users.acl, and the user has no others', { skip }, async t => {
  const acl = aclFile(t)
  const redis = await startRedis({ program, args: [...acl.args, '--repl-diskless-sync-delay', '0'] })
  t.teardown(async () => { await redis.close() })
  await acl.lock([redis])
  const admin = connect(t, redis)
  // A replica of its own access list, so that starts wait for it: WAIT needs a right too.
  const replica = await startRedis({ program, args: ['--replicaof', redis.host, String(redis.port), '--masteruser', 'replica', '--masterauth', PASSWORD] })
  t.teardown(async () => { await replica.close() })
  await waitFor('the replica', async () => /^slave0:.*state=online/m.test(await admin.info('replication')), 30_000)

  const REDIS_URL = `redis://viewing:${encodeURIComponent(PASSWORD)}@${redis.address}/3`
  const service = await startService({ REDIS_URL, ...QUICK })
  t.teardown(async () => { await service.close() })
  await mainFlow(t, service)
  await service.close()

  await t.test('events that Kafka does not take are given up past the capacity, and the rest is shipped by another instance', async t => {
    const away = await startService({ REDIS_URL, ...QUICK, KAFKA_BROKERS: `127.0.0.1:${await freePort()}`, OUTBOX_BYTES: '65536' })
    t.teardown(async () => { await away.close() })
    for (let user = 0; user < 150; user++) await call(away.url, 'POST', '/session', undefined, viewer(`user-${user}`, 'd', { on_limit: 'supersede_oldest' }))
    const lost = await waitFor('events to be given up', async () => Number(/^viewing_events_lost_total(?:\{.*\})? (\d+)/m.exec(await (await fetch(`${away.url}/metrics`)).text())?.[1]) || undefined, 60_000)
    t.ok(lost > 0, `${lost} given up`)
    await away.close()
    const other = await startService({ REDIS_URL, ...QUICK })
    t.teardown(async () => { await other.close() })
    await admin.select(3)
    await waitFor('the outboxes to be empty', async () => (await admin.keys('outbox:*')).length === 0, 60_000)
    t.ok(other.lines.some(({ event }) => Object(event).event_type === 'playback.started'), 'the left-over starts were shipped')
    await other.close()
  })
  await t.test('a reader of another region needs no more', async t => {
    const followerAcl = aclFile(t)
    const follower = await startRedis({ program, args: [...followerAcl.args, '--replicaof', redis.host, String(redis.port), '--repl-diskless-sync-delay', '0'] })
    t.teardown(async () => { await follower.close() })
    await waitFor('the second replica', async () => (await admin.info('replication')).match(/^slave\d:.*state=online/gm)?.length === 2, 30_000)
    await followerAcl.lock([follower])
    const [port, writer] = [await freePort(), await startService({ REDIS_URL, ...QUICK })]
    const reader = await startService({ ...QUICK, PORT: String(port), WRITER_URL: writer.url, REDIS_URL: `redis://viewing:${encodeURIComponent(PASSWORD)}@${follower.address}/3` })
    t.teardown(async () => { await Promise.all([writer.close(), reader.close()]) })
    const { body } = await call(reader.url, 'POST', '/session', undefined, viewer('user-far', 'tv'))
    const path = `/session/${body.session?.session_id}`
    t.match(await call(reader.url, 'GET', path, body.playback_token), { status: 200 })
    t.match(await call(reader.url, 'GET', '/concurrency/user-far'), { status: 200 })
    t.match(await call(reader.url, 'POST', '/token/validate', undefined, { token: body.playback_token }), { status: 200, body: { valid: true } })
    const watching = connect(t, follower)
    t.ok((await commandsOf(watching)).includes('smembers'), 'it reads from its own Redis')
    t.same(await watching.acl('LOG'), [], 'nothing was refused')
  })
  t.same(await admin.acl('LOG'), [], 'nothing was refused')
  const used = new Set(await commandsOf(admin))
  const granted = (/^user viewing .*$/m.exec(USERS)?.[0] ?? '').split(' ').filter(word => word.startsWith('+')).map(word => word.slice(1))
  t.same(granted.filter(name => name !== 'client' && !CLUSTER_ONLY.includes(name) && !used.has(name)), [], 'no right is left that nothing needs')

  await t.test('everything else is refused to that user', async t => {
    const user = connect(t, redis, 'viewing', PASSWORD)
    t.equal(await user.get('session:{x}'), null, 'its own keys are its own')
    const foreign = 'billing:{x}'
    const REFUSED: Array<[string, ...string[]]> = [
      ['FLUSHALL'], ['FLUSHDB'], ['CONFIG', 'GET', '*'], ['CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru'], ['KEYS', '*'], ['SCAN', '0'], ['RANDOMKEY'], ['DBSIZE'],
      ['SHUTDOWN', 'NOSAVE'], ['ACL', 'LIST'], ['ACL', 'SETUSER', 'viewing', 'allkeys'], ['SCRIPT', 'FLUSH'], ['FUNCTION', 'LIST'], ['MONITOR'],
      ['REPLICAOF', 'NO', 'ONE'], ['PSYNC', '?', '-1'], ['SAVE'], ['MODULE', 'LIST'], ['CLIENT', 'LIST'], ['CLIENT', 'KILL', 'TYPE', 'normal'], ['CLUSTER', 'RESET'],
      ['CLUSTER', 'FAILOVER'], ['MIGRATE', '127.0.0.1', '1', 'session:{x}', '0', '10'], ['DUMP', 'session:{x}'], ['RENAME', 'session:{x}', 'session:{y}'], ['SWAPDB', '0', '1'],
      ['PUBLISH', 'a', 'b'], ['SUBSCRIBE', 'a'], ['GET', foreign], ['SET', foreign, '1'], ['DEL', foreign], ['EXISTS', foreign], ['GET', 'user:{x}:profile'], ['GET', 'sessions'],
      ['EVAL', 'return redis.call("GET", KEYS[1])', '1', foreign], ['MEMORY', 'DOCTOR'], ['SLOWLOG', 'GET'], ['LATENCY', 'LATEST']
    ]
    for (const [command, ...args] of REFUSED) await t.rejects(user.call(command, args), /^NOPERM/, [command, ...args].join(' '))
    for (const script of ['redis.call("FLUSHALL")', `redis.call("SET", "${foreign}", "1")`, `return redis.call("GET", "${foreign}")`]) {
      await t.rejects(user.eval(script, 0), /user executing the script can't (run this command|access at least one of the keys)/, `EVAL ${script}`)
    }
    const nobody = new Redis({ host: redis.host, port: redis.port, disableClientInfo: true, retryStrategy: null })
    nobody.on('error', () => { /* each command says its own */ })
    t.teardown(() => { nobody.disconnect() })
    await t.rejects(nobody.get('session:{x}'), /^NOAUTH/, 'without a password nobody comes in')
  })

  await t.test('a service with a wrong password is not ready', async t => {
    await wrongPassword(t, { REDIS_URL: `redis://viewing:not-the-password@${redis.address}/3` })
  })
})

t.test('the same rights do for a cluster', { skip }, async t => {
  const acl = aclFile(t)
  const cluster = await startRedisCluster(program, { args: acl.args })
  t.teardown(async () => { await cluster.close() })
  await acl.lock(cluster.servers)
  const service = await startService({ REDIS_CLUSTER: cluster.nodes, REDIS_USERNAME: 'viewing', REDIS_PASSWORD: PASSWORD, ...QUICK })
  t.teardown(async () => { await service.close() })
  await mainFlow(t, service)
  const used = new Set<string>()
  for (const server of cluster.servers) {
    const admin = connect(t, server)
    t.same(await admin.acl('LOG'), [], `nothing was refused on ${server.address}`)
    for (const name of await commandsOf(admin)) used.add(name)
  }
  t.same(CLUSTER_ONLY.filter(name => !CLUSTER_CHANGES.includes(name) && !used.has(name)), [], 'what is granted for clusters is used')
  await t.test('a wrong password for a cluster', async t => {
    await wrongPassword(t, { REDIS_CLUSTER: cluster.nodes, REDIS_USERNAME: 'viewing', REDIS_PASSWORD: 'not-the-password' })
  })
})
