import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { startService } from '../support/service-process.ts'
import { startViewers } from '../support/viewers.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()

t.test('what a service that has worked exposes is what rules and dashboard ask for, and promtool finds nothing to say', { skip }, async t => {
  const [redis, upstream] = await Promise.all([startRedis({ program }), startStubUpstream()])
  t.teardown(async () => { await Promise.all([redis.close(), upstream.close()]) })
  for (const WORKERS of ['1', '2']) {
    const service = await startService({ REDIS_URL: redis.url, IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '10s', WORKERS })
    t.teardown(async () => { await service.close() })
    const viewers = startViewers({ name: `of-${WORKERS}`, url: () => service.url, loops: 9, restMs: 5, beats: 2 })
    await waitFor('sessions and refusals', () => viewers.counts.ended > 10 && viewers.counts.refused > 0)
    await viewers.stop()
    const { status, stdout } = spawnSync(process.execPath, [fileURLToPath(new URL('../../scripts/check-rules.mjs', import.meta.url)), '--metrics', `${service.url}/metrics`], { encoding: 'utf8' })
    t.equal(status, 0, stdout)
    t.match(stdout, process.env.CI === 'true' ? /ok {4} promtool check metrics/ : /promtool check metrics/)
    t.match(stdout, /ok {4} names of metrics exist/)
  }
})
