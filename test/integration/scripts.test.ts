import { Redis } from 'ioredis'
import t from 'tap'
import { keys, randomSessionId, slotOf, tagOfSlot } from '../../src/redis/keys.ts'
import { formatBeatBlock, formatRecord, parseEnded, parseRecord, RENEWAL } from '../../src/redis/record.ts'
import { defineScripts } from '../../src/redis/scripts.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'

const { program, skip } = requireRedis()
const T = 90_000
const TTL = 86_400_000
const ENDED = 3_600_000

/** Fails on a key that was not declared: nothing in Redis does for keys of one slot, until a slot migrates. */
const KEY_GUARD = `local real = redis
local redis = setmetatable({ call = function(command, ...)
  local key = ...
  if command ~= 'TIME' then
    local declared = false
    for _, known in ipairs(KEYS) do declared = declared or known == key end
    if not declared then error('undeclared key ' .. tostring(key)) end
  end
  return real.call(command, ...)
end }, { __index = real })`

t.test('scripts on a cluster-enabled server, with undeclared keys refused', { skip }, async t => {
  const server = await startRedis({ program, args: ['--cluster-enabled', 'yes'] })
  t.teardown(async () => { await server.close() })
  const redis = new Redis({ port: server.port })
  t.teardown(() => { redis.disconnect() })
  await redis.call('CLUSTER', 'ADDSLOTSRANGE', 0, 16_383)
  while (!String(await redis.call('CLUSTER', 'INFO')).includes('cluster_state:ok')) await new Promise(resolve => setTimeout(resolve, 20))
  defineScripts(redis, { shebang: true, prelude: KEY_GUARD })
  let users = 0

  function room (limit: number) {
    const user = `u${users++}`
    const tag = tagOfSlot(slotOf(user))
    const shared = [keys.concurrency(user), keys.userSessions(user), keys.due(tag), keys.outbox(tag)]
    const create = async (mode: 'probe' | 'decide', { id = randomSessionId(user), declared = [] as string[], named = 0, onLimit = 'reject', grace = 0 } = {}) => {
      const [head, tail] = formatRecord({ sessionId: id, userId: user, profileId: 'p', contentId: 'c', deviceId: 'd', position: 0, limit, limitSource: 'default', fingerprint: '' }, new Date().toISOString())
      const all = [keys.session(id), keys.ended(id), ...shared, ...declared.flatMap(member => [keys.session(member), keys.ended(member)])]
      return { id, reply: await redis.createSession(all.length, ...all, id, head, tail, limit, T, TTL, ENDED, grace, mode, onLimit, named, 'winner', '', ...declared) }
    }
    const of = (id: string) => [keys.session(id), keys.ended(id), ...shared] as [string, string, string, string, string, string]
    const silence = async (id: string): Promise<void> => { await redis.setrange(keys.session(id), 43, String(Date.now() - T - 1_000)) }
    return { user, tag, shared, create, of, silence }
  }

  t.test('the guard itself catches an undeclared key', async t => {
    redis.defineCommand('outlaw', { numberOfKeys: 1, lua: `#!lua\n${KEY_GUARD}\nreturn redis.call('GET', KEYS[1] .. 'x')` })
    await t.rejects((redis as unknown as { outlaw: (key: string) => Promise<unknown> }).outlaw('{a}'), /undeclared key/)
  })

  t.test('a start writes slot, record, index, due time and event together; repeated it changes nothing', async t => {
    const { user, tag, create } = room(3)
    const { id, reply } = await create('probe')
    t.equal(reply[0], 1)
    t.equal(await redis.sismember(keys.concurrency(user), id), 1)
    t.equal(await redis.sismember(keys.userSessions(user), id), 1)
    t.ok(await redis.zscore(keys.due(tag), id))
    t.equal(await redis.xlen(keys.outbox(tag)), 1)
    t.equal(parseRecord(await redis.get(keys.session(id)) ?? '').beatMs, reply[1])
    for (const key of [keys.session(id), keys.concurrency(user), keys.userSessions(user)]) t.ok(await redis.pttl(key) > TTL - 60_000, key)
    t.equal((await create('probe', { id })).reply[0], 2)
    t.equal(await redis.xlen(keys.outbox(tag)), 1)
  })

  t.test('at the limit a probe names the members and writes nothing; the decision refuses and lists them', async t => {
    const { user, create } = room(2)
    const held = [(await create('probe')).id, (await create('probe')).id]
    const probe = await create('probe')
    t.same(probe.reply.slice(3).sort(), [...held].sort())
    t.equal(probe.reply[0], 4)
    const decision = await create('decide', { declared: held })
    t.equal(decision.reply[0], 5)
    t.equal(decision.reply.length, 5)
    t.equal(await redis.scard(keys.concurrency(user)), 2)
    t.equal(await redis.exists(keys.session(decision.id)), 0)
  })

  t.test('the silent give way, but not in a grace; a member without a record goes without an event', async t => {
    const { user, tag, create, silence } = room(2)
    const silent = (await create('probe')).id
    const lost = (await create('probe')).id
    await silence(silent)
    await redis.del(keys.session(lost))
    t.equal((await create('decide', { declared: [silent], grace: Date.now() + T })).reply[0], 5, 'grace')
    const { reply } = await create('decide', { declared: [silent, lost] })
    t.equal(reply[0], 1)
    t.equal(reply.length, 6, 'one ended session is told of')
    t.equal(parseEnded(String(reply[5])).endReason, 'expired')
    t.equal(await redis.scard(keys.concurrency(user)), 1)
    t.equal(await redis.xlen(keys.outbox(tag)), 4, 'three starts, one end')
  })

  t.test('a take-over ends the oldest, as many as needed, and the named even where there is room', async t => {
    const { user, create } = room(3)
    const held: string[] = []
    for (let i = 0; i < 3; i++) {
      held.push((await create('probe')).id)
      await new Promise(resolve => setTimeout(resolve, 2))
    }
    const { reply, id } = await create('decide', { declared: held.toReversed(), onLimit: 'supersede_oldest' })
    t.equal(reply[0], 1)
    const ended = parseEnded(String(reply[5]))
    t.equal(ended.session.sessionId, held[0])
    t.equal(ended.endReason, 'superseded')
    t.equal(ended.endedBy, 'winner')
    t.equal((await create('decide', { declared: [held[0] ?? ''], onLimit: 'supersede_oldest' })).reply[0], 4, 'without a declared member left it asks again')
    const named = await create('probe', { declared: [id, randomSessionId(user)], named: 2 })
    t.equal(named.reply[0], 1)
    t.equal(await redis.exists(keys.session(id)), 0)
    t.equal(await redis.scard(keys.concurrency(user)), 3)
  })

  t.test('the due of many sets in one call, each set with its own bound', async t => {
    const { create, of, user } = room(3)
    const [first, second] = [await create('probe'), await create('probe')].map(({ id }) => id) as [string, string]
    const set = of(first)[4]
    const other = `${set}:other`
    const times = Object.fromEntries(await Promise.all([first, second].map(async id => [id, Number(await redis.zscore(set, id))]))) as Record<string, number>
    await redis.zadd(other, 5, user)
    const due = async (nowMs: number, limit = 1_000): Promise<string[]> => await redis.dueSessions(3, set, `${set}:absent`, other, nowMs, limit)
    t.same(await due(4), [])
    t.same(await due(Math.min(...Object.values(times)) - 1), [user])
    t.same((await due(Math.max(...Object.values(times)))).toSorted(), [first, second, user].toSorted())
    t.equal((await due(Math.max(...Object.values(times)), 1)).length, 2)
  })

  const block = (position: number): string => formatBeatBlock(position, '2026-11-23T20:00:00.000Z')
  const beat = async (gapMs: number, ...beats: Array<[id: string, position: number]>) =>
    await redis.heartbeat(beats.length, ...beats.map(([id]) => keys.session(id)), gapMs, beats.map(([, position]) => block(position)).join(''))

  t.test('a heartbeat renews, keeps a pause, and never creates or revives', async t => {
    const { create, of } = room(3)
    const { id } = await create('probe')
    await redis.changeStatus(keys.session(id), of(id)[5], 'paused', 'playback.paused', '', new Date().toISOString(), '')
    const before = parseRecord(await redis.get(keys.session(id)) ?? '').beatMs
    const [now, renewals] = await beat(0, [id, 12.345])
    t.match(renewals, new RegExp(`^paused.{8}2 {9}.{8}${before}$`))
    t.equal(renewals.length, RENEWAL.width)
    const record = parseRecord(await redis.get(keys.session(id)) ?? '')
    t.same([record.status, record.position, record.seq, record.beatMs], ['paused', 12.345, 2, now])
    t.equal(await redis.lastBeats(1, keys.session(id)), String(now))
    await redis.endSession(...of(id), id, 'playback.stopped', 'client', 'stopped', '"d"', ENDED, '', '', '')
    t.equal((await beat(0, [id, 1]))[1], ' '.repeat(RENEWAL.width))
    t.equal((await redis.lastBeats(1, keys.session(id))).trim(), '')
    t.equal(await redis.exists(keys.session(id)), 0, 'absent stays absent')
  })

  t.test('a heartbeat sooner after the last one than the gap writes nothing; after a start or a change it does', async t => {
    const { create, of } = room(3)
    const [{ id }, other] = [await create('probe'), await create('probe')]
    const position = async (): Promise<number> => parseRecord(await redis.get(keys.session(id)) ?? '').position
    const marks = async (gapMs: number, ...beats: Array<[string, number]>): Promise<string> => (await beat(gapMs, ...beats))[1].replace(/.{45}/g, part => part.charAt(0))
    const HOUR = 3_600_000
    t.equal(await marks(HOUR, [id, 1]), 'a', 'the first one after the start')
    const record = await redis.get(keys.session(id))
    t.equal(await marks(HOUR, [id, 2]), '!', 'the next is too soon')
    t.equal(await redis.get(keys.session(id)), record, 'and has changed nothing')
    t.match((await beat(HOUR, [id, 2]))[1], new RegExp(`^!ctive.{8}1 {9}.{8}${parseRecord(record ?? '').beatMs}$`), 'it tells of the beat before')
    for (const [status, type] of [['paused', 'playback.paused'], ['active', 'playback.resumed']] as const) {
      await redis.changeStatus(keys.session(id), of(id)[5], status, type, '', new Date().toISOString(), '')
      t.equal(await marks(HOUR, [id, 3]), status.charAt(0), `the first one after it was made ${status}`)
      t.equal(await marks(HOUR, [id, 4]), '!')
    }
    t.equal(await position(), 3)
    await redis.setrange(keys.session(id), 43, String(Date.now() - HOUR - 1_000))
    t.equal(await marks(HOUR, [id, 5], [other.id, 1], [id, 6], [randomSessionId('nobody'), 1]).catch(String), 'ReplyError: CROSSSLOT Keys in request don\'t hash to the same slot')
    t.equal(await marks(HOUR, [id, 5], [other.id, 1], [id, 6], [randomSessionId(of(id)[2].slice(13, -1)), 1]), 'aa! ', 'once the gap is over it counts again; of two in one call the first does')
    t.equal(await position(), 5)
    await redis.setrange(keys.session(id), 43, String(Date.now() + HOUR))
    t.equal(await marks(HOUR, [id, 7]), 'a', 'a beat that another master\'s clock has put into the future holds nobody up')
    t.equal(await marks(0, [id, 8], [id, 9]), 'aa', 'without a gap each one counts')
    t.equal(await position(), 9)
  })

  t.test('an ending releases everything once, and repeated answers the first', async t => {
    const { user, tag, create, of } = room(3)
    const { id } = await create('probe')
    const end = async (reason: string) => await redis.endSession(...of(id), id, 'playback.stopped', 'client', reason, 'null', ENDED, '7          ', '2026-11-23T20:00:00.000Z', '')
    const first = await end('stopped')
    t.equal(first[0], 1)
    t.equal(parseEnded(first[3]).session.position, 7)
    t.equal(await redis.exists(keys.session(id), keys.concurrency(user)), 0)
    t.equal(await redis.exists(keys.userSessions(user)), 0)
    t.equal(await redis.zscore(keys.due(tag), id), null)
    const second = await end('completed')
    t.equal(second[0], 2)
    t.equal(second[3], first[3])
    t.equal(await redis.xlen(keys.outbox(tag)), 2)
    t.ok(await redis.pttl(keys.ended(id)) > ENDED - 60_000)
  })

  t.test('of many reapers one ends a silent session; the living and those in grace are put off', async t => {
    const { tag, create, of, silence } = room(3)
    const { id } = await create('probe')
    const reap = async (grace = 0) => await redis.reapSession(...of(id), id, T, grace, ENDED)
    t.equal((await reap())[0], 2)
    await silence(id)
    t.equal((await reap(Date.now() + T))[0], 2, 'grace')
    const codes = (await Promise.all(Array.from({ length: 5 }, async () => await reap()))).map(([code]) => code)
    t.same(codes.sort(), [0, 0, 0, 0, 1])
    t.equal(await redis.xlen(keys.outbox(tag)), 2, 'one start, one end')
    await redis.zadd(keys.due(tag), 1, id)
    t.equal((await reap())[0], 0, 'an entry without a record is forgotten')
    t.equal(await redis.zscore(keys.due(tag), id), null)
  })

  t.test('a pulse hands a sweep to one instance per interval, and a gap in it opens a grace', async t => {
    const key = keys.pulse('x')
    const pulse = async () => await redis.pulse(key, 30_000, T, 5_000, TTL, '1')
    t.same((await pulse()).slice(1), [0, 1])
    t.same((await pulse()).slice(1), [0, 0])
    await redis.set(key, `${Date.now() - 31_000}:0:0`)
    const [now, grace] = await pulse()
    t.equal(grace, now + T)
  })

  t.test('a user has his burst at once and then one request per interval, by the clock of Redis', async t => {
    const user = `rated-${users++}`
    const take = async (perMinute: number, ...names: string[]): Promise<number[]> =>
      ((await redis.rateLimit(names.length, ...names.map(keys.rate), perMinute))[1].match(/.{5}/g) ?? []).map(Number)
    for (const perMinute of [1, 7, 120, 60_000]) {
      const own = `${user}-${perMinute}`
      const names = Array.from({ length: Math.min(perMinute, 1_000) + 1 }, () => own)
      const waits = await take(perMinute, ...names)
      const passed = waits.filter(wait => wait === 0).length
      t.equal(passed, Math.min(perMinute, 1_001), `${perMinute} a minute: as many at once, in one call`)
      if (perMinute < 1_000) t.equal(waits.at(-1), Math.ceil(Math.floor(60_000_000 / perMinute) / 1_000), 'and then a wait of one interval')
      const ttl = await redis.pttl(keys.rate(own))
      t.ok(ttl > 0 && ttl <= 60_000, `the key goes by itself, in ${ttl} ms`)
    }
    const [seconds, micros] = (await redis.time()).map(Number) as [number, number]
    const put = async (aheadUs: number): Promise<unknown> => await redis.set(keys.rate(user), String(seconds * 1e6 + micros + aheadUs))
    await put(90e6)
    const [clamped = 0] = await take(2, user)
    t.ok(clamped > 29_000 && clamped <= 30_000, `whoever is further ahead than a burst waits one interval: ${clamped} ms`)
    await put(40e6)
    const before = await redis.get(keys.rate(user))
    const [wait = 0] = await take(2, user)
    t.ok(wait > 9_000 && wait <= 10_000, `30 s after the burst a request is to come in ${wait} ms`)
    t.equal(await redis.get(keys.rate(user)), before, 'a refused one takes nothing')
    await put(30e6)
    t.same((await take(2, user, user)).map(Boolean), [false, true], 'one interval later there is one, and no more')
    await put(-1e6)
    t.same((await take(2, user, user, user)).map(Boolean), [false, false, true], 'unused requests do not pile up past the burst')
  })

  t.test('acknowledged events go, and the emptied stream with them', async t => {
    const { tag, create } = room(3)
    const { reply } = await create('probe')
    t.same(await redis.outboxLengths(3, `${keys.outbox(tag)}:absent`, keys.outbox(tag), `${keys.outbox(tag)}:absent`), [0, 1, 0])
    t.same(await redis.acknowledgeEvents(1, keys.outbox(tag), 1, String(reply[3])), [1])
    t.equal(await redis.exists(keys.outbox(tag)), 0)
  })
})
