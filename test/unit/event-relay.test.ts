import t from 'tap'
import { EventRelay, type HeartbeatSampling } from '../../src/modules/event/event-relay.ts'
import { eventJson, heartbeatEvent, lifecycleEvent } from '../../src/modules/event/playback-event.ts'
import type { PlaybackEvent } from '../../src/schemas.ts'

type Options = ConstructorParameters<typeof EventRelay>[0]
const MINUTE = 60_000
const subject = (sessionId: string) => ({ sessionId, userId: 'u', profileId: 'p', contentId: 'c', deviceId: 'd' })

/** A relay without a store: heartbeat events never touch it. */
function relayOf (heartbeats: HeartbeatSampling, { ready = true, lingerMs = 1 } = {}): { relay: EventRelay, sent: PlaybackEvent[], sizes: number[], counted: { sent: number, dropped: number } } {
  const sent: PlaybackEvent[] = []
  const sizes: number[] = []
  const counted = { sent: 0, dropped: 0 }
  const relay = new EventRelay({
    heartbeats,
    sink: {
      lingerMs,
      ready: () => ready,
      send: async events => {
        sent.push(...events)
        sizes.push(events.length)
      },
      close: async () => {}
    },
    observer: { sent: (_type, count) => { counted.sent += count }, dropped: (_type, count) => { counted.dropped += count }, lost: () => {}, failed: () => {} },
    client: Object.create(null) as Options['client'],
    clock: Object.create(null) as Options['clock'],
    capacity: Object.create(null) as Options['capacity']
  })
  return { relay, sent, sizes, counted }
}
const beat = (beatMs: number, previousBeatMs: number, position = 1) => [{ seq: 1, beatMs, previousBeatMs }, { position }] as const

t.test('all: the latest of each session, once per flush', async t => {
  const { relay, sent, counted } = relayOf('all')
  for (let position = 1; position <= 5; position++) for (const id of ['a', 'b']) relay.heartbeat(subject(id), ...beat(MINUTE + position, MINUTE, position))
  await relay.drain()
  t.match(sent, [{ event_type: 'playback.heartbeat', session_id: 'a', metadata: { position: 5 } }, { session_id: 'b', metadata: { position: 5 } }])
  t.equal(sent.length, 2)
  t.same(counted, { sent: 2, dropped: 0 })
})

t.test('a sink gets what came while it lingers in one piece', async t => {
  for (const [lingerMs, expected] of [[1, [1, 1]], [60_000, [2]]] as const) {
    const { relay, sizes } = relayOf('all', { lingerMs })
    relay.heartbeat(subject('a'), ...beat(MINUTE, 0))
    await new Promise(resolve => setTimeout(resolve, 50))
    relay.heartbeat(subject('b'), ...beat(MINUTE, 0))
    await relay.drain()
    t.same(sizes, expected, `${lingerMs} ms`)
  }
})

t.test('sampled: the first of each minute; off: none', async t => {
  for (const [mode, expected] of [['sampled', 2], ['off', 0]] as const) {
    const { relay, sent } = relayOf(mode)
    for (const [now, before] of [[MINUTE - 1, MINUTE - 30_001], [MINUTE, MINUTE - 1], [MINUTE + 30_000, MINUTE], [2 * MINUTE, MINUTE + 30_000]] as const) {
      relay.heartbeat(subject('a'), ...beat(now, before))
      await relay.drain()
    }
    t.equal(sent.length, expected, mode)
  }
})

t.test('without a sink, and past the bound, each event is dropped and counted', async t => {
  const away = relayOf('all', { ready: false })
  for (let i = 0; i < 10; i++) away.relay.heartbeat(subject(`s${i}`), ...beat(1, 0))
  await away.relay.drain()
  t.same([away.sent.length, away.counted], [0, { sent: 0, dropped: 10 }])

  const { relay, sent, counted } = relayOf('all')
  for (let i = 0; i < 50_010; i++) relay.heartbeat(subject(`s${i}`), ...beat(1, 0))
  relay.heartbeat(subject('s0'), ...beat(2, 1, 9))
  await relay.drain()
  t.same([sent.length, counted], [50_000, { sent: 50_000, dropped: 10 }])
  t.equal(sent[0]?.metadata.position, 9, 'a session that waits already is brought up to date')
})

t.test('the JSON of an event is what JSON.stringify makes of it', async t => {
  const session = { ...subject('3f0c9a52-8f6e-4d0b-9c41-5a1726e05132'), userId: 'a.b_c:d@e|f+g=h-1', status: 'active', seq: 7, beatMs: MINUTE, position: 9_999_999.999, lastHeartbeat: '', startedAt: '2026-11-23T20:15:30.000Z', limit: 3, limitSource: 'plan', fingerprint: '' } as const
  const entry = { slot: 1, entryId: '1-1', seq: 7, atMs: MINUTE, session }
  const events = [
    heartbeatEvent(subject('a'), { seq: 1, beatMs: MINUTE }, { position: 0.001 }),
    heartbeatEvent(subject('a'), { seq: 1, beatMs: MINUTE }, { position: -0, metadata: { quality: '1080p', network: 'a "word"\\\u2028\n' } }),
    lifecycleEvent({ ...entry, type: 'playback.started', reason: undefined, metadata: '' }),
    lifecycleEvent({ ...entry, type: 'playback.stopped', reason: 'superseded', metadata: '{"quality":"4K"}' })
  ]
  for (const event of events) t.equal(eventJson(event), JSON.stringify(event))
})
