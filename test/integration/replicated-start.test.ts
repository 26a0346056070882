import { Redis } from 'ioredis'
import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()

t.test('a start that no replica confirmed is not confirmed by its repetition either, until a replica has it', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app } = await buildTestApp(t, redis.url, { ADMISSION_DURABILITY: 'replicated' })
  const user = newUser()
  const again = async () => await start(app, user, {}, { 'idempotency-key': 'one' })
  for (let turn = 0; turn < 3; turn++) {
    const { status, body } = await again()
    t.match({ status, code: body.code }, { status: 503, code: 'admission-unconfirmed' }, `try ${turn + 1}`)
  }
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  t.equal(await store.scard(`concurrency:{${user}}`), 1, 'the session is there, on the master alone')

  const replica = await startRedis({ program, args: ['--replicaof', redis.host, String(redis.port), '--repl-diskless-sync-delay', '0'] })
  t.teardown(async () => { await replica.close() })
  const healed = await waitFor('the same key to heal it', async () => { const answer = await again(); return answer.status !== 503 && answer }, 30_000)
  t.equal(healed.status, 200)
  const copy = new Redis(replica.url)
  t.teardown(() => { copy.disconnect() })
  t.equal(await copy.exists(`session:{${healed.body.session.session_id}}`), 1, 'then the replica has it')
  t.equal(await store.scard(`concurrency:{${user}}`), 1, 'and it is still one')
})
