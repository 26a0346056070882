import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { track } from '../support/children.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
/** Their lines are several times what a pipe holds (64 KiB), so that writes are cut. */
const STARTS = 1_000

async function pausing (t: Test, workers: number): Promise<void> {
  const redis = await startRedis({ program })
  const child = spawn(process.execPath, [fileURLToPath(new URL('../../dist/server.js', import.meta.url))], {
    env: { PATH: process.env.PATH, PORT: '0', HOST: '127.0.0.1', LOG_FORMAT: 'json', REDIS_URL: redis.url, UPSTREAM_DEADLINE: '2s', WORKERS: String(workers) }, stdio: ['ignore', 'pipe', 'inherit']
  })
  track(child)
  t.teardown(async () => {
    child.kill('SIGKILL')
    await redis.close()
  })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  const url = await waitFor('the service', () => /"address":"([^"]+)".*"msg":"listening"/.exec(text)?.[1])
  child.stdout.pause()
  const statuses = new Set<number>()
  for (let from = 0; from < STARTS; from += 50) {
    await Promise.all(Array.from({ length: 50 }, async (_, at) => {
      const response = await fetch(`${url}/api/playback/session`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ user_id: `viewer-${from + at}`, profile_id: 'p', content_id: 'content789', device_id: 'd', metadata: { quality: 'q'.repeat(60), network: 'n'.repeat(60) } })
      })
      statuses.add(response.status)
      await response.arrayBuffer()
    }))
  }
  t.same(statuses, new Set([201]))
  // Now a slow one, so that each worker's writes end where the other's begin.
  child.stdout.on('data', () => {
    child.stdout.pause()
    setTimeout(() => { child.stdout.resume() }, 5)
  }).resume()
  await waitFor('the events', () => text.split('LOG playback.started').length > STARTS || undefined)
  child.kill('SIGTERM')
  await once(child, 'close')
  const lines: Array<{ msg: string }> = text.split('\n').filter(line => line !== '').map(line => JSON.parse(line))
  t.equal(lines.filter(({ msg }) => msg === 'LOG playback.started').length, STARTS, 'every event')
  t.equal(lines.filter(({ msg }) => msg === 'request completed').length, STARTS, 'every request')
  t.equal(lines.filter(({ msg }) => msg === 'ended').length, workers)
  if (workers === 1) t.equal(lines.at(-1)?.msg, 'ended')
  t.ok(text.length > 4 * 65_536)
}

for (const workers of [1, 2]) {
  t.test(`a reader that pauses delays no answer, and every line of log and events is whole; workers: ${workers}`, { skip }, async t => { await pausing(t, workers) })
}
