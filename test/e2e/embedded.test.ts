import t from 'tap'
import { startService } from '../support/service-process.ts'
import { waitFor } from '../support/wait-for.ts'

interface Answer { status: number, body: { code?: string, reason?: string, session?: { session_id: string }, playback_token?: string } }

t.test('on a machine without any Redis the one inside the process keeps the limit and ends the silent', async t => {
  const service = await startService({ PATH: '', SESSION_TIMEOUT: '2s', HEARTBEAT_INTERVAL: '1s', SWEEP_INTERVAL: '200ms', UPSTREAM_DEADLINE: '10s' })
  t.teardown(async () => { await service.close() })
  t.match(service.lines.find(line => line.msg === 'listening')?.redis, /in this process/)
  const call = async (path: string, init: RequestInit = {}): Promise<Answer> => {
    const response = await fetch(`${service.url}/api/playback${path}`, init)
    return { status: response.status, body: await response.json() as Answer['body'] }
  }
  const start = async (): Promise<Answer> => await call('/session', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user_id: 'user-premium', profile_id: 'p', content_id: 'content789', device_id: 'd' })
  })
  const first = await waitFor('a start', async () => { const answer = await start(); return answer.status === 201 && answer })
  const others = await Promise.all(Array.from({ length: 8 }, start))
  t.same(others.map(({ status }) => status).sort(), [201, 201, 201, 201, 409, 409, 409, 409], 'the limit of the plan, 5, holds in a race')
  const gone = await waitFor('the silent to be ended', async () => {
    const answer = await call(`/session/${first.body.session?.session_id}`, { headers: { authorization: `Bearer ${first.body.playback_token}` } })
    return answer.status === 410 && answer
  }, 30_000)
  t.match(gone.body, { reason: 'expired' })
  t.equal((await start()).status, 201, 'its slot is free')
})

t.test('several workers need a Redis they can share', async t => {
  await t.rejects(startService({ PATH: '', WORKERS: '2' }), /WORKERS above 1 needs a real Redis/)
})
