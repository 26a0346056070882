import { setTimeout as sleep } from 'node:timers/promises'
import type { Scenario } from './trial.ts'

/** The limit, tokens, silence. */
export const LIMIT: Scenario[] = [
  {
    alerts: ['ViewingConcurrencyRefusalsUnusual'],
    async play (trial) {
      const { world } = trial
      Object.assign(world.traffic.habits, { startsPerSecond: 15, atLimit: 0.02, viewers: 20, beats: 1 })
      await trial.ordinary(60)
      await trial.fault('players no longer stop their sessions', () => { world.traffic.habits.stops = false })
      await trial.fires()
      await trial.action('players as before; `DELETE /api/playback/concurrency/{user_id}` for those who hold slots', async () => {
        world.traffic.habits.stops = true
        for (let user = 0; user < world.traffic.habits.viewers; user++) await fetch(`${world.url()}/api/playback/concurrency/viewer-${user}`, { method: 'DELETE' })
      })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingConcurrencyRefusalsMissing'],
    async play (trial) {
      const { world } = trial
      Object.assign(world.traffic.habits, { startsPerSecond: 15, atLimit: 0.1, beats: 1 })
      await trial.ordinary(60)
      await trial.fault('the plans of all users suddenly name 100 streams', () => { world.services.manners.identity.maxStreams = 100 })
      await trial.fires()
      await trial.action('the identity service names the right plans again', () => { world.services.mend() })
      await trial.ends()
    },
    world: { env: { DECISION_FRESH: '100ms' } }
  },
  {
    alerts: ['ViewingDenialsUnusual'],
    world: { env: { DECISION_FRESH: '100ms' } },
    async play (trial) {
      const { world } = trial
      world.traffic.habits.denied = 0.02
      await trial.ordinary(60)
      await trial.fault('the identity service says no to nine of ten', () => { world.services.manners.identity.denials = 0.9 })
      await trial.fires()
      await trial.action('the identity service is mended', () => { world.services.mend() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingTokenRejectionsSpike'],
    async play (trial) {
      const { world } = trial
      const [old, fresh] = ['the old key of the playback tokens in the trial', 'the new key of the playback tokens in the trial']
      await world.kill(0)
      await world.start(0, { JWT_SECRET: old })
      const started = await world.traffic.post('/session', { user_id: 'film', profile_id: 'p', content_id: 'title-1', device_id: 'tv' })
      await trial.ordinary(5)
      await trial.fault('JWT_SECRET is replaced, the old key is in no JWT_SECRETS_ACCEPTED', async () => {
        world.traffic.habits.token = String(started.body.playback_token)
        await world.kill(0)
        await world.start(0, { JWT_SECRET: fresh })
      })
      await trial.fires()
      await trial.action('the old key into JWT_SECRETS_ACCEPTED', async () => {
        await world.kill(0)
        await world.start(0, { JWT_SECRET: fresh, JWT_SECRETS_ACCEPTED: old })
      })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingGraceActive'],
    world: { env: { SESSION_TIMEOUT: '3s', HEARTBEAT_INTERVAL: '1s', SWEEP_INTERVAL: '300ms' } },
    async play (trial) {
      const { redis } = trial.world
      await trial.ordinary(8)
      const mended = new AbortController()
      const flap = async (): Promise<void> => {
        while (!mended.signal.aborted) {
          redis.pause()
          await sleep(1_800)
          redis.resume()
          await sleep(1_000)
        }
      }
      let flapping: Promise<void> | undefined
      await trial.fault('Redis hangs for 1.8 s, again and again', () => { flapping = flap() })
      await trial.fires()
      await trial.action('what flaps is mended', async () => { mended.abort(); await flapping })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingReaperHolding'],
    world: { env: { SESSION_TIMEOUT: '12s', HEARTBEAT_INTERVAL: '3s', SWEEP_INTERVAL: '5s' } },
    async play (trial) {
      const { world } = trial
      world.traffic.habits.startsPerSecond = 1
      const tokens: string[] = []
      const gateway = { open: true }
      const over = new AbortController()
      const beats = (async () => {
        while (!over.signal.aborted) {
          for (let from = 0; gateway.open && from < tokens.length; from += 1_000) await world.traffic.post('/heartbeats', { heartbeats: tokens.slice(from, from + 1_000).map(token => ({ playback_token: token, position: 1 })) })
          await sleep(2_000)
        }
      })()
      for (let from = 0; from < 4_000; from += 20) {
        await Promise.all(Array.from({ length: 20 }, async (_, at) => {
          const { status, body } = await world.traffic.post('/session', { user_id: `watcher-${from + at}`, profile_id: 'p', content_id: 'title-1', device_id: 'tv' })
          if (status === 201) tokens.push(String(body.playback_token))
        }))
      }
      await trial.ordinary(15)
      await trial.fault(`a gateway lets no heartbeat through; ${tokens.length} sessions fall silent`, () => { gateway.open = false })
      await trial.fires()
      await trial.action('the gateway is mended', () => { gateway.open = true })
      await trial.ends()
      over.abort()
      await beats
    }
  }
]
