import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createViewingClient } from '../../sdk/client.ts'
import { startService } from '../support/service-process.ts'
import { waitFor } from '../support/wait-for.ts'

t.test('with nothing configured the service runs, the README\'s lines work one after another, and the SDK plays the main flow', async t => {
  const service = await startService({})
  t.teardown(async () => { await service.close() })
  const listening = service.lines.find(line => line.msg === 'listening')
  t.match(listening?.redis, /^embedded: /, 'it says which Redis it uses')
  t.match(listening?.upstream, /^embedded: stub/)

  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const tries = /<!-- try:begin -->([\s\S]*?)<!-- try:end -->/.exec(readme)?.[1] ?? ''
  const blocks = [...tries.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block ?? '')
  t.ok(blocks.length > 0, 'the README has lines to try')
  const folder = mkdtempSync(join(tmpdir(), 'viewing-readme-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const shell = process.env.CI === 'true' || ['bash', 'curl', 'sed', 'grep'].every(program => spawnSync(program, ['--version']).status === 0)
  if (!shell) t.comment('the README\'s lines are not run: they need bash, curl, sed and grep')
  // One shell for all blocks, as for whoever pastes them one after another: what one sets, the next one uses.
  if (shell) t.doesNotThrow(() => { execFileSync('bash', ['-euxo', 'pipefail', '-c', blocks.join('\n')], { cwd: folder, env: { ...process.env, URL: service.url }, stdio: 'pipe' }) })

  // The first start of a cold process on a busy machine may pass its deadlines: 503 asks to try again.
  const started = await waitFor('a start', async () => {
    const answer = await createViewingClient(service.url).POST('/api/playback/session', {
      body: { user_id: 'sdk-user', profile_id: 'p', content_id: 'content789', device_id: 'd' }
    })
    return answer.response.status === 503 ? undefined : answer
  }, 30_000)
  t.equal(started.response.status, 201)
  const id = started.data?.session.session_id ?? ''
  const client = createViewingClient(service.url, started.data?.playback_token)
  const params = { path: { session_id: id } }
  const beat = await client.POST('/api/playback/session/{session_id}/heartbeat', { params, body: { position: 12.5 } })
  t.equal(beat.data?.position, 12.5)
  const paused = await client.POST('/api/playback/session/{session_id}/pause', { params, body: {} })
  t.equal(paused.data?.session.status, 'paused')
  const stopped = await client.POST('/api/playback/session/{session_id}/stop', { params, body: { position: 13 } })
  t.equal(stopped.data?.session.end_reason, 'stopped')
  const late = await client.POST('/api/playback/session/{session_id}/heartbeat', { params, body: { position: 14 } })
  t.equal(late.error?.code, 'session-ended')
  t.equal(late.error?.reason, 'stopped')
})
