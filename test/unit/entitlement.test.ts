import t from 'tap'
import { type Ask, Entitlements, type EntitlementsOptions } from '../../src/modules/entitlement/entitlements.ts'
import type { CallReport, TransportAnswer } from '../../src/modules/entitlement/guarded-call.ts'
import type { LookupReport } from '../../src/modules/entitlement/verdict-cache.ts'

const QUESTION = { userId: 'u', profileId: 'p', contentId: 'c', region: 'US' }
const FRESH_MS = 60_000
const STALE_MS = 600_000
const DEADLINE_MS = 300

const YES: TransportAnswer = { result: 'ok', body: { entitled: true, available: true, max_streams: 2 } }
const NO: TransportAnswer = { result: 'ok', body: { entitled: false, available: false, reason: 'no plan' } }
const BROKEN: TransportAnswer = { result: 'error', retryable: true, reason: 'ECONNRESET' }
const OVERLOADED: TransportAnswer = { result: 'error', retryable: false, reason: 'status 429' }
const LATE: TransportAnswer = { result: 'timeout', reason: 'deadline' }
const STRANGE: TransportAnswer = { result: 'invalid', systemic: true, reason: 'not JSON' }
const NOT_FOUND: TransportAnswer = { result: 'invalid', systemic: false, reason: 'status 404' }

/** A service that says what it is told to, and counts. */
class FakeService {
  answer = YES
  readonly queries: Array<Record<string, string>> = []
  readonly paths = new Set<string>()
  /** Runs while the service is being asked. */
  meanwhile = () => {}

  readonly ask: Ask = async (path, query) => {
    this.paths.add(path)
    this.queries.push(query)
    this.meanwhile()
    await Promise.resolve()
    return this.answer
  }
}

function setup (options: Partial<EntitlementsOptions> = {}) {
  const identity = new FakeService()
  const content = new FakeService()
  const time = { nowMs: 1_000 }
  const reports = new Array<CallReport>()
  const lookups = new Array<LookupReport>()
  const entitlements = new Entitlements({
    askIdentity: identity.ask,
    askContent: content.ask,
    deadlineMs: DEADLINE_MS,
    freshMs: FRESH_MS,
    staleMs: STALE_MS,
    clock: () => time.nowMs,
    random: () => 0,
    onCall: report => { reports.push(report) },
    onLookup: lookup => { lookups.push(lookup) },
    ...options
  })
  return { entitlements, identity, content, time, reports, lookups }
}

t.test('a yes of both services grants, with the limit of the plan', async t => {
  const { entitlements, identity, content } = setup()
  t.same(await entitlements.decide(QUESTION), { outcome: 'granted', limit: 2 })
  t.same(identity.queries, [{ userID: 'u', profileID: 'p', contentID: 'c' }])
  t.same(content.queries, [{ contentID: 'c', region: 'US' }])
  t.same([...identity.paths, ...content.paths], ['/api/entitlement/validate', '/api/content/availability'])
})

t.test('a yes without max_streams grants without a limit of its own', async t => {
  const { entitlements, identity } = setup()
  identity.answer = { result: 'ok', body: { entitled: true } }
  t.same(await entitlements.decide(QUESTION), { outcome: 'granted', limit: undefined })
})

t.test('every combination of answers has its one decision', async t => {
  const notEntitled = { outcome: 'not-entitled', reason: 'no plan' }
  const unavailable = { outcome: 'content-unavailable', reason: 'no plan' }
  const unknown = (about: string) => ({ outcome: 'unknown', about, retryAfterSeconds: 1 })
  for (const failing of [LATE, STRANGE, NOT_FOUND, OVERLOADED, BROKEN]) {
    const table: Array<[TransportAnswer, TransportAnswer, object]> = [
      [NO, YES, notEntitled], [NO, NO, notEntitled], [NO, failing, notEntitled],
      [YES, NO, unavailable], [failing, NO, unavailable],
      [failing, YES, unknown('entitlement')], [failing, failing, unknown('entitlement')],
      [YES, failing, unknown('availability')]
    ]
    for (const [says, tells, decision] of table) {
      const { entitlements, identity, content } = setup()
      identity.answer = says
      content.answer = tells
      t.same(await entitlements.decide(QUESTION), decision, `${says.result} and ${tells.result}`)
    }
  }
})

t.test('a no of the identity service is told without waiting for the content service', async t => {
  const { entitlements, identity } = setup({ askContent: async () => await new Promise(() => {}) })
  identity.answer = NO
  t.match(await entitlements.decide(QUESTION), { outcome: 'not-entitled' })
})

