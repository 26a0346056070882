import { readFileSync } from 'node:fs'
import t from 'tap'
import { Engagement } from '../../examples/engagement-consumer/engagement.ts'
import type { PlaybackEvent } from '../../src/schemas.ts'

const stream: PlaybackEvent[] = readFileSync(new URL('../../events/fixtures.jsonl', import.meta.url), 'utf8').trim().split('\n').map(line => JSON.parse(line))
const repeats = stream.length - new Set(stream.map(event => event.event_id)).size

function play (events: readonly PlaybackEvent[], engagement = new Engagement()): Engagement {
  for (const event of events) engagement.apply(event)
  return engagement
}

t.test('counts what was watched, drops repeats and remembers where a title was left', async t => {
  const view = play(stream).view()
  t.same(view.live_viewers, {}, 'every session of the fixture stream has ended')
  t.equal(view.minutes_watched.content789, 1.8, '45 s until the pause and 60 s after it')
  t.equal(view.minutes_watched['content-us-only'], undefined, 'a silence that ended a session was not watched')
  t.same(view.continue_watching, { 'user123/profile456': { 'content-us-only': 600 } }, 'a completed title is not continued')
  t.equal(view.repeats_dropped, repeats)
})

t.test('lifecycle events in any order of arrival give the same result', async t => {
  const lifecycle = stream.filter(event => event.event_type !== 'playback.heartbeat')
  const expected = play(lifecycle).view()
  t.same(play([...lifecycle].reverse()).view(), expected)
  t.equal(play(lifecycle.slice(1, 2)).view().waiting_for_earlier, 1, 'a change without the one before it waits')
})

t.test('a restart from the saved state in the middle loses and repeats nothing', async t => {
  for (let cut = 0; cut <= stream.length; cut++) {
    const saved = JSON.parse(JSON.stringify(play(stream.slice(0, cut)).snapshot()))
    t.same(play(stream.slice(cut), new Engagement(saved)).view(), play(stream).view(), `cut after ${cut} events`)
  }
})
