import { createSigner } from 'fast-jwt'
import t from 'tap'
import { requirePrograms, requireRedis } from '../support/requirements.ts'
import { begin, call, metric, roleOf, startTwoRegions } from '../support/two-regions.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip: noRedis } = requireRedis()
const skip = noRedis || requirePrograms('redis-cli').skip
/** A stated deadline, tested at twice its length. */
const DEADLINE_MS = 1_000

t.test('a reader forwards every write, and answers reads by itself', { skip }, async t => {
  const regions = await startTwoRegions(t, program, { west: { ADMISSION_DURABILITY: 'local' }, east: { WRITER_DEADLINE: `${DEADLINE_MS}ms` } })
  const { west, east } = regions
  const forwarded = async (result = 'answered'): Promise<number> => await metric(east.service, 'viewing_region_forwarded_total', result)
  const replicated = async (): Promise<void> => {
    const offset = Number(/master_repl_offset:(\d+)/.exec(await west.admin.info('replication'))?.[1])
    await waitFor('the replica to be in step', async () => Number(/slave_repl_offset:(\d+)/.exec(await east.admin.info('replication'))?.[1]) >= offset)
  }
  const writesHere = async (): Promise<string | undefined> => /^cmdstat_(?:set|sadd|xadd|setrange):.*rejected_calls=[1-9]/m.exec(await east.admin.info('commandstats'))?.[0]

  const health = await waitFor('the reader to have found the writer', async () => {
    const answer = await call(east.service, 'GET', '/health/ready')
    return answer.body.status === 'ok' && answer
  })
  t.match(health, { status: 200, body: { role: 'reader', dependencies: { writer: { status: 'up' }, redis: { status: 'up' } } } })
  t.match(await call(west.service, 'GET', '/health/ready'), { status: 200, body: { role: 'writer' } })
  t.equal(await metric(east.service, 'viewing_region_writer'), 0)
  t.equal(await metric(west.service, 'viewing_region_writer'), 1)

  const started = await begin(east.service, 'viewer', { key: 'evening', headers: { 'x-request-id': 'from-the-east' } })
  await t.test('writes', async t => {
    t.equal(started.status, 201)
    t.equal(started.headers.get('location'), `/api/playback/session/${started.id}`)
    t.equal(started.headers.get('x-request-id'), 'from-the-east')
    t.equal((await begin(west.service, 'viewer', { key: 'evening' })).id, started.id, 'the same key in the other region finds it')
    const { id, token } = started
    const other = await begin(east.service, 'viewer')
    const third = await begin(east.service, 'viewer')
    t.match(await begin(east.service, 'viewer'), { status: 409, body: { code: 'concurrency-limit-reached', limit: 3, active: 3 } }, 'one limit for both regions')
    const before = await forwarded()
    const cases: Array<[string, () => Promise<{ status: number, body: object }>, object]> = [
      ['heartbeat', async () => await call(east.service, 'POST', `/session/${id}/heartbeat`, { token, body: { position: 12.5 } }), { position: 12.5 }],
      ['heartbeats', async () => await call(east.service, 'POST', '/heartbeats', { body: { heartbeats: [{ playback_token: token, position: 13 }, { playback_token: 'x', position: 1 }] } }), { results: [{ status: 200 }, { status: 401 }] }],
      ['pause', async () => await call(east.service, 'POST', `/session/${other.id}/pause`, { token: other.token }), { session: { status: 'paused' } }],
      ['refresh', async () => await call(east.service, 'POST', '/token/refresh', { body: { token } }), {}],
      ['stop by beacon', async () => await call(east.service, 'POST', `/session/${id}/stop`, { body: JSON.stringify({ position: 14, playback_token: token }), headers: { 'content-type': 'text/plain' } }), { session: { end_reason: 'stopped', position: 14 } }],
      ['terminate', async () => await call(east.service, 'DELETE', `/session/${third.id}?reason=stopped`, { token: third.token }), { session: { end_reason: 'stopped' } }]
    ]
    for (const [name, answer, body] of cases) t.match(await answer(), { status: 200, body }, name)
    t.match(await call(east.service, 'POST', `/session/${other.id}/resume`, { token: other.token }), { status: 200, body: { session: { status: 'active' } } }, 'resume')
    t.match(await call(east.service, 'POST', `/session/${other.id}/complete`, { token: other.token }), { status: 200, body: { session: { end_reason: 'completed' } } }, 'complete')
    const last = await begin(east.service, 'viewer')
    t.match(await call(east.service, 'DELETE', '/concurrency/viewer'), { status: 200, body: { ended: 1 } }, 'sign-out everywhere')
    t.match(await call(east.service, 'POST', `/session/${last.id}/heartbeat`, { token: last.token, body: { position: 1 } }), { status: 410, body: { reason: 'terminated' } }, 'a refusal comes back as it is')
    t.equal(await forwarded(), before + cases.length + 5, 'each was forwarded once')
  })

  await t.test('what can be refused here goes nowhere', async t => {
    const before = await forwarded()
    t.equal((await begin(east.service, 'viewer', { more: { unknown: 1 } })).status, 400)
    t.equal((await call(east.service, 'POST', `/session/${started.id}/heartbeat`, { token: 'no-token', body: { position: 1 } })).status, 401)
    t.equal((await call(east.service, 'POST', '/session', { body: 'x', headers: { 'content-type': 'application/xml' } })).status, 415)
    t.equal(await forwarded(), before)
  })

  const session = await begin(east.service, 'reading')
  await replicated()
  const reads = (): Array<[string, Promise<{ status: number, body: object }>, object]> => [
    ['session', call(east.service, 'GET', `/session/${session.id}`, { token: session.token }), { session: { session_id: session.id } }],
    ['slots', call(east.service, 'GET', '/concurrency/reading'), { active: 1, sessions: [{ session_id: session.id }] }],
    ['validate', call(east.service, 'POST', '/token/validate', { body: { token: session.token } }), { valid: true }],
    ['validate many', call(east.service, 'POST', '/token/validate', { body: { tokens: [session.token, 'x'] } }), { results: [{ valid: true }, { valid: false }] }]
  ]

  await t.test('what the replica does not have yet, the writer is asked', async t => {
    regions.replication.hang()
    const young = await begin(west.service, 'young')
    t.equal(young.status, 201)
    const before = await forwarded()
    t.match(await call(east.service, 'GET', `/session/${young.id}`, { token: young.token }), { status: 200, body: { session: { session_id: young.id } } })
    t.match(await call(east.service, 'POST', '/token/validate', { body: { token: young.token } }), { status: 200, body: { valid: true } })
    t.equal(await forwarded(), before + 2)
    t.equal(await east.admin.exists(`session:{${young.id}}`), 0, 'the replica does not have it')
    regions.replication.mend()
    await replicated()
    for (const [name, answer, body] of reads()) t.match(await answer, { status: 200, body }, name)
    t.equal(await forwarded(), before + 2, 'what it has, it answers')
  })

  await t.test('without a Redis of its own a reader forwards everything', async t => {
    await east.redis.kill()
    const before = await forwarded()
    for (const [name, answer, body] of reads()) t.match(await answer, { status: 200, body }, name)
    t.match(await call(east.service, 'POST', `/session/${session.id}/heartbeat`, { token: session.token, body: { position: 1 } }), { status: 200 })
    t.equal(await forwarded(), before + 5)
    t.match(await call(east.service, 'GET', '/health/ready'), { status: 200, body: { status: 'degraded', role: 'reader', dependencies: { redis: { status: 'down' } } } })
    await east.redis.restart()
    await waitFor('its replica to be in touch again', async () => (await call(east.service, 'GET', '/health/ready')).body.status === 'ok', 20_000)
  })

  await t.test('without the other region\'s service reads are answered, writes are refused in time', async t => {
    await west.service.close()
    const before = await forwarded('unreachable')
    for (const [name, answer, body] of reads()) t.match(await answer, { status: 200, body }, name)
    t.equal(await forwarded('unreachable'), before, 'the writer was not asked')
    const began = performance.now()
    const refused = await call(east.service, 'POST', `/session/${session.id}/heartbeat`, { token: session.token, body: { position: 1 } })
    t.match(refused, { status: 503, body: { code: 'writer-unreachable' } })
    t.ok(Number(refused.headers.get('retry-after')) >= 1)
    t.ok(performance.now() - began < 2 * DEADLINE_MS)
    const health = await waitFor('the health to say so', async () => {
      const answer = await call(east.service, 'GET', '/health/ready')
      return answer.body.status === 'degraded' && answer
    })
    t.match(health, { status: 200, body: { role: 'reader', dependencies: { writer: { status: 'down' }, redis: { status: 'up' } } } }, 'still of use')
    t.match(await call(east.service, 'GET', '/session/3f0c9a52-8f6e-4d0b-9c41-5a1726e05132', { token: session.token }), { status: 503, body: { code: 'writer-unreachable' } }, 'what nobody can know is not called absent')
  })

  await t.test('a replica out of touch is not believed', async t => {
    regions.replication.cut()
    await waitFor('reads to be refused', async () => (await call(east.service, 'GET', `/session/${session.id}`, { token: session.token })).body.code === 'writer-unreachable', 20_000)
    t.match(await call(east.service, 'POST', '/token/validate', { body: { token: session.token } }), { status: 503, body: { code: 'writer-unreachable' } })
    t.match(await call(east.service, 'POST', '/token/validate', { body: { token: session.token, live: false } }), { status: 200, body: { valid: true } }, 'the token alone')
    t.match(await call(east.service, 'GET', '/health/ready'), { status: 503, body: { status: 'unavailable' } }, 'of no use to anybody')
  })
  t.equal(await writesHere(), undefined, 'the reader has tried to write nothing')
  t.equal(await roleOf(east.service), 'reader')
})