t.test('a fault while nobody waits any more brings nothing down', async t => {
  const { entitlements, identity } = setup({ askContent: async () => { throw new Error('fault') } })
  await t.rejects(entitlements.decide(QUESTION), { message: 'fault' })
  identity.answer = NO
  t.match(await entitlements.decide({ ...QUESTION, userId: 'other' }), { outcome: 'not-entitled' })
})

t.test('a yes is reused while fresh and asked again afterwards', async t => {
  const { entitlements, identity, content, time, lookups } = setup()
  await entitlements.decide(QUESTION)
  time.nowMs += FRESH_MS - 1
  await entitlements.decide(QUESTION)
  t.same([identity.queries.length, content.queries.length], [1, 1])
  time.nowMs += 1
  await entitlements.decide(QUESTION)
  t.same([identity.queries.length, content.queries.length], [2, 2])
  t.same(lookups.filter(lookup => lookup.upstream === 'identity').map(lookup => lookup.source), ['asked', 'fresh', 'asked'])
})

t.test('questions that differ in any part share nothing', async t => {
  const { entitlements, identity, content } = setup()
  for (const question of [QUESTION, { ...QUESTION, userId: 'up', profileId: '' }, { ...QUESTION, profileId: 'q' }, { ...QUESTION, contentId: 'd' }]) {
    await entitlements.decide(question)
  }
  await entitlements.decide({ ...QUESTION, region: 'DE' })
  t.equal(identity.queries.length, 4)
  t.equal(content.queries.length, 3)
})

t.test('an old yes is used while its service fails, in whatever way, and up to its age only', async t => {
  for (const failing of [LATE, STRANGE, NOT_FOUND, OVERLOADED, BROKEN]) {
    const { entitlements, identity, time, lookups } = setup()
    await entitlements.decide(QUESTION)
    identity.answer = failing
    time.nowMs += STALE_MS - 1
    t.same(await entitlements.decide(QUESTION), { outcome: 'granted', limit: 2 }, failing.result)
    t.match(lookups.filter(lookup => lookup.upstream === 'identity').at(-1), { source: 'stale' })
    time.nowMs += 1
    t.match(await entitlements.decide(QUESTION), { outcome: 'unknown', about: 'entitlement' }, failing.result)
  }
})

t.test('an old yes of the content service is used while it fails', async t => {
  const { entitlements, content, time } = setup()
  await entitlements.decide(QUESTION)
  content.answer = LATE
  time.nowMs += FRESH_MS
  t.match(await entitlements.decide(QUESTION), { outcome: 'granted' })
})

t.test('an old yes is not used while its service answers', async t => {
  const { entitlements, identity, time } = setup()
  await entitlements.decide(QUESTION)
  identity.answer = NO
  time.nowMs += FRESH_MS
  t.match(await entitlements.decide(QUESTION), { outcome: 'not-entitled' })
})

t.test('a no is never remembered, and makes an old yes forgotten', async t => {
  const { entitlements, identity, time } = setup()
  await entitlements.decide(QUESTION)
  time.nowMs += FRESH_MS
  identity.answer = NO
  await entitlements.decide(QUESTION)
  identity.answer = LATE
  t.match(await entitlements.decide(QUESTION), { outcome: 'unknown', about: 'entitlement' })
  identity.answer = YES
  t.match(await entitlements.decide(QUESTION), { outcome: 'granted' })
})

t.test('a thousand simultaneous same questions are one call, also when it fails', async t => {
  for (const answer of [YES, NO, LATE]) {
    const { entitlements, identity, content } = setup()
    identity.answer = answer
    const decisions = await Promise.all(Array.from({ length: 1_000 }, async () => await entitlements.decide(QUESTION)))
    t.same([identity.queries.length, content.queries.length], [1, 1])
    t.equal(new Set(decisions.map(decision => decision.outcome)).size, 1)
    await entitlements.decide(QUESTION)
    t.equal(identity.queries.length, answer === YES ? 1 : 2, 'the next question is not bound to the finished call')
  }
})

t.test('memory is bounded: the answers used least recently go first', async t => {
  const { entitlements, identity } = setup({ maxEntries: 10 })
  for (let user = 0; user < 20; user++) await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  t.equal(identity.queries.length, 20)
  await entitlements.decide({ ...QUESTION, userId: 'u19' })
  t.equal(identity.queries.length, 20)
  await entitlements.decide({ ...QUESTION, userId: 'u0' })
  t.equal(identity.queries.length, 21)
})

