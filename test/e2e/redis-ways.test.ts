import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { freePort, type RedisServer, startRedis } from '../support/redis-server.ts'
import { requirePrograms, requireRedis } from '../support/requirements.ts'
import { startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
const { skip: noOpenssl } = requirePrograms('openssl')

/** Starts, beats and stops through a service that has the given way to its Redis; gives the service's address and the session's id. */
async function mainFlow (t: Test, env: Record<string, string>): Promise<{ url: string, sessionId: string }> {
  const upstream = await startStubUpstream()
  t.teardown(async () => { await upstream.close() })
  const service = await startService({ IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '10s', ...env })
  t.teardown(async () => { await service.close() })
  const post = async (path: string, body: object, token = ''): Promise<{ status: number, body: { playback_token?: string, session?: { session_id: string } } }> => {
    const response = await fetch(`${service.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...(token === '' ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) })
    return { status: response.status, body: Object(await response.json()) }
  }
  const started = await waitFor('a start', async () => {
    const answer = await post('/session', { user_id: 'user123', profile_id: 'p', content_id: 'content789', device_id: 'd', on_limit: 'supersede_oldest' })
    return answer.status === 201 && answer
  })
  const sessionId = started.body.session?.session_id ?? ''
  t.equal((await post(`/session/${sessionId}/heartbeat`, { position: 5 }, started.body.playback_token)).status, 200)
  return { url: service.url, sessionId }
}

t.test('TLS: a Redis whose certificate is trusted is used, another is not', { skip: skip || noOpenssl }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-tls-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  const port = await freePort()
  const redis = await startRedis({ program, args: ['--tls-port', String(port), '--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', certificate, '--tls-auth-clients', 'no'] })
  t.teardown(async () => { await redis.close() })
  const REDIS_URL = `rediss://localhost:${port}`
  const { sessionId } = await mainFlow(t, { REDIS_URL, NODE_EXTRA_CA_CERTS: certificate })
  const client = new Redis(redis.url)
  t.teardown(() => { client.disconnect() })
  t.equal(await client.exists(`session:{${sessionId}}`), 1)

  const distrustful = await startService({ REDIS_URL })
  t.teardown(async () => { await distrustful.close() })
  t.equal((await fetch(`${distrustful.url}/health/ready`)).status, 503)
  t.ok(distrustful.lines.some(line => JSON.stringify(line).includes('certificate')), 'the log says that the certificate is the reason')
})

t.test('user, password and database', { skip }, async t => {
  const redis = await startRedis({ program, password: 'open sesame/1' })
  t.teardown(async () => { await redis.close() })
  const client = new Redis({ host: redis.host, port: redis.port, password: 'open sesame/1', db: 5 })
  t.teardown(() => { client.disconnect() })
  for (const env of [
    { REDIS_ADDR: redis.address, REDIS_PASSWORD: 'open sesame/1', REDIS_DB: '5' },
    { REDIS_URL: `redis://default:open%20sesame%2F1@${redis.address}/5` }
  ]) {
    const { sessionId } = await mainFlow(t, env)
    t.equal(await client.exists(`session:{${sessionId}}`), 1, 'the session is in database 5')
  }
})

t.test('the connections to Redis, over all workers, are at most 50 and as the metrics say', { skip }, async t => {
  const cluster = await startRedisCluster(program)
  const single = await startRedis({ program })
  t.teardown(async () => { await Promise.all([cluster.close(), single.close()]) })
  for (const [servers, env] of [[cluster.servers, { REDIS_CLUSTER: cluster.nodes }], [[single], { REDIS_URL: single.url }]] as Array<[RedisServer[], Record<string, string>]>) {
    const { url } = await mainFlow(t, { ...env, WORKERS: '4' })
    await Promise.all(Array.from({ length: 200 }, async (_, index) => await fetch(`${url}/api/playback/session`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user_id: `user-${index}`, profile_id: 'p', content_id: 'c', device_id: 'd' })
    })))
    const listed = await Promise.all(Array.from({ length: 205 }, async (_, index) => {
      const { active, sessions }: { active: number, sessions: Array<{ session_id: string }> } = Object(await (await fetch(`${url}/api/playback/concurrency/user-${index}`)).json())
      return `${active} ${sessions.length} ${new Set(sessions.map(({ session_id: id }) => id)).size}`
    }))
    t.same(listed, [...Array.from({ length: 200 }, () => '1 1 1'), ...Array.from({ length: 5 }, () => '0 0 0')], 'many who ask at once who holds their slots read each his own')
    const open = await waitFor('the metric to agree with the servers', async () => {
      const text = await (await fetch(`${url}/metrics`)).text()
      const said = [...text.matchAll(/^viewing_redis_connections(?:\{.*\})? (\d+)/gm)].reduce((sum, [, value]) => sum + Number(value), 0)
      const seen = (await Promise.all(servers.map(countConnections))).reduce((sum, count) => sum + count, 0)
      return said === seen && seen > 0 && seen
    }, 30_000)
    t.ok(open <= 50, `${open} connections of 4 workers to ${servers.length} servers`)
  }
})

/** Connections that are named as the service's, on one server. */
async function countConnections (server: RedisServer): Promise<number> {
  const client = new Redis(server.port, server.host)
  try {
    return String(await client.client('LIST')).split('\n').filter(line => /name=(?:ioredis-cluster\()?viewing-service|name=viewing-service/.test(line)).length
  } finally {
    client.disconnect()
  }
}
