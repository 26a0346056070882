import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requirePrograms, requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startProgram } from '../support/service-process.ts'

const { program, skip } = requireRedis()
const { skip: noOpenssl } = requirePrograms('openssl')
const SERVICE = new URL('../../src/server.ts', import.meta.url)
const GOOD = { identity: { entitled: true, max_streams: 2 }, content: { available: true } }
const UNKNOWN = { identity: 'entitlement-unknown', content: 'availability-unknown' } as const

interface Certificate { key: string, certificate: string }

/** Two authorities, of which the service trusts one, and certificates by them. */
function authorities (t: Test): { ca: string, issue: (by: 'trusted' | 'stranger', name: string, days?: [from: number, to: number]) => Certificate } {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-upstream-tls-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => { execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' }) }
  const key = (name: string): string[] => ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`]
  for (const by of ['trusted', 'stranger']) {
    // The same name for both: what counts is the key.
    openssl('req', '-x509', ...key(by), '-out', `${by}.pem`, '-days', '30', '-subj', '/CN=Platform CA', '-addext', 'basicConstraints=critical,CA:TRUE')
    writeFileSync(path(`${by}.cnf`), `[ca]\ndefault_ca=c\n[c]\ndatabase=${by}.db\nnew_certs_dir=.\nserial=${by}.srl\ndefault_md=sha256\npolicy=p\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n`)
    writeFileSync(path(`${by}.db`), '')
    writeFileSync(path(`${by}.srl`), '01\n')
  }
  let issued = 0
  const stamp = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return {
    ca: path('trusted.pem'),
    issue: (by, name, [from, to] = [-1, 7]) => {
      const file = `leaf-${issued++}`
      openssl('req', '-new', ...key(file), '-out', `${file}.csr`, '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`)
      openssl('ca', '-batch', '-config', `${by}.cnf`, '-cert', `${by}.pem`, '-keyfile', `${by}.key`, '-in', `${file}.csr`, '-out', `${file}.pem`, '-notext', '-startdate', stamp(from), '-enddate', stamp(to))
      return { key: readFileSync(path(`${file}.key`), 'utf8'), certificate: readFileSync(path(`${file}.pem`), 'utf8') }
    }
  }
}

/** A service that says yes to everything, over TLS. */
async function yesService (t: Test, which: keyof typeof GOOD, { key, certificate }: Certificate, options: object = {}): Promise<{ url: string, requests: () => number }> {
  let requests = 0
  const server: Server = createServer({ key, cert: certificate, ...options }, (_request, response) => {
    requests++
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(GOOD[which]))
  }).listen(0, '127.0.0.1')
  server.on('tlsClientError', () => { /* the client hangs up on it */ })
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  return { url: `https://localhost:${Object(server.address()).port}/${which}`, requests: () => requests }
}

async function start ({ url }: ServiceProcess, user: string, content = 'content789'): Promise<{ status: number, retryAfter: string | null, body: { code?: string, playback_token?: string } }> {
  const response = await fetch(`${url}/api/playback/session`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user_id: user, profile_id: 'p', content_id: content, device_id: 'd' })
  })
  return { status: response.status, retryAfter: response.headers.get('retry-after'), body: Object(await response.json()) }
}

t.test('identity and content service over TLS', { skip: skip || noOpenssl }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { ca, issue } = authorities(t)
  const good = issue('trusted', 'localhost')
  const identity = await yesService(t, 'identity', good)
  const content = await yesService(t, 'content', good)
  const run = async (t: Test, env: Record<string, string>): Promise<ServiceProcess> => {
    const service = await startProgram(SERVICE, {
      PORT: '0', HOST: '127.0.0.1', LOG_FORMAT: 'json', SHUTDOWN_DELAY: '50ms', UPSTREAM_DEADLINE: '3s', REDIS_URL: redis.url, IDENTITY_URL: identity.url, CONTENT_URL: content.url, NODE_EXTRA_CA_CERTS: ca, ...env
    })
    t.teardown(async () => { await service.close() })
    return service
  }

  await t.test('services whose certificates are trusted are believed', async t => {
    const answer = await start(await run(t, {}), 'user-trusted')
    t.equal(answer.status, 201, answer.body.code ?? '')
    t.ok(identity.requests() === 1 && content.requests() === 1, 'both were asked, over TLS')
  })

  const BAD: Array<[string, Certificate, object?]> = [
    ['an authority that is not trusted', issue('stranger', 'localhost')],
    ['the name of another service', issue('trusted', 'elsewhere.example')],
    ['a certificate that has expired', issue('trusted', 'localhost', [-10, -1])],
    ['a certificate of the future', issue('trusted', 'localhost', [2, 9])],
    ['a version of TLS that nobody should speak', good, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }]
  ]
  for (const which of ['identity', 'content'] as const) {
    for (const [name, certificate, options] of BAD) {
      await t.test(`${which}: ${name} is no answer, never a yes`, async t => {
        const liar = await yesService(t, which, certificate, options)
        const service = await run(t, which === 'identity' ? { IDENTITY_URL: liar.url } : { CONTENT_URL: liar.url })
        // More often than the circuit breaker looks, so that its refusals are seen too.
        for (let turn = 0; turn < 12; turn++) {
          const answer = await start(service, `user-${turn}`)
          t.match(answer, { status: 503, retryAfter: /^\d+$/, body: { code: UNKNOWN[which] } })
          t.notOk(answer.body.playback_token, 'no token')
        }
        t.equal(liar.requests(), 0, 'not even the question was sent: it names a user')
        t.equal((await fetch(`${service.url}/health/ready`)).status, 200, 'the service itself is ready')
      })
    }
  }

  await t.test('without the authority in NODE_EXTRA_CA_CERTS the same services are strangers', async t => {
    const before = identity.requests()
    const answer = await start(await run(t, { NODE_EXTRA_CA_CERTS: '' }), 'user-untrusted')
    t.match(answer, { status: 503, body: { code: UNKNOWN.identity } })
    t.equal(identity.requests(), before)
  })

  await t.test('a service that asks over plain HTTP gets no yes either', async t => {
    const answer = await start(await run(t, { IDENTITY_URL: identity.url.replace('https', 'http') }), 'user-plain')
    t.match(answer, { status: 503, body: { code: UNKNOWN.identity } })
  })
})