t.test('a fast failure is asked once more', async t => {
  const { entitlements, identity, reports } = setup()
  identity.answer = BROKEN
  identity.meanwhile = () => { if (identity.queries.length === 2) identity.answer = YES }
  t.match(await entitlements.decide(QUESTION), { outcome: 'granted' })
  t.same(reports.filter(report => report.upstream === 'identity').map(report => report.result), ['error', 'ok'])
})

t.test('nothing else is asked twice: no late, odd, negative or overloaded answer, and no failure that came late', async t => {
  for (const answer of [LATE, STRANGE, NOT_FOUND, NO, OVERLOADED]) {
    const { entitlements, identity } = setup()
    identity.answer = answer
    await entitlements.decide(QUESTION)
    t.equal(identity.queries.length, 1, answer.result)
  }
  const { entitlements, identity, time } = setup()
  identity.answer = BROKEN
  identity.meanwhile = () => { time.nowMs += DEADLINE_MS * 0.7 }
  await entitlements.decide(QUESTION)
  t.equal(identity.queries.length, 1)
})

t.test('retries stay a tenth of the calls', async t => {
  const { entitlements, identity } = setup()
  const calls = 500
  // Every other question succeeds, so the circuit stays closed.
  for (let user = 0; user < calls; user++) {
    identity.answer = user % 2 === 0 ? BROKEN : YES
    await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  }
  const retries = identity.queries.length - calls
  t.ok(retries >= 0.08 * calls && retries <= 0.1 * calls + 2, `${retries} retries in ${calls} calls`)
})

t.test('refused questions earn no retries', async t => {
  const { entitlements, identity, time } = setup()
  identity.answer = BROKEN
  for (let user = 0; user < 300; user++) await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  t.equal(identity.queries.length, 10, 'two of them retries, the rest of the budget not earned yet')
  time.nowMs += 5_000
  identity.answer = YES
  await entitlements.decide({ ...QUESTION, userId: 'probe' })
  identity.answer = BROKEN
  await entitlements.decide(QUESTION)
  t.equal(identity.queries.length, 12)
})

t.test('a failing service is soon not asked any more, probed every five seconds, and used again after one good probe', async t => {
  const { entitlements, identity, time, reports } = setup()
  identity.answer = LATE
  for (let user = 0; user < 20; user++) await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  t.equal(identity.queries.length, 10)
  t.match(reports.filter(report => report.upstream === 'identity').at(-1), { result: 'open', durationSeconds: 0 })
  t.match(await entitlements.decide(QUESTION), { outcome: 'unknown', about: 'entitlement', retryAfterSeconds: 6 })

  time.nowMs += 4_999
  await entitlements.decide(QUESTION)
  t.equal(identity.queries.length, 10, 'no probe yet')
  time.nowMs += 1
  identity.answer = BROKEN
  await entitlements.decide(QUESTION)
  t.match(reports.filter(report => report.upstream === 'identity').at(-1), { result: 'error' }, 'a probe is not retried')
  await entitlements.decide(QUESTION)
  t.equal(identity.queries.length, 11, 'one probe, which failed')

  identity.answer = YES
  time.nowMs += 5_000
  t.match(await entitlements.decide(QUESTION), { outcome: 'granted' })
  t.match(await entitlements.decide({ ...QUESTION, userId: 'next' }), { outcome: 'granted' })
})

t.test('an old yes is used while the circuit is open', async t => {
  const { entitlements, identity, time } = setup()
  await entitlements.decide(QUESTION)
  identity.answer = LATE
  for (let user = 0; user < 10; user++) await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  const asked = identity.queries.length
  time.nowMs += FRESH_MS
  await entitlements.decide({ ...QUESTION, userId: 'probe' })
  t.match(await entitlements.decide(QUESTION), { outcome: 'granted' })
  t.equal(identity.queries.length, asked + 1, 'only the probe')
})

t.test('answers about one question never open the circuit', async t => {
  const { entitlements, identity } = setup()
  const odd: TransportAnswer[] = [NOT_FOUND, { result: 'ok', body: { entitled: true, max_streams: 0 } }]
  for (const answer of odd) {
    identity.answer = answer
    for (let user = 0; user < 30; user++) await entitlements.decide({ ...QUESTION, userId: `u${user}` })
  }
  t.equal(identity.queries.length, 60)
})

t.test('refused players are told to come back spread over some seconds', async t => {
  const told = new Set<number>()
  for (const random of [0, 0.5, 0.99]) {
    const { entitlements, identity } = setup({ random: () => random })
    identity.answer = LATE
    const decision = await entitlements.decide(QUESTION)
    if (decision.outcome === 'unknown') told.add(decision.retryAfterSeconds)
  }
  t.same([...told], [1, 2, 3])
})
