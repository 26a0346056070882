import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import entitlement, { type CallReport, type Decision, type EntitlementOptions } from '../../src/modules/entitlement/index.ts'
import upstream from '../../src/plugins/upstream.ts'
import { type Mode, startStubUpstream } from '../support/stub-upstream.ts'

const DEADLINE_MS = 300
const FRESH_MS = 60_000
const STALE_MS = 600_000

const granted = { outcome: 'granted', limit: 4 }
const notEntitled = { outcome: 'not-entitled', reason: 'no plan' }
const unavailable = { outcome: 'content-unavailable', reason: 'not here' }
const entitlementUnknown = { outcome: 'unknown', about: 'entitlement' }
const availabilityUnknown = { outcome: 'unknown', about: 'availability' }

const REFUSED: Mode = { json: { entitled: false, reason: 'no plan' } }
const BLOCKED: Mode = { json: { available: false, reason: 'not here' } }
const FAILING: Mode[] = [
  'status-500', 'status-500-hang', 'hang', 'hang-body', 'reset', 'html', 'redirect', 'huge', 'slow-headers', 'garbage', 'wrong-type',
  { json: { entitled: true, max_streams: 0, available: 1 } },
  { json: { entitled: true, available: true }, status: 203 },
  { json: { entitled: true, available: true }, status: 404 },
  { json: { entitled: true, available: true }, status: 503, headers: { 'retry-after': '1' } },
  { json: { entitled: true, available: true }, headers: { 'content-type': 'text/plain' } }
]

async function setup (t: Test, options: Partial<EntitlementOptions> = {}) {
  const stub = await startStubUpstream()
  const fastify = Fastify()
  const reports: CallReport[] = []
  const time = { aheadMs: 0 }
  await fastify.register(upstream, { identityUrl: stub.identityUrl, contentUrl: stub.contentUrl, deadlineMs: DEADLINE_MS })
  await fastify.register(entitlement, {
    freshMs: FRESH_MS,
    staleMs: STALE_MS,
    clock: () => performance.now() + time.aheadMs,
    onCall: report => { reports.push(report) },
    ...options
  })
  await fastify.ready()
  t.teardown(async () => {
    await fastify.close()
    await stub.close()
  })
  let users = 0
  /** Asks as the given user, else as one who never asked before. */
  const decide = async (userId = `user-${users++}`, contentId = `content-of-${userId}`): Promise<Decision> =>
    await fastify.entitlements.decide({ userId, profileId: 'p1', contentId, region: 'US' })
  return { fastify, stub, reports, time, decide }
}

async function timed<T> (job: () => Promise<T>): Promise<{ value: T, tookMs: number }> {
  const startedMs = performance.now()
  const value = await job()
  return { value, tookMs: performance.now() - startedMs }
}

const label = (mode: Mode) => typeof mode === 'string' ? mode : JSON.stringify(mode)

t.test('both services are asked below their base URLs, with every character of an id intact', async t => {
  const { stub, fastify } = await setup(t)
  const odd = 'a+b=c|d@e:f.g_h-i'
  t.same(await fastify.entitlements.decide({ userId: odd, profileId: 'p1', contentId: odd, region: 'DE' }), granted)
  const identity = new URL(stub.lastTarget.identity, 'http://stub')
  t.equal(identity.pathname, '/api/entitlement/validate')
  t.same([...identity.searchParams], [['userID', odd], ['profileID', 'p1'], ['contentID', odd]])
  const content = new URL(stub.lastTarget.content, 'http://stub')
  t.equal(content.pathname, '/api/content/availability')
  t.same([...content.searchParams], [['contentID', odd], ['region', 'DE']])
})

t.test('every combination of yes, no and failure has its one decision', async t => {
  await Promise.all(FAILING.map(async failing => {
    const { stub, decide } = await setup(t)
    const table: Array<[Mode, Mode, object]> = [
      [REFUSED, 'ok', notEntitled], [REFUSED, BLOCKED, notEntitled], [REFUSED, failing, notEntitled],
      ['ok', BLOCKED, unavailable], [failing, BLOCKED, unavailable],
      [failing, 'ok', entitlementUnknown], [failing, failing, entitlementUnknown],
      ['ok', failing, availabilityUnknown], ['ok', 'ok', granted]
    ]
    for (const [identity, content, decision] of table) {
      stub.behave('identity', identity)
      stub.behave('content', content)
      const { value, tookMs } = await timed(decide)
      t.match(value, decision, `${label(identity)} and ${label(content)}`)
      t.ok(tookMs < 2 * DEADLINE_MS, `${label(failing)} took ${tookMs.toFixed()} ms`)
    }
  }))
})

t.test('a thousand simultaneous same questions are one call to each service', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('identity', { delayMs: 20 })
  const decisions = await Promise.all(Array.from({ length: 1_000 }, async () => await decide('same')))
  t.equal(decisions.filter(decision => decision.outcome === 'granted').length, 1_000)
  t.match(stub.calls, { identity: 1, content: 1 })
})

