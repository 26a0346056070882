import { setTimeout as sleep } from 'node:timers/promises'
import type { Scenario, Trial } from './trial.ts'

/** Instances, starts that fail, latency and overload. */
export const AVAILABILITY: Scenario[] = [
  {
    alerts: ['ViewingInstanceDown'],
    world: { instances: 2 },
    async play (trial) {
      await trial.ordinary(5)
      await trial.fault('SIGKILL to one of two instances', async () => { await trial.world.kill(1) })
      await trial.fires()
      await trial.action('start it again', async () => { await trial.world.start(1) })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingServiceDown'],
    world: { instances: 2 },
    async play (trial) {
      const { world } = trial
      await trial.ordinary(5)
      await trial.fault('SIGKILL to all instances', async () => { await Promise.all([world.kill(0), world.kill(1)]) })
      await trial.fires()
      await trial.action('start them again', async () => { await Promise.all([world.start(0), world.start(1)]) })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingUpstreamCircuitOpen', 'ViewingStartsFailingFast', 'ViewingStartsFailing', 'ViewingStartsFailingSlow'],
    world: { env: { DECISION_FRESH: '100ms', DECISION_STALE: '200ms' } },
    async play (trial) {
      const { world } = trial
      await trial.ordinary(10)
      await trial.fault('the identity service answers 500', () => { world.services.manners.identity.errors = 1 })
      await trial.fires()
      await trial.action('the identity service is mended', () => { world.services.mend() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingCreateSlow'],
    world: { env: { DECISION_FRESH: '100ms' } },
    async play (trial) {
      const { world } = trial
      await trial.ordinary(8)
      await trial.fault('the content service takes 200 ms', () => { world.services.manners.content.delayMs = 200 })
      await trial.fires()
      await trial.action('the content service is mended', () => { world.services.mend() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingHeartbeatSlow', 'ViewingTokenSlow'],
    async play (trial) {
      const { world } = trial
      await trial.ordinary(8)
      let goesOn = true
      await trial.fault('another client of the same Redis runs long scripts', () => {
        const script = "local t=redis.call('TIME') local e=t[1]*1000000+t[2]+150000 repeat t=redis.call('TIME') until t[1]*1000000+t[2]>e"
        const foreign = async (): Promise<void> => {
          const { Redis } = await import('ioredis')
          const client = new Redis(world.redis.url, { connectionName: 'reports', retryStrategy: null })
          client.on('error', () => { goesOn = false })
          client.on('end', () => { goesOn = false })
          while (goesOn) {
            await client.eval(script, 0).catch(() => { goesOn = false })
            await sleep(50)
          }
          client.disconnect()
        }
        foreign().catch(() => { goesOn = false })
      })
      await trial.fires()
      await trial.action('`client list` names it; `client kill id …`', () => {
        const id = world.redisCli('client', 'list').split('\n').find(line => line.includes('name=reports'))?.match(/\bid=(\d+)/)?.[1]
        world.redisCli('client', 'kill', 'id', id ?? 'none')
      })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingEventLoopSlow'],
    factor: 12,
    scrapeMs: 3_000,
    async play (trial) {
      // Shorter than what sheds starts: only late, and late all the time.
      await starved(trial, 'a noisy neighbour: the instance gets the processor for 0.1 s in each 0.4 s (SIGSTOP, SIGCONT)', 300, 100)
    }
  },
  {
    alerts: ['ViewingOverloadShedding', 'ViewingHeartbeatsShed'],
    // A process that is late answers its scrape late: ordinary ones wait for 10 s.
    factor: 12,
    scrapeMs: 3_000,
    world: { env: { REDIS_COMMAND_TIMEOUT: '10s' } },
    async play (trial) {
      // What has come meanwhile then fills the short time it runs: few and long turns of its event loop.
      Object.assign(trial.world.traffic.habits, { startsPerSecond: 40, beats: 20 })
      await starved(trial, 'the instance gets the processor for 0.08 s in each 3 s (SIGSTOP, SIGCONT)', 2_920, 80)
    }
  }
]

/** Takes the processor from an instance for `stoppedMs` and gives it back for `runningMs`, over and over, until another has taken its place. */
async function starved (trial: Trial, fault: string, stoppedMs: number, runningMs: number): Promise<void> {
  const { world } = trial
  const victim = world.instances[0]?.process
  let mended = false
  const round = (): void => {
    if (mended) return
    victim?.signal('SIGSTOP')
    setTimeout(() => {
      victim?.signal('SIGCONT')
      setTimeout(round, runningMs)
    }, stoppedMs)
  }
  await trial.ordinary(15)
  await trial.fault(fault, round)
  await trial.fires()
  await trial.action('one instance more, and the late one is taken out', async () => {
    await world.addInstance()
    mended = true
    await world.kill(0)
    await world.remove(0)
  })
  await trial.ends()
}
