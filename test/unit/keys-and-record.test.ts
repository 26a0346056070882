import { readFileSync } from 'node:fs'
import t from 'tap'
import { keyedSessionId, keys, randomSessionId, SLOTS, slotOf, tagOfSlot } from '../../src/redis/keys.ts'
import { formatBeatBlock, formatRecord, LAYOUT, newRecord, parseRecord } from '../../src/redis/record.ts'
import { readScript, SCRIPTS, type ScriptName } from '../../src/redis/scripts.ts'

t.test('keys are the documented ones, braces and all', async t => {
  t.same([keys.session('s'), keys.ended('s'), keys.concurrency('u'), keys.userSessions('u'), keys.due('t'), keys.outbox('t'), keys.lost('t'), keys.rate('u')],
    ['session:{s}', 'ended:{s}', 'concurrency:{u}', 'user:{u}:sessions', 'due:{t}', 'outbox:{t}', 'lost:{t}', 'rate:{u}'])
  t.equal(slotOf('123456789'), 0x31C3 % SLOTS, 'the check value of the cluster specification')
})

t.test('session ids are v4 UUIDs in the slot of their user, without repeats', async t => {
  const ids = new Set<string>()
  const slots = new Set<number>()
  let wrong = 0
  for (let i = 0; i < 200_000; i++) {
    const id = randomSessionId(`user-${i}`)
    if (slotOf(id) !== slotOf(`user-${i}`) || !/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)) wrong++
    ids.add(id)
    slots.add(slotOf(id))
  }
  t.equal(wrong, 0)
  t.equal(ids.size, 200_000)
  t.equal(slots.size, SLOTS, 'every slot is reached')
})

t.test('a keyed id is the same for the same key, and for nothing else', async t => {
  const id = keyedSessionId('secret', 'user', 'key')
  t.equal(keyedSessionId('secret', 'user', 'key'), id)
  t.equal(slotOf(id), slotOf('user'))
  t.equal(new Set([id, keyedSessionId('other', 'user', 'key'), keyedSessionId('secret', 'user', 'key2'), keyedSessionId('secret', 'use', 'rkey')]).size, 4)
})

t.test('each slot has a tag of its own of at most four characters', async t => {
  const tags = Array.from({ length: SLOTS }, (_, slot) => tagOfSlot(slot))
  t.ok(tags.every((tag, slot) => slotOf(tag) === slot && tag.length <= 4))
})

t.test('the record is valid JSON with fixed offsets, and Lua reads the same ones', async t => {
  for (const position of [0, 120, 0.001, 9_999_999.999, 10_000_000]) {
    const session = { sessionId: 's', userId: 'u', profileId: 'p', contentId: 'c', deviceId: 'd', position, limit: 3, limitSource: 'plan', fingerprint: '' } as const
    const [head, tail] = formatRecord(session, '2026-11-23T20:00:00.000Z')
    const record = `${head}1763928930000${tail}`
    t.equal(head.length, LAYOUT.beatOffset)
    t.equal(record.slice(LAYOUT.beatOffset, LAYOUT.blockOffset), '1763928930000')
    t.equal(formatBeatBlock(position, '2026-11-23T20:00:00.000Z').length, LAYOUT.blockWidth)
    t.equal(record.charAt(LAYOUT.headWidth), ',')
    t.same(newRecord(session, '2026-11-23T20:00:00.000Z', 1_763_928_930_000), parseRecord(record))
    t.equal(record.charAt(LAYOUT.markOffset), position === 9_999_999.999 ? '9' : '\t', 'a start is no heartbeat')
    t.not(formatBeatBlock(position, '2026-11-23T20:00:00.000Z').charAt(LAYOUT.markOffset - LAYOUT.blockOffset), '\t')
    for (const name of ['session_id', 'user_id', 'profile_id', 'content_id', 'device_id', 'status', 'started_at', 'last_heartbeat', 'position']) t.ok(name in JSON.parse(record), name)
  }
  const lua = readFileSync(new URL('../../lua/include/record.lua', import.meta.url), 'utf8')
  t.match(lua, new RegExp(`function beat_of\\(record\\) return tonumber\\(string.sub\\(record, ${LAYOUT.beatOffset + 1}, ${LAYOUT.blockOffset}\\)\\)`))
  t.match(lua, new RegExp(`string.sub\\(record, ${LAYOUT.headWidth + 1}\\)`))
  t.match(readScript('heartbeat'), `KEYS[i], '${LAYOUT.markOffset}', '${LAYOUT.markOffset}') ~= '\\t'`)
})

t.test('each script declares what it uses', async t => {
  for (const name of Object.keys(SCRIPTS) as ScriptName[]) {
    const text = readScript(name)
    const { numberOfKeys } = SCRIPTS[name]
    t.match(text, name === 'createSession' ? /^#!lua\n/ : /^#!lua flags=(allow-oom|no-writes)\n/, `${name}: only a start is refused by a full Redis`)
    const used = [...text.matchAll(/KEYS\[(\d+)\]/g)].map(([, key]) => Number(key))
    if (numberOfKeys !== undefined) t.equal(Math.max(...used), numberOfKeys, `${name}: number of keys`)
    t.notMatch(text, /@include/, `${name}: includes are in place`)
    t.equal(readScript(name, { shebang: false }).split('\n')[0], '')
  }
})