t.test('two slow services cost the slower one, not both', async t => {
  const { stub, decide } = await setup(t)
  // One after the other would be over the deadline.
  stub.behave('identity', { delayMs: 0.55 * DEADLINE_MS })
  stub.behave('content', { delayMs: 0.55 * DEADLINE_MS })
  t.same(await decide(), granted)
})

t.test('a hanging service adds at most the deadline, at every place where it can hang, also for many at once', async t => {
  for (const mode of ['hang', 'hang-body', 'slow-headers'] as const) {
    const { stub, decide, reports } = await setup(t)
    const many = async () => await Promise.all(Array.from({ length: 60 }, async () => await decide()))
    // Connections and compiled code first: what is measured is the waiting.
    await many()
    stub.behave('identity', mode)
    const { value, tookMs } = await timed(many)
    t.ok(value.every(decision => decision.outcome === 'unknown'))
    t.ok(tookMs >= 0.9 * DEADLINE_MS && tookMs < 2 * DEADLINE_MS, `${mode}: ${tookMs.toFixed()} ms`)
    t.ok(reports.some(report => report.upstream === 'identity' && report.result === 'timeout'))
  }
})

t.test('one broken connection or one 500 is healed by one retry', async t => {
  for (const fault of ['reset', 'status-500'] as const) {
    const { stub, decide, reports } = await setup(t)
    stub.behave('identity', [fault, 'ok'])
    t.same(await decide(), granted, fault)
    t.equal(stub.calls.identity, 2)
    t.same(reports.filter(report => report.upstream === 'identity').map(report => report.result), ['error', 'ok'])
  }
})

t.test('a service that asks for time is not tried again within the question', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('identity', [{ json: {}, status: 503, headers: { 'retry-after': '1' } }, 'ok'])
  t.match(await decide(), entitlementUnknown)
  stub.behave('identity', [{ json: {}, status: 429 }, 'ok'])
  t.match(await decide(), entitlementUnknown)
  t.equal(stub.calls.identity, 2)
})

t.test('a service that is not there is a failure like any other', async t => {
  const stub = await startStubUpstream()
  const { identityUrl, contentUrl } = stub
  await stub.close()
  const fastify = Fastify()
  t.teardown(async () => { await fastify.close() })
  await fastify.register(upstream, { identityUrl, contentUrl, deadlineMs: DEADLINE_MS })
  await fastify.register(entitlement, { freshMs: FRESH_MS, staleMs: STALE_MS })
  t.match(await fastify.entitlements.decide({ userId: 'u', profileId: 'p', contentId: 'c', region: 'US' }), entitlementUnknown)
})

t.test('retries stay a tenth of the calls', async t => {
  const { stub, decide } = await setup(t)
  const calls = 200
  // Every other call succeeds, so the circuit stays closed.
  const modes: Mode[] = ['status-500', 'ok']
  for (let call = 0; call < calls; call++) {
    stub.behave('identity', modes[call % 2] ?? 'ok')
    await decide()
  }
  const retries = stub.calls.identity - calls
  t.ok(retries >= 0.05 * calls && retries <= 0.1 * calls + 2, `${retries} retries`)
})

t.test('the circuit opens after at most 20 failures in a row, refuses at once, and closes within 10 s of recovery', async t => {
  for (const mode of ['status-500', 'hang', 'reset', 'html'] as const) {
    const { stub, decide, reports, time } = await setup(t)
    stub.behave('identity', mode)
    await Promise.all(Array.from({ length: 20 }, async () => await decide()))
    const asked = stub.calls.identity
    const value = await decide()
    t.match(value, { ...entitlementUnknown, retryAfterSeconds: Number }, mode)
    t.equal(stub.calls.identity, asked, 'the service is left in peace')
    t.match(reports.filter(report => report.upstream === 'identity').at(-1), { result: 'open' })
    t.ok(value.outcome === 'unknown' && value.retryAfterSeconds >= 5 && value.retryAfterSeconds <= 9)

    time.aheadMs += 5_000
    await decide()
    t.equal(stub.calls.identity, asked + 1, 'one probe, without a retry')
    stub.behave('identity', 'ok')
    t.match(await decide(), entitlementUnknown)
    time.aheadMs += 5_000
    t.same(await decide(), granted)
    t.same(await decide(), granted)
  }
})

t.test('one service failing does not close the door to the other', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('identity', 'status-500')
  for (let call = 0; call < 20; call++) await decide()
  stub.behave('content', BLOCKED)
  t.match(await decide(), unavailable)
})

t.test('odd questions do not open the circuit for everyone', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('content', { json: { error: 'no such content' }, status: 404 })
  for (let call = 0; call < 40; call++) t.match(await decide(), availabilityUnknown)
  stub.behave('content', 'ok')
  t.same(await decide(), granted)
})