t.test('a lagging replica calls nobody lapsed, and nothing goes round in a circle', { skip }, async t => {
  const { west, east, replication } = await startTwoRegions(t, program, { both: { SESSION_TIMEOUT: '4s', HEARTBEAT_INTERVAL: '2s', SWEEP_INTERVAL: '300ms' }, west: { ADMISSION_DURABILITY: 'local' } })
  const session = await waitFor('a start', async () => {
    const answer = await begin(east.service, 'viewer')
    if (answer.status !== 201) t.comment(answer.body)
    return answer.status === 201 && answer
  })
  const beat = async (service = west.service): Promise<number> => (await call(service, 'POST', `/session/${session.id}/heartbeat`, { token: session.token, body: { position: 1 } })).status
  await waitFor('the replica to have it', async () => await east.admin.exists(`session:{${session.id}}`) === 1)
  replication.hang()
  const began = performance.now()
  await waitFor('the beats that the replica knows to be older than T', async () => {
    t.equal(await beat(), 200)
    await new Promise(resolve => setTimeout(resolve, 200))
    return performance.now() - began > 5_000
  })
  const known = Number((await east.admin.get(`session:{${session.id}}`))?.slice(43, 56))
  t.ok(known + 4_000 < Date.now(), 'the replica alone would call it lapsed')
  t.match(await call(east.service, 'POST', '/token/validate', { body: { token: session.token } }), { status: 200, body: { valid: true } })
  t.match(await call(east.service, 'POST', '/token/validate', { body: { tokens: [session.token] } }), { status: 200, body: { results: [{ valid: true }] } })
  replication.mend()

  // An operator's mistake: two replicas, no master.
  await west.admin.call('REPLICAOF', '127.0.0.1', '1')
  const refused = await begin(west.service, 'viewer')
  t.match(refused, { status: 503, body: { code: 'no-writer' } })
  t.ok(Number(refused.headers.get('retry-after')) >= 1)
  t.match(await call(east.service, 'POST', `/session/${session.id}/heartbeat`, { token: session.token, body: { position: 1 } }), { status: 503, body: { code: 'no-writer' } })
  const [westBefore, eastBefore] = await Promise.all([west, east].map(async ({ service }) => await metric(service, 'viewing_region_forwarded_total', 'refused')))
  t.match(await begin(east.service, 'viewer', { headers: { 'x-viewing-forwarded': '1' } }), { status: 503, body: { code: 'no-writer' } }, 'what was forwarded once stays here')
  t.equal(await metric(east.service, 'viewing_region_forwarded_total', 'refused'), (eastBefore ?? 0) + 1)
  t.equal(await metric(west.service, 'viewing_region_forwarded_total', 'refused'), westBefore, 'the other region was not asked')

  await west.admin.call('REPLICAOF', 'NO', 'ONE')
  t.equal(await waitFor('the writer to be one again by itself', async () => await beat(east.service) === 200 && 200), 200, 'and the viewer is still there')
  t.equal(await roleOf(west.service), 'writer')
})

