import { requireRedis } from '../../test/support/requirements.ts'
import { startRedisCluster } from '../../test/support/redis-cluster.ts'
import type { Scenario } from './trial.ts'

const OUTBOX_BYTES = 3_000_000

/** Identity and content, Redis, Kafka. */
export const DEPENDENCIES: Scenario[] = [
  {
    alerts: ['ViewingUpstreamErring'],
    world: { env: { DECISION_FRESH: '100ms' } },
    async play (trial) {
      const { world } = trial
      await trial.ordinary(8)
      await trial.fault('the content service answers 500 to a third', () => { world.services.manners.content.errors = 0.33 })
      await trial.fires()
      await trial.action('the content service is mended', () => { world.services.mend() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingRedisUnreachable', 'ViewingInstanceNotReady', 'ViewingStoreRefusing'],
    async play (trial) {
      const { redis } = trial.world
      await trial.ordinary(8)
      await trial.fault('Redis is killed', async () => { await redis.kill() })
      await trial.fires()
      await trial.action('Redis is started again', async () => { await redis.restart() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingRedisEvicting'],
    async play (trial) {
      const { world } = trial
      await trial.ordinary(5)
      await trial.fault('`config set maxmemory-policy allkeys-lru`', () => { world.redisCli('config', 'set', 'maxmemory-policy', 'allkeys-lru') })
      await trial.fires()
      await trial.action('`config set maxmemory-policy noeviction`', () => { world.redisCli('config', 'set', 'maxmemory-policy', 'noeviction') })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingStoreRefusing'],
    async play (trial) {
      const { world } = trial
      await trial.ordinary(8)
      await trial.fault('Redis is full (`config set maxmemory 1mb`)', () => { world.redisCli('config', 'set', 'maxmemory', '1mb') })
      await trial.fires()
      await trial.action('`config set maxmemory 1gb`', () => { world.redisCli('config', 'set', 'maxmemory', '1gb') })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingAdmissionNotReplicated'],
    world: { replica: true },
    async play (trial) {
      const { replica } = trial.world
      await trial.ordinary(12)
      await trial.fault('the only replica is killed', async () => { await replica?.kill() })
      await trial.fires()
      await trial.action('the replica is started again', async () => { await replica?.restart() })
      await trial.ends()
    }
  },
  {
    alerts: ['ViewingRedisConnectionsHigh'],
    async play (trial) {
      const { world } = trial
      await trial.ordinary(5)
      const cluster = await startRedisCluster(requireRedis().program, { masters: 21 })
      try {
        await trial.fault('the Redis is a cluster of 21 masters with replicas', async () => {
          await world.kill(0)
          await world.start(0, { REDIS_URL: '', REDIS_CLUSTER: cluster.nodes })
        })
        await trial.fires()
        await trial.action('the alert\'s number is raised to 60', async () => { await world.changeRules(text => text.replace('() 40 * instance', '() 60 * instance')) })
        await trial.ends()
      } finally {
        await world.kill(0)
        await cluster.close()
      }
    }
  },
  {
    alerts: ['ViewingOutboxGrowing', 'ViewingOutboxOld', 'ViewingHeartbeatEventsDropped', 'ViewingOutboxNearCapacity', 'ViewingEventsLost'],
    world: { kafka: true, env: { OUTBOX_BYTES: String(OUTBOX_BYTES), SWEEP_INTERVAL: '500ms' } },
    // As the alert's description asks for.
    rules: text => text.replace('268435456', String(OUTBOX_BYTES)),
    async play (trial) {
      const { world } = trial
      Object.assign(world.traffic.habits, { startsPerSecond: 40, beats: 1 })
      await trial.ordinary(10)
      await trial.fault('the Kafka broker is killed', async () => { await world.kafka?.brokers[0]?.kill() })
      await trial.fires()
      await trial.action('the broker is started again', async () => { await world.kafka?.brokers[0]?.restart() })
      await trial.ends()
    }
  }
]