t.test('a redirect is not followed', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('identity', 'redirect')
  t.match(await decide(), entitlementUnknown)
  t.equal(stub.calls.elsewhere, 0)
})

t.test('a body in parts, and with a byte order mark, is read', async t => {
  const { stub, decide } = await setup(t)
  stub.behave('identity', 'marked')
  stub.behave('content', 'marked')
  t.match(await decide(), { outcome: 'granted', limit: 4 })
})

t.test('a body is read up to its cap only', async t => {
  const { stub, decide, reports } = await setup(t)
  stub.behave('identity', 'huge')
  t.match(await decide(), entitlementUnknown)
  t.match(reports.find(report => report.upstream === 'identity'), { result: 'invalid' })
  t.ok(stub.hugeBytesSent() < 5 * 1024 * 1024, `${stub.hugeBytesSent()} bytes were taken`)
  const padding = (bytes: number) => ({ json: { entitled: true, padding: 'x'.repeat(bytes) } })
  stub.behave('identity', padding(63 * 1024))
  t.match(await decide(), { outcome: 'granted' })
  stub.behave('identity', padding(64 * 1024))
  t.match(await decide(), entitlementUnknown)
})

t.test('fresh, then stale only while the service fails, then nothing', async t => {
  await Promise.all(FAILING.map(async failing => {
    const { stub, decide, time } = await setup(t)
    t.same(await decide('viewer'), granted)
    stub.behave('identity', failing)
    t.same(await decide('viewer'), granted, 'fresh')
    t.equal(stub.calls.identity, 1)
    time.aheadMs += FRESH_MS
    t.same(await decide('viewer'), granted, `stale during ${label(failing)}`)
    t.ok(stub.calls.identity > 1)
    stub.behave('identity', { json: { entitled: true, max_streams: 1 } })
    t.same(await decide('viewer'), { outcome: 'granted', limit: 1 }, 'the new answer counts as soon as there is one')
    stub.behave('identity', failing)
    time.aheadMs += STALE_MS
    t.match(await decide('viewer'), entitlementUnknown, 'too old')
  }))
})

t.test('a no is never stale, and ends the life of an old yes', async t => {
  const { stub, decide, time } = await setup(t)
  t.same(await decide('viewer'), granted)
  time.aheadMs += FRESH_MS
  stub.behave('identity', REFUSED)
  t.same(await decide('viewer'), notEntitled)
  stub.behave('identity', 'status-500')
  t.match(await decide('viewer'), entitlementUnknown)
  stub.behave('identity', 'ok')
  t.same(await decide('viewer'), granted)
})

t.test('closing waits for a running question, and no longer than its deadline', async t => {
  const { stub, decide, fastify } = await setup(t)
  stub.behave('identity', { delayMs: 100 })
  const running = decide()
  while (stub.calls.identity === 0) await sleep(5)
  await fastify.close()
  t.same(await running, granted)

  const other = await setup(t)
  other.stub.behave('identity', 'hang')
  const hanging = other.decide()
  while (other.stub.calls.identity === 0) await sleep(5)
  const { tookMs } = await timed(async () => await other.fastify.close())
  t.ok(tookMs < 2 * DEADLINE_MS, `${tookMs.toFixed()} ms`)
  t.match(await hanging, entitlementUnknown)

  const third = await setup(t)
  third.stub.behave('identity', 'status-500-hang')
  t.match(await third.decide(), entitlementUnknown)
  const dumping = await timed(async () => await third.fastify.close())
  t.ok(dumping.tookMs < 2 * DEADLINE_MS, `${dumping.tookMs.toFixed()} ms`)
})

t.test('the log says once that a service is given up, and once that it is back', async t => {
  const lines: string[] = []
  const stub = await startStubUpstream()
  const fastify = Fastify({ logger: { stream: { write: (line: string) => { lines.push(line) } } } })
  t.teardown(async () => { await fastify.close(); await stub.close() })
  let aheadMs = 0
  await fastify.register(upstream, { ...stub, deadlineMs: DEADLINE_MS })
  await fastify.register(entitlement, { freshMs: FRESH_MS, staleMs: STALE_MS, clock: () => performance.now() + aheadMs })
  const ask = async (userId: string) => await fastify.entitlements.decide({ userId, profileId: 'p', contentId: 'c', region: 'US' })
  stub.behave('identity', 'status-500')
  for (let call = 0; call < 30; call++) await ask(`u${call}`)
  aheadMs += 5_000
  await ask('probe')
  aheadMs += 5_000
  stub.behave('identity', 'ok')
  await ask('viewer')
  const told = lines.map((line): unknown => JSON.parse(line))
  t.match(told, [{ level: 50, upstream: 'identity', reason: 'status 500' }, { level: 30, upstream: 'identity' }])
  t.equal(told.length, 2)
})
