import Fastify from 'fastify'
import t from 'tap'
import { STUB_REGION_REASON, STUB_TITLES, STUB_USERS } from '../../src/embedded/stub-data.ts'
import { startStubServices } from '../../src/embedded/stub-services.ts'
import entitlement from '../../src/modules/entitlement/index.ts'
import upstream from '../../src/plugins/upstream.ts'

t.test('the bundled stub services answer as their data says, and survive odd requests', async t => {
  const services = await startStubServices()
  const fastify = Fastify()
  t.teardown(async () => { await fastify.close(); await services.close() })
  await fastify.register(upstream, { ...services, deadlineMs: 1_000 })
  await fastify.register(entitlement, { freshMs: 60_000, staleMs: 600_000 })
  const ask = async (userId: string, contentId: string, region = 'US') => await fastify.entitlements.decide({ userId, profileId: 'p', contentId, region })
  for (const { userId, entitled, maxStreams, reason } of STUB_USERS) {
    t.same(await ask(userId, 'any'), entitled ? { outcome: 'granted', limit: maxStreams } : { outcome: 'not-entitled', reason }, userId)
  }
  for (const { contentId, regions, blocked } of STUB_TITLES) {
    for (const region of ['US', 'DE']) {
      const reason = blocked ?? (regions?.includes(region) ?? true ? undefined : STUB_REGION_REASON)
      t.same(await ask('anyone', contentId, region), reason === undefined ? { outcome: 'granted', limit: undefined } : { outcome: 'content-unavailable', reason }, `${contentId} in ${region}`)
    }
  }
  for (const [path, status] of [['//', 404], ['/api/entitlement/validate', 400], ['/api/content/availability?region=US', 400], ['/%', 404]] as const) {
    t.equal((await fetch(services.identityUrl + path)).status, status, path)
  }
  t.equal((await fetch(services.identityUrl, { method: 'POST' })).status, 405)
  await services.close()
  await services.close()
})