t.test('the region of a start is judged where the player is', { skip }, async t => {
  const key = 'access-key-for-tests-0123456789-abcdef'
  const AUTH = { AUTH_MODE: 'jwt', AUTH_JWT_SECRET: key, AUTH_ISSUER: 'platform', AUTH_AUDIENCE: 'playback', JWT_SECRET: 'playback-key-for-tests-0123456789-abc' }
  const token = createSigner({ key, algorithm: 'HS256' })({ iss: 'platform', aud: 'playback', sub: 'viewer', exp: Math.floor(Date.now() / 1_000) + 600 })
  const asked = async ({ trusted, own }: { trusted: boolean, own: string }): Promise<string | null> => {
    const { east, upstream } = await startTwoRegions(t, program, { both: AUTH, west: { DEFAULT_REGION: 'US', ...(trusted ? { TRUST_PROXY: '127.0.0.1' } : {}) }, east: { DEFAULT_REGION: own } })
    const started = await begin(east.service, 'viewer', { token, more: { region: 'KP' }, headers: { 'x-region': 'KP', 'x-forwarded-for': '192.0.2.1' } })
    t.equal(started.status, 201)
    return new URLSearchParams(upstream.lastTarget.content.split('?')[1]).get('region')
  }
  t.equal(await asked({ trusted: true, own: 'DE' }), 'DE', 'a writer that trusts the reader takes its word, never the player\'s')
  t.equal(await asked({ trusted: false, own: 'DE' }), 'US', 'another judges by itself')
})
